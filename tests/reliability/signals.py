#!/usr/bin/env python3
"""SIGINT and SIGTERM at random moments of pulls.

    signals.py [--signals N] [--store COMMAND] [--seed N]

A pull that is under way ends with the signal's exit code and says how to go on; the checker finds a whole
store in which nobody holds a lock; and the same pull then succeeds. How long each took to end is a figure; ten
times the second that is promised fails. Commands that do otherwise are planted first.
"""

import argparse
import math
import os
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import checker
import harness
import samples
import step
from registry import Registry

IMAGES = ("base:v1", "app:v1", "app:v2", "multi:v1", "other:v1")
# Ten times what is promised: the machine may be busy.
LATE = 10
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
ADVICE = b"a repeated pull goes on where this one stopped"
# Has a child that does the work, and ends with it at a signal.
CHILD = """
"$real" "$@" & child=$!
trap 'kill -9 $child; {end}' {signals}
wait $child
"""
# Commands in the place of ours, and what has to be said of each.
PLANTED = {
    "one that says nothing": ('exec "$real" "$@" 2>/dev/null', ": exit code 1"),
    "one that the signal kills": (
        CHILD.format(end="trap - TERM; kill -TERM $$", signals="TERM INT"), ": exit code -15",
    ),
    "one that no signal ends": ("trap '' TERM INT; \"$real\" \"$@\"; exit $?", "signals end no pull"),
    "one that ends late": (
        CHILD.format(end=f"sleep {LATE + 1}; echo {ADVICE.decode()} >&2; exit 143", signals="TERM INT"),
        "it took ",
    ),
    "one that leaves a file": (
        CHILD.format(end='echo >"$root/blobs/x"; exit 143', signals="TERM INT"), "stray: ",
    ),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--store", default=None, help="the command; built if it is not given")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"signals: seed {given.seed}")
    command, chance = os.path.abspath(given.store or harness.build_store()), random.Random(given.seed)
    server = Registry(samples.standard(4), pause=0.002)
    with tempfile.TemporaryDirectory(prefix="signals-", dir=step.TARGET) as folder:
        caught = [it for it in PLANTED if plant(it, command, chance, server, folder)]
        took, problems = look(command, given.signals, chance, server, folder)
    server.close()
    for problem in problems:
        print(f"signals: FAULT: {problem}")
    median, most = (1000 * of(took) if took else math.nan for of in (statistics.median, max))
    print(f"signals, planted faults: {len(PLANTED)}, caught: {len(caught)}")
    print(f"signals: {len(took)}, {median:.0f} ms to the end (median), {most:.0f} ms at most, lost: {len(problems)}")
    return 1 if problems or len(caught) < len(PLANTED) else 0


def plant(title, command, chance, server, folder):
    """Whether one fault of a command is noticed."""
    lines, reported = PLANTED[title]
    path = os.path.join(folder, "planted")
    samples.write(path, f"#!/bin/sh\nreal={shlex.quote(command)} root=$2\n{lines}\n".encode(), 0o755)
    problems = look(path, 1, chance, server, folder)[1]
    is_noticed = any(reported in it for it in problems)
    if not is_noticed:
        print(f"signals: NOT noticed: {title}: {problems}")
    return is_noticed


def look(command, count, chance, server, folder):
    """How long pulls took to end after so many signals, and what was wrong."""
    took, problems, missed = [], [], 0
    root = os.path.join(folder, "store")
    while len(took) < count:
        shutil.rmtree(root, ignore_errors=True)
        server.reset()
        pull = [command, "--root", root, "-q", "pull", "--plain-http",
                f"{server.host}/{chance.choice(IMAGES)}"]
        ended = interrupted(pull, chance, server)
        if ended is not None:
            took.append(ended[0])
            problems += ended[1] + after(root, pull)
            continue
        missed += 1
        if missed > 10 * count:
            return took, [*problems, "signals end no pull"]
    return took, problems


def interrupted(pull, chance, server):
    """How long a pull took to end after a signal, and what was wrong; None if it was over before."""
    process = subprocess.Popen(pull, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    # Who asks a registry listens to signals.
    while process.poll() is None and not (server.documents or server.blobs):
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.3))
    sent = chance.choice(list(CODES))
    begun = time.perf_counter()
    process.send_signal(sent)
    said = process.communicate()[1]
    took = time.perf_counter() - begun
    if process.returncode == 0:
        return None
    problems = []
    if process.returncode != CODES[sent] or ADVICE not in said:
        problems.append(f"{sent.name}: exit code {process.returncode}: {said[-300:]}")
    if took > LATE:
        problems.append(f"{sent.name}: it took {took:.1f} s to end")
    return took, problems


def after(root, pull):
    problems = checker.check(root).problems
    done = subprocess.run(pull, capture_output=True, check=False)
    if done.returncode:
        problems.append(f"the next pull: exit code {done.returncode}: {done.stderr[-300:]}")
    return problems + checker.check(root).problems


if __name__ == "__main__":
    sys.exit(main())
