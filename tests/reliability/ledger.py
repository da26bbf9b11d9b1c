"""What was acknowledged: an append-only record outside the store.

The harness that runs the command writes it, in its own process, to another file system than the
store's. An operation is begun before the command starts, and then ended: `done` once the command
has returned success, else `failed` or `killed`. What was not `done` may or may not have happened.

One JSON object a line, appended with one write, so several processes may share a ledger. Lines:

    {"id": "…", "at": "begin", "op": "pull", "ref": "…", "digest": "sha256:…", "time": 1.5}
    {"id": "…", "at": "done", "time": 2.5}

| op | keys |
| --- | --- |
| pull, tag | ref, digest; wanted: {digest: size} of every blob that has to be there afterwards |
| other | as pull, of an image that another tool wrote and named; blobs: {digest: size} of all it wrote |
| loose | blobs: {digest: size} that another tool wrote, and neither synced nor named |
| rm, pin, unpin | ref |
| touch | digest: what the ref stands for |
| config | key, value |
| put | digest, size |
| lease-add | trees: [digest]; until: seconds of Unix time; lease: the id, with `done` |
| lease-rm | lease |
| gc | grace: seconds; evicts: whether it drops refs, none of which is pinned |
"""

import json
import os
import time
import uuid
from dataclasses import dataclass, field


class Ledger:
    """A ledger that is being written."""

    def __init__(self, path, store=None, sync=True):
        """`store`: a folder that must not be on the ledger's file system. `sync`: whether each
        line is made durable, which only matters where the machine itself may stop."""
        self.path = os.fspath(path)
        self.sync = sync
        self.fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if store is not None and os.fstat(self.fd).st_dev == os.stat(store).st_dev:
            os.close(self.fd)
            raise ValueError(f"{self.path} is on the file system of {store}")

    def begin(self, op, **what):
        """An operation is about to be started; its id."""
        name = uuid.uuid4().hex
        self._append({"id": name, "at": "begin", "op": op, **what})
        return name

    def done(self, name, **what):
        """It was acknowledged."""
        self._append({"id": name, "at": "done", **what})

    def failed(self, name, **what):
        """It has ended, and said that it failed."""
        self._append({"id": name, "at": "failed", **what})

    def killed(self, name):
        """It has ended without a word."""
        self._append({"id": name, "at": "killed"})

    def acknowledged(self, op, **what):
        """An operation that has begun and is done."""
        self.done(self.begin(op, **what))

    def close(self):
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _append(self, record):
        line = (json.dumps({**record, "time": time.time()}) + "\n").encode()
        if os.write(self.fd, line) != len(line):
            raise OSError(f"{self.path}: a line was not written whole")
        if self.sync:
            os.fsync(self.fd)


@dataclass
class Operation:
    """One operation, as a ledger has it. Places are numbers of lines."""

    op: str
    what: dict
    begun: int
    began_at: float
    ended: int | None = None
    ended_at: float | None = None
    outcome: str | None = None

    @property
    def is_done(self):
        return self.outcome == "done"

    def is_before(self, other):
        """Whether it had ended when the other began."""
        return self.ended is not None and self.ended < other.begun


def read(path):
    """The operations of a ledger, in the order in which they began. A torn last line, of a harness
    that died, says nothing; any other line that does not parse is an error."""
    operations = {}
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    for place, line in enumerate(lines[:-1]):
        record = json.loads(line)
        name, at, when = record.pop("id"), record.pop("at"), record.pop("time")
        if at == "begin":
            operations[name] = Operation(record.pop("op"), record, place, when)
        else:
            it = operations[name]
            it.ended, it.ended_at, it.outcome = place, when, at
            it.what.update(record)
    return list(operations.values())


@dataclass
class Expected:
    """What a store may look like, by its ledger."""

    # For each ref that was ever named: what it may stand for. None: it may be absent.
    refs: dict = field(default_factory=dict)
    # For each ref: the blobs that it surely needs, if it stands for this digest.
    wanted: dict = field(default_factory=dict)
    # Blobs that another tool wrote: sizes. For each ref that it named: what it stood for then.
    others: dict = field(default_factory=dict)
    named_by_others: dict = field(default_factory=dict)
    # Those of the blobs that a power cut may have left with other bytes, until the store names them.
    unsynced: set = field(default_factory=set)
    # Leases that are there: their trees. Those that may be: ids. How many of an unknown id may be.
    leases: dict = field(default_factory=dict)
    maybe_leases: set = field(default_factory=set)
    unknown_leases: int = 0
    # Blobs that were put and that no collection may have removed.
    blobs: dict = field(default_factory=dict)
    # For each ref that was ever pinned: whether it may be so, and whether it may not be.
    pins: dict = field(default_factory=dict)
    # For each image that was touched: since when it surely counts as used.
    used: dict = field(default_factory=dict)
    # When power was cut, if it was.
    cut: float | None = None
    # For each setting: what it may say.
    settings: dict = field(default_factory=dict)


# A use is not synced. So many seconds after it the kernel has written it out: within half a minute,
# and a moment for what is busy.
WRITTEN_OUT = 35


def expected(operations, now=None, cut=None):
    """What is admissible after these operations; where power was `cut` then, also without the last uses."""
    now = time.time() if now is None else now
    result = Expected(cut=cut)
    _refs(operations, result)
    for it in operations:
        if it.op == "loose":
            result.others.update(it.what["blobs"])
            result.unsynced.update(it.what["blobs"])
    _leases(operations, result, now)
    _puts(operations, result, now)
    _notes(operations, result)
    return result


def _changes(operations, *kinds, of="ref"):
    """Operations of these kinds, by what they are about."""
    changes = {}
    for it in operations:
        if it.op in kinds:
            changes.setdefault(it.what[of], []).append(it)
    return changes


def _last(all_of_it):
    """Those of which one has the last word, and whether any was acknowledged: such a one undoes
    whatever had ended before it began."""
    done = [it for it in all_of_it if it.is_done]
    return [it for it in all_of_it if not any(it.is_before(other) for other in done)], done


def _refs(operations, result):
    evictions = [it for it in operations if it.op == "gc" and it.what.get("evicts")]
    pins = _changes(operations, "pin", "unpin", "rm")
    for ref, all_of_it in pins.items():
        last, done = _last(all_of_it)
        result.pins[ref] = {it.op == "pin" for it in last} | (set() if done else {False})
    for ref, all_of_it in _changes(operations, "pull", "tag", "rm", "other").items():
        last, done = _last(all_of_it)
        result.refs[ref] = {it.what.get("digest") for it in last}
        # Whatever is not pinned may be dropped, with all that it is made of.
        drops = [it for it in evictions if not _is_pinned(pins.get(ref, ()), it)]
        if not done or any(not any(it.is_before(other) for other in done) for it in drops):
            result.refs[ref].add(None)
        for it in last:
            if it.is_done and "wanted" in it.what:
                wanted = result.wanted.setdefault((ref, it.what["digest"]), {})
                wanted.update(it.what["wanted"])
            if it.op == "other":
                result.others.update(it.what["blobs"])
                result.named_by_others.setdefault(ref, set()).add(it.what["digest"])


def _is_pinned(changes, eviction):
    """Whether a ref is pinned from before this begins until after it has ended."""
    pins = [it for it in changes if it.op == "pin" and it.is_done and it.is_before(eviction)]
    others = [it for it in changes if it.op != "pin"]
    return any(all(it.is_before(pin) or eviction.is_before(it) for it in others) for pin in pins)


def _leases(operations, result, now):
    removals = {it.what["lease"]: it for it in operations if it.op == "lease-rm"}
    for it in operations:
        if it.op != "lease-add":
            continue
        if not it.is_done:
            result.unknown_leases += 1
            continue
        name = it.what["lease"]
        removal = removals.get(name)
        is_over = it.what.get("until") is not None and it.what["until"] <= now
        if removal is None and not is_over:
            result.leases[name] = it.what["trees"]
        elif removal is None or not removal.is_done:
            result.maybe_leases.add(name)


def _puts(operations, result, now):
    collections = [it for it in operations if it.op == "gc"]
    for it in operations:
        if it.op != "put" or not it.is_done:
            continue

        def may_remove(gc):
            end = now if gc.ended_at is None else gc.ended_at
            return not gc.is_before(it) and end - it.began_at >= gc.what["grace"]

        if not any(may_remove(gc) for gc in collections):
            result.blobs[it.what["digest"]] = it.what["size"]


def _notes(operations, result):
    for digest, all_of_it in _changes(operations, "touch", of="digest").items():
        done = [it.began_at for it in all_of_it if it.is_done]
        if result.cut is not None:
            done = [at for at in done if at <= result.cut - WRITTEN_OUT]
        if done:
            result.used[digest] = max(done)
    for key, all_of_it in _changes(operations, "config", of="key").items():
        last, done = _last(all_of_it)
        result.settings[key] = {it.what["value"] for it in last} | (set() if done else {None})
