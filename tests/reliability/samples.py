"""Small images for the harnesses, always the same bytes, and stores made of them by hand."""

import functools
import gzip
import hashlib
import json
import os
import random
import zlib

from layout import INDEXES, LOCKS, MANIFESTS, OWN_BLOB, PINNED, REF_NAME

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
KIB = 1024


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Images:
    """Blobs by digest, and images by name: descriptors of their roots."""

    def __init__(self):
        self.blobs = {}
        self.images = {}

    def blob(self, data, media_type, **more):
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def document(self, media_type, **members):
        value = {"schemaVersion": 2, "mediaType": media_type, **members}
        return self.blob(json.dumps(value).encode(), media_type)

    def layer(self, name, size):
        """A gzipped tar of one file of noise; about `size` bytes."""
        noise = random.Random(name).randbytes(size)
        header = tar_header(f"{name}.bin", len(noise))
        tar = header + noise + bytes(-len(noise) % 512 + 1024)
        # No time in the gzip header, so that the digest stays the same.
        layer = self.blob(gzip.compress(tar, 1, mtime=0), LAYER)
        return layer, digest_of(tar)

    def manifest(self, layers, architecture="amd64", **more):
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        }
        return self.document(
            MANIFESTS[0],
            config=self.blob(json.dumps(config).encode(), CONFIG),
            layers=[layer for layer, _ in layers],
            **more,
        )

    def index(self, manifests):
        """An index of manifests by architecture."""
        children = [
            {**descriptor, "platform": {"os": "linux", "architecture": architecture}}
            for architecture, descriptor in manifests.items()
        ]
        return self.document(INDEXES[0], manifests=children)

    def closure(self, root, without=()):
        """{digest: size} of what a root leads to, but for some roots that are left out."""
        found, work = {}, [root["digest"]]
        while work:
            digest = work.pop()
            if digest in found or digest in without:
                continue
            data = self.blobs[digest]
            found[digest] = len(data)
            if data.startswith(b"{"):
                value = json.loads(data)
                below = value.get("manifests", []) + value.get("layers", [])
                work += [it["digest"] for it in below + [value.get("config")] if it and "digest" in it]
        return found


def tar_header(name, size):
    """A ustar header of a file (POSIX 1003.1, pax, "ustar Interchange Format")."""
    numbers = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    before, after = name.encode().ljust(100, b"\0") + numbers, b"0" + bytes(100) + b"ustar\00000"
    rest = after.ljust(512 - len(before) - 8, b"\0")
    total = sum(before + b" " * 8 + rest)
    return before + b"%06o\0 " % total + rest


@functools.cache
def standard(factor=1):
    """Images that share layers: `base`, `app` on top of it, `multi` for two platforms, and `other`,
    which has nothing in common with them. Sizes grow with `factor`."""
    it = Images()
    base = it.layer("base", 24 * KIB * factor)
    some = [it.layer(f"layer{n}", size * KIB * factor) for n, size in enumerate((3, 90, 300))]
    it.images["base:v1"] = it.manifest([base, some[0]])
    it.images["app:v1"] = it.manifest([base, *some])
    it.images["app:v2"] = it.manifest([base, some[0], it.layer("new", 60 * KIB * factor)])
    arm = it.manifest([it.layer("arm", 40 * KIB * factor)], "arm64")
    amd = it.manifest([base, it.layer("amd", 50 * KIB * factor)])
    it.images["multi:v1"] = it.index({"amd64": amd, "arm64": arm})
    it.images["other:v1"] = it.manifest([it.layer(f"other{n}", 20 * KIB * factor) for n in (1, 2)])
    return it


# --- A store, written by hand -----------------------------------------------------------------


def write(path, data, mode):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def make_store(root):
    """An empty store, as docs/format.md has it."""
    for folder in ("", "blobs", "blobs/sha256", ".layerstore"):
        os.mkdir(os.path.join(root, folder), 0o700)
    for folder in ("locks", "leases", "parts", "trash", "quarantine", "hosts"):
        os.mkdir(os.path.join(root, ".layerstore", folder), 0o700)
    for lock in LOCKS:
        write(os.path.join(root, ".layerstore/locks", lock), b"", 0o600)
    write(os.path.join(root, "oci-layout"), b'{"imageLayoutVersion":"1.0.0"}', 0o644)
    write(os.path.join(root, ".layerstore/version"), b"1\n", 0o644)
    set_refs(root, {})


def set_refs(root, refs, pinned=(), others=()):
    """Writes index.json: descriptors by full name, which of the names are pinned, and which were given
    by another tool, which knows one annotation only."""
    manifests = []
    for name, descriptor in refs.items():
        names = (REF_NAME,) if name in others else ("io.containerd.image.name", REF_NAME)
        annotations = {key: name for key in names} | ({PINNED: "true"} if name in pinned else {})
        manifests.append({**descriptor, "annotations": annotations})
    value = {"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": manifests}
    write(os.path.join(root, "index.json"), json.dumps(value).encode(), 0o644)


def add_blobs(root, images, digests, mode=OWN_BLOB):
    for digest in digests:
        path = os.path.join(root, "blobs", digest.replace(":", "/"))
        write(path, images.blobs[digest], mode)


def add_part(root, digest, data, ranges=None):
    """A download that was broken off: the first bytes, or with an account of which are there."""
    stem = os.path.join(root, ".layerstore/parts", digest.replace(":", "-"))
    write(stem + ".part", data, 0o600)
    write(stem + ".lock", b"", 0o600)
    if ranges is not None:
        account = "bytes " + ",".join(f"{start}-{end}" for start, end in ranges)
        write(stem + ".state", b"\n" + sealed(account), 0o600)


def add_lease(root, name, *lines):
    data = b"".join(sealed(line) for line in lines)
    write(os.path.join(root, ".layerstore/leases", name), data, 0o600)


def sealed(text):
    return f"{text} {zlib.crc32(text.encode()):08x}\n".encode()
