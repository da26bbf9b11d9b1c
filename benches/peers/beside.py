"""Pulls beside a collection of a large store."""

import os
import re
import shutil
import statistics
import subprocess

import pulls
from local import make_layout, more_garbage
from measure import median, timed

TRACE = re.compile(r"^\d+ +([\d.]+) (flock|close)\((\d+)<(\S+?)>(?:, ([\w|]+)\) += 0$)?")


def beside(bench):
    """Of a store of so many blobs, seven an image, a collection removes a tenth, while the large image is pulled into the same store, again and again: its layers are removed before each pull. After as
    many pulls beside the collection come as many alone."""
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
            trace = bench.folder / "trace"
            command = [*store, "gc", "--grace", "0s"]
            process = subprocess.Popen(
                ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-ttt", "-o", trace, "-e",
                 "trace=flock,close", *command], stdin=subprocess.DEVNULL)
            during = []
            while is_running(process):
                taken = pull()
                # One that the collection did not last for counts for neither.
                if is_running(process):
                    during.append(taken)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise SystemExit(f"the collection: exit code {process.returncode}")
            memory = max(memory, usage.ru_maxrss / 1024)
            holds += gate_holds(trace)
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
            f"{1000 * p99:.1f} ms (p99), {1000 * max(holds):.1f} ms at most, by the system calls of the "
            f"collection.\n"
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


def gate_holds(trace):
    """How long the gate was shut each time, in seconds: from the call that locked it to the close."""
    since, holds = {}, []
    for line in trace.read_text().splitlines():
        if not (found := TRACE.match(line)):
            continue
        moment, call, file, path, how = found.groups()
        if not path.endswith("/locks/gate"):
            continue
        if call == "flock" and (how or "").startswith("LOCK_EX"):
            since[file] = float(moment)
        elif call == "close" and file in since:
            holds.append(float(moment) - since.pop(file))
    return holds
