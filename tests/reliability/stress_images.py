"""Small images that share layers, made from a seed: what the stress registry serves."""

import hashlib
import json
import random

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media_type, data, **more):
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


class Image:
    """One image: its root document, and the digests of all that it is made of."""

    def __init__(self, root, media_type, blobs):
        self.root = root
        self.media_type = media_type
        self.digest = digest_of(root)
        # Documents and blobs alike, as a pull brings them all.
        self.closure = frozenset(blobs) | {self.digest}


class Content:
    """Images out of a pool of layers of 1 KiB to 2 MiB. `blobs` are the configs and layers, which
    have to travel once; `documents` the manifests and indexes."""

    def __init__(self, seed, images=240, layers=96):
        self.random = random.Random(seed)
        self.blobs = {}
        self.documents = {}
        pool = [self._layer() for _ in range(layers)]
        self.images = [
            self._image(self.random.sample(pool, self.random.randint(2, 5)), n)
            for n in range(images)]

    def _layer(self, size=None):
        if size is None:
            # Most are small: what is tried here is the meeting of processes, not the line.
            size = int(1024 * 2 ** self.random.uniform(0, 8))
            # Some come in several writes, so that a kill leaves a part of them.
            if self.random.random() < 0.15:
                size = self.random.randrange(600 << 10, 2 << 20)
        data = self.random.randbytes(size)
        self.blobs[digest_of(data)] = data
        return data

    def _manifest(self, layers, n):
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {"Labels": {"n": str(n)}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }).encode()
        self.blobs[digest_of(config)] = config
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config),
            "layers": [descriptor(LAYER, layer) for layer in layers],
        }).encode()
        self.documents[digest_of(manifest)] = (MANIFEST, manifest)
        return manifest, [digest_of(config), *map(digest_of, layers), digest_of(manifest)]

    def _image(self, layers, n):
        manifest, blobs = self._manifest(layers, n)
        if n % 5:
            return Image(manifest, MANIFEST, blobs)
        platform = {"os": "linux", "architecture": "amd64"}
        index = json.dumps({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [descriptor(MANIFEST, manifest, platform=platform)],
        }).encode()
        self.documents[digest_of(index)] = (INDEX, index)
        return Image(index, INDEX, blobs)

    def lone_image(self, n, size=1 << 20):
        """An image whose blobs no other has."""
        return self._image([self._layer(size), self._layer(1024)], n * 5 + 1)
