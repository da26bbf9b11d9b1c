"""Other tools on a store: whether skopeo and umoci, which know nothing of this one, read what it
names."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile

import layout
from layout import Damage

TOOLS = ("skopeo", "umoci")


def lacking():
    """Which of the tools are not installed."""
    return [it for it in TOOLS if shutil.which(it) is None]


def read(root):
    """skopeo copies each image, which hashes it, and umoci reads its history: how many images there
    were, and what was wrong."""
    try:
        named = layout.refs(root)
    except (Damage, OSError):
        return 0, []
    problems = []
    for name, descriptor in named.items():
        problems += _read_image(root, name, descriptor)
    return len(named), problems


def _read_image(root, name, descriptor):
    image, problems = f"{root}:{name}", []
    raw = _said(["skopeo", "inspect", "--raw", f"oci:{image}"], problems)
    value = layout.document(root, descriptor["digest"])
    if raw is None or value is None:
        return problems
    if json.loads(raw) != value:
        problems.append(f"skopeo shows another manifest of {name}")
    is_image = "image.config" in value.get("config", {}).get("mediaType", "")
    if is_image or "manifests" in value:
        # Of an index, the platform that was pulled.
        platform = ["--override-os", "linux", "--override-arch", "amd64"]
        with tempfile.TemporaryDirectory() as target:
            copy = ["skopeo", *platform, "copy", "--quiet", "--insecure-policy", f"oci:{image}"]
            _said([*copy, f"dir:{target}/image"], problems)
    if is_image:
        _said(["umoci", "stat", "--json", "--image", image], problems)
    return problems


def _said(command, problems):
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        problems.append(f"{command[0]} is not installed")
        return None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        problems.append(f"{' '.join(command)}: {' '.join(said)}")
        return None
    return done.stdout


class Readers:
    """Has every store read, and counts. Of stores that are the same to the last byte, which a crash
    often leaves, one is read: the tools see nothing else of a store than what is compared here."""

    def __init__(self):
        self.good = set()
        self.stores = self.runs = self.faults = 0

    def look(self, root):
        """What the tools find wrong with a store, if it names anything."""
        if lacking() or not os.path.exists(f"{root}/index.json"):
            return []
        seen = all_of(root)
        if seen in self.good:
            self.stores += 1
            return []
        images, problems = read(root)
        self.stores += images > 0
        self.runs += images > 0
        self.faults += len(problems)
        if images and not problems:
            self.good.add(seen)
        return [f"reader: {it}" for it in problems]

    def taken(self):
        """How many stores were read since this was asked last, how many of them by the tools, and what
        was wrong."""
        counts = self.stores, self.runs, self.faults
        self.stores = self.runs = self.faults = 0
        return counts

    def add(self, counts):
        """Adds what another has counted."""
        self.stores, self.runs, self.faults = map(sum, zip(counts, self.taken()))

    def line(self):
        """The figure, or why there is none."""
        if lacking():
            return f"NOT RUN  second readers: {' and '.join(lacking())} are not installed"
        read = f"{self.stores} stores, {self.runs} of them read and the others equal to one of these"
        return f"second readers: {read}, faults: {self.faults}"


def all_of(root):
    """A digest of all that an OCI image layout is: names, modes and bytes."""
    seen = hashlib.sha256()
    paths = [os.path.join(root, name) for name in ("oci-layout", "index.json")]
    paths = [path for path in paths if os.path.lexists(path)]
    for folder, folders, names in os.walk(os.path.join(root, "blobs")):
        folders.sort()
        paths += [os.path.join(folder, name) for name in [*folders, *names]]
    for path in sorted(paths):
        found = os.lstat(path)
        seen.update(f"{os.path.relpath(path, root)} {found.st_mode} {found.st_size}\n".encode())
        if stat.S_ISLNK(found.st_mode):
            seen.update(os.readlink(path).encode())
        if stat.S_ISREG(found.st_mode):
            with open(path, "rb") as file:
                seen.update(hashlib.file_digest(file, "sha256").digest())
    return seen.hexdigest()
