#!/usr/bin/env python3
"""Cut the power of stores, and look what is lost.

    cuts.py shutdown --fs FS [--cuts N]      the file system is shut down amid its work
    cuts.py replay --fs FS [--states N]      a disk that did part of its writes, in any order
    cuts.py uses --fs FS [--states N]        the same, half a minute and more after images were used

FS is ext4, xfs or, but for shutdown, btrfs. Common options: --seed N, --store COMMAND, --keep FOLDER (for
what went wrong), --resume FILE (rounds that are noted there are not run again). Needs root, loop
devices and FUSE; where they are missing it says so, and ends with exit code 77.

Prints how many were tried and lost; with 1 as exit code where that is not nought.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import disks  # noqa: E402
import ledger as ledgers  # noqa: E402
import samples  # noqa: E402
import workload  # noqa: E402
from registry import Registry  # noqa: E402

# States of one recorded workload, cuts of one file system.
ROUND = 20


class Tally:
    """What was tried and lost, in rounds that are noted in a file, to be resumed."""

    def __init__(self, title, resume, keep):
        self.title, self.resume, self.keep = title, resume, keep
        self.tried, self.lost, self.acknowledged, self.rounds = 0, 0, 0, {}
        if resume and os.path.exists(resume):
            with open(resume, encoding="utf-8") as file:
                for line in file:
                    noted = json.loads(line)
                    if noted["title"] == title:
                        self.rounds[noted["round"]] = noted

    def round(self, number, run):
        """Runs a round, unless it is noted. `run` returns how many were tried, how many operations
        had been acknowledged, and the problems."""
        noted = self.rounds.get(number)
        if noted is None:
            tried, acknowledged, problems = run()
            noted = {"title": self.title, "round": number, "tried": tried}
            noted |= {"acknowledged": acknowledged, "problems": problems}
            if self.resume:
                with open(self.resume, "a", encoding="utf-8") as file:
                    file.write(json.dumps(noted) + "\n")
        self.tried += noted["tried"]
        self.acknowledged += noted["acknowledged"]
        self.lost += len(noted["problems"])
        for name, lines in noted["problems"]:
            for line in lines:
                print(f"{self.title}, {name}: {line}", flush=True)


def rounds(count):
    """(number, size) of rounds that make up a count."""
    return [(n, min(ROUND, count - n * ROUND)) for n in range(-(-count // ROUND))]


def keep_state(folder, name, *paths):
    if folder:
        target = os.path.join(folder, name)
        os.makedirs(target, exist_ok=True)
        for path in paths:
            subprocess.run(["cp", "--sparse=always", path, target], check=False)


# --- Shutdown ---------------------------------------------------------------------------------


def shutdown_round(given, space, server, number, size):
    """One file system, shut down again and again."""
    seed = f"{given.seed} shutdown {given.fs} {number}"
    choice = random.Random(seed)
    image, folder = os.path.join(space, "image"), os.path.join(space, "mnt")
    ledger_path = os.path.join(space, f"ledger-{number}")
    disks.make(given.fs, image)
    problems, acknowledged = [], 0
    ledger = ledgers.Ledger(ledger_path, sync=False)
    client = workload.Client(given.store, os.path.join(folder, "store"), server, ledger)
    for cut in range(size):
        disks.mount(given.fs, image, folder)
        stop = threading.Event()
        with workload.several(client, f"{seed} {cut}", 1000, stop=stop):
            try:
                stop.wait(choice.uniform(0.02, 0.8))
                gone = time.time()
                disks.run("xfs_io", "-x", "-c", "shutdown", folder)
            finally:
                stop.set()
        disks.unmount(given.fs, folder)
        disks.mount(given.fs, image, folder)
        operations = ledgers.read(ledger_path)
        acknowledged += sum(it.is_done and "told" not in it.what for it in operations)
        image_next = choice.choice(workload.IMAGES)
        found = workload.aftermath(client, operations, image_next, gone)
        if found:
            problems.append((f"seed {given.seed} round {number} cut {cut}", found))
            keep_state(given.keep, f"shutdown-{given.fs}-{number}-{cut}", ledger_path, image)
            shutil.rmtree(client.root, ignore_errors=True)
        # What the aftermath did is in no ledger: the next one begins with what it left.
        ledger.close()
        os.unlink(ledger_path)
        ledger = client.ledger = ledgers.Ledger(ledger_path, sync=False)
        client.tell_anew()
        disks.unmount(given.fs, folder)
    return size, acknowledged, problems


# --- Replay -----------------------------------------------------------------------------------


def record(given, space, client_of):
    """A workload on a disk that remembers. Returns the image from before, and the records."""
    image, base = os.path.join(space, "image"), os.path.join(space, "base")
    log_path, folder = os.path.join(space, "log"), os.path.join(space, "mnt")
    disks.make(given.fs, image)
    disks.copy(image, base)
    log = disks.BlockLog(image, log_path, os.path.join(space, "disk"))
    disks.mount(given.fs, log.disk, folder)
    with workload.MarkedLedger(os.path.join(space, "ledger"), log) as ledger:
        client_of(os.path.join(folder, "store"), ledger)
    disks.unmount(given.fs, folder)
    log.close()
    os.unlink(os.path.join(space, "ledger"))
    return base, disks.read_log(log_path)


def choose_cut(records, choice, since):
    """Not before `since` if there is any later place: anywhere, or right behind something that was acknowledged, where most can be lost."""
    marks = [(n, bytes(it[2])) for n, it in enumerate(records) if it[0] == b"M"]
    first = next((n for n, line in marks if json.loads(line)["time"] >= since), 0)
    acknowledged = [n for n, line in marks if n >= first and b'"done"' in line]
    if acknowledged and choice.random() < 0.4:
        return choice.choice(acknowledged) + 1
    return choice.randrange(first + 1, len(records) + 1)


def replay_round(given, space, server, number, size):
    """One recorded workload, cut again and again."""
    seed = f"{given.seed} {given.what} {given.fs} {number}"
    choice = random.Random(seed)

    def work(root, ledger):
        client = workload.Client(given.store, root, server, ledger)
        if given.what == "uses":
            return workload.uses(client)
        with workload.several(client, seed, 15):
            pass

    base, records = record(given, space, work)
    since = since_uses(records) if given.what == "uses" else 0
    problems = []
    acknowledged = sum(kind == b"M" and b'"done"' in bytes(data) for kind, _, data in records)
    for state in range(size):
        choice = random.Random(f"{seed} {state}")
        found = look_at_state(given, space, server, base, records, choice, since)
        if found:
            name = f"seed {given.seed} round {number} state {state}"
            problems.append((name, found))
            keep_state(given.keep, f"{given.what}-{given.fs}-{number}-{state}", os.path.join(space, "state"))
    return size, acknowledged, problems


def since_uses(records):
    """From when on the first use is to be there."""
    operations = workload.operations_of(it[2] for it in records if it[0] == b"M")
    touches = [it.began_at for it in operations if it.op == "touch" and it.is_done]
    if len(touches) != 2 * len(workload.IMAGES):
        raise OSError(f"images were used {len(touches)} times only")
    return min(touches) + ledgers.WRITTEN_OUT


def look_at_state(given, space, server, base, records, choice, since):
    """One power cut: what is wrong after it."""
    image, folder = os.path.join(space, "state"), os.path.join(space, "look")
    cut = choose_cut(records, choice, since)
    disks.copy(base, image)
    disks.write_state(records, cut, choice, choice.choice(disks.ATOMS[given.fs]), image)
    try:
        disks.mount(given.fs, image, folder)
    except OSError as error:
        return [f"lost: the file system: {error}"]
    try:
        marks = [it[2] for it in records[:cut] if it[0] == b"M"]
        operations = workload.operations_of(marks)
        client = workload.Client(given.store, os.path.join(folder, "store"), server, None)
        pulled, when = choice.choice(workload.IMAGES), workload.time_of(marks)
        return workload.aftermath(client, operations, pulled, when)
    finally:
        disks.unmount(given.fs, folder)


# --- The command ------------------------------------------------------------------------------


def tally(given, title, count, run):
    result = Tally(title, given.resume, given.keep)
    with disks.workspace() as space:
        server = Registry(samples.standard(4), pause=0.0005)
        for number, size in rounds(count):
            result.round(number, lambda: run(given, space, server, number, size))
        server.close()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("shutdown", "replay", "uses"))
    parser.add_argument("--fs", choices=tuple(disks.MKFS), required=True)
    parser.add_argument("--cuts", "--states", type=int, default=40, dest="count")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--store", default=os.path.join(disks.ROOT, "target/debug/store"))
    parser.add_argument("--keep")
    parser.add_argument("--resume")
    given = parser.parse_args()
    if given.what == "shutdown" and given.fs == "btrfs":
        parser.error("btrfs has no such call")
    reason = disks.why_not()
    if reason:
        print(f"NOT RUN: {reason}")
        return 77
    disks.build()
    disks.into_namespace()
    # As an ordinary end, so that what was begun is put away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.what == "shutdown":
        result = tally(given, f"cuts {given.fs}", given.count, shutdown_round)
        print(f"cuts tried {given.fs}: {result.tried}, lost: {result.lost}")
    elif given.what == "uses":
        result = tally(given, f"uses {given.fs}", given.count, replay_round)
        print(f"states after uses {given.fs}: {result.tried}, lost: {result.lost}")
    else:
        result = tally(given, f"states {given.fs}", given.count, replay_round)
        print(f"states replayed {given.fs}: {result.tried}, lost: {result.lost}")
    print(workload.OTHERS.line())
    print(f"  operations acknowledged before: {result.acknowledged}")
    return 1 if result.lost or not result.acknowledged else 0


if __name__ == "__main__":
    sys.exit(main())
