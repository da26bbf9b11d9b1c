"""The same work in stores of more and more blobs."""

import os
import shutil
import subprocess

import pulls
import whole
from local import make_layout
from measure import in_turn, median, timed

SIZES = (1_000, 10_000, 100_000, 1_000_000)
IMAGE = "debian"


def grow(bench):
    """Stores of more and more blobs, seven an image and a ref for each; medians, in seconds. `pull`
    brings one more image, of which the blobs are removed again before each run; `pull, there` finds it
    whole. `gc` marks and lists everything and removes nothing. The store was written just before, and each
    command ran once untimed: what fits into the page cache is there."""
    rows = []
    with pulls.registry(bench.folder / "registry", bench.data) as address:
        image = f"{address}/real/{IMAGE}:v1"
        for blobs in SIZES:
            rows.append(row(bench, image, blobs // bench.scale))
    head = ("| blobs | pull | pull, there | gc | gc, dry run | images | check | MiB of gc |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- |\n")
    return f"## Growth\n\n{grow.__doc__}\n\n![Time against blobs](growth.svg)\n\n{head}" + (
        "\n".join(rows) + "\n"), {}


def row(bench, image, blobs):
    root = bench.folder / f"grow{blobs}"
    make_layout(root, blobs // 7, 0)
    folder = root / "blobs/sha256"
    store = [bench.store, "--root", root, "-q"]
    subprocess.run([*store, "init"], check=True, stdout=subprocess.DEVNULL)
    one, said = bench.folder / "one", bench.folder / "said"
    new = whole.brought(pulls.pull_command(bench, one, image), one, bench.folder / "trace")
    shutil.rmtree(one)
    all_blobs = len(os.listdir(folder)) + len(new)

    def prepare(name):
        for blob in new if name == "pull" else ():
            (folder / blob).unlink()

    def verify(name, _):
        if name.startswith("pull"):
            whole.verify(root, new, others=True)
        if name == "pull, there":
            whole.verify_reused(said, new)
        if (left := len(os.listdir(folder))) != all_blobs:
            raise SystemExit(f"{name} left {left} blobs of {all_blobs}")

    pull = pulls.pull_command(bench, root, image)
    contenders = {
        "pull": lambda _: timed(pull),
        "pull, there": lambda _: pulls.again(bench, root, image, said),
        "gc": lambda _: timed([*store, "gc", "--grace", "0s"]),
        "gc, dry run": lambda _: timed([*store, "gc", "--dry-run", "--grace", "0s"]),
        "images": lambda _: timed([*store, "images"]),
        "check": lambda _: timed([*store, "check"]),
    }
    subprocess.run(pull, check=True, stdout=subprocess.DEVNULL)
    # One after the other, each in its own turn: `pull, there` needs what `pull` brought.
    results = {name: in_turn(bench.rounds(3), {name: run}, prepare, verify)[name]
               for name, run in contenders.items()}
    shutil.rmtree(root)
    walls = " | ".join(f"{median(runs):.3f}" for runs in results.values())
    memory = max(taken["memory"] for taken in results["gc"])
    return f"| {blobs:,} | {walls} | {memory:.0f} |"
