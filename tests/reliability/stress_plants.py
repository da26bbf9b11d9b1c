"""Things that do harm on purpose: each is what a store with one fault would do, and the stress has
to notice it."""

import os
import socket
import threading
import time

from stress_registry import Pull


class Plant(threading.Thread):
    def __init__(self, run):
        super().__init__(daemon=True)
        self.shared = run

    def run(self):
        while not self.shared.stop.wait(self.pause):
            self.harm()

    def some_image(self):
        held = [image for worker in self.shared.workers for image in list(worker.held.values())]
        return held[int(time.monotonic() * 1000) % len(held)] if held else None


class Remover(Plant):
    """Removes a blob that a name leads to."""

    pause = 1.0

    def harm(self):
        image = self.some_image()
        if image:
            remove(self.shared.registry.blob_of(min(image.closure)))


class Writer(Plant):
    """Changes `index.json` without its lock."""

    pause = 0.2

    def harm(self):
        path = os.path.join(self.shared.root, "index.json")
        with open(path, "rb") as file:
            read = file.read()
        time.sleep(0.05)
        with open(path + ".aside", "wb") as file:
            file.write(read)
        os.rename(path + ".aside", path)


class Collector(Plant):
    """Collects by the names alone, without looking at leases and without the gate."""

    pause = 0.2

    def harm(self):
        names = self.shared.refs().values()
        images = {image.digest: image for image in self.shared.content.images}
        live = set().union(*(images[digest].closure for digest in names if digest in images))
        for name in os.listdir(os.path.join(self.shared.root, "blobs/sha256")):
            if f"sha256:{name}" not in live:
                remove(self.shared.registry.blob_of(f"sha256:{name}"))


class Forgetter(Plant):
    """Removes what a killed process had left of a download."""

    pause = 0.001

    def harm(self):
        for digest in list(self.shared.registry.floor):
            remove(self.shared.registry.part_of(digest))


class Doubler(Plant):
    """Fetches a blob without looking whether it is there."""

    pause = 1.0

    def harm(self):
        registry, image = self.shared.registry, self.some_image()
        blobs = [digest for digest in image.closure if digest in registry.content.blobs] if image else []
        if not blobs:
            return
        registry.pulls["wdouble"] = Pull("wdouble")
        host, port = registry.address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"GET /v2/wdouble/image/blobs/{blobs[0]} HTTP/1.1\r\n\r\n".encode())
            connection.recv(1)


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


PLANTS = {
    "a live blob is removed": Remover,
    "index.json is changed without its lock": Writer,
    "a collector without leases": Collector,
    "parts of the killed are forgotten": Forgetter,
    "a blob is fetched again": Doubler,
}
