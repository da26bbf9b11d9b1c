"""What is looked at when a run has ended, and the waits that are looked at beside it."""

import fcntl
import os
import subprocess

import checker
import ledger as ledgers
import layout
import readers
from stress_actors import DEADLINE
from stress_registry import Pull


def check_end(run):
    """The ledger against the store at rest; then the next pulls and the next collection, with no
    step of repair between."""
    expected = ledgers.expected(ledgers.read(run.ledger.path))
    for when in ("at the end", "after the next pulls", "after the last collection"):
        if when == "after the next pulls":
            pull_all(run)
        elif when == "after the last collection":
            collect(run)
        for problem in checker.check(run.root, expected).problems:
            run.report(f"{when}: {problem}")
        if when == "at the end":
            read_by_others(run)
    run.run("check", "--read-data")


def read_by_others(run):
    others = readers.Readers(every=1)
    for problem in others.look(run.root):
        run.report(f"at the end: {problem}")
    print(others.line(), flush=True)


def pull_all(run):
    asked = run.registry.counts["requests for blobs"]
    for worker in run.workers:
        for name, image in worker.held.items():
            run.registry.tags[name.partition("/")[2].rsplit(":", 1)[0], name.rsplit(":", 1)[1]] = image
            run.run("--json", "-q", "pull", "--plain-http", name)
    if run.registry.counts["requests for blobs"] != asked:
        run.report("a pull of what was there asked for blobs")


def collect(run):
    alive = set()
    for worker in run.workers:
        for image in worker.held.values():
            alive |= image.closure
    run.run("gc", "--grace", "0s")
    for problem in checker.after_collection(run.root, alive):
        run.report(problem)
    leases = layout.listing(os.path.join(run.root, ".layerstore/leases"))
    if leases:
        run.report(f"after the last collection there are leases: {leases}")


def check_wait(run, root, lock, said, patience=DEADLINE):
    """A lock that stays held: the wait says for whom after 10 seconds, and ends after two minutes
    with an error that says it too. In a store of its own, beside the others."""
    subprocess.run([run.command, "--root", root, "init"], check=True, capture_output=True)
    run.registry.tags[f"wait{lock}/image", "v1"] = run.content.images[1]
    with open(os.path.join(root, ".layerstore/locks", lock), "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        name = f"{run.registry.address}/wait{lock}/image:v1"
        run.registry.pulls[f"wait{lock}"] = Pull("wait", elsewhere=True)
        try:
            ended = subprocess.run(
                [run.command, "--root", root, "pull", "--plain-http", name], env=run.environment,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=patience)
        except subprocess.TimeoutExpired:
            return run.report(f"with {lock} held, pull does not end")
    lines = ended.stderr.decode().splitlines()
    holder = f"process {os.getpid()}"
    waits = [line for line in lines if "waiting for" in line]
    if ended.returncode != 11:
        run.report(f"with {lock} held, pull ended with {ended.returncode}: {lines}")
    elif not (waits and said in waits[0] and holder in waits[0]):
        run.report(f"with {lock} held, pull did not say what it waits for: {lines}")
    elif holder not in lines[-1]:
        run.report(f"with {lock} held, the error does not name the holder: {lines}")
    return run.count("waits ended")
