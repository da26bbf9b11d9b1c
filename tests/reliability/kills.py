#!/usr/bin/env python3
"""kill -9 at each system call of each operation, one at a time.

    kills.py [--kills N] [--store COMMAND] [--only OPERATION] [--seed N]

A point is an operation and a number: the process is killed as it enters that call, counted over
all its threads from the first call that names the store. Then the checker must find nothing lost,
and without any repair the same operation, a pull that asks for missing bytes only, and a collection
that leaves exactly what is needed must succeed. With as many kills as there are points or more, each is
tried; with fewer, those at calls that change something come first.
"""

import random

import harness
from harness import Outcome


def main():
    given = harness.options(__doc__.split("\n", maxsplit=1)[0], "kills", 500)
    chance = random.Random(given.seed)
    logs = harness.baselines(given, damaged=True)
    every = [(name, n) for name, log in logs.items() for n in range(1, log.counted + 1)]
    changing = {
        (name, call.number)
        for name, log in logs.items()
        for call in log.calls
        if call.name in harness.EFFECTS
    }
    print(f"  {len(every)} calls in {len(logs)} operations, {len(changing)} of them change something")
    points = spread(chance, every, changing, given.kills)

    def more():
        return chance.choice(every)

    harness.run(given, kill, points, more, "kills tried", given.kills)


def spread(chance, every, changing, count):
    """So many points, all operations alike, and of each first what changes something."""
    chance.shuffle(every)
    if count >= len(every):
        return list(every)
    queues = {}
    for point in sorted(every, key=lambda it: it not in changing):
        queues.setdefault(point[0], []).append(point)
    # Half of what is tried is drawn from all calls: one of no effect might be the wrong moment too.
    for name, queue in queues.items():
        others = [it for it in queue if it not in changing]
        firsts = [it for it in queue if it in changing]
        mixed = [it for pair in zip(firsts, others, strict=False) for it in pair]
        queues[name] = mixed + firsts[len(others) :] + others[len(firsts) :]
    chosen = []
    while len(chosen) < count:
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def kill(world, point):
    name, number = point
    it = world.scenarios[name]
    world.renew(it)
    done, log = world.operate(it, "any", number, "kill")
    # A kill that came when the process was ending anyway did not happen.
    if not log.hit or log.status != 128 + 9:
        return Outcome(False, name)
    problems = world.left_behind(1) + world.aftermath(it)
    call = log.calls[-1]
    title = f"{name}, killed at call {number}, {call.name} {call.path.replace(world.root, '')}"
    if problems:
        world.keep(harness.LOST, f"kill {name} {number}", "\n".join([title, *problems]))
    return Outcome(True, title, problems, name)


if __name__ == "__main__":
    main()
