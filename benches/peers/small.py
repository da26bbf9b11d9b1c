"""Many small layers, where a pull waits for answers and for syncs, and hardly for bytes."""

import hashlib
import json
import os
import subprocess

import pulls
import sendfile
from measure import median, table

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def small(bench):
    """200 layers of 64 KiB that cannot be compressed; the server's files are in the page cache, the store
    is new and the disk is synced before each run. `curl` has 6 connections, as many as the others at
    most, unless the row says how many."""
    layout, folder = bench.folder / "small", bench.folder / "registry"
    make_image(layout)
    with pulls.registry(folder, bench.folder / "small-data") as address:
        subprocess.run([pulls.TOOL, "push", folder, layout], check=True, stdout=subprocess.DEVNULL)
        image = f"{address}/real/small:v1"
        same = bench.folder / "same"  # not the layout: skopeo may have changed the image when it pushed it
        subprocess.run(pulls.pull_command(bench, same, image), check=True, stdout=subprocess.DEVNULL)
        results, _ = pulls.compared(bench, address, "real/small", bench.rounds(9), keep=True,
                                    connections=(12, 24), server=int((folder / "registry.pid").read_text()))
    taken = ", ".join(f"{median(runs, 'server'):.2f} s ({name})" for name, runs in results.items())
    with sendfile.server(bench, layout=same, name=image) as address:
        from_nginx, _ = pulls.compared(bench, address, "image", bench.rounds(9), keep=True)
    return (f"## Many small layers\n\n{small.__doc__}\n\n{table(results)}\n\n"
            f"CPU time of docker-registry itself, on the same processors, in the median: {taken}.\n\n"
            "### Many small layers, from nginx\n\nThe same image from a server that costs next to "
            "nothing.\n\n"
            f"{table(from_nginx)}\n", results)


def make_image(layout):
    (layout / "blobs/sha256").mkdir(parents=True)

    def put(data, media_type):
        name = hashlib.sha256(data).hexdigest()
        (layout / "blobs/sha256" / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    layers = [put(os.urandom(65536), LAYER) for _ in range(200)]
    config = {"architecture": "amd64", "os": "linux",
              "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": MANIFEST,
                               "config": put(json.dumps(config).encode(), CONFIG),
                               "layers": layers}).encode(), MANIFEST)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "small"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
