"""What has to come before what in any trace, whatever the command: rules as those of trace_rules.py."""

import os
import re

NAMING = ("renameat", "renameat2", "linkat")
WRITING = ("write", "writev", "pwrite64", "pwritev", "ftruncate", "fchmod")
# Folders of what is no promise, is derived, or was damaged when it came there.
UNSYNCED = (
    "parts", "leases", "trash", "hosts", "outboard", "suspect", "origins", "quarantine", "used",
)
BLOB = re.compile(r"(.*)/blobs/(sha256|sha512|blake3)/([0-9a-f]{64,128})")
# Not the line of a holder, who may be called so.
PIN = re.compile("(blob|tree) (sha256|sha512|blake3):([0-9a-f]+)")


def in_blobs(path):
    return BLOB.fullmatch(path)


def bytes_before_name(trace):
    """A name stands for bytes that are on disk: written, synced, then named. Parts and leases are
    no promise to anybody, and the trash even less. What is derived may be torn, and is compared."""
    for name in trace.of(*NAMING):
        folder = re.search(r"/\.layerstore/(\w+)/", name.path)
        if folder and folder[1] in UNSYNCED:
            continue
        if name.path.startswith(os.path.dirname(name.source) + "/.new-"):
            continue
        source = first_of(trace, name)
        written = [it.end for it in trace.of(*WRITING, path=source, before=name.begin)]
        opened = [it.end for it in trace.of("open", "openat", path=source, before=name.begin)]
        if not trace.synced(source, max(written + opened, default=-1), name.begin):
            yield f"{name.path} got its name before its bytes were synced"


def first_of(trace, name):
    """What the file was called before: one without a name that replaces another comes by a hidden one."""
    if "/.new-" in name.source:
        for link in trace.of("linkat", path=name.source, before=name.begin):
            return link.source
    return name.source


def directories_last(trace):
    """A new directory's name is durable before anything in it is promised. What processes agree on
    about hosts is no promise, nor is what is derived from blobs."""
    for made in trace.of("mkdirat"):
        if re.search(r"/\.layerstore/(hosts|outboard|suspect|origins|used)(/|$)", made.path):
            continue
        if not trace.synced(os.path.dirname(made.path), made.end, promise(trace, made.end)):
            yield f"the directory {made.path} was promised before its name was synced"


def blobs_promised(trace):
    """Names of blobs are durable before a ref, a lease or the end of the command promises them."""
    for name in trace.of(*NAMING):
        blob = in_blobs(name.path)
        if blob and not trace.synced(os.path.dirname(name.path), name.end, promise(trace, name.end)):
            yield f"{name.path} was promised before its name was synced"


def promise(trace, after):
    """The line of the first thing after another that somebody may rely on."""
    for name in trace.of(*NAMING, after=after):
        # An index.json that is linked is the empty one of a store in the making.
        is_ref = name.path.endswith("/index.json") and name.name != "linkat"
        if is_ref or name.path.endswith("/.layerstore/version"):
            return name.begin
    return trace.end


def leases_born_locked(trace):
    """A lease is locked before it has a name."""
    for name in trace.of(*NAMING):
        if "/.layerstore/leases/" in name.path:
            locks = trace.of("flock", path=name.source, before=name.begin)
            if not any("LOCK_EX" in it.text for it in locks):
                yield f"{name.path} got its name before it was locked"


def index_is_durable(trace):
    """Whoever changes index.json syncs the root after."""
    for name in trace.of(*NAMING):
        root, last = os.path.split(name.path)
        if last == "index.json" and not trace.synced(root, name.end, trace.end):
            yield "the command ended before the new index.json was durable"


def copy_is_durable(trace):
    """So is the copy of index.json, which stands in for it should it be lost."""
    for name in trace.of(*NAMING):
        private, last = os.path.split(name.path)
        if last == "refs" and private.endswith("/.layerstore"):
            if not trace.synced(private, name.end, trace.end):
                yield "the command ended before the copy of index.json was durable"


def status_after_sync(trace):
    """Whoever syncs a file asks the file system at once whether it is still there: XFS, once it has shut
    down, has nothing to sync."""
    for sync in trace.of("fsync"):
        following = (it for it in trace.calls if it.thread == sync.thread and it.begin > sync.end)
        call = next(following, None)
        if call is None or (call.name, call.path, call.fd) != ("fstat", sync.path, sync.fd):
            yield f"{sync.path} was synced, and its file system not asked for anything after"


def pinned_inside_the_gate(trace):
    """Pins are written, and then looked for, while the gate is entered."""
    entered = list(trace.held("gate", "LOCK_SH"))
    for pin in trace.of("write"):
        if "/.layerstore/leases/" not in pin.path or not PIN.search(pin.text):
            continue
        inside = during(entered, pin)
        if inside is None:
            yield "something was pinned outside the gate"
            continue
        for kind, folder, name in PIN.findall(pin.text):
            # A tree that is there was found before it is pinned, and is looked at later by its pin.
            if kind == "tree":
                continue
            looks = trace.of("newfstatat", after=pin.end)
            look = next((it for it in looks if it.path.endswith(f"/blobs/{folder}/{name}")), None)
            if look and look.end >= inside[1]:
                yield f"{look.path} was looked for outside the gate in which it was pinned"


def index_is_locked(trace):
    """index.json, or the copy of one that is lost, is read and then replaced under its lock."""
    locked = list(trace.held("index", "LOCK_EX"))
    for name in trace.of(*NAMING):
        # An index.json that is linked is the empty one of a store in the making.
        if not name.path.endswith("/index.json") or name.name == "linkat":
            continue
        inside = during(locked, name)
        if inside is None:
            yield "index.json was replaced without its lock"
            continue
        reads = trace.of("openat", after=inside[0], before=name.begin)
        copy = os.path.join(os.path.dirname(name.path), ".layerstore/refs")
        if not any(it.path in (name.path, copy) for it in reads):
            yield "index.json was replaced by what was read before it was locked"


def removed_with_the_gate_shut(trace):
    """A blob goes only while the gate is shut, and after what leases pin was looked at since."""
    shut = list(trace.held("gate", "LOCK_EX"))
    for gone in trace.of("unlinkat", *NAMING):
        blob = gone.path if gone.name == "unlinkat" else gone.source
        if not in_blobs(blob):
            continue
        inside = during(shut, gone)
        if inside is None:
            yield f"{blob} was removed while the gate was not shut"
            continue
        looks = trace.of("getdents64", after=inside[0], before=gone.begin)
        if not any(it.path.endswith("/.layerstore/leases") for it in looks):
            yield f"{blob} was removed with no look at the leases after the gate was shut"


def during(held, call):
    """The first of some spans of lines that a call lies in."""
    return next((it for it in held if it[0] < call.begin and call.end < it[1]), None)
