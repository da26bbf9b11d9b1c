"""Other tools on a store: whether skopeo and umoci, which know nothing of this one, read what it
names."""

import json
import os
import shutil
import subprocess
import tempfile

import layout
from layout import Damage

TOOLS = ("skopeo", "umoci")
# After how many crashes of one operation a store is read so: a reading of all images takes as long as
# several commands of the store.
EVERY = 16


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
    if raw is None or value is None or "manifests" in value:
        return problems
    if json.loads(raw) != value:
        problems.append(f"skopeo shows another manifest of {name}")
    if "image.config" in value["config"].get("mediaType", ""):
        with tempfile.TemporaryDirectory() as target:
            copy = ["skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{image}"]
            _said([*copy, f"dir:{target}/image"], problems)
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
    """Reads a store in one of so many cases, and counts."""

    def __init__(self, every=EVERY, skipped=0):
        self.every, self.skipped = every, skipped
        self.runs = self.faults = 0

    def look(self, root):
        """What is wrong, if it is this store's turn and there is something to be read."""
        self.skipped += 1
        if self.skipped < self.every or lacking() or not os.path.exists(f"{root}/index.json"):
            return []
        images, problems = read(root)
        if images:
            self.skipped = 0
            self.runs += 1
            self.faults += len(problems)
        return [f"reader: {it}" for it in problems]

    def line(self):
        """The figure, or why there is none."""
        if lacking():
            return f"NOT RUN  second readers: {' and '.join(lacking())} are not installed"
        return f"second readers: {self.runs} runs, faults: {self.faults}"
