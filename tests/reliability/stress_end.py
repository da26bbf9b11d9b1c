"""What is looked at when a run has ended, and the waits that are looked at before it begins."""

import fcntl
import json
import os
import subprocess
import threading

from stress_actors import DEADLINE
from stress_registry import Pull


class Ledger:
    """What was acknowledged, outside the store: the last line of a name counts."""

    def __init__(self, path):
        self.path, self.lock = path, threading.Lock()
        self.file = open(path, "w", buffering=1)

    def write(self, name, image):
        line = {"name": name, "digest": image.digest if image else None}
        with self.lock:
            self.file.write(json.dumps(line) + "\n")

    def names(self):
        with open(self.path) as file:
            lines = [json.loads(line) for line in file]
        last = {line["name"]: line["digest"] for line in lines}
        return {name: digest for name, digest in last.items() if digest}


def check_end(run):
    """The ledger against the store, read without any of our code; then the next pull and the next
    collection, with no step of repair between."""
    expected = run.ledger.names()
    found = run.refs()
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            run.report(f"at the end {name} is {found.get(name)}, not {expected.get(name)}")
    images = {image.digest: image for image in run.content.images}
    live = set()
    for name, digest in expected.items():
        run.check_image(name, images[digest], "at the end")
        live |= images[digest].closure
    check_names(run)
    asked = run.registry.counts["requests"]
    for name in expected:
        run.run("--json", "-q", "pull", "--plain-http", name)
    if run.registry.counts["requests"] != asked:
        run.report("a pull of what was there asked for blobs")
    run.run("gc", "--grace", "0s")
    left = {f"sha256:{name}" for name in os.listdir(os.path.join(run.root, "blobs/sha256"))}
    for digest in sorted(left ^ live):
        run.report(f"after the last collection {digest} is {'there' if digest in left else 'gone'}")
    leases = os.listdir(os.path.join(run.root, ".layerstore/leases"))
    if leases:
        run.report(f"after the last collection there are leases: {leases}")
    run.run("check", "--read-data")
    check_locks(run)


def check_names(run):
    """Each name under `blobs/` stands for its bytes, and nothing else lies about."""
    for name in os.listdir(os.path.join(run.root, "blobs/sha256")):
        problem = run.check_blob(f"sha256:{name}")
        if problem:
            run.report(f"at the end blobs/sha256/{name} {problem}")
    known = {
        ".": {"oci-layout", "index.json", "blobs", ".layerstore"},
        "blobs": {"sha256"},
        ".layerstore": {"version", "locks", "leases", "parts", "trash", "quarantine", "reserve"},
        ".layerstore/locks": {"gc", "turn", "gate", "index"},
        ".layerstore/quarantine": set(),
    }
    for folder, names in known.items():
        strays = set(os.listdir(os.path.join(run.root, folder))) - names
        # A kill between a temporary name and the rename leaves it, for a day.
        strays = [name for name in strays if not name.startswith(".new-")]
        if strays:
            run.report(f"at the end there are strays in {folder}: {strays}")
    for name in os.listdir(os.path.join(run.root, ".layerstore/parts")):
        if not name.startswith("sha256-") or name.rpartition(".")[2] not in ("part", "state", "lock"):
            run.report(f"at the end there is a stray among the parts: {name}")


def check_locks(run):
    inodes = {os.stat(os.path.join(folder, name)).st_ino
              for folder, _, names in os.walk(run.root) for name in names}
    with open("/proc/locks") as file:
        for line in file:
            words = line.split()
            device, _, inode = words[5].rpartition(":") if "->" not in words else ("", "", "0")
            major, minor = (int(part, 16) for part in device.split(":")) if device else (0, 0)
            if int(inode) in inodes and os.makedev(major, minor) == os.stat(run.root).st_dev:
                run.report(f"a lock is still held: {line.strip()}")


def check_wait(run, root, lock, said):
    """A lock that stays held: the wait says for whom after 10 seconds, and ends after two minutes
    with an error that says it too. In a store of its own, beside the others."""
    subprocess.run([run.command, "--root", root, "init"], check=True, capture_output=True)
    run.registry.tags[f"wait{lock}/image", "v1"] = run.content.images[1]
    with open(os.path.join(root, ".layerstore/locks", lock), "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        name = f"{run.registry.address}/wait{lock}/image:v1"
        run.registry.pulls[f"wait{lock}"] = Pull("wait", elsewhere=True)
        ended = subprocess.run(
            [run.command, "--root", root, "pull", "--plain-http", name], env=run.environment,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
    lines = ended.stderr.decode().splitlines()
    holder = f"process {os.getpid()}"
    waits = [line for line in lines if "waiting for" in line]
    if ended.returncode != 11:
        run.report(f"with {lock} held, pull ended with {ended.returncode}: {lines}")
    elif not (waits and said in waits[0] and holder in waits[0]):
        run.report(f"with {lock} held, pull did not say what it waits for: {lines}")
    elif holder not in lines[-1]:
        run.report(f"with {lock} held, the error does not name the holder: {lines}")
    run.count("waits ended")
