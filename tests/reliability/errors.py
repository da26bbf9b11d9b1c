#!/usr/bin/env python3
"""Errors and short writes at each system call of each operation that can return them, one at a time.

    errors.py [--injections N] [--store COMMAND] [--only OPERATION] [--seed N]

A point is an operation, a call that concerns the store, which occurrence of it, and what it returns.
The operation then has to succeed, or to fail with a message and a documented exit code; the checker must
find nothing lost; and the same operation, a pull and a collection must succeed without repair. A file
whose fsync failed must not be synced again, nor be given a blob's name: not by the same process, nor,
where that is killed at once (`EIO, killed`), by the next.
"""

import errno
import random

import harness
from harness import Outcome

FULL = ("ENOSPC", "EDQUOT")
# A sync that failed, of which the process did not live to do anything about it.
KILLED = "EIO, killed"
# What each call can return (its manual page), of what this harness knows to inject.
ERRORS = {
    "create": (*FULL, "EIO", "EMFILE", "EINTR", "EROFS"),
    "open_to_write": ("EIO", "EMFILE", "EINTR", "EROFS"),
    "openat": ("EIO", "EMFILE", "EINTR"),
    "openat2": ("EIO", "EMFILE", "EINTR"),
    "write": (*FULL, "EIO", "EINTR", "short"),
    "pwrite64": (*FULL, "EIO", "EINTR", "short"),
    "writev": (*FULL, "EIO", "EINTR", "short"),
    "pwritev": (*FULL, "EIO", "EINTR", "short"),
    "copy_file_range": (*FULL, "EIO"),
    "read": ("EIO", "EINTR", "short"),
    "pread64": ("EIO", "EINTR", "short"),
    "preadv": ("EIO", "EINTR", "short"),
    "fsync": (*FULL, "EIO", "EINTR", "EROFS", KILLED),
    "fdatasync": (*FULL, "EIO", "EINTR", "EROFS"),
    "syncfs": (*FULL, "EIO"),
    "sync_file_range": ("ENOSPC", "EIO"),
    "fallocate": (*FULL, "EIO", "EINTR"),
    "ftruncate": ("EIO", "EINTR", "EROFS"),
    "fchmod": ("EIO", "EROFS"),
    "fchmodat": ("EIO", "EROFS"),
    "chmod": ("EIO", "EROFS"),
    "utimensat": ("EIO", "EROFS"),
    "flock": ("EINTR",),
    "mkdirat": (*FULL, "EIO", "EROFS"),
    "linkat": (*FULL, "EIO", "EROFS"),
    "renameat": (*FULL, "EIO", "EROFS"),
    "renameat2": (*FULL, "EIO", "EROFS"),
    "unlinkat": ("EIO", "EROFS"),
    "unlink": ("EIO", "EROFS"),
    "getdents64": ("EIO",),
    "fstat": ("EIO",),
    "newfstatat": ("EIO",),
    "statx": ("EIO",),
    "statfs": ("EIO", "EINTR"),
    "fstatfs": ("EIO", "EINTR"),
    "close": (*FULL, "EIO", "EINTR"),
    **dict.fromkeys(("duplicate", "socket", "socketpair", "epoll_create1", "eventfd2"), ("EMFILE",)),
    **dict.fromkeys(("send", "receive"), ("EINTR", "short")),
    **dict.fromkeys(("connect", "epoll_wait", "futex_wait", "clock_nanosleep"), ("EINTR",)),
}
# docs/cli.md: what may come of an error of the local system.
EXITS = {0, 1, 3, 6, 7, 8, 10, 11}
# Whoever cannot write for want of space says so by this code, wherever space is what is asked for.
ASK_FOR_SPACE = {"create", "write", "pwrite64", "pwritev", "fallocate", "mkdirat", "linkat", "renameat"}
NO_SPACE = 8
# Who is interrupted in these, or told of a part only, goes on with the rest.
GO_ON = {
    "read", "pread64", "preadv", "write", "pwrite64", "writev", "pwritev", "flock", "connect", "send",
    "receive", "epoll_wait", "futex_wait", "clock_nanosleep",
}  # fmt: skip
# What is synced by more processes than the one that made it.
FOLDERS = ("locks", "leases", "parts", "trash", "quarantine", "hosts")
# What must have been met, or the harness does not see what the store does: files are made, opened to be
# written, written, synced and named, descriptors are doubled, and a registry is asked.
EXPECTED = (
    "create", "open_to_write", "openat2", "pwrite64", "fsync", "linkat", "renameat", "duplicate", "socket",
    "connect", "send", "receive", "pwritev", "futex_wait", "epoll_wait", "socketpair",
    "epoll_create1", "eventfd2",
)  # fmt: skip
LASTING = ("", "index.json", "blobs", "blobs/sha256", ".layerstore")
LASTING += tuple(f".layerstore/{it}" for it in FOLDERS)


def main():
    given = harness.options(__doc__.split("\n", maxsplit=1)[0], "injections", 300)
    chance = random.Random(given.seed)
    logs = harness.baselines(given, damaged=True)
    every = []
    for name, log in logs.items():
        counts = {}
        for call in log.calls:
            counts[call.name] = counts.get(call.name, 0) + 1
        for call, count in counts.items():
            for error in ERRORS.get(call, ()):
                every += [(name, call, n, error) for n in range(1, count + 1)]
    print(f"  {len(every)} faults in {len(logs)} operations")
    chance.shuffle(every)
    points = even(every)

    def more():
        return chance.choice(every)

    due = () if given.only else EXPECTED
    harness.run(given, inject, points, more, "injections", given.injections, due)


def even(every):
    """The same points, so that each error of each call comes first, at its first occurrence, which comes whatever
    the threads do; and then each operation early."""
    seen, met = {}, set()
    ranked = []
    for point in every:
        key = (point[0], point[1], point[3])
        seen[key] = seen.get(key, 0) + 1
        is_new = point[2] == 1 and point[1:4:2] not in met
        if is_new:
            met.add(point[1:4:2])
        ranked.append((0 if is_new else seen[key], len(ranked), point))
    return [point for _, _, point in sorted(ranked)]


def inject(world, point):
    name, call, number, error = point
    it = world.scenarios[name]
    world.renew(it)
    if error == KILLED:
        _, log = world.operate(it, call, number, errno.EIO, "kill")
        if not log.hit or log.status != 128 + 9:
            return Outcome(False, name)
        # What began with damage may still have it.
        problems = [] if it.damaged else [f"at once: {text}" for text in world.check()]
        problems += world.left_behind(1)
        # A directory cannot be written anew, and whoever wrote index.json had synced it before: that
        # which was there, and that which came in its place.
        lasting = world.inodes(LASTING)
        done, again = world.operate(it)
        if done.returncode not in it.again:
            problems.append(f"again: it ended with {done.returncode}")
        problems += synced_once(log.calls + again.calls, lasting | world.inodes(LASTING))
    else:
        action = "short" if error == "short" else getattr(errno, error)
        done, log = world.operate(it, call, number, action)
        if not log.hit:
            return Outcome(False, name)
        # A repair goes on with the next blob, in the same folders, and ends as what it could not mend.
        lasting = world.inodes(LASTING) if it.damaged else ()
        problems = said_well(done, call, error, it.damaged) + synced_once(log.calls, lasting)
        problems += believed(done, log.calls)
        # But what it could not remove.
        problems += world.left_behind(call in ("unlink", "unlinkat"))
    problems += world.aftermath(it)
    title = f"{name}, {error} at {call} {number}, ended with {done.returncode}"
    if problems:
        said = done.stderr.decode("utf-8", "replace")
        world.keep(
            harness.LOST, f"{name} {call} {number} {error}", "\n".join([title, said, *problems])
        )
    return Outcome(True, title, problems, error, call)


def said_well(done, call, error, is_repair=False):
    """How the command ended, and what it said."""
    text = done.stderr.decode("utf-8", "replace")
    problems = []
    if "panicked" in text or "RUST_BACKTRACE" in text:
        problems.append(f"it panicked: {text[-300:]}")
    if done.returncode not in EXITS:
        problems.append(f"it ended with {done.returncode}: {text[-300:]}")
    is_said = any(line.startswith("error: ") for line in text.splitlines())
    # A check that finds damage says so in its report.
    if done.returncode != 0 and not is_said and not (done.returncode == 3 and done.stdout):
        problems.append(f"it ended with {done.returncode} and said no error: {text[-300:]}")
    if (error == "short" or error == "EINTR" and call in GO_ON) and done.returncode:
        problems.append(f"{error} at {call} is no error, and it ended with {done.returncode}: {text[-300:]}")
    full = error in FULL and call in ASK_FOR_SPACE
    if full and done.returncode not in (0, NO_SPACE) and not is_repair:
        problems.append(f"without space it ended with {done.returncode}: {text[-300:]}")
    return problems


def believed(done, calls):
    """Who could not sync something has not acknowledged anything that rests on it. Nothing rests on the copy of
    index.json where that itself was synced, as a collection does first."""
    failed = [it for it in calls if it.name in ("fsync", "fdatasync", "syncfs") and (it.result or 0) < 0]
    if done.returncode or b"the copy of index.json is not renewed" in done.stderr:
        return []
    return [f"{it.path} was not synced, and the command ended well" for it in failed]


def synced_once(calls, lasting=()):
    """A file whose sync failed is given up: Linux reports a lost write once, and the next sync would
    succeed with the data gone."""
    failed, problems = set(), []
    for call in calls:
        if call.inode in lasting:
            continue
        if call.inode not in failed:
            if call.name in ("fsync", "fdatasync") and (call.result or 0) < 0:
                failed.add(call.inode)
        elif call.name in ("fsync", "fdatasync"):
            problems.append(f"{call.path} was synced again after a failed sync")
        elif call.name in ("linkat", "renameat", "renameat2") and call.result == 0:
            problems.append(f"after a failed sync of its file, {call.path} was named")
    return problems


if __name__ == "__main__":
    main()
