"""How the harnesses that disturb one operation at a time are run: options, workers, what is printed."""

import argparse
import atexit
import collections
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import step
import world
from readers import Readers

ROOT = os.path.dirname(os.path.dirname(step.HERE))
# Stores that something is wrong with are kept here, of the last run.
LOST = os.path.join(step.TARGET, "lost", os.path.basename(sys.argv[0]).removesuffix(".py"))

# After so many points it is said how far it has come.
BATCH = 500

# Calls that change what is on disk, or who may.
EFFECTS = {
    "create", "open_to_write", "write", "pwrite64", "writev", "pwritev", "copy_file_range", "fsync",
    "fdatasync", "syncfs", "sync_file_range", "ftruncate", "fallocate", "fchmod", "fchmodat", "chmod",
    "flock", "utimensat", "mkdirat", "unlinkat", "unlink", "linkat", "renameat", "renameat2",
}  # fmt: skip


def options(what, points, default):
    """The command line, and one source of chance for all of it."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument(f"--{points}", type=int, default=default, help=f"default: {default}")
    parser.add_argument("--store", help="the command; built if it is not given")
    parser.add_argument("--only", help="one operation alone, by its name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--stores", help="a folder for the stores; best on a tmpfs")
    parser.add_argument("--seed", type=int, default=os.environ.get("LAYERSTORE_TEST_SEED"))
    given = parser.parse_args()
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(1 << 32)
    given.stores = given.stores or stores()
    given.books = books_beside(given.stores)
    step.build()
    given.store = given.store or build_store()
    shutil.rmtree(LOST, ignore_errors=True)
    print(f"LAYERSTORE_TEST_SEED={given.seed}", flush=True)
    return given


def stores():
    """A folder for stores: in memory, for what is killed loses nothing that the kernel has."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def books_beside(stores):
    """A folder for ledgers on another file system than the stores'."""
    for folder in (tempfile.gettempdir(), step.TARGET, "/var/tmp", "/dev/shm"):
        if os.path.isdir(folder) and os.stat(folder).st_dev != os.stat(stores).st_dev:
            return folder
    sys.exit(f"no folder for ledgers on another file system than {stores}: use --stores")


def build_store():
    """The command, built as for the other tests."""
    subprocess.run(["cargo", "build", "--locked", "--all-features", "--quiet"], cwd=ROOT, check=True)
    folder = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(folder, "debug", "store")


# --- Workers ----------------------------------------------------------------------------------

_world = None


def _start(given):
    global _world
    # Ended early, it removes its folders.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _world = world.World(given.store, given.stores, given.books)
    multiprocessing.util.Finalize(_world, _world.close, exitpriority=10)


def _work(task):
    function, point = task
    try:
        outcome = function(_world, point)
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        outcome = Outcome(True, str(point), [f"{type(error).__name__}: {error}"])
    outcome.read = _world.readers.taken()
    return outcome


class Outcome:
    """What became of one point: whether it was met, what it was, what was lost; of which kind it was,
    and at which call."""

    def __init__(self, hit, title, problems=(), kind=None, call=None):
        self.hit, self.title, self.problems = hit, title, list(problems)
        self.kind, self.call = kind, call
        # What other tools read of it meanwhile (`Readers.taken`).
        self.read = (0, 0, 0)


def baselines(given, damaged=False):
    """What each operation does if nobody disturbs it, which must be what is right. Those that begin
    with damage are for who asks for them."""
    there = world.World(given.store, given.stores, given.books)
    atexit.register(there.close)
    found = {}
    for name, it in there.scenarios.items():
        if given.only not in (None, name) or it.damaged and not damaged:
            continue
        there.renew(it)
        done, log = there.operate(it)
        problems = there.aftermath(it)
        if done.returncode != 0 or problems:
            sys.exit(f"{name}, undisturbed: {world.said(done)} {problems}")
        found[name] = log
    return found


def run(given, function, points, more, what, total, due=()):
    """Tries points until `total` were met; `more()` gives another for one that was not met. Prints
    the figure, and exits with 1 if anything was lost, if one of the calls that are `due` was not met,
    or if it was ended before (SIGINT, SIGTERM): the figure is that of what was tried."""
    started, met, lost, missed = time.monotonic(), 0, 0, 0
    kinds, calls = collections.Counter(), collections.Counter()
    readers = Readers()

    def end(*_):
        raise KeyboardInterrupt

    # The workers ignore it, and end when they are told to.
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.Pool(given.jobs, _start, (given,)) as pool:
        signal.signal(signal.SIGINT, ignored)
        signal.signal(signal.SIGTERM, end)
        try:
            while met < total and missed < 4 * total:
                wanted = min(total - met, BATCH)
                batch, points = points[:wanted], points[wanted:]
                batch += [more() for _ in range(wanted - len(batch))]
                for outcome in pool.imap_unordered(_work, [(function, it) for it in batch], 8):
                    met += outcome.hit
                    missed += not outcome.hit
                    readers.add(outcome.read)
                    if outcome.hit:
                        kinds[outcome.kind] += 1
                        calls[outcome.call] += 1
                    if outcome.problems:
                        lost += 1
                        print(f"LOST {outcome.title}: " + "; ".join(outcome.problems), flush=True)
                print(f"  {met} of {total}, lost so far: {lost}", flush=True)
        except KeyboardInterrupt:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print(f"  ended early: {total} were asked for")
            pool.terminate()
        pool.close()
        pool.join()
    for kind, count in sorted(kinds.items(), key=str):
        print(f"  {count:6} {kind}")
    print(f"  in {time.monotonic() - started:.0f} s; {missed} points were not met and do not count")
    if due:
        print("  at " + ", ".join(f"{call}: {calls[call]}" for call in due))
    unmet = [call for call in due if not calls[call]]
    if unmet:
        print(f"never met: {', '.join(unmet)}")
    print(readers.line())
    print(f"{what}: {met}, lost: {lost}", flush=True)
    sys.exit(met < total or lost > 0 or bool(unmet))
