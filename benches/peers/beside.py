"""Pulls beside a collection of a large store."""

import os
import re
import shutil
import statistics
import subprocess

import pulls
import whole
from local import make_layout, more_garbage
from measure import mebibytes, median, peak_of, timed

SHUT = re.compile(r"the gate was shut microseconds=(\d+)")


def beside(bench):
    """Of a store of so many blobs, seven an image, a collection removes a tenth, while the large image is
    pulled into the same store, again and again: its layers are removed before each pull. About as many pulls
    alone are half before the collection and half after it: what so many unlinks leave behind may slow down
    the pulls that come after them. The server's files are in the page cache, as is what it has room for of
    the store, which was written just before; the disk is synced before each pull."""
    size = 1_000_000 // bench.scale
    garbage = size // 10
    root = bench.folder / "million"
    kept = (size - garbage) // 7
    make_layout(root, kept, 0)
    store = [bench.store, "--root", root, "-q"]
    subprocess.run([*store, "init"], check=True, stdout=subprocess.DEVNULL)
    before, together, after, holds, memory = [], [], [], [], 0
    with pulls.registry(bench.folder / "registry", bench.data) as address:
        image = f"{address}/real/{bench.tag}:v1"
        one = bench.folder / "one"
        blobs = whole.brought(pulls.pull_command(bench, one, image), one, bench.folder / "trace")
        shutil.rmtree(one)

        def pull():
            # Not the manifest and the config: a collection ends where a ref cannot be followed.
            for layer in (name for name, size in blobs.items() if size > 1 << 20):
                (root / "blobs/sha256" / layer).unlink()
            os.sync()
            taken = timed(pulls.pull_command(bench, root, image))
            # To hash them all would take as long as the pull, beside a collection that goes on.
            whole.verify(root, blobs, others=True, digests=False)
            return taken

        subprocess.run(pulls.pull_command(bench, root, image), check=True, stdout=subprocess.DEVNULL)
        half = max(1, 10 // bench.scale)  # of the pulls beside one collection, as far as is known
        for number in range(bench.rounds(5)):
            more_garbage(root, garbage, number)
            before += [pull() for _ in range(half)]
            log, said = bench.folder / "log", bench.folder / "memory"
            gc = [bench.store, "--root", root, "-vv", "gc", "--grace", "0s"]
            process = subprocess.Popen([*peak_of(said), *gc], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=log.open("w"))
            during = []
            while is_running(process):
                taken = pull()
                # One that the collection did not last for counts for neither.
                if is_running(process):
                    during.append(taken)
            if process.wait() != 0:
                raise SystemExit(f"the collection: exit code {process.returncode}")
            whole.verify(root, blobs, others=True)
            if (left := len(os.listdir(root / "blobs/sha256"))) != kept * 7 + len(blobs):
                raise SystemExit(f"the collection left {left} blobs")
            memory = max(memory, mebibytes(said.open()))
            holds += gate_holds(log)
            together += during
            after += [pull() for _ in range(half)]
            half = max(1, round(len(during) / 2))
    shutil.rmtree(root)
    if not together:
        raise SystemExit("no pull began and ended beside a collection")
    p99 = statistics.quantiles(holds, n=100)[98]
    alone = before + after
    ratio = median(together) / median(alone)
    return (f"## A collection of {size:,} blobs, and pulls beside it\n\n{beside.__doc__}\n\n"
            f"- A pull alone took {median(alone):.3f} s and {median(alone, 'cpu'):.2f} CPU s, beside the "
            f"collection {median(together):.3f} s and {median(together, 'cpu'):.2f} CPU s: {ratio:.2f} times "
            f"as long (medians of {len(alone)} and {len(together)}). Alone before a collection it was "
            f"{median(before):.3f} s, and after one {median(after):.3f} s.\n"
            f"- The gate was shut {len(holds):,} times, for {1000 * statistics.median(holds):.1f} ms "
            f"(median), {1000 * p99:.1f} ms (p99), {1000 * max(holds):.1f} ms at most.\n"
            f"- The collection took {memory:.0f} MiB at most.\n", {})


def is_running(process):
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def gate_holds(log):
    """How long the gate was shut each time, in seconds, as the collection says."""
    return [int(found[1]) / 1e6 for line in log.open() if (found := SHUT.search(line))]
