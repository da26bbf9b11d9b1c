"""Pulls from Debian's docker-registry on loopback, over plain HTTP, into a new folder each time."""

import contextlib
import math
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import stages
import whole
from measure import ROOT, in_turn, median, peak, table, timed

TOOL = ROOT / "tests/tools/local-registry"


@contextlib.contextmanager
def registry(folder, data, rate=None):
    """A registry, by its address; behind nginx where each connection has a rate."""
    behind = ["--nginx", "--rate", str(rate)] if rate else []
    started = subprocess.run([TOOL, "start", folder, "--data", data, *behind],
                             check=True, text=True, stdout=subprocess.PIPE)
    try:
        yield started.stdout.split()[1 if rate else 0]
    finally:
        subprocess.run([TOOL, "stop", folder], check=True)


def images():
    """The layout with the images of the benchmarks, and the same as a registry keeps it, which are made if
    they are not there."""
    folder = ROOT / "target/bench-images"
    layout, data = folder / "layout", folder / "registry"
    if not layout.is_dir():
        subprocess.run([ROOT / "tests/tools/real-images", folder, "full"], check=True)
    if not data.is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            with registry(scratch, pathlib.Path(scratch) / "data"):
                subprocess.run([TOOL, "push", scratch, layout], check=True)
            (pathlib.Path(scratch) / "data").rename(data)
    return layout, data


def pull_command(bench, root, image, *options, authority=None):
    """`authority`: the file with the one who has signed the server's certificate, if it speaks TLS."""
    trust = ["--ca-file", authority] if authority else ["--plain-http"]
    return [bench.store, "--root", root, "-q", *options, "pull", *trust, image]


def skopeo_command(root, image, authority=None):
    """As it is at the registry: else skopeo would compress layers that are not."""
    trust = f"--src-cert-dir={authority.parent}" if authority else "--src-tls-verify=false"
    return ["skopeo", "copy", "-q", "--insecure-policy", "--preserve-digests", trust, f"docker://{image}",
            f"oci:{root}:it"]


def ctr(bench, image):
    """`ctr content fetch` into a containerd that begins with nothing; its start is not timed.
    CPU time and memory would be those of ctr, which only asks containerd to work: they are left out."""
    folder = bench.folder / "containerd"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    socket = folder / "socket"
    config = folder / "config.toml"
    config.write_text(f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
                      f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                      f'[grpc]\naddress = "{socket}"\n')
    daemon = subprocess.Popen(["containerd", "-c", config, "-l", "error"], cwd=folder)
    try:
        for _ in range(200):
            if socket.exists():
                break
            time.sleep(0.05)
        os.sync()
        taken = timed(["ctr", "-a", socket, "content", "fetch", "--plain-http", image])
        return {**taken, "cpu": math.nan, "memory": math.nan}
    finally:
        daemon.terminate()
        daemon.wait()


def read_and_discard(address, repository, digests, authority=None, connections=6):
    scheme, trust = ("https", ["--cacert", authority]) if authority else ("http", [])
    urls = [f"{scheme}://{address}/v2/{repository}/blobs/{digest}" for digest in digests]
    words = [word for url in urls for word in ("-o", "/dev/null", url)]
    return timed(["curl", "-fsZ", "--parallel-max", str(connections), *trust, *words],
                 stderr=subprocess.DEVNULL)


def is_manifest(blob):
    """Manifests are not to be had as blobs of docker-registry."""
    return blob.stat().st_size < 1 << 20 and b'"schemaVersion"' in blob.read_bytes()


def compared(bench, address, repository, rounds, with_ctr=False, keep=False, authority=None, connections=(),
             server=None):
    """Store, skopeo, and a client that discards, each into a new folder; all bytes are compared.

    `connections`: how many that client has in further rows than that with 6, as many as the others have.
    `server`: the number of the server's process; what it takes of the CPU is measured too.
    `keep`: what was pulled is removed after the last round. ext4 does not use an inode again for some
    time, and looks for others: where hundreds were removed a moment ago, to make files is slow."""
    image = f"{address}/{repository}:v1"
    first = bench.folder / "first"
    def ours(root, *options):
        return pull_command(bench, root, image, *options, authority=authority)

    blobs = whole.brought(ours(first), first, bench.folder / "trace")
    urls = [f"sha256:{name}" for name in blobs if not is_manifest(first / "blobs/sha256" / name)]
    shutil.rmtree(first)

    def prepare(name):
        to = bench.folder / name.split()[0]
        shutil.rmtree(to, ignore_errors=True)
        return to

    def verify(name, root):
        if name.startswith("ctr"):
            whole.verify(bench.folder / "containerd/root/io.containerd.content.v1.content", blobs)
        elif name.startswith("store") or name == "skopeo":
            whole.verify(root, blobs)
            if keep:
                root.rename(tempfile.mkdtemp(dir=bench.folder))
            else:
                shutil.rmtree(root)

    contenders = {
        "store": lambda root: timed(ours(root)),
        "skopeo": lambda root: timed(skopeo_command(root, image, authority)),
        "curl, discarding": lambda _: read_and_discard(address, repository, urls, authority),
    }
    if with_ctr:
        contenders["ctr content fetch"] = lambda _: ctr(bench, image)
    if with_ctr or authority:
        contenders["store, no group hashes"] = lambda root: timed(ours(root, "--group-hashes", "off"))
    for count in connections:
        contenders[f"curl, discarding, {count} connections"] = lambda _, count=count: read_and_discard(
            address, repository, urls, authority, count)
    if server:
        contenders = {name: with_server(run, server) for name, run in contenders.items()}
    return in_turn(rounds, contenders, prepare, verify), blobs


def with_server(run, process):
    """A contender that counts the CPU seconds of a server too."""
    def both(made):
        before = cpu_of(process)
        return {**run(made), "server": cpu_of(process) - before}

    return both


def cpu_of(process):
    """User and system time of a process, in seconds; the kernel counts hundredths."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pull(bench):
    """Server and disk on this machine; the server's files are in the page cache, the disk is synced
    before each run. skopeo and ctr sync less: names, manifests and index are left to the kernel. ctr only
    asks containerd, which does the work: what ctr itself takes of CPU and memory says nothing."""
    with registry(bench.folder / "registry", bench.data) as address:
        results, blobs = compared(bench, address, f"real/{bench.tag}", bench.rounds(7), True)
        root = bench.folder / "stages"
        where = stages.of_pull(pull_command(bench, root, f"{address}/real/{bench.tag}:v1"), root, blobs,
                               bench.rounds(5), lambda _: fresh(root))
    size = sum(blobs.values()) / 1e6
    return (f"## One image, {len(blobs)} blobs, {size:.0f} MB, pulled cold\n\n{pull.__doc__}\n\n"
            f"{table(results)}\n\n{where}\n", results)


def ranges(bench):
    """One layer of 286 MB that cannot be compressed, from nginx, which gives each connection 20 MB/s.
    `store` has at most 8 connections; skopeo has one. The server's files are in the page cache, the store
    is new and the disk is synced before each run."""
    data, size, rate, connections = bench.folder / "data", 286_000_000, 20_000_000, 8
    subprocess.run([ROOT / "tests/tools/large-image", data, str(size)], check=True,
                   stdout=subprocess.DEVNULL)
    with registry(bench.folder / "registry", data, rate) as address:
        image = f"{address}/real/large:v1"
        root = bench.folder / "ranges"
        blobs = whole.brought(pull_command(bench, root, image), root, bench.folder / "trace")
        results = in_turn(bench.rounds(5), {
            "store": lambda root: timed(pull_command(bench, root, image)),
            "skopeo": lambda root: timed(skopeo_command(root, image)),
        }, lambda _: fresh(root), lambda _, root: whole.verify(root, blobs))
    least = size / (connections * rate)
    return (f"## One large layer, 20 MB/s a connection\n\n{ranges.__doc__}\n\n{table(results)}\n\n"
            f"At {connections} times 20 MB/s the layer takes {least:.2f} s: `store` took "
            f"{median(results['store']) / least:.2f} times that.\n", results)


def large(bench):
    """One layer of 4 GiB that cannot be compressed, from docker-registry; the server's files are in the page
    cache if it has room for them, the store is new and the disk is synced before each run. The memory of a
    pull is not to depend on how large a layer is: 32 MiB are the limit."""
    data, limit = bench.folder / "data", 32
    subprocess.run([ROOT / "tests/tools/large-image", data, str((4 << 30) // bench.scale)], check=True,
                   stdout=subprocess.DEVNULL)
    with registry(bench.folder / "registry", data) as address:
        image = f"{address}/real/large:v1"
        root = bench.folder / "large"
        blobs = whole.brought(pull_command(bench, root, image), root, bench.folder / "trace")
        results = in_turn(bench.rounds(3), {"store": lambda _: timed(pull_command(bench, root, image))},
                          lambda _: fresh(root), lambda _, root: whole.verify(root, blobs))
    size, most = sum(blobs.values()), peak(results["store"])
    speed = size / 1e9 / median(results["store"])
    return (f"## A layer of {size / 2**30:.1f} GiB\n\n{large.__doc__}\n\n{table(results)}\n\n"
            f"This is {speed:.2f} GB/s, with {most:.1f} MiB at most, which is "
            f"{'within' if most <= limit else 'ABOVE'} the limit.\n", results)


def fresh(root):
    shutil.rmtree(root, ignore_errors=True)
    return root


def present(bench):
    """The image is there already, and the store has 10,000 other refs, or none. All files are in the page
    cache, by a run before that is not timed."""
    from local import make_layout
    full, bare, layout = (bench.folder / name for name in ("full", "bare", "present"))
    make_layout(full, 10_000, 0, layers=0)
    with registry(bench.folder / "registry", bench.data) as address:
        image = f"{address}/real/{bench.tag}:v1"
        subprocess.run([bench.store, "--root", full, "init"], check=True, stdout=subprocess.DEVNULL)
        blobs = whole.brought(pull_command(bench, bare, image), bare, bench.folder / "trace")
        subprocess.run(pull_command(bench, full, image), check=True, stdout=subprocess.DEVNULL)
        subprocess.run(skopeo_command(layout, image), check=True)
        contenders = {
            "store": lambda said: again(bench, bare, image, said),
            "store, 10,000 refs": lambda said: again(bench, full, image, said),
            "skopeo": lambda _: timed(skopeo_command(layout, image)),
        }

        def verify(name, said):
            if name.startswith("store"):
                whole.verify_reused(said, blobs)

        results = in_turn(bench.rounds(21), contenders, lambda _: bench.folder / "said", verify)
        for root in (full, bare, layout):
            whole.verify(root, blobs, others=root == full)
    return f"## An image that is there\n\n{present.__doc__}\n\n{table(results)}\n", results


def again(bench, root, image, said):
    """A pull of what is there, and in a file what it says it did."""
    with said.open("w") as file:
        return timed(pull_command(bench, root, image, "--json"), stdout=file)


def together(bench):
    """Eight processes pull the same image into the same new store; the server's files are in the page cache,
    the disk is synced before each run."""
    with registry(bench.folder / "registry", bench.data) as address:
        image = f"{address}/real/{bench.tag}:v1"

        def at_once(count):
            # One command, so that its time and its CPU are those of all.
            script = (f"for i in $(seq {count}); do \"$@\" & done; "
                      "for j in $(jobs -p); do wait $j || exit 1; done")
            return ["bash", "-c", script, "-", *pull_command(bench, root, image)]

        root = bench.folder / "together"
        blobs = whole.brought(at_once(8), root, bench.folder / "trace")
        results = in_turn(bench.rounds(5), {
            "one process": lambda _: timed(at_once(1)),
            "eight processes": lambda _: timed(at_once(8)),
        }, lambda _: fresh(root), lambda _, root: whole.verify(root, blobs))
    return (f"## Eight at once\n\n{together.__doc__}\n\n{table(results, ours='one process')}\n",
            results)
