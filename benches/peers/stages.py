"""Where the time of a pull by the clock goes, by when it makes a few rare calls of the kernel."""

import re
import statistics

import whole
from measure import in_turn, timed

# Of each there are some hundred in a pull; with --seccomp-bpf the others do not stop for strace.
CALLS = "execve,connect,openat2,fsync,fdatasync,linkat,renameat,renameat2,exit_group"
PART = r'openat2\(.*/parts>, "\S+\.part", .*O_CREAT'
# What ends a stage: which of the calls of a kind, and whether when it begins or when it is over.
STAGES = (
    ("start, and the store is made", r"connect\(.*AF_INET", 0, "begins"),
    ("connect; the manifest is fetched, synced and named", PART, 0, "begins"),
    ("the same for the config", PART, 1, "begins"),
    ("layers come, and are hashed and written, until the last is whole",
     r"f(?:data)?sync\(\d+<\S*\.part>", -1, "begins"),
    ("the last one is synced and named", r'renameat2\(.*\.part", .*/blobs/sha256>', -1, "ends"),
    ("names are synced, index.json is written, put in place and synced", r"fsync\(", -1, "ends"),
    ("the rest, until the process is gone", r"\+\+\+ exited", -1, "ends"),
)


def durations(lines):
    """How many seconds each stage takes, of a trace with times and durations."""
    calls, begun = [], {}
    for line in lines:
        thread, time, call = line.split(None, 2)
        if call.endswith("<unfinished ...>"):
            begun[thread] = float(time), call
            continue
        begins = float(time)
        if call.startswith("<..."):
            begins, start = begun.pop(thread)
            call = start + call
        took = re.search(r"<([\d.]+)>$", call)
        calls.append((begins, begins + float(took[1] if took else 0), call))
    if not calls or "execve" not in calls[0][2]:
        raise SystemExit("a trace does not begin with the start of the program")
    taken, last = {}, calls[0][0]
    for name, pattern, which, edge in STAGES:
        times = sorted(call[edge == "ends"] for call in calls if re.match(pattern, call[2]))
        if len(times) <= max(which, 0) or times[which] < last:
            raise SystemExit(f"a traced pull did not come to the end of a stage in its turn: {name}")
        taken[name] = times[which] - last
        last = times[which]
    return taken


def of_pull(command, root, blobs, rounds, prepare):
    """A Markdown table of the stages, of a pull that is not to make the root before."""
    log, seen = root.with_name("stages-trace"), []
    strace = ["strace", "-f", "--seccomp-bpf", "-ttt", "-T", "-y", "-s", "200", "-o", log, "-e",
              f"trace={CALLS}"]

    def verify(name, _):
        whole.verify(root, blobs)
        if name == "traced":
            seen.append(durations(log.read_text().splitlines()))

    contenders = {"store": lambda _: timed(command), "traced": lambda _: timed([*strace, *command])}
    results = in_turn(rounds, contenders, prepare, verify)
    pairs = zip(results["traced"], results["store"])
    slower = statistics.median(traced["wall"] / plain["wall"] for traced, plain in pairs)
    medians = {name: statistics.median(taken[name] for taken in seen[1:]) for name, *_ in STAGES}
    rows = [f"| {name} | {1000 * seconds:.1f} |" for name, seconds in medians.items()]
    return (f"Where its time goes, in milliseconds: medians of {len(seen) - 1} pulls under `strace`, which "
            f"took {slower:.2f} times as long as others in turn with them without it (median of pairs).\n\n"
            "| stage of `store` | ms |\n| --- | --- |\n" + "\n".join(rows))


def self_test():
    """A trace, and what must not pass for one."""
    part, folder = "/s/.layerstore/parts", "6</s/blobs/sha256>"
    lines = [
        '1 10.000 execve("store", [], 0x7) = 0 <0.001>',
        '1 10.010 connect(9<socket:[1]>, {sa_family=AF_INET}, 16) = -1 EINPROGRESS (in progress) <0.0001>',
        f'2 10.030 openat2(5<{part}>, "sha256-a.part", {{flags=O_RDWR|O_CREAT}}, 24) = 7 <0.0001>',
        f'2 10.060 openat2(5<{part}>, "sha256-b.part", {{flags=O_RDWR|O_CREAT}}, 24) = 8 <0.0001>',
        f'2 10.100 fsync(8<{part}/sha256-b.part> <unfinished ...>',
        '2 10.140 <... fsync resumed>) = 0 <0.040>',
        f'2 10.145 renameat2(5<{part}>, "sha256-b.part", {folder}, "b", RENAME_NOREPLACE) = 0 <0.005>',
        '2 10.200 fsync(3</s>) = 0 <0.010>',
        '1 10.230 +++ exited with 0 +++',
    ]
    found = [round(1000 * seconds) for seconds in durations(lines).values()]
    assert found == [10, 20, 30, 40, 50, 60, 20], found
    for n in (0, 1, 3, 4, 6, 7, 8):
        try:
            durations(lines[:n] + lines[n + 1:] if n != 4 else lines[:4] + lines[6:])
        except SystemExit:
            continue
        raise AssertionError(f"not missed: {lines[n]}")


if __name__ == "__main__":
    self_test()
