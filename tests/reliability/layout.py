"""A store as docs/format.md describes it, read with nothing but the standard library."""

import fcntl
import hashlib
import json
import os
import re
import stat
import zlib
from dataclasses import dataclass, field

HEX = {"sha256": 64, "sha512": 128, "blake3": 64}
LOCKS = ("gc", "turn", "gate", "index", "space")
REF_NAME = "org.opencontainers.image.ref.name"
PINNED = "layerstore.pinned"
# The mode of a blob that the store has synced, as docs/format.md has it; any other is another tool's.
OWN_BLOB = 0o1444
# Those that skopeo, umoci and oras give.
BLOBS_OF_OTHERS = (0o644, 0o600, 0o444)
# The OCI image specification and Docker's: what leads to other documents, and what to blobs.
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
HIDDEN = ".new-"
MAX_DOCUMENT = 4 * 1024 * 1024


class Damage(Exception):
    """Something is not what the format says."""


def is_digest(text):
    algorithm, _, rest = text.partition(":")
    return bool(re.fullmatch(r"[0-9a-f]+", rest)) and len(rest) == HEX.get(algorithm)


def blob_path(root, digest):
    if not isinstance(digest, str) or not is_digest(digest):
        raise Damage(f"{digest!r} is no digest")
    algorithm, _, rest = digest.partition(":")
    return os.path.join(root, "blobs", algorithm, rest)


def hash_file(path, algorithm):
    """The hex digest; None where hashlib has no such hash."""
    if algorithm not in ("sha256", "sha512"):
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def is_whole(root, digest):
    algorithm, _, name = digest.partition(":")
    return hash_file(blob_path(root, digest), algorithm) == name


def listing(folder):
    """Names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def look(path):
    """lstat; None if nothing has this name."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def blobs(root):
    """What lies under blobs/ with a digest's name: sizes by digest."""
    found = {}
    for algorithm in HEX:
        for name in listing(os.path.join(root, "blobs", algorithm)):
            # One that went since it was listed was collected.
            it = look(os.path.join(root, "blobs", algorithm, name))
            if it is not None and is_digest(f"{algorithm}:{name}"):
                found[f"{algorithm}:{name}"] = it.st_size
    return found


def used(root):
    """What a store takes on disk, in bytes, as `du` counts."""
    paths = [os.path.join(at, it) for at, folders, files in os.walk(root) for it in folders + files]
    return sum(os.lstat(path).st_blocks for path in [root, *paths]) * 512


def hidden(root):
    """The files that somebody was writing, by their names, which no reader looks at."""
    everywhere = (os.path.join(at, it) for at, _, files in os.walk(root) for it in files)
    return [it for it in everywhere if os.path.basename(it).startswith(HIDDEN)]


# --- Documents --------------------------------------------------------------------------------


def document(root, digest):
    """The parsed bytes of a blob that may be an index or a manifest; None if it is neither."""
    path = blob_path(root, digest)
    try:
        if os.lstat(path).st_size > MAX_DOCUMENT:
            return None
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return None
    if isinstance(value, dict) and ("layers" in value or "manifests" in value):
        return value
    return None


def index(root):
    """index.json, parsed."""
    path = os.path.join(root, "index.json")
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError) as error:
        raise Damage(f"index.json: {error}") from error
    if not isinstance(value, dict) or value.get("schemaVersion") != 2:
        raise Damage("index.json: it is no image index")
    if not isinstance(value.get("manifests"), list):
        raise Damage("index.json: it has no manifests")
    return value


def copied_refs(root):
    """What the copy of index.json says, by name; None if there is no copy."""
    try:
        with open(os.path.join(root, ".layerstore/refs"), "rb") as file:
            line, _, body = file.read().partition(b"\n")
    except FileNotFoundError:
        return None
    (heading,) = [*sealed_lines(line + b"\n")] or [None]
    matched = re.fullmatch(r"refs blake3:[0-9a-f]{64} (\d+)", heading or "")
    if not matched or int(matched[1]) != len(body):
        raise Damage(".layerstore/refs: its first line is not that of what follows")
    try:
        return named(json.loads(body))
    except (ValueError, KeyError, TypeError) as error:
        raise Damage(f".layerstore/refs: {error}") from error


def refs(root):
    """The descriptors in index.json that have a name, by name."""
    return named(index(root))


def named(value):
    found = {}
    for descriptor in value["manifests"]:
        name = descriptor.get("annotations", {}).get(REF_NAME)
        if name is None:
            continue
        if name in found:
            raise Damage(f"index.json names {name} twice")
        found[name] = descriptor
    return found


def is_pinned(descriptor):
    return descriptor.get("annotations", {}).get(PINNED) == "true"


def is_foreign(descriptor):
    kind = descriptor.get("mediaType", "")
    return "nondistributable" in kind or ".foreign." in kind


def children(value):
    """The descriptors in a document, and whether each has to be there for it to be whole."""
    for descriptor in value.get("manifests", []):
        yield descriptor, False
    if "layers" in value:
        if "config" in value:
            yield value["config"], True
        for descriptor in value["layers"]:
            yield descriptor, not is_foreign(descriptor)


def reached(root, digest):
    """The digests that a root leads to, whether they are there or not, itself included."""
    seen, work = set(), [digest]
    while work:
        it = work.pop()
        if it in seen:
            continue
        seen.add(it)
        value = document(root, it)
        if value is not None:
            work.extend(child["digest"] for child, _ in children(value))
    return seen


def live(root, now):
    """What a collection has to leave, of the blobs that are there: what the refs and the lasting
    leases lead to, and the documents that are about any of these (`subject`)."""
    there = blobs(root)
    alive = set()
    for descriptor in index(root)["manifests"]:
        alive |= reached(root, descriptor["digest"])
    for lease in leases(root).values():
        if lease.lasts(now):
            alive.update(lease.blobs)
            for tree in lease.trees:
                alive |= reached(root, tree)
    subjects = {}
    for digest in there.keys() - alive:
        subject = (document(root, digest) or {}).get("subject")
        if subject:
            subjects.setdefault(subject["digest"], set()).add(digest)
    work = [it for it in subjects if it in alive]
    while work:
        for digest in subjects.pop(work.pop(), ()):
            gained = reached(root, digest) - alive
            alive |= gained
            work.extend(it for it in gained if it in subjects)
    return alive & there.keys()


# --- Leases and parts -------------------------------------------------------------------------


def sealed_lines(text):
    """The values of a text of lines `VALUE CRC`, the crc checked; None for one that is not good.
    A last line without its line feed is being written and left out."""
    for line in text.split(b"\n")[:-1]:
        value, _, crc = line.rpartition(b" ")
        good = re.fullmatch(rb"[0-9a-f]{8}", crc) and int(crc, 16) == zlib.crc32(value)
        yield value.decode("utf-8", "replace") if good else None


@dataclass
class Lease:
    """What a lease says."""

    blobs: set = field(default_factory=set)
    trees: set = field(default_factory=set)
    until: str | None = None

    def lasts(self, now):
        """Whether it outlives its process, until later than now."""
        return self.until is not None and (self.until == "never" or int(self.until) > now)


def lease(path):
    found = Lease()
    with open(path, "rb") as file:
        text = file.read()
    for line in sealed_lines(text):
        kind, _, value = (line or "").partition(" ")
        if kind == "blob" and is_digest(value):
            found.blobs.add(value)
        elif kind == "tree" and is_digest(value):
            found.trees.add(value)
        elif kind == "until" and (value == "never" or value.isdecimal()):
            found.until = value
        elif kind == "want" and re.fullmatch(r"\S+ [0-9]+", value) and is_digest(value.split()[0]):
            pass
        elif kind == "room" and value.isdecimal():
            pass
        elif kind != "holder":
            raise Damage(f"{path}: a line of a lease is {line!r}")
    return found


def leases(root):
    """All leases, by id."""
    folder = os.path.join(root, ".layerstore", "leases")
    found = {}
    for name in listing(folder):
        if re.fullmatch(r"[0-9a-f]{32}", name):
            found[name] = lease(os.path.join(folder, name))
    return found


def part_digest(name):
    """Whose part has this name; None for a name that no part has."""
    stem, _, kind = name.rpartition(".")
    algorithm, _, rest = stem.partition("-")
    digest = f"{algorithm}:{rest}"
    return digest if kind in ("part", "state", "lock") and is_digest(digest) else None


def part_bytes(root, digest):
    """How many bytes of a blob its part has, by its account or, without one, its length."""
    stem = os.path.join(root, ".layerstore", "parts", digest.replace(":", "-"))
    try:
        found = os.lstat(stem + ".part")
    except FileNotFoundError:
        return 0
    if found.st_nlink > 1:
        return 0
    try:
        with open(stem + ".state", "rb") as file:
            lines = [it for it in sealed_lines(file.read()) if it and it.startswith("bytes ")]
    except FileNotFoundError:
        lines = []
    if not lines:
        return found.st_size
    total = 0
    for piece in lines[-1].removeprefix("bytes ").split(","):
        if piece:
            start, _, end = piece.partition("-")
            total += max(0, min(int(end), found.st_size) - int(start))
    return total


def missing_bytes(root, wanted):
    """How much of these blobs, {digest: size}, still has to come. One that was marked, as its bytes are
    wrong or the disk does not give them, counts as missing."""
    there, marks = blobs(root), listing(os.path.join(root, ".layerstore/suspect"))
    there = {digest: size for digest, size in there.items() if digest.replace(":", "-") not in marks}
    lacking = (it for it in wanted.items() if there.get(it[0]) != it[1])
    return sum(max(0, size - part_bytes(root, digest)) for digest, size in lacking)


# --- Locks ------------------------------------------------------------------------------------


def locks():
    """Who holds a lock on a file, or waits for one: {inode: [(device, process)]}."""
    found = {}
    with open("/proc/locks", encoding="ascii") as file:
        for line in file:
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
            matched = re.search(r" (-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", line)
            if matched:
                pid, major, minor, inode = matched.groups()
                device = os.makedev(int(major, 16), int(minor, 16))
                found.setdefault(int(inode), []).append((device, int(pid)))
    return found


def lock_holder(path, held):
    """The process that holds a lock on this file, by `locks()`; None if nobody does.

    Some file systems (btrfs, overlay) show another device there than stat does: then the lock is
    tried."""
    found = os.lstat(path)
    for device, pid in held.get(found.st_ino, ()):
        if device == found.st_dev or is_flocked(path):
            return pid
    return None


def is_flocked(path):
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def is_of_others(found):
    """Whether another tool wrote a blob."""
    return stat.S_IMODE(found.st_mode) != OWN_BLOB


def is_regular(found):
    return stat.S_ISREG(found.st_mode)
