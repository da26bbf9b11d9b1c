"""What the harnesses that disturb one operation have in common: for each operation a store of its own
that was written by hand, and what has to hold afterwards."""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time

import checker
import layout
import ledger as ledgers
import readers
import registry
import samples
import step
from scenarios import LEASE, PUT, scenarios

RESERVE = 4 << 20
ENDED_LEASE = "0" * 31 + "2"
GARBAGE = b"garbage " * 1000
# How long a command may take before it is said to hang.
PATIENCE = 120


class World:
    """A folder for stores, a registry and the command; of one worker."""

    def __init__(self, command, folder, books):
        """`folder`: for stores, best on a tmpfs. `books`: for ledgers, on another file system."""
        self.command = os.path.abspath(command)
        self.images = samples.standard()
        self.readers = readers.Readers()
        self.registry = registry.Registry(self.images)
        self.folder = tempfile.mkdtemp(prefix="layerstore-", dir=folder)
        self.books = tempfile.mkdtemp(prefix="ledgers-", dir=books)
        self.put = os.path.join(self.books, "put")
        with open(self.put, "wb") as file:
            file.write(PUT)
        self.home = os.path.join(self.books, "home")
        os.mkdir(self.home)
        self.scenarios = {it.name: it for it in scenarios(self.images)}
        self.root = os.path.join(self.folder, "store")
        self.book = os.path.join(self.books, "ledger")
        self.log = os.path.join(self.books, "calls")
        for it in self.scenarios.values():
            self.prepare(it)

    def close(self):
        self.registry.close()
        shutil.rmtree(self.folder)
        shutil.rmtree(self.books)

    def expand(self, text):
        """Names of images and of the file that is put stand in braces."""
        if text == "{put}":
            return self.put
        if text == "{cap}":
            return self.cap
        if text == "{host}":
            return self.registry.host
        if text.startswith("{") and text.endswith("}"):
            return self.registry.name(text[1:-1])
        return text

    # --- A scenario's store ---

    def template(self, scenario):
        return os.path.join(self.folder, "of " + scenario.name)

    def prepare(self, it):
        """Writes the store of a scenario, and the ledger of how it came to be."""
        root, images = self.template(it), self.images
        with ledgers.Ledger(f"{self.books}/of {it.name}", store=self.folder, sync=False) as book:
            if not it.exists:
                return
            samples.make_store(root)
            refs = {self.registry.name(image): images.images[image] for image in it.refs}
            pinned = [self.registry.name(image) for image in it.pinned]
            others = {self.registry.name(image): images.images[image] for image in it.others}
            samples.set_refs(root, refs | others, pinned, others)
            for name, descriptor in refs.items():
                wanted = images.closure(descriptor)
                samples.add_blobs(root, images, wanted)
                book.acknowledged("pull", ref=name, digest=descriptor["digest"], wanted=wanted)
            for name, descriptor in others.items():
                self.prepare_others(root, book, name, descriptor, it.loose)
            for name in pinned:
                book.acknowledged("pin", ref=name)
            for digest, ranges in it.parts.items():
                data = images.blobs[digest]
                there = b"".join(
                    bytes(start - before) + data[start:end]
                    for before, (start, end) in zip([0] + [end for _, end in ranges], ranges)
                )
                samples.add_part(root, digest, there, ranges if len(ranges) > 1 else None)
            if it.extra:
                self.prepare_extra(root, book)
            if it.damaged:
                self.damage(root)
            if it.pinned:
                self.cap = str(self.room_for(root, it))

    def prepare_others(self, root, book, name, descriptor, loose):
        """What other tools leave, which they did not sync. What is there they keep."""
        wanted = self.images.closure(descriptor)
        blobs = wanted | {digest: len(self.images.blobs[digest]) for digest in loose}
        for digest in layout.blobs(root).keys() & blobs.keys():
            del blobs[digest]
        for blob, mode in zip(sorted(blobs), itertools.cycle(layout.BLOBS_OF_OTHERS)):
            samples.add_blobs(root, self.images, [blob], mode)
        digest = descriptor["digest"]
        book.acknowledged("other", ref=name, digest=digest, wanted=wanted, blobs=blobs)

    def room_for(self, root, it):
        """What a store takes that has lost most of what is not pinned: one image alone is not enough."""
        pinned, rest = {}, {}
        for image in it.refs:
            of_it = self.images.closure(self.images.images[image])
            (pinned if image in it.pinned else rest).update(of_it)
        unique = sum(size for digest, size in rest.items() if digest not in pinned)
        return layout.used(root) + RESERVE - unique * 15 // 16

    def damage(self, root):
        """A flipped byte in a large blob, a small one cut, one missing, and no index.json. The store has
        the hashes of groups and the copy of index.json, which the command itself makes."""
        command = [self.command, "--root", root, "-q", "check", "--repair"]
        subprocess.run(command, check=True, capture_output=True, env=self.environment())
        layers = json.loads(self.images.blobs[self.images.images["app:v1"]["digest"]])["layers"]
        small, missing, large = (
            os.path.join(root, "blobs", it["digest"].replace(":", "/")) for it in layers[1:4]
        )
        os.unlink(missing)
        os.unlink(os.path.join(root, "index.json"))
        for path, change in ((small, lambda data: data[:1000]), (large, flip)):
            with open(path, "rb") as file:
                data = file.read()
            os.unlink(path)
            samples.write(path, change(data), layout.OWN_BLOB)

    def prepare_extra(self, root, book):
        """Leases, and what a collection has to remove."""
        images, other = self.images, self.images.images["other:v1"]
        samples.add_blobs(root, images, images.closure(other))
        samples.add_lease(root, LEASE, "holder test", f"tree {other['digest']}", "until never")
        book.acknowledged("lease-add", lease=LEASE, trees=[other["digest"]], until=None)
        samples.add_lease(root, ENDED_LEASE, "holder test", f"tree {other['digest']}", "until 1")
        samples.add_lease(root, "0" * 31 + "3", "holder test", f"blob {other['digest']}")
        for n in range(3):
            data = GARBAGE + bytes([n])
            name = samples.digest_of(data).partition(":")[2]
            samples.write(os.path.join(root, "blobs/sha256", name), data, layout.OWN_BLOB)
        trashed = f".layerstore/trash/sha256-{'0' * 64}"
        samples.write(os.path.join(root, trashed), GARBAGE, layout.OWN_BLOB)
        old = os.path.join(root, ".layerstore/parts", "sha256-" + "1" * 64)
        for kind in ("part", "state", "lock"):
            samples.write(f"{old}.{kind}", b"", 0o600)
            os.utime(f"{old}.{kind}", (1, 1))

    def renew(self, it):
        """The scenario's store and ledger, as new."""
        shutil.rmtree(self.root, ignore_errors=True)
        if it.exists:
            shutil.copytree(self.template(it), self.root)
        shutil.copyfile(f"{self.books}/of {it.name}", self.book)
        if os.path.exists(self.log):
            os.unlink(self.log)

    # --- Running ---

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": self.home, "LC_ALL": "C"}

    def argv(self, arguments):
        return [self.command, "--root", self.root, "--json", "--progress", "none", *arguments]

    def run(self, arguments, disturbed=()):
        """Runs the command, or `step` on it."""
        return subprocess.run(
            [*disturbed, *self.argv([self.expand(it) for it in arguments])],
            capture_output=True,
            env=self.environment(),
            timeout=PATIENCE,
            check=False,
        )

    def operate(self, it, call=None, at=None, action=None, then=None):
        """Runs a scenario's command under `step`, disturbed if so asked. Returns how it ended and
        what `step` recorded."""
        done = self.start(it, step.command(self.root, self.log, call, at, action, then))
        return done, step.read(self.log)

    def start(self, it, prefix=()):
        """Runs a scenario's command, and keeps the ledger."""
        with ledgers.Ledger(self.book, sync=False) as book:
            what = {key: self.expand_value(value) for key, value in it.what.items()}
            name = book.begin(it.op, **what)
            done = self.run(it.arguments, prefix)
            if done.returncode == 0:
                more = {}
                if it.op == "lease-add":
                    more["lease"] = json.loads(done.stdout)["id"]
                book.done(name, **more)
            elif done.returncode >= 128:
                book.killed(name)
            else:
                book.failed(name, code=done.returncode)
        return done

    def expand_value(self, value):
        return self.expand(value) if isinstance(value, str) else value

    def at(self, path):
        return os.path.join(self.root, path)

    def inodes(self, paths):
        """Those of files and folders of the store, of those that are there."""
        found = (layout.look(self.at(path)) for path in paths)
        return {it.st_ino for it in found if it is not None}

    # --- What has to hold afterwards ---

    def aftermath(self, it):
        """Everything that is wrong with the store now, and with what comes next: the same operation
        again, a pull, a collection. Nothing is repaired in between."""
        # What is damaged is so until it is mended, and nothing of it is worse for what was broken off.
        problems = []
        if not it.damaged:
            at_once = self.check() + self.readers.look(self.root)
            problems += [f"at once: {text}" for text in at_once]
        problems += self.repeat(it)
        if it.op != "pull":
            problems += self.pull("app:v1")
        problems += self.collect()
        in_the_end = self.check() + self.readers.look(self.root)
        return problems + [f"in the end: {text}" for text in in_the_end]

    def check(self):
        return checker.check(self.root, self.book).problems

    def left_behind(self, most):
        """A process that ends removes what it was writing; one that is killed leaves one file in a folder:
        that of index.json and that of its copy are there at once."""
        folders = [os.path.relpath(it, self.root) for it in map(os.path.dirname, layout.hidden(self.root))]
        counts = {it: folders.count(it) for it in folders}
        return [f"stray: {n} hidden files in {it}" for it, n in counts.items() if n > most]

    def repeat(self, it):
        if it.op == "pull":
            return self.pull(it.arguments[-1][1:-1], it.what["wanted"])
        done = self.start(it)
        if done.returncode not in it.again:
            return [f"again: {it.name} ended with {said(done)}"]
        return []

    def pull(self, image, wanted=None):
        """The next pull succeeds, and asks for no more than the bytes that are missing."""
        root = self.images.images[image]
        wanted = wanted or self.images.closure(root)
        missing = {
            digest: layout.missing_bytes(self.root, {digest: size})
            for digest, size in wanted.items()
        }
        self.registry.reset()
        ref = self.registry.name(image)
        with ledgers.Ledger(self.book, sync=False) as book:
            name = book.begin("pull", ref=ref, digest=root["digest"], wanted=wanted)
            done = self.run(["pull", "--plain-http", "--max-connections", "1", ref])
            if done.returncode != 0:
                book.failed(name)
                return [f"the next pull ended with {said(done)}"]
            book.done(name)
        return [
            f"the next pull asked for {count} bytes of {digest}, of which {missing.get(digest)} "
            "were missing"
            for digest, count in self.registry.blobs.items()
            if count > missing.get(digest, 0)
        ]

    def collect(self):
        """A collection without grace leaves exactly what is needed."""
        alive = layout.live(self.root, time.time())
        with ledgers.Ledger(self.book, sync=False) as book:
            name = book.begin("gc", grace=0)
            done = self.run(["gc", "--grace", "0s"])
            if done.returncode != 0:
                book.failed(name)
                return [f"the next collection ended with {said(done)}"]
            book.done(name)
        return checker.after_collection(self.root, alive)

    def keep(self, folder, name, text):
        """Puts aside a store that something is wrong with."""
        target = os.path.join(folder, name.replace(" ", "-"))
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        if os.path.exists(self.root):
            shutil.copytree(self.root, os.path.join(target, "store"), symlinks=True)
        for path in (self.book, self.log):
            if os.path.exists(path):
                shutil.copy(path, target)
        with open(os.path.join(target, "problems"), "w", encoding="utf-8") as file:
            file.write(text)
        return target


def flip(data):
    """Wrong in two groups."""
    bad = bytearray(data)
    bad[70_000] ^= 1
    bad[200_000] ^= 1
    return bytes(bad)


def said(done):
    text = done.stderr.decode("utf-8", "replace").strip()
    return f"{done.returncode}: {text[-400:]}"
