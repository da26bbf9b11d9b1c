"""Pulls beside a collection of a large store."""

import os
import re
import shutil
import statistics
import subprocess

import pulls
from local import make_layout, more_garbage
from measure import mebibytes, median, peak_of, timed

SHUT = re.compile(r"the gate was shut microseconds=(\d+)")


def beside(bench):
    """Of a store of so many blobs, seven an image, a collection removes a tenth, while the large image is
    pulled into the same store, again and again: its layers are removed before each pull. After as many
    pulls beside the collection come as many alone."""
    blobs = 1_000_000 // bench.scale
    garbage = blobs // 10
    root = bench.folder / "million"
    make_layout(root, (blobs - garbage) // 7, 0)
    store = [bench.store, "--root", root, "-q"]
    subprocess.run([*store, "init"], check=True, stdout=subprocess.DEVNULL)
    alone, together, holds, memory = [], [], [], 0
    with pulls.registry(bench.folder / "registry", bench.data) as address:
        image = f"{address}/real/{bench.tag}:v1"
        new = layers_of(bench, image)

        def pull():
            for layer in new:
                (root / "blobs/sha256" / layer).unlink(missing_ok=True)
            os.sync()
            return timed(pulls.pull_command(bench, root, image))

        pull()
        for number in range(bench.rounds(5)):
            more_garbage(root, garbage, number)
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
            memory = max(memory, mebibytes(said.open()))
            holds += gate_holds(log)
            together += during
            alone += [pull() for _ in during]
    shutil.rmtree(root)
    p99 = statistics.quantiles(holds, n=100)[98]
    ratio = median(together) / median(alone)
    return (f"## A collection of {blobs:,} blobs, and pulls beside it\n\n{beside.__doc__}\n\n"
            f"- A pull alone took {median(alone):.3f} s and {median(alone, 'cpu'):.2f} CPU s, beside the "
            f"collection {median(together):.3f} s and {median(together, 'cpu'):.2f} CPU s: {ratio:.2f} times "
            f"as long (medians of {len(alone)} each).\n"
            f"- The gate was shut {len(holds):,} times, for {1000 * statistics.median(holds):.1f} ms (median), "
            f"{1000 * p99:.1f} ms (p99), {1000 * max(holds):.1f} ms at most.\n"
            f"- The collection took {memory:.0f} MiB at most.\n", {})


def layers_of(bench, image):
    """Not the manifest and the config: a collection ends where a ref cannot be followed."""
    root = bench.folder / "one"
    subprocess.run(pulls.pull_command(bench, root, image), check=True, stdout=subprocess.DEVNULL)
    layers = [name for name, size in pulls.blobs_of(root).items() if size > 1 << 20]
    shutil.rmtree(root)
    return layers


def is_running(process):
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def gate_holds(log):
    """How long the gate was shut each time, in seconds, as the collection says."""
    return [int(found[1]) / 1e6 for line in log.open() if (found := SHUT.search(line))]
