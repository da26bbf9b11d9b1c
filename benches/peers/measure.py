"""Running contenders in turn, and saying how long they took."""

import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def timed(command, peak=True, **options):
    """Runs a command: its time by the clock and on the CPUs, and its memory at most, in MiB.

    The kernel counts the memory of whoever starts a process as that process's own, and this one is large:
    `time` stands between, which costs a millisecond. Without `peak` it does not."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **options}
    with tempfile.NamedTemporaryFile() as said:
        measured = [*peak_of(said.name), *command] if peak else command
        started = time.perf_counter()
        process = subprocess.Popen([str(word) for word in measured], **options)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))[:500]}: exit code {process.returncode}")
        memory = mebibytes(said) if peak else math.nan
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": memory}


def peak_of(file):
    """Words before a command for which its memory at most is written to a file."""
    return ["time", "-q", "-f", "%M", "-o", file]


def mebibytes(said):
    return int(said.read()) / 1024


def in_turn(rounds, contenders, prepare=lambda name: None, verify=lambda name, made: None):
    """Runs each contender once to warm up and then `rounds` times, each round in another order. The page
    cache is warm for all but what `prepare` empties it of.

    `prepare` makes what a run needs and is not timed; `verify` looks at what came of it and ends
    the program if that is wrong. A contender gets what was prepared, and returns what `timed` does.
    """
    names = list(contenders)
    results = {name: [] for name in names}
    for number in range(-1, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            made = prepare(name)
            os.sync()  # what was written before is not this one's to wait for
            taken = contenders[name](made)
            verify(name, made)
            if number >= 0:
                results[name].append(taken)
                print(f"  {name}: {taken['wall']:.3f} s, {taken['cpu']:.2f} s of CPU",
                      file=sys.stderr)
    return results


def median(results, key="wall"):
    return statistics.median(taken[key] for taken in results)


def table(results, ours="store"):
    """A Markdown table: medians, spreads, the most memory of all rounds, and the ratio to ours of each
    round's neighbours."""
    lines = ["| | seconds, median | middle half | all | CPU s | MiB, most | times ours |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, runs in results.items():
        walls = [taken["wall"] for taken in runs]
        low, middle, high = statistics.quantiles(walls, n=4, method="inclusive")
        ratios = [theirs["wall"] / own["wall"] for theirs, own in zip(runs, results[ours])]
        lines.append(
            f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} | {min(walls):.3f} to "
            f"{max(walls):.3f} | {cell(median(runs, 'cpu'), '.2f')} | {cell(peak(runs), '.0f')} | "
            f"{statistics.median(ratios):.2f} |")
    return "\n".join(lines)


def peak(runs):
    """Of all rounds: a limit of memory that is kept to in most of them is not kept to."""
    return max(taken["memory"] for taken in runs)


def cell(value, form):
    """What was not measured is left out."""
    return "" if math.isnan(value) else f"{value:{form}}"


def machine(folder):
    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                      if line.startswith("model name")), platform.machine())
    system = subprocess.run(["df", "--output=fstype", folder], text=True, check=True,
                            stdout=subprocess.PIPE).stdout.split()[-1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{os.cpu_count()} cores ({processor}), {memory:.0f} GiB of memory, Linux "
            f"{platform.release().split('-')[0]}, {system}; load {os.getloadavg()[0]:.1f} at the end")


def version(*command):
    try:
        said = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout
        return said.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"{command[0]}: not here"
