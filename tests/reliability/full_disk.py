#!/usr/bin/env python3
"""A small ext4 file system that is filled to a different degree each time, under each operation.

    full_disk.py [--disks N] [--store COMMAND] [--seed N]

An operation that finds no space ends with the exit code for that; a pull also says how much is
missing, or keeps what it downloaded; no part that was there gets shorter. The checker finds
nothing lost, and `store gc` works there. With space again, the operation, a pull of what is missing
and a collection succeed. Needs root, for the loop device: without, exits with 77 and says that it
did not run.
"""

import errno
import os
import random
import re
import subprocess
import sys
import tempfile

import harness
import layout
import ledger as ledgers
import world

SIZE = 24 << 20
NO_SPACE = 8
# Where little is left, every step counts; where there is more, the download itself runs out.
LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 40, 80, 160, 320, 640)
BLOCK = 4096
NUMBER = re.compile(r"[0-9] (bytes )?are (missing|free)")
# Where a few bytes of the store's own, or a manifest, do not fit, the system call that fails says no number.
SMALL = re.compile(r"cannot [a-z ]+ (?!\S+\.part:)/\S+: no space left;")


class Disk:
    """A file system of its own on a file."""

    def __init__(self, folder):
        self.file = os.path.join(folder, "disk")
        self.path = os.path.join(folder, "mounted")
        os.mkdir(self.path)
        with open(self.file, "wb") as file:
            file.truncate(SIZE)
        make = ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", self.file]
        subprocess.run(make, check=True)
        subprocess.run(["mount", "-o", "loop", self.file, self.path], check=True)
        os.rmdir(os.path.join(self.path, "lost+found"))

    def fill(self, left):
        """Leaves so many blocks."""
        free = os.statvfs(self.path)
        blocks = free.f_bavail * free.f_frsize // BLOCK - left
        with open(os.path.join(self.path, "filler"), "wb") as file:
            while blocks > 0:
                try:
                    return os.posix_fallocate(file.fileno(), 0, blocks * BLOCK)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    # What is free lies in many pieces, and their list takes blocks too.
                    blocks -= 1
        return None

    def make_room(self):
        filler = os.path.join(self.path, "filler")
        if os.path.exists(filler):
            os.unlink(filler)

    def close(self):
        subprocess.run(["umount", "-l", self.path], check=True)


def main():
    given = harness.options(__doc__.split("\n", maxsplit=1)[0], "disks", 40)
    if os.geteuid() != 0:
        print("NOT RUN  full_disk.py: not root, who alone may mount a file system")
        sys.exit(77)
    chance = random.Random(given.seed)
    full = lost = 0
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(folder)
        there = None
        try:
            there = world.World(given.store, disk.path, given.books)
            names = [name for name, it in there.scenarios.items() if it.exists and not it.damaged]
            points = [(name, left) for left in LEVELS for name in names]
            chance.shuffle(points)
            for n in range(given.disks):
                name, left = points[n % len(points)]
                was_full, problems = fill(there, disk, there.scenarios[name], left)
                full += was_full
                if problems:
                    lost += 1
                    print(f"LOST {name} with {left} blocks left: " + "; ".join(problems), flush=True)
                    there.keep(harness.LOST, f"{name} {left}", "\n".join(problems))
        finally:
            if there is not None:
                there.close()
            disk.close()
    print(f"  {full} of them were too full for the operation")
    print(there.readers.line())
    print(f"full disks: {given.disks}, lost: {lost}")
    sys.exit(lost > 0 or full == 0)


def fill(there, disk, it, left):
    """Whether the operation found no space, and what was wrong."""
    disk.make_room()
    there.renew(it)
    before = kept(there)
    disk.fill(left)
    done = there.start(it)
    text = done.stderr.decode("utf-8", "replace")
    problems = [f"at once: {text}" for text in there.check()]
    if done.returncode not in (0, NO_SPACE):
        problems.append(f"it ended with {done.returncode}: {text[-300:]}")
    if done.returncode == NO_SPACE:
        problems += told(text, it.op == "pull")
    parts = kept(there)
    problems += shorter(there, before, parts, "parts have lost bytes")
    with ledgers.Ledger(there.book, sync=False) as book:
        name = book.begin("gc", grace=3600)
        collected = there.run(["gc"])
        if collected.returncode != 0:
            problems.append(f"a collection on the full disk ended with {world.said(collected)}")
        else:
            book.done(name)
    problems += shorter(there, parts, kept(there), "a collection removed what can be continued")
    problems += [f"after the collection: {text}" for text in there.check()]
    disk.make_room()
    return done.returncode == NO_SPACE, problems + there.aftermath(it)


def told(text, is_pull):
    """What a message for a full disk lacks."""
    problems = []
    if not re.search(r"no space left|missing|quota", text, re.I):
        problems.append(f"it does not say what is missing: {text[-300:]}")
    if "`store gc` frees what no image uses" not in text:
        problems.append(f"it does not say what to free: {text[-300:]}")
    if is_pull and not NUMBER.search(text) and not SMALL.search(text):
        problems.append(f"it has no number: {text[-300:]}")
    return problems


def kept(there):
    """How many bytes each part has."""
    folder = there.at(".layerstore/parts")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    stems = [it.removesuffix(".part") for it in names if it.endswith(".part")]
    digests = [it.replace("-", ":", 1) for it in stems]
    return {it: layout.part_bytes(there.root, it) for it in digests}


def shorter(there, before, after, what):
    """Which parts have less than before. One may go when its blob has come, and for nothing else here: all
    have right bytes, are written to and are young (docs/protocol.md)."""
    due = before.keys() - layout.blobs(there.root).keys()
    lost = [f"{it}: {after.get(it, 0)} of {before[it]}" for it in sorted(due) if after.get(it, 0) < before[it]]
    return [f"{what}: {', '.join(lost)}"] if lost else []


if __name__ == "__main__":
    main()
