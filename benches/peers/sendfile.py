"""A server that costs next to nothing: nginx, which has the kernel send the files of a layout."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

import pulls
from measure import table

CONFIG = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/tmp;
    proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp;
    uwsgi_temp_path {folder}/tmp;
    scgi_temp_path {folder}/tmp;
    sendfile on;
    tcp_nopush on;
    server {{
        listen 127.0.0.1:{port}{tls};
        location = /v2/ {{ return 200 '{{}}'; }}
        location /v2/image/blobs/ {{
            alias {blobs}/;
            default_type application/octet-stream;
        }}
        {documents}
    }}
}}
"""
# What follows the port.
TLS = """ ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {folder}/it.pem;
        ssl_certificate_key {folder}/it.key"""
DOCUMENT = """
        location = /v2/image/manifests/{name} {{
            alias {blobs}/{digest};
            default_type {media_type};
            add_header Docker-Content-Digest {digest};
        }}"""


def sendfile(bench):
    """The same image from nginx, which has the kernel send files: nearer to a registry on another host,
    whose work is not done by the processors that the client has. Its files are in the page cache,
    the disk is synced before each run. Of ctr, CPU and memory are left out, as containerd does the work."""
    with server(bench) as address:
        results, blobs = pulls.compared(bench, address, "image", bench.rounds(7), with_ctr=True)
    size = sum(blobs.values()) / 1e6
    return (f"## From a server that costs nothing: {len(blobs)} blobs, {size:.0f} MB\n\n"
            f"{sendfile.__doc__}\n\n{table(results)}\n", results)


def tls(bench):
    """The same image from nginx over TLS, as registries are reached, which neither a kernel nor a network
    card encrypts here: of the two processors the server takes what it encrypts with. Its files are in
    the page cache, the disk is synced before each run."""
    folder = bench.folder / "tls"
    folder.mkdir()
    authority = certified(folder)
    with server(bench, folder) as address:
        results, blobs = pulls.compared(bench, address, "image", bench.rounds(7), authority=authority)
    size = sum(blobs.values()) / 1e6
    return (f"## Over TLS: {len(blobs)} blobs, {size:.0f} MB\n\n{tls.__doc__}\n\n{table(results)}\n", results)


def certified(folder):
    """A server's certificate and key, `it.pem` and `it.key`; the file of who has signed it, alone in a
    folder."""
    authority = folder / "trusted/authority.crt"
    authority.parent.mkdir()

    def request(name, *more):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                        "-nodes", "-days", "2", "-subj", f"/CN={name}", *more],
                       check=True, stderr=subprocess.DEVNULL)

    request("authority", "-keyout", folder / "authority.key", "-out", authority)
    request("127.0.0.1", "-keyout", folder / "it.key", "-out", folder / "it.pem",
            "-CA", authority, "-CAkey", folder / "authority.key",
            "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    return authority


@contextlib.contextmanager
def server(bench, certificate=None, layout=None, name=None):
    """Serves an image of a layout, that of the benchmarks unless it is said which, as `image:v1`; its
    address. With TLS if there is a folder with a certificate."""
    layout = layout or bench.layout
    folder = bench.folder / "sendfile"
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    for file in (layout / "blobs/sha256").iterdir():
        os.link(file, blobs / f"sha256:{file.name}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    root = root_of(layout, name or bench.tag)
    documents = "".join(
        DOCUMENT.format(name=name, blobs=blobs, digest=root["digest"], media_type=root["mediaType"])
        for name in ("v1", root["digest"]))
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(
        user="user root;" if os.geteuid() == 0 else "", folder=folder, port=port, blobs=blobs,
        documents=documents, tls=TLS.format(folder=certificate) if certificate else ""))
    process = subprocess.Popen(["nginx", "-e", folder / "nginx.log", "-c", config])
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def root_of(layout, name):
    """The descriptor of an image, which is one manifest."""
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    key = "org.opencontainers.image.ref.name"
    return next(entry for entry in entries if entry["annotations"][key] == name)


def wait_for(port, process):
    for _ in range(200):
        if process.poll() is not None:
            raise SystemExit(f"nginx ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise SystemExit("nginx does not answer")
