"""What is looked at when a run has ended."""

import os

import checker
import ledger as ledgers
import layout
import readers


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
    others = readers.Readers()
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
