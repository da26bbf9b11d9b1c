#!/usr/bin/env python3
"""SIGINT and SIGTERM at random moments of pulls.

    signals.py [--signals N] [--store COMMAND] [--seed N]

A pull that is under way ends with the signal's exit code and says how to go on; the checker finds a whole
store in which nobody holds a lock; and the same pull then succeeds. How long each took to end is a
figure: no time fails.
"""

import argparse
import os
import random
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
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
ADVICE = b"a repeated pull goes on where this one stopped"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--store", default=None, help="the command; built if it is not given")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"signals: seed {given.seed}")
    command, chance = given.store or harness.build_store(), random.Random(given.seed)
    server = Registry(samples.standard(4), pause=0.002)
    took, problems = [], []
    with tempfile.TemporaryDirectory(prefix="signals-", dir=step.TARGET) as folder:
        root = os.path.join(folder, "store")
        while len(took) < given.signals:
            shutil.rmtree(root, ignore_errors=True)
            pull = [command, "--root", root, "-q", "pull", "--plain-http",
                    f"{server.host}/{chance.choice(IMAGES)}"]
            ended = interrupted(pull, chance)
            if ended is not None:
                took.append(ended[0])
                problems += ended[1] + after(root, pull)
    server.close()
    for problem in problems:
        print(f"signals: FAULT: {problem}")
    median, most = 1000 * statistics.median(took), 1000 * max(took)
    print(f"signals: {len(took)}, {median:.0f} ms to the end (median), {most:.0f} ms at most, lost: {len(problems)}")
    return 1 if problems else 0


def interrupted(pull, chance):
    """How long a pull took to end after a signal, and what was wrong; None if it had not begun to listen,
    or was over."""
    process = subprocess.Popen(pull, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(chance.uniform(0.02, 0.4))
    sent = chance.choice(list(CODES))
    begun = time.perf_counter()
    process.send_signal(sent)
    said = process.communicate()[1]
    took = time.perf_counter() - begun
    if process.returncode in (0, -sent):
        return None
    if process.returncode != CODES[sent] or ADVICE not in said:
        return took, [f"{sent.name}: exit code {process.returncode}: {said[-300:]}"]
    return took, []


def after(root, pull):
    problems = checker.check(root).problems
    done = subprocess.run(pull, capture_output=True, check=False)
    if done.returncode:
        problems.append(f"the next pull: exit code {done.returncode}: {done.stderr[-300:]}")
    return problems + checker.check(root).problems


if __name__ == "__main__":
    sys.exit(main())
