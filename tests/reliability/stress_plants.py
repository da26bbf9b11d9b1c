"""Things that do harm on purpose: each is what a store with one fault would do, and the stress has
to notice it."""

import http.client
import os
import shlex
import socket
import threading
import time

from stress_actors import Overtaker
from stress_registry import Pull


class Plant(threading.Thread):
    # What has to be said of it.
    noticed = None
    # What stands in the place of the command: lines of a shell's `case` over all words of it.
    instead = None

    def __init__(self, run):
        super().__init__(daemon=True)
        self.shared = run
        if self.instead:
            run.command = wrapped(run.command, self.instead, os.path.dirname(run.root))

    def run(self):
        while not self.shared.stop.wait(self.pause):
            try:
                self.harm()
            except OSError as error:
                # What it was about to harm went by itself.
                print(f"stress: planted: {error}", flush=True)

    def some_image(self):
        held = [image for worker in self.shared.workers for image in list(worker.held.values())]
        return held[int(time.monotonic() * 1000) % len(held)] if held else None


class Remover(Plant):
    """Removes a blob that a name leads to."""

    pause = 1.0
    noticed = "is missing"

    def harm(self):
        image = self.some_image()
        if image:
            remove(self.shared.registry.blob_of(min(image.closure)))


class Writer(Plant):
    """Changes `index.json` without its lock."""

    pause = 0.2
    noticed = " is None, not sha256:"

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
    noticed = "is missing"

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
    noticed = "and a killed process had left"

    def harm(self):
        for digest in list(self.shared.registry.floor):
            remove(self.shared.registry.part_of(digest))


class Doubler(Plant):
    """Fetches a blob without looking whether it is there."""

    pause = 1.0
    noticed = "travels twice: worker wdouble:"

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


class Repeater(Plant):
    """Fetches a blob from the start again, when a part of it has come."""

    # A collection may remove the part between.
    pause = 0.02
    noticed = "is asked for by this process again, from byte 0"

    def harm(self):
        registry = self.shared.registry
        image = self.shared.content.lone_image(int(time.monotonic() * 1000))
        blob = max(image.closure & registry.content.blobs.keys(), key=lambda it: len(registry.content.blobs[it]))
        registry.pulls["wtwice"] = Pull("wtwice")
        connection = http.client.HTTPConnection(registry.address)
        for end in (len(registry.content.blobs[blob]) // 2, len(registry.content.blobs[blob])):
            connection.request("GET", f"/v2/wtwice/image/blobs/{blob}", headers={"Range": f"bytes=0-{end - 1}"})
            with open(registry.part_of(blob), "wb") as part:
                part.write(connection.getresponse().read())
        connection.close()
        remove(registry.part_of(blob))


class Truncator(Plant):
    """Cuts a blob to which no name leads any more, which somebody may have open."""

    pause = 0.02
    noticed = "saw other bytes"

    def __init__(self, run):
        super().__init__(run)
        self.named = set()

    def harm(self):
        names = self.shared.refs().values()
        images = {image.digest: image for image in self.shared.content.images}
        live = set().union(*(images[digest].closure for digest in names if digest in images))
        for digest in self.named - live:
            truncate(self.shared.registry.blob_of(digest))
        self.named = live


class ShortReader(Plant):
    """A `blob cat` that does not give the last byte, and says nothing of it."""

    pause = 1.0
    noticed = "a reader of"
    instead = '*" blob cat "*) "$command" "$@" | head -c -1; exit ;;'

    def harm(self):
        """What is read is harm enough."""


class NotOvertaken(Plant):
    """A pull that waits for ever for one that has stopped."""

    noticed = "w70b/image:v1 hangs"
    instead = '*" pull "*"/w70b/"*) exec sleep 1000 ;;'

    def run(self):
        self.shared.deadline = 30
        Overtaker(self.shared, 70, 1).step()


class NotWaitedFor(NotOvertaken):
    """A pull that does not wait for the one that downloads the same: it looks at another place."""

    noticed = "did not wait for the one that was stopped"
    instead = '*" pull "*"/w70b/"*) root="$2-aside"; shift 2; exec "$command" --root "$root" "$@" ;;'


def wrapped(command, instead, folder):
    """A command that does something else in some cases."""
    path = os.path.join(folder, "planted-command")
    lines = ["#!/bin/sh", f"command={shlex.quote(command)}", 'case " $* " in', instead, "esac"]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*lines, 'exec "$command" "$@"', ""]))
    os.chmod(path, 0o755)
    return path


def truncate(path):
    try:
        os.truncate(path, 0)
    except FileNotFoundError:
        pass


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
    "a process fetches a blob twice": Repeater,
    "a blob is cut that somebody reads": Truncator,
    "a reader does not get all": ShortReader,
    "a holder that has stopped is not overtaken": NotOvertaken,
    "a holder is not waited for": NotWaitedFor,
}
