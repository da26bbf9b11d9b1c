#!/usr/bin/env python3
"""The order of writes, syncs and names that docs/protocol.md promises, as rules over a trace.

    trace_rules.py OPERATION TRACE

OPERATION is what the traced command did: init, pull, put, tag, rm, repair, quarantine, lease-add,
lease-rm, gc, logout, config, library; with `-others` after it where blobs of another program were there.
Prints what is broken, a line each. A power cut finds a missing sync only where the file system has
not made things durable of itself; these rules find it on any.
"""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import trace as traces  # noqa: E402
from trace_order import (  # noqa: E402
    NAMING, PIN, blobs_promised, bytes_before_name, copy_is_durable, directories_last, in_blobs,
    index_is_durable, index_is_locked, leases_born_locked, pinned_inside_the_gate, promise,
    removed_with_the_gate_shut, status_after_sync,
)  # fmt: skip

# A mode as strace shows it, of a blob that this program has synced.
OWN_BLOB = ("S_ISVTX|", "444")


def broken(operation, trace):
    """What a trace breaks."""
    found = []
    # A check that had to put something away ends with 3.
    if trace.exit_code != (3 if operation == "quarantine" else 0):
        return [f"the command failed with exit code {trace.exit_code}"]
    for rule in (*EVERYWHERE, *RULES.get(operation, ())):
        found += [f"{rule.__name__}: {it}" for it in rule(trace)]
    return found


# --- By command -------------------------------------------------------------------------------


def store_is_whole(trace):
    """All that a store is made of is durable before `version` says that it is there, and that is
    durable at the end."""
    version = next((it for it in trace.of(*NAMING) if it.path.endswith("/version")), None)
    if version is None:
        yield "no store was made"
        return
    private = os.path.dirname(version.path)
    root = os.path.dirname(private)
    created = [it for it in trace.of("openat", before=version.begin) if "O_CREAT" in it.text]
    for made in [*created, *trace.of(*NAMING, before=version.begin)]:
        if made.path.startswith(root + "/"):
            folder = os.path.dirname(made.path)
            if not trace.synced(folder, made.end, version.begin):
                yield f"{made.path} was not durable before the file version"
    if not trace.synced(private, version.end, trace.end):
        yield "the command ended before the file version was durable"


def found_is_durable(trace):
    """Whoever makes something in a directory that was there makes the name of that durable: who made
    it may not have come so far."""
    made = next(trace.of("mkdirat"), None)
    version = next((it for it in trace.of(*NAMING) if it.path.endswith("/version")), None)
    if made is None or version is None:
        yield "nothing was made"
    elif not trace.synced(os.path.dirname(os.path.dirname(made.path)), 0, version.begin):
        yield f"the name of {os.path.dirname(made.path)} was not durable before the file version"


def folders_are_durable(trace):
    """The names of the folders of blobs are durable before anything in them is promised."""
    pins = [it for it in trace.of("write") if "/.layerstore/leases/" in it.path]
    if not pins:
        yield "nothing was pinned"
        return
    root = pins[0].path.split("/.layerstore/")[0]
    for path in (root, f"{root}/blobs"):
        if not trace.synced(path, pins[0].end, promise(trace, pins[0].end)):
            yield f"what {path} names was not durable before it was relied on"


def store_is_durable(trace):
    """Whoever finds a store makes it durable before relying on it: its maker may not have come so far."""
    lease = next((it for it in trace.of(*NAMING) if "/.layerstore/leases/" in it.path), None)
    if lease is None:
        return
    private = lease.path.partition("/.layerstore/")[0] + "/.layerstore"
    if not trace.synced(private, 0, lease.begin):
        yield f"{private} was not durable before it was relied on"


def pinned_before_looked(trace):
    """No blob is looked for before a lease pins it."""
    appended = [it for it in trace.of("write") if "/.layerstore/leases/" in it.path]
    for look in trace.of("newfstatat"):
        blob = in_blobs(look.path)
        if not blob:
            continue
        pins = [it for it in appended if it.end < look.begin and PIN.search(it.text)]
        if not pins:
            yield f"{look.path} was looked for before anything was pinned"
            return


def all_pinned_before_looked(trace):
    """No blob is looked for before a lease pins this very blob."""
    appended = [it for it in trace.of("write") if "/.layerstore/leases/" in it.path]
    for look in trace.of("newfstatat"):
        blob = in_blobs(look.path)
        if blob:
            digest = f"{blob.group(2)}:{blob.group(3)}"
            if not any(it.end < look.begin and digest in it.text for it in appended):
                yield f"{look.path} was looked for before it was pinned"


def found_blobs_promised(trace):
    """Blobs that somebody else may have named a moment ago are made durable too: after the last
    pin, and before the ref or the end."""
    appended = [
        it for it in trace.of("write")
        if "/.layerstore/leases/" in it.path and PIN.search(it.text)
    ]
    if not appended:
        yield "nothing was pinned"
        return
    last = appended[-1]
    root = last.path.split("/.layerstore/")[0]
    folders = re.findall("(?:blob|tree) (sha256|sha512|blake3):", " ".join(it.text for it in appended))
    end = promise(trace, last.end)
    for folder in sorted(set(folders)):
        if not trace.synced(f"{root}/blobs/{folder}", last.end, end):
            yield f"blobs/{folder} was not synced between the last pin and the promise"


def root_synced(trace):
    """Also where index.json was as it should be already: who wrote it may not have synced yet."""
    reads = [it for it in trace.of("openat") if it.path.endswith("/index.json")]
    if not reads:
        yield "index.json was not read"
    elif not trace.synced(os.path.dirname(reads[-1].path), reads[-1].end, trace.end):
        yield "the root was not synced after index.json was read last"


def index_synced(trace):
    """What is left as it was found is synced too: another tool may have written it."""
    reads = [it for it in trace.of("openat") if it.path.endswith("/index.json")]
    if reads:
        path, read = reads[-1].path, reads[-1]
        replaced = any(trace.of(*NAMING, path=path, after=read.begin))
        if not replaced and not trace.synced(path, read.begin, trace.end):
            yield "index.json was neither replaced nor synced after it was read last"


def bytes_of_others_promised(trace):
    """A blob that another program wrote, as its mode says, is replaced before anything promises it,
    and is not synced itself: should that fail, the next sync of the same file would succeed."""
    seen = {}
    for look in trace.of("newfstatat"):
        mode = re.search(r"S_IFREG\|(S_ISVTX\|)?0(\d+)", look.text)
        if in_blobs(look.path) and mode and mode.groups() != OWN_BLOB:
            seen.setdefault(look.path, look)
    if not seen:
        yield "no blob of another program was looked at"
    for path, look in seen.items():
        end = promise(trace, look.end)
        replaced = next(iter(trace.of(*NAMING, path=path, after=look.end, before=end)), None)
        if replaced is None:
            yield f"{path} was promised, and another program may not have synced it"
        elif trace.synced(path, look.end, replaced.begin):
            yield f"{path} was synced where another program had written it"


def lasting_lease(trace):
    """A lease that lasts is durable, bytes and name, before its id is given out."""
    for name in trace.of(*NAMING):
        if "/.layerstore/leases/" not in name.path:
            continue
        written = [it.end for it in trace.of("write", path=name.source)]
        if not trace.synced(name.source, max(written, default=-1), trace.end):
            yield "the lease was given out before its bytes were synced"
        folder = os.path.dirname(name.path)
        if not trace.synced(folder, name.end, trace.end):
            yield "the lease was given out before its name was synced"
        if not trace.synced(os.path.dirname(folder), 0, trace.end):
            yield "the lease was given out before the folder of leases was durable"
        return
    yield "no lease was made"


def removed_lease(trace):
    for it in trace.of("unlinkat"):
        if "/.layerstore/leases/" in it.path:
            if not trace.synced(os.path.dirname(it.path), it.end, trace.end):
                yield "the removal of the lease was not synced"
            return
    yield "no lease was removed"


def removal_after_durable_refs(trace):
    """G1 before G2, and G2 in the order read, sync: nothing is removed for the sake of an
    index.json that a power cut could take back."""
    reads = [it for it in trace.of("openat") if it.path.endswith("/index.json")]
    removals = [
        it for it in trace.of("unlinkat", "renameat")
        if in_blobs(it.path) or in_blobs(it.source)
    ]
    if not reads or not removals:
        yield "nothing was collected"
        return
    read, first = reads[0], min(it.begin for it in removals)
    root = os.path.dirname(read.path)
    for path in (read.path, root):
        if not trace.synced(path, read.end, first):
            yield f"{path} was not synced between its reading and the first removal"
    for it in trace.of("unlinkat", after=read.begin):
        if "/.layerstore/leases/" in it.path:
            yield "a lease was removed after the refs were read"


def change_is_durable(trace):
    """Credentials that were forgotten stay so, and settings."""
    names = list(trace.of(*NAMING))
    if not names:
        yield "nothing was changed"
    for name in names:
        if not trace.synced(os.path.dirname(name.path), name.end, trace.end):
            yield f"the command ended before {name.path} was durable"


def commits_are_durable(trace):
    """Each commit has ended, durable, before the next begins."""
    names = [it for it in trace.of(*NAMING) if in_blobs(it.path)]
    if not names:
        yield "nothing was committed"
    for name, following in zip(names, [*names[1:], None]):
        end = following.begin if following else trace.end
        if not trace.synced(os.path.dirname(name.path), name.end, end):
            yield f"{name.path} was not durable when the next blob got its name"


def mended(trace):
    """What was mended has a durable name at the end, and so has index.json."""
    names = [it for it in trace.of(*NAMING) if in_blobs(it.path)]
    if not names:
        yield "nothing was mended"
    if not any(it.path.endswith("/index.json") for it in trace.of(*NAMING)):
        yield "index.json was not rebuilt"


def moved_is_durable(trace):
    """Of what was put in quarantine neither name is lost by a power cut, nor is it back."""
    moved = [it for it in trace.of(*NAMING) if in_blobs(it.source) and "/quarantine/" in it.path]
    if not moved:
        yield "nothing was put in quarantine"
    for name in moved:
        for folder in (os.path.dirname(name.path), os.path.dirname(name.source)):
            if not trace.synced(folder, name.end, trace.end):
                yield f"the command ended before {folder} was synced"


EVERYWHERE = (
    bytes_before_name, directories_last, blobs_promised, leases_born_locked, index_is_durable,
    copy_is_durable, status_after_sync, pinned_inside_the_gate, index_is_locked,
)
RULES = {
    "init": (store_is_whole, found_is_durable),
    "pull": (
        store_is_durable, folders_are_durable, all_pinned_before_looked, found_blobs_promised, root_synced,
        index_synced, removed_with_the_gate_shut,
    ),
    "put": (
        store_is_durable, folders_are_durable, all_pinned_before_looked, found_blobs_promised,
        removed_with_the_gate_shut,
    ),
    "tag": (folders_are_durable, pinned_before_looked, found_blobs_promised, root_synced, index_synced),
    "rm": (root_synced,),
    "lease-add": (folders_are_durable, pinned_before_looked, found_blobs_promised, lasting_lease),
    "lease-rm": (removed_lease,),
    "repair": (mended, removed_with_the_gate_shut),
    "quarantine": (moved_is_durable, removed_with_the_gate_shut),
    "gc": (removal_after_durable_refs, removed_with_the_gate_shut),
    "logout": (change_is_durable,),
    "config": (change_is_durable,),
    "library": (commits_are_durable,),
}
# The same commands where another program wrote the blobs.
RULES |= {f"{it}-others": (*RULES[it], bytes_of_others_promised) for it in ("pull", "put", "tag", "lease-add")}


def main():
    operation, path = sys.argv[1:]
    found = broken(operation, traces.read(path))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
