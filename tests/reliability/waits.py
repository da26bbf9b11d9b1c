#!/usr/bin/env python3
"""Locks that somebody holds and does not let go, each met by commands that wait for it.

    waits.py [--store COMMAND] [--only WORDS]

A command that meets one says after ten seconds what it waits for and who has it. It gives up at its limit, which
is what docs/protocol.md says, with an error that says so too, and the store is whole; where the lock is let go
after it was said, the command ends well. All at the same time, each in a store of its own, in ten minutes that
are slept through. Beyond what was waited, times fail nothing that a busy machine could be blamed for. Commands
that wait for ever, say nothing, wait too short or name nobody are planted beside them.
"""

import argparse
import contextlib
import fcntl
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

import checker
import harness
import layout
import ledger as ledgers
import samples
import step
from registry import Registry

# When a wait is said, and how much later than at its limit a command may end on a busy machine.
SAID_AFTER, LATE = 10, 60
# Which locks are not waited for, or for a moment.
MOMENT = 5
LOCKED = 11
# A process that has been forked and runs no command yet has the locks of this one too.
FORKING = threading.Lock()
LEASE = "0" * 31 + "1"
PULL = ("pull", "--plain-http", "{app:v1}")
PUT = ("blob", "put", "{put}")
TAG = ("tag", "{base:v1}", "registry.test/copy:v1")
ADD = ("lease", "add", "{digest}")
REMOVE = ("lease", "rm", LEASE)
REPAIR = ("check", "--repair", "--plain-http", "{host}")
LOGOUT = ("logout", "--authfile", "{auth}", "registry.test")
AT_GATE, GATE, INDEX = "its turn at the gate", "the gate", "the lock of index.json"
ROOM, COLLECTION = "the room for another pull to be found", "another collection to end"


@dataclass
class Case:
    """A command, and the lock that it meets."""

    lock: str
    arguments: tuple
    # What it waits for, in its own words, and for how many seconds at most.
    awaited: str
    limit: float
    # Whether a shared holder is in its way too.
    by_reader: bool = False
    # Whether the room that there may be is little.
    capped: bool = False
    # How it ends at its limit.
    code: int = LOCKED

    def title(self):
        return f"{' '.join(self.arguments[:2]).replace(' --plain-http', '')} at {self.lock}"


CASES = (
    *(Case("locks/turn", it, AT_GATE, 120) for it in (PULL, PUT, TAG, ADD, ("gc", "--grace=0s"))),
    *(Case("locks/gate", it, GATE, 120) for it in (PULL, PUT, TAG, ADD)),
    Case("locks/gate", ("gc", "--grace=0s"), GATE, 120, by_reader=True),
    *(Case("locks/index", it, INDEX, 120) for it in (PULL, TAG)),
    *(Case("locks/index", (it, "{base:v1}"), INDEX, 120) for it in ("rm", "pin", "unpin")),
    *(Case("locks/index", it, INDEX, 120) for it in (("config", "keep-duration", "1h"), REPAIR)),
    *(Case("locks/space", it, ROOM, 600) for it in (PULL, PUT)),
    *(Case("locks/gc", it, COLLECTION, 120, capped=True) for it in (PULL, PUT)),
    # Not waited for, or not for so long that it is worth a word.
    Case("locks/gc", ("gc",), COLLECTION, 0),
    Case("locks/gc", REMOVE, "the running collection", 0),
    Case(f"leases/{LEASE}", REMOVE, "the lease's process", 0),
    Case("auth", LOGOUT, "the directory", 10),
    # The blob of another is downloaded once more.
    Case("part", PULL, "held by", 60, code=0),
)


class Wait:
    """One command that meets one lock."""

    def __init__(self, case, folder, command, server):
        self.case, self.folder, self.command, self.server = case, folder, command, server
        self.root = os.path.join(folder, "store")
        self.auth = os.path.join(folder, "auth/auth.json")
        self.lines = []
        self.prepare()

    def prepare(self):
        os.makedirs(os.path.dirname(self.auth))
        samples.make_store(self.root)
        images, old = self.server.images, ("base:v1", "other:v1")
        roots = {self.server.name(it): images.images[it] for it in old}
        samples.set_refs(self.root, roots)
        blobs = {digest for it in roots.values() for digest in images.closure(it)}
        samples.add_blobs(self.root, images, blobs)
        # What nothing leads to, for a collection.
        samples.add_blobs(self.root, images, [images.images["multi:v1"]["digest"]])
        samples.add_lease(self.root, LEASE, "holder test", "until never")
        samples.write(os.path.join(self.folder, "put"), b"put!" * (104 << 10), 0o600)
        samples.write(self.auth, b'{"auths": {"registry.test": {"auth": "dTpw"}}}', 0o600)
        if self.case.capped:
            # What is there, the reserve that a collection sets aside included, and a little less than the
            # pull or the put brings.
            self.prepare_by("gc")
            self.prepare_by("config", "max-used-space", str(layout.used(self.root) + (400 << 10)))
        digest = max(images.closure(images.images["app:v1"]), key=lambda it: len(images.blobs[it]))
        if self.case.lock == "part":
            samples.add_part(self.root, digest, b"")
        self.part = f".layerstore/parts/{digest.replace(':', '-')}.lock"

    def prepare_by(self, *arguments):
        with FORKING:
            subprocess.run([*self.argv, *arguments], check=True, capture_output=True)

    @property
    def argv(self):
        return [self.command, "--root", self.root, "--progress", "plain"]

    def expand(self, text):
        special = {
            "{put}": os.path.join(self.folder, "put"), "{auth}": self.auth,
            "{digest}": self.server.images.images["base:v1"]["digest"], "{host}": self.server.host,
        }  # fmt: skip
        name = text[1:-1] if text.startswith("{") else None
        return special.get(text) or (self.server.name(name) if name else text)

    def path(self):
        places = {"auth": os.path.dirname(self.auth), "part": os.path.join(self.root, self.part)}
        return places.get(self.case.lock, os.path.join(self.root, ".layerstore", self.case.lock))

    def held(self):
        """The lock, until what is given is closed."""
        opened = os.open(self.path(), os.O_RDONLY)
        fcntl.flock(opened, fcntl.LOCK_SH if self.case.by_reader else fcntl.LOCK_EX)

        def close():
            with FORKING:
                os.close(opened)

        held = contextlib.ExitStack()
        held.callback(close)
        return held

    def run(self, patience, when_said=lambda: None):
        """Runs the command: (exit code, seconds), the first None if it did not end. Its lines get the second
        in which they came."""
        self.lines, begun = [], time.monotonic()
        command = [*self.argv, *map(self.expand, self.case.arguments)]
        none = subprocess.DEVNULL
        with FORKING:
            process = subprocess.Popen(command, stdin=none, stdout=none, stderr=subprocess.PIPE, text=True)

        def read():
            for line in process.stderr:
                self.lines.append((time.monotonic() - begun, line.strip()))
                if "waiting" in line:
                    when_said()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            code = None
            process.kill()
        took = time.monotonic() - begun
        reader.join()
        return code, took

    def said(self):
        """The second in which it was said that something is awaited, and the line."""
        return next((it for it in self.lines if "waiting" in it[1]), (None, ""))

    def held_for_good(self):
        """What is wrong where the lock is never let go."""
        case, holder = self.case, f"process {os.getpid()}"
        with self.held():
            code, took = self.run(case.limit + LATE)
        if code is None:
            return [f"it does not end: {self.lines}"]
        problems = []
        if code != case.code:
            problems.append(f"it ended with {code}: {self.lines}")
        if took < case.limit:
            problems.append(f"it gave up after {took:.1f} s, and not {case.limit}: {self.lines}")
        if case.limit > SAID_AFTER:
            second, line = self.said()
            if not (case.awaited in line and holder in line):
                problems.append(f"it did not say what it waits for: {self.lines}")
            elif case.code == LOCKED and not SAID_AFTER <= second < SAID_AFTER + LATE / 2:
                problems.append(f"it said so after {second:.1f} s")
        elif self.said()[1]:
            problems.append(f"it waits, and is not to: {self.lines}")
        if case.code == LOCKED:
            last = self.lines[-1][1] if self.lines else ""
            named = "another process" if case.lock == "auth" else holder
            if not (last.startswith("error: ") and case.awaited in last and named in last):
                problems.append(f"the error does not say whom it waited for: {last}")
            waited = re.search(r"waited (\d+) s ", last)
            most = took if case.limit else MOMENT
            if not (waited and case.limit <= int(waited[1]) <= most):
                problems.append(f"the error does not say how long it waited: {last}")
        return problems + self.whole()

    def let_go(self):
        """What is wrong where it is let go once the command has said that it waits, and then after it was held
        for good."""
        if self.case.limit > SAID_AFTER and self.case.code == LOCKED:
            with self.held() as held:
                code, _ = self.run(self.case.limit + LATE, held.close)
            if not self.said()[1]:
                return [f"it never waited: {self.lines}"]
        else:
            code, _ = self.run(LATE)
        return [] if code == 0 else [f"let go, it ended with {code}: {self.lines}"]

    def whole(self):
        """What was there is as it was, and what gave up has done nothing."""
        images = self.server.images
        pulled = ("base:v1", "other:v1", "app:v1")[: 2 if self.case.code else 3]
        with ledgers.Ledger(os.path.join(self.folder, "ledger"), sync=False) as book:
            for image in pulled:
                digest, wanted = images.images[image]["digest"], images.closure(images.images[image])
                book.acknowledged("pull", ref=self.server.name(image), digest=digest, wanted=wanted)
            book.acknowledged("lease-add", lease=LEASE, trees=[], until=None)
        return checker.check(self.root, os.path.join(self.folder, "ledger")).problems

    def look(self, problems):
        found = self.held_for_good() + self.let_go()
        problems += [f"{self.case.title()}: {it}" for it in found]


# What stands in the place of the command, and what has to be said of it.
PLANTED = {
    "a wait without an end": ("exec sleep 1000", "it does not end"),
    "nothing said": ("sleep 12; {error}", "it did not say what it waits for"),
    "nobody named": ("sleep 11; echo waiting for {awaited}; {error}", "it did not say what it waits for"),
    "a word too early": ("{wait}; sleep 12; {error}", "it said so after"),
    "an error that names nobody": (
        "sleep 11; {wait}; echo error: waited 11 s for {awaited} x, held by process; exit 11",
        "the error does not say whom",
    ),
    "an error without the time": (
        "sleep 11; {wait}; echo error: {awaited} x, held by {holder}; exit 11",
        "the error does not say how long",
    ),
    "a store that lost a name": (
        "sleep 11; {wait}; echo {empty} >$2/index.json; {error}", "ref: ",
    ),
    "too short a wait": ("{error}", "it gave up after"),
    "another exit code": ("sleep 12; exit 1", "it ended with 1"),
    "an error that says nothing": ("sleep 12; echo error: locked; exit 11", "the error does not say"),
    "no wait": ("exit 0", "it ended with 0"),
}


def plant(title, folder, server, caught):
    """Whether one fault of a command is noticed, in a wait that would be short."""
    lines, reported = PLANTED[title]
    holder = f"process {os.getpid()}"
    words = {
        "awaited": AT_GATE, "holder": holder, "wait": f"echo waiting for {AT_GATE}, held by {holder}",
        "error": f"echo error: waited 11 s for {AT_GATE} x, held by {holder}; exit 11",
        "empty": "'{\"schemaVersion\": 2, \"manifests\": []}'",
    }  # fmt: skip
    command = os.path.join(folder, "command")
    samples.write(command, f"#!/bin/sh\nexec >&2\n{lines.format(**words)}\n".encode(), 0o755)
    wait = Wait(Case("locks/turn", PULL, AT_GATE, 11), folder, command, server)
    problems = wait.held_for_good()
    if any(it.startswith(reported) for it in problems):
        caught.append(title)
    else:
        print(f"waits: NOT noticed: {title}: {problems}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--store", help="the command; built if it is not given")
    parser.add_argument("--only", default="", help="those whose title has this in it, as `pull at locks/gate`")
    given = parser.parse_args()
    cases = [it for it in CASES if given.only in it.title()]
    command = os.path.abspath(given.store or harness.build_store())
    server, problems, caught, threads = Registry(samples.standard()), [], [], []
    os.makedirs(step.TARGET, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="waits-", dir=step.TARGET) as folder:
        def start(target, *more):
            def work():
                try:
                    target(*more)
                except Exception as error:  # or the thread would end in silence
                    problems.append(f"{target.__qualname__} {more[:1]}: {error!r}")
                    raise

            threads.append(threading.Thread(target=work))
            threads[-1].start()

        for case in cases:
            place = tempfile.mkdtemp(dir=folder)
            start(Wait(case, place, command, server).look, problems)
        for title in PLANTED:
            start(plant, title, tempfile.mkdtemp(dir=folder), server, caught)
        for thread in threads:
            thread.join()
    server.close()
    for problem in problems:
        print(f"waits: FAULT: {problem}")
    print(f"waits, planted faults: {len(PLANTED)}, caught: {len(caught)}")
    print(f"waits: {len(cases)}, lost: {len(problems)}")
    return 1 if problems or len(caught) < len(PLANTED) else 0


if __name__ == "__main__":
    sys.exit(main())
