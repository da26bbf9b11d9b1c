#!/usr/bin/env python3
"""Look whether a store has lost anything, with none of its own code.

    checker.py STORE --ledger FILE [--second-readers]

Every fault that is found is printed on a line. Exits with 1 if there is one. What must hold at any
moment, also after a kill or a power cut and before anything was repaired:

- oci-layout, index.json, version, leases parse; no file but what docs/format.md knows;
- each ref stands for what the ledger acknowledged, and its blobs have their sizes and digests; so
  does what the copy of index.json says, if there is one;
- every name under blobs/ is the hash of its file, which nobody may write; but what another tool wrote may
  stand as that tool left it until the store names it, or has acknowledged a lease on it;
- acknowledged leases are there, and what they keep; so are acknowledged blobs, until a collection;
- what was pinned is there and pinned, whatever was collected to make room; acknowledged settings are set,
  and what was touched counts as used since;
- nobody holds a lock (--busy, for a store in use, leaves this out).
"""

import argparse
import json
import os
import re
import stat
import sys
import time
import tomllib
from dataclasses import dataclass, field

import layout
import ledger as ledgers
import readers
from layout import Damage

# What may lie in each folder of a store, beside blobs, leases, parts and trash.
KNOWN = {
    "": {"oci-layout", "index.json", "blobs", ".layerstore"},
    ".layerstore": {
        "version", "locks", "leases", "parts", "trash", "quarantine", "reserve", "hosts",
        "outboard", "suspect", "origins", "refs", "used", "config.toml", "usage",
    },
    ".layerstore/locks": set(layout.LOCKS),
    "blobs": set(layout.HEX),
}
# Modes that a blob may have that is to go.
BLOBS = (layout.OWN_BLOB, *layout.BLOBS_OF_OTHERS)
# How old a use may be that is not noted again, in seconds, and a moment for clocks.
NOTED = 61


@dataclass
class Report:
    """What was found, and how much was looked at."""

    problems: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    refs: int = 0
    blobs: int = 0
    bytes: int = 0
    leases: int = 0
    parts: int = 0
    temporary: int = 0

    def add(self, kind, message):
        self.problems.append(f"{kind}: {message}")


def check(root, expected=None, *, strict=None, busy=False, second_readers=False, now=None):
    """Checks a store at rest. `expected` is what `ledger.expected` says, or the path of a ledger;
    without one, only what holds for every store is looked at. `strict`: whether it names all refs and
    leases that may be there, as such a one does."""
    strict = expected is not None if strict is None else strict
    now = time.time() if now is None else now
    if isinstance(expected, (str, os.PathLike)):
        expected = ledgers.expected(ledgers.read(expected), now)
    look = _Look(os.path.abspath(root), Report(), expected or ledgers.Expected())
    # One whose making was killed is no store yet, and nothing was acknowledged in it.
    if not os.path.exists(look.at(".layerstore/version")):
        look.unmade()
        return look.report
    look.versions()
    look.names()
    look.blobs()
    look.refs(strict)
    look.leases(strict, now=now)
    look.puts()
    look.notes()
    if not busy:
        look.locks()
    if second_readers:
        look.second_readers()
    return look.report


class _Look:
    def __init__(self, root, report, expected):
        self.root, self.report, self.expected = root, report, expected
        # Sizes of the blobs whose bytes are those of their names.
        self.good = {}

    def at(self, path):
        return os.path.join(self.root, path)

    def unmade(self):
        due = [it for it in self.expected.refs.items() if None not in it[1]]
        if due or self.expected.leases or self.expected.blobs:
            self.report.add("layout", "there is no store, and things were acknowledged in it")

    def versions(self):
        for path, good in (
            ("oci-layout", lambda text: json.loads(text) == {"imageLayoutVersion": "1.0.0"}),
            (".layerstore/version", lambda text: text == b"1\n"),
        ):
            try:
                with open(self.at(path), "rb") as file:
                    text = file.read()
                if not good(text):
                    self.report.add("layout", f"{path} says {text[:80]!r}")
            except (OSError, ValueError) as error:
                self.report.add("layout", f"{path}: {error}")

    # --- Names ---

    def names(self):
        for folder, known in KNOWN.items():
            for name in layout.listing(self.at(folder)):
                self.name(folder, name, name in known, temporary=folder in ("", ".layerstore"))
        for name in layout.HEX:
            for blob in layout.listing(self.at(f"blobs/{name}")):
                is_blob = layout.is_digest(f"{name}:{blob}")
                is_others = f"{name}:{blob}" in self.expected.others
                modes = BLOBS if is_others else (layout.OWN_BLOB,)
                self.name(f"blobs/{name}", blob, is_blob, temporary=True, modes=modes)
        for name in layout.listing(self.at(".layerstore/parts")):
            is_part = layout.part_digest(name) is not None
            modes = (0o600, layout.OWN_BLOB) if name.endswith(".part") else (0o600,)
            self.name(".layerstore/parts", name, is_part, temporary=True, modes=modes)
            self.report.parts += name.endswith(".part")
        for name in layout.listing(self.at(".layerstore/leases")):
            is_lease = len(name) == 32 and not set(name) - set("0123456789abcdef")
            self.name(".layerstore/leases", name, is_lease, temporary=True, modes=(0o600,))
            self.report.leases += is_lease
        for name in layout.listing(self.at(".layerstore/outboard")):
            self.name(".layerstore/outboard", name, name in layout.HEX)
        for name in layout.HEX:
            for blob in layout.listing(self.at(f".layerstore/outboard/{name}")):
                is_blob = layout.is_digest(f"{name}:{blob}")
                self.name(f".layerstore/outboard/{name}", blob, is_blob, temporary=True, modes=(0o600,))
        for folder, modes in (("used", (0o600,)), ("suspect", (0o600,)), ("trash", BLOBS)):
            for name in layout.listing(self.at(f".layerstore/{folder}")):
                is_blob = layout.is_digest(name.replace("-", ":", 1))
                self.name(f".layerstore/{folder}", name, is_blob, modes=modes)
        for name in layout.listing(self.at(".layerstore/quarantine")):
            is_blob = layout.is_digest(name.replace("-", ":", 1))
            is_index = re.fullmatch(r"(index\.json|refs)-[0-9a-f]{32}", name) is not None
            self.name(".layerstore/quarantine", name, is_blob or is_index)
        for name in layout.listing(self.at(".layerstore/origins")):
            is_origin = re.fullmatch(r"[0-9a-f]{32}", name) is not None
            self.name(".layerstore/origins", name, is_origin, temporary=True, modes=(0o600,))
        for name in layout.listing(self.at(".layerstore/hosts")):
            is_host = re.fullmatch(r"[0-9a-f]{32}\.([0-9]{1,6}|queue|closed)", name) is not None
            self.name(".layerstore/hosts", name, is_host, temporary=True, modes=(0o600,))

    def name(self, folder, name, is_known, temporary=False, modes=None):
        path = os.path.join(folder, name)
        found = layout.look(self.at(path))
        if found is None:
            return
        if temporary and name.startswith(layout.HIDDEN):
            self.report.temporary += 1
        elif not is_known:
            self.report.add("stray", f"{path}: no store has a file of this name")
        elif modes and not layout.is_regular(found):
            self.report.add("type", f"{path} is not a regular file")
        elif modes and stat.S_IMODE(found.st_mode) not in modes:
            self.report.add("mode", f"{path} has mode {stat.S_IMODE(found.st_mode):04o}")

    # --- Blobs ---

    def blobs(self):
        cut = self.expected.cut is not None
        for digest, size in layout.blobs(self.root).items():
            path = layout.blob_path(self.root, digest)
            found = layout.look(path)
            if found is None or not layout.is_regular(found):
                continue
            algorithm, _, name = digest.partition(":")
            try:
                actual = layout.hash_file(path, algorithm)
            except FileNotFoundError:
                continue
            if actual is None:
                self.report.notes.append(f"{digest} was not hashed: hashlib has no {algorithm}")
            elif actual != name and cut and digest in self.expected.unsynced and layout.is_of_others(found):
                continue
            elif actual != name:
                message = f"the name {digest} stands for {size} bytes of {algorithm}:{actual}"
                self.report.add("blob", message)
                continue
            self.good[digest] = size
            self.report.blobs += 1
            self.report.bytes += size

    def needs(self, digest, size, whose):
        """A blob has to be there."""
        found = self.good.get(digest)
        if found is None:
            self.report.add("lost", f"{digest} of {whose} is missing or damaged")
        elif size is not None and found != size:
            self.report.add("size", f"{digest} of {whose} has {found} bytes and not {size}")

    def whole(self, digest, size, whose):
        """A root and what it is made of have to be there. Of the children of an index, those that
        are: a platform that was not pulled is none; but not all of them may be absent."""
        self.needs(digest, size, whose)
        value = layout.document(self.root, digest)
        if value is None:
            return
        present = 0
        for child, is_needed in layout.children(value):
            if is_needed:
                self.needs(child["digest"], child["size"], whose)
            elif child["digest"] in self.good:
                present += 1
                self.whole(child["digest"], child["size"], whose)
        if value.get("manifests") and not present:
            self.report.add("lost", f"no platform of {whose} is there")

    def own(self, digest, whose):
        """Nothing of what the store itself has named is another tool's file, which may not be on disk:
        a copy of its own has taken its place."""
        for it in layout.reached(self.root, digest) & self.expected.others.keys():
            found = layout.look(layout.blob_path(self.root, it))
            if found is not None and layout.is_of_others(found):
                self.report.add("others", f"{it} of {whose} is still the file of another tool")

    # --- Refs, leases, blobs that were put ---

    def refs(self, strict):
        try:
            named = layout.refs(self.root)
        except Damage as damage:
            self.report.add("index", str(damage))
            return
        self.report.refs = len(named)
        for name, descriptor in named.items():
            self.whole(descriptor["digest"], descriptor["size"], name)
            if descriptor["digest"] not in self.expected.named_by_others.get(name, ()):
                self.own(descriptor["digest"], name)
            if strict and name not in self.expected.refs:
                self.report.add("ref", f"nobody ever named {name}")
            for digest, size in self.expected.wanted.get((name, descriptor["digest"]), {}).items():
                self.needs(digest, size, name)
        for name, admissible in self.expected.refs.items():
            found = named[name]["digest"] if name in named else None
            if found not in admissible:
                allowed = " or ".join(sorted(str(it) for it in admissible))
                self.report.add("ref", f"{name} is {found} and should be {allowed}")
        self.pins(named, "index.json")
        self.copied_refs()

    def copied_refs(self):
        """What was acknowledged is in the copy of index.json too, once there is one."""
        try:
            named = layout.copied_refs(self.root)
        except Damage as damage:
            self.report.add("copy", str(damage))
            return
        for name, admissible in self.expected.refs.items() if named is not None else ():
            found = named[name]["digest"] if name in named else None
            if found not in admissible:
                allowed = " or ".join(sorted(str(it) for it in admissible))
                self.report.add("copy", f"the copy of {name} is {found} and should be {allowed}")
        self.pins(named or {}, "the copy of index.json")

    def pins(self, named, where):
        for name, admissible in self.expected.pins.items():
            if name in named and layout.is_pinned(named[name]) not in admissible:
                due = "unpinned" if layout.is_pinned(named[name]) else "pinned"
                self.report.add("pin", f"{name} should be {due} in {where}")

    def leases(self, strict, now):
        try:
            found = layout.leases(self.root)
        except Damage as damage:
            self.report.add("lease", str(damage))
            return
        for name, trees in self.expected.leases.items():
            if name not in found:
                self.report.add("lease", f"the lease {name} was acknowledged and is gone")
                continue
            if not found[name].lasts(now) or not set(trees) <= found[name].trees:
                self.report.add("lease", f"the lease {name} does not keep {' '.join(trees)}")
            for tree in trees:
                self.whole(tree, None, f"the lease {name}")
                self.own(tree, f"the lease {name}")
        known = self.expected.leases.keys() | self.expected.maybe_leases
        lasting = [name for name in found if name not in known and found[name].lasts(now)]
        if strict and len(lasting) > self.expected.unknown_leases:
            self.report.add("lease", f"nobody made, or somebody removed: {' '.join(lasting)}")

    def puts(self):
        for digest, size in self.expected.blobs.items():
            self.needs(digest, size, "an acknowledged put")

    def notes(self):
        for digest, since in self.expected.used.items():
            paths = [self.at(f".layerstore/used/{digest.replace(':', '-')}")]
            # An image that came back after a collection has a new time of its own, and maybe a record
            # that the power took.
            if self.expected.cut is not None:
                paths.append(layout.blob_path(self.root, digest))
            times = [found.st_mtime for found in map(layout.look, paths) if found is not None]
            # With the image goes what is noted of it.
            if digest in self.good and max(times, default=0) < since - NOTED:
                self.report.add("used", f"{digest} was touched, and does not count as used")
        try:
            with open(self.at(".layerstore/config.toml"), "rb") as file:
                settings = tomllib.load(file)
        except FileNotFoundError:
            settings = {}
        except ValueError as error:
            self.report.add("config", f"config.toml: {error}")
            return
        for key, admissible in self.expected.settings.items():
            if settings.get(key) not in admissible:
                allowed = " or ".join(sorted(str(it) for it in admissible))
                self.report.add("config", f"{key} is {settings.get(key)} and should be {allowed}")

    # --- Locks and other readers ---

    def locks(self):
        held = layout.locks()
        for folder in ("locks", "leases", "parts", "hosts"):
            for name in layout.listing(self.at(f".layerstore/{folder}")):
                path = f".layerstore/{folder}/{name}"
                pid = layout.lock_holder(self.at(path), held)
                if pid is not None:
                    self.report.add("lock", f"process {pid} holds {path}")

    def second_readers(self):
        for problem in readers.read(self.root)[1]:
            self.report.add("reader", problem)


def after_collection(root, alive):
    """What is wrong with the blobs after a collection without grace that had to leave `alive`."""
    there = layout.blobs(root).keys()
    lost = [f"lost: the collection removed {digest}" for digest in sorted(alive - there)]
    kept = [f"kept: the collection left {digest}" for digest in sorted(there - alive)]
    trash = [f"kept: trash/{it}" for it in layout.listing(os.path.join(root, ".layerstore/trash"))]
    return lost + kept + trash


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("store")
    parser.add_argument("--ledger")
    parser.add_argument("--busy", action="store_true", help="locks may be held")
    parser.add_argument("--second-readers", action="store_true", help="skopeo and umoci read it too")
    given = parser.parse_args()
    report = check(
        given.store, given.ledger, busy=given.busy, second_readers=given.second_readers
    )
    for line in report.problems:
        print(line)
    for line in report.notes:
        print("note:", line)
    print(
        f"{report.refs} refs, {report.blobs} blobs of {report.bytes} bytes, {report.leases} leases, "
        f"{report.parts} parts, {report.temporary} temporary files: {len(report.problems)} faults"
    )
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
