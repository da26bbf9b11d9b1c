#!/usr/bin/env python3
"""Plants each fault in the store, one at a time, and looks whether it is caught.

    faults.py [--states N]

Every line of the program that syncs something, keeps others out, or does one thing before another, is a
site (see src/sys/planted.rs). At each, the operation is left out, and put off until after the step that
it should come before. Each has to break a rule over a trace of system calls; those that power cuts can
find have to be found by N of them as well. Prints which by which, and how many.
"""

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import disks  # noqa: E402
import layout  # noqa: E402
import samples  # noqa: E402
import trace as traces  # noqa: E402
import trace_rules  # noqa: E402
from registry import Registry  # noqa: E402
from samples import KIB  # noqa: E402

PLANTED = os.path.join(disks.ROOT, "target/reliability/store-planted")
LIBRARY = os.path.join(disks.ROOT, "target/reliability/library-planted")
# Of the library's, those tests that commit parts; the command never commits one by itself.
LIBRARY_TESTS = ["each_algorithm_by_ingest_and_by_part"]
# What a site looks like. A Mutex is locked without an argument, and that is none.
SITE = re.compile(
    r"(?<!fn )(\.sync\(\)|\.lock\(LockMode|\bsys::append\(|\bsync_data\(|\.look_again\("
    r"|\.sync_names\(|\bLock::acquire\(.*\"(gate|index)\")"
)
# How sites of some kinds go wrong; the others both ways. A lock that is taken late is as good as left out,
# and so is a last look; a lease that is removed by nobody is no loss.
HOW = {"hold": ("omit",), "look": ("omit",), "removal": ("delay",)}


def build():
    """The command and a test of the library with planted faults; dependencies are the normal ones."""
    environment = {**os.environ, "RUSTC_WORKSPACE_WRAPPER": os.path.join(disks.HERE, "planted-rustc")}
    cargo = ["cargo", "build", "--locked", "--quiet", "--bin", "store"]
    subprocess.run(cargo, cwd=disks.ROOT, env=environment, check=True)
    os.makedirs(os.path.dirname(PLANTED), exist_ok=True)
    shutil.copy(os.path.join(disks.ROOT, "target/debug/store"), PLANTED)
    cargo = ["cargo", "test", "--locked", "--no-run", "--test", "store_algorithms"]
    done = subprocess.run(cargo, cwd=disks.ROOT, env=environment, check=True, capture_output=True)
    library = re.search(r"\((target/[^)]*)\)", done.stderr.decode()).group(1)
    shutil.copy(os.path.join(disks.ROOT, library), LIBRARY)
    # Both builds leave the command at the same place: put the normal one back.
    subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=disks.ROOT, check=True)


class Scene:
    """The commands that come by all sites, each on a store of its own making."""

    def __init__(self, space, server):
        self.space, self.server = space, server
        self.number = 0

    def operations(self, fault):
        """(operation, trace) of each command with a fault; what comes before it has none."""
        self.number += 1
        base = os.path.join(self.space, f"scene-{self.number}")
        os.makedirs(base)
        root = os.path.join(base, "some", "store")
        images = self.server.images.images
        image, digest = f"{self.server.host}/app:v1", images["app:v1"]["digest"]
        pull = ["pull", "--plain-http", image]

        def run(operation, *arguments, data=None, command=(PLANTED, "-q", "--root", root)):
            output = os.path.join(base, f"{operation}-{len(os.listdir(base))}")
            environment = {**os.environ, "HOME": base, "TMPDIR": base, "LAYERSTORE_PLANTED_FAULT": fault}
            done = traces.record([*command, *arguments], output, data, environment)
            return (operation, traces.read(output)), done

        def quietly(*arguments):
            subprocess.run([PLANTED, "-q", "--root", root, *arguments], check=True, capture_output=True)

        yield run("init", "init")[0]
        # A root that somebody else made.
        other = os.path.join(base, "other")
        os.mkdir(other)
        yield run("init", "init", command=(PLANTED, "-q", "--root", other))[0]
        yield run("pull", *pull)[0]
        yield run("pull", *pull)[0]
        self.break_off(root, images["app:v1"])
        yield run("pull", *pull)[0]
        yield run("put", "blob", "put", "-", data=b"one")[0]
        yield run("put", "blob", "put", "-", data=b"one")[0]
        yield run("put", "blob", "put", "--algorithm=sha512", "-", data=b"two")[0]
        several = [os.path.join(base, name) for name in ("three", "four", "five")]
        for path in several:
            with open(path, "w", encoding="ascii") as file:
                file.write(os.path.basename(path))
        yield run("put", "blob", "put", *several)[0]
        yield run("tag", "tag", image, "other:v1")[0]
        yield run("tag", "tag", image, "other:v1")[0]
        self.as_of_others(root)
        yield run("pull-others", *pull)[0]
        self.as_of_others(root)
        yield run("tag-others", "tag", image, "third:v1")[0]
        self.as_of_others(root)
        yield run("put-others", "blob", "put", "-", data=b"one")[0]
        yield run("put-others", "blob", "put", *several)[0]
        self.as_of_others(root)
        lease, done = run("lease-add-others", "lease", "add", digest)
        yield lease
        lease, done = run("lease-add", "lease", "add", digest)
        yield lease
        yield run("lease-rm", "lease", "rm", done.stdout.decode().strip() or "none")[0]
        yield run("rm", "rm", "other:v1")[0]
        yield run("config", "config", "keep-duration", "1h")[0]
        mend = ["check", "--repair", "--plain-http", self.server.host]
        os.unlink(os.path.join(root, "index.json"))
        self.flip(root, images["app:v1"])
        yield run("repair", *mend)[0]
        samples.write(os.path.join(root, "blobs/sha256", "0" * 64), b"not its bytes", layout.OWN_BLOB)
        yield run("quarantine", *mend)[0]
        quietly("rm", image, "third:v1")
        # Of a process that has ended.
        samples.write(os.path.join(root, ".layerstore/leases", "e" * 32), b"", 0o600)
        yield run("gc", "gc", "--grace=0s")[0]
        credentials = os.path.join(base, "auth.json")
        with open(credentials, "w", encoding="ascii") as file:
            file.write('{"auths":{"a.example":{"auth":"YTpi"}}}')
        yield run("logout", "logout", "--authfile", credentials, "a.example")[0]
        yield run("library", "--test-threads=1", *LIBRARY_TESTS, command=(LIBRARY,))[0]
        shutil.rmtree(base)

    def as_of_others(self, root):
        """As if another tool had written the blobs."""
        for folder, _, names in os.walk(os.path.join(root, "blobs")):
            for name, mode in zip(sorted(names), itertools.cycle(layout.BLOBS_OF_OTHERS)):
                os.chmod(os.path.join(folder, name), mode)

    def flip(self, root, image):
        """As if the disk had changed a byte of a layer."""
        largest = max(self.server.images.closure(image).items(), key=lambda it: it[1])[0]
        path = os.path.join(root, "blobs", largest.replace(":", "/"))
        os.unlink(path)
        data = bytearray(self.server.images.blobs[largest])
        data[100_000] ^= 1
        samples.write(path, bytes(data), layout.OWN_BLOB)

    def break_off(self, root, image):
        """As if a pull had been killed in the middle of a layer."""
        largest = max(self.server.images.closure(image).items(), key=lambda it: it[1])[0]
        os.unlink(os.path.join(root, "blobs", largest.replace(":", "/")))
        samples.add_part(root, largest, self.server.images.blobs[largest][: 20 * KIB])


def sites(scene):
    """The sites that the commands come by, in the order of the source; a whole program breaks no
    rule, and every site of the source is come by."""
    kinds = {}
    for operation, trace in scene.operations(""):
        for line in trace_rules.broken(operation, trace):
            raise SystemExit(f"without a fault, {operation} breaks a rule: {line}")
        for _, kind, site in trace.sites:
            # An owner removes its lease when all is done, and may do so when it likes.
            if kind != "removal" or operation == "gc":
                kinds[site] = kind
    missed = [it for it in in_source() if it not in kinds]
    if missed:
        raise SystemExit(f"no command comes by {', '.join(missed)}")
    if "removal" not in kinds.values():
        raise SystemExit("no collection removes a lease")
    return dict(sorted(kinds.items(), key=lambda it: (it[0].split(":")[0], int(it[0].split(":")[1]))))


def in_source():
    """FILE:LINE of what makes something durable, or comes before another thing. What a function
    with `track_caller` does counts where it is called."""
    for folder, _, names in os.walk(os.path.join(disks.ROOT, "src")):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), disks.ROOT)
            with open(os.path.join(disks.ROOT, path), encoding="utf-8") as file:
                text = file.read().split("#[cfg(test)]\nmod tests")[0]
            attribute, is_passed_on = "", False
            for place, line in enumerate(text.split("\n"), 1):
                if re.match(r" *(pub(\(\w+\))? )?fn ", line):
                    is_passed_on = "track_caller" in attribute
                attribute = line
                if SITE.search(line.split("//")[0]) and not is_passed_on:
                    yield f"{path}:{place}"


def function_of(site):
    """The function that a site is in, for people."""
    path, line = site.split(":")
    with open(os.path.join(disks.ROOT, path), encoding="utf-8") as file:
        before = file.read().split("\n")[: int(line)]
    names = (re.search(r"\bfn (\w+)", it) for it in reversed(before))
    name = next(it for it in names if it)
    return f"{path.removeprefix('src/').removesuffix('.rs')}::{name.group(1)}"


def caught_by_trace(scene, fault):
    """What rules a fault breaks, by command; None if the fault did not come about."""
    came, broken = False, []
    for operation, trace in scene.operations(fault):
        came = came or any(how != "passed" for how, _, _ in trace.sites)
        found = trace_rules.broken(operation, trace)
        # That a command fails is no rule.
        broken += [f"{operation}: {it}" for it in found if not it.startswith("the command failed")]
    return broken if came else None


def power():
    """Faults that power cuts have to catch too: (fault, harness, file system)."""
    function = {}
    for site in in_source():
        function.setdefault(function_of(site), []).append(site)
    (bytes_of_part,) = function["store/part::commit_unsynced"]
    (bytes_of_put,) = function["store/ingest::finish"]
    (bytes_of_index,) = function["store/refs::write"]
    # That of the root in `store/refs::settle` no cut finds: the sync of the copy's directory, which
    # follows at once, makes the file system write its journal, and the root's names with it.
    return (
        (bytes_of_part, "replay", "ext4"),
        (bytes_of_part, "shutdown", "xfs"),
        (bytes_of_part, "shutdown", "ext4"),
        (bytes_of_put, "replay", "xfs"),
        (bytes_of_index, "replay", "btrfs"),
    )


def without_touch(space):
    """A command that notes no use, and says that it did."""
    path = os.path.join(space, "without-touch")
    lines = f'#!/bin/sh\ncase " $* " in *" touch "*) exit 0 ;; esac\nexec {PLANTED} "$@"\n'
    samples.write(path, lines.encode(), 0o755)
    return path


def caught_by_cuts(site, what, fs, states, store=PLANTED):
    """Whether power cuts lose something with a fault."""
    environment = {**os.environ, "LAYERSTORE_PLANTED_FAULT": f"omit {site}"}
    command = [sys.executable, os.path.join(disks.HERE, "cuts.py"), what, "--fs", fs]
    command += ["--states", str(states), "--store", store]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    # 1 with lines of losses; anything else is a harness that broke, and no catch.
    return done.returncode == 1 and re.search(rb", lost: [1-9]", done.stdout) is not None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--states", type=int, default=20, help="power cuts, of those that they find")
    given = parser.parse_args()
    reason = disks.why_not()
    if reason:
        print(f"NOT RUN: {reason}")
        return 77
    if os.environ.get("LAYERSTORE_CUTS_UNSHARED") != "1":
        disks.build()
        build()
    disks.into_namespace()
    with disks.workspace() as space:
        server = Registry(samples.standard())
        scene = Scene(space, server)
        planted = [
            f"{how} {site}"
            for site, kind in sites(scene).items()
            for how in HOW.get(kind, ("omit", "delay"))
        ]
        caught = 0
        for fault in planted:
            how, site = fault.split(" ")
            broken = caught_by_trace(scene, fault)
            if broken is None:
                print(f"{fault}: NOT CAUGHT, for it did not come about")
                continue
            caught += bool(broken)
            by = f"by the rule {broken[0].replace(space, '')}" if broken else "by NOTHING"
            print(f"{how} {function_of(site)}, line {site.split(':')[1]}: {by}", flush=True)
        server.close()
        found = 0
        for site, what, fs in power():
            is_caught = caught_by_cuts(site, what, fs, given.states)
            found += is_caught
            by = f"by {what} on {fs}" if is_caught else f"NOT by {what} on {fs}"
            print(f"omit {function_of(site)}, line {site.split(':')[1]}: {by}", flush=True)
        is_caught = caught_by_cuts("nothing", "uses", "ext4", 4, without_touch(space))
        print(f"uses that are not noted: {'by' if is_caught else 'NOT by'} uses on ext4", flush=True)
    print(f"faults planted: {len(planted)}, caught: {caught}")
    print(f"of these planted for power cuts: {len(power())}, caught: {found}")
    return 0 if (caught, found, is_caught) == (len(planted), len(power()), True) else 1


if __name__ == "__main__":
    sys.exit(main())
