"""Builds and speaks to `step`, which disturbs a command at one of its system calls (step.c)."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.path.join(os.path.dirname(os.path.dirname(HERE)), "target", "reliability")
PROGRAM = os.path.join(TARGET, "step")


@dataclass
class Call:
    """A system call that concerns the store, or that was disturbed."""

    number: int
    name: str
    inode: int
    # None: the process was not told.
    result: int | None
    path: str


@dataclass
class Log:
    """What `step` recorded."""

    calls: list
    # Whether the call came that was to be disturbed.
    hit: bool
    counted: int
    status: int


def build():
    """Compiles `step` where it is older than its source. Where it cannot be had nothing is run, and
    the exit code says so."""
    lacking = None
    if platform.machine() != "x86_64":
        lacking = f"step knows the registers of x86-64, and this is {platform.machine()}"
    elif shutil.which("cc") is None:
        lacking = "there is no C compiler for step"
    if lacking:
        print(f"NOT RUN  {os.path.basename(sys.argv[0])}: {lacking}")
        sys.exit(77)
    source = os.path.join(HERE, "step.c")
    os.makedirs(TARGET, exist_ok=True)
    if not os.path.exists(PROGRAM) or os.path.getmtime(PROGRAM) < os.path.getmtime(source):
        made = f"{PROGRAM}.{os.getpid()}"
        warnings = ["-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", "-O2", *warnings, "-o", made, source], check=True)
        os.rename(made, PROGRAM)


def command(root, log, call=None, at=None, action=None, then=None):
    """How a command is disturbed: what stands before it."""
    words = [PROGRAM, "--under", root, "--log", log]
    if action is not None:
        words += ["--call", call, "--at", str(at), "--do", str(action)]
    if then is not None:
        words += ["--then", then]
    return [*words, "--"]


def read(path):
    """The record of one run."""
    calls = []
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    for line in lines[:-1]:
        number, name, inode, result, where = line.split(" ", 4)
        result = None if result == "-" else int(result)
        calls.append(Call(int(number), name, int(inode), result, where))
    word, hit, counted, status = lines[-1].split(" ")
    if word != "end":
        raise ValueError(f"{path} has no end")
    return Log(calls, hit == "1", int(counted), int(status))
