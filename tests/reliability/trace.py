"""A recorded trace of system calls, read for what it says about files.

Recorded by `strace -f -y -s 4000`. A call that another thread's came between is one call that began
and ended at different lines; whatever is to come before another thing must have ended before that
began.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field

CALLS = (
    "open,openat,openat2,read,pread64,write,writev,pwrite64,pwritev,ftruncate,fchmod,fsync,fdatasync,flock,"
    "close,getdents64,renameat,renameat2,linkat,unlinkat,mkdirat,fstat,newfstatat,access,exit_group"
)
LINE = re.compile(r"(\d+) +(.*)")
RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<(.*)>(?:\(deleted\))?)?(?: .*)?$")
STRING = r'"((?:[^"\\]|\\.)*)"'
FD = r"(?:\d+|AT_FDCWD)<([^>]*)>(?:\(deleted\))?"


@dataclass
class Call:
    """A system call that succeeded, or whether something is there."""

    name: str
    begin: int
    end: int
    # The file that it is about; where a name is given: the new one.
    path: str = ""
    # Where a name is given: the file that gets it.
    source: str = ""
    text: str = ""
    result: int = 0
    # The number of the open file that it is about, where one is given, and who made the call.
    fd: str = ""
    thread: str = ""


@dataclass
class Trace:
    """The calls in the order in which they began."""

    calls: list = field(default_factory=list)
    exit_code: int | None = None
    end: int = 0
    # (how, kind, site) of what the planted build told.
    sites: list = field(default_factory=list)

    def of(self, *names, path=None, under=None, after=-1, before=None):
        """Calls by name, on a path or on paths in a folder, begun after a line and ended before."""
        for it in self.calls:
            if it.name not in names or it.begin <= after:
                continue
            if before is not None and it.end >= before:
                continue
            if path is not None and it.path != path:
                continue
            if under is not None and os.path.dirname(it.path) != under:
                continue
            yield it

    def held(self, lock, mode):
        """(line, line) between which a file of `locks/` was locked so: after the first, before the second."""
        for it in self.of("flock"):
            if it.path.endswith(f"/.layerstore/locks/{lock}") and mode in it.text:
                closed = (end for end in self.of("close", path=it.path, after=it.end) if end.fd == it.fd)
                end = next(closed, None)
                yield it.end, end.begin if end else self.end

    def synced(self, path, after, before):
        """Whether a sync of a file began after one line and had ended before another."""
        return any(self.of("fsync", path=path, after=after, before=before))


def record(command, output, data=None, environment=None):
    """Runs a command under strace; the process."""
    strace = ["strace", "-f", "-y", "-s", "4000", "-e", f"trace={CALLS}", "-o", output]
    return subprocess.run(
        strace + command, input=data or b"", capture_output=True, check=False, env=environment
    )


def read(path):
    """The trace of a file that strace wrote."""
    trace, waiting, files = Trace(), {}, {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for place, line in enumerate(file):
            matched = LINE.match(line)
            if not matched:
                continue
            thread, rest = matched.groups()
            if rest.endswith("<unfinished ...>"):
                waiting[thread] = (place, rest.removesuffix("<unfinished ...>").rstrip())
                continue
            begin = place
            resumed = RESUMED.match(rest)
            if resumed:
                begin, start = waiting.pop(thread, (place, resumed.group(1) + "("))
                rest = start + resumed.group(2)
            if rest.startswith("exit_group("):
                trace.exit_code = int(re.match(r"exit_group\((\d+)", rest).group(1))
                # What other threads still do is of no use to who was told of the end.
                trace.end = place
            call = CALL.match(rest)
            if call:
                understand(trace, files, begin, place, thread, *call.groups())
    trace.calls.sort(key=lambda it: it.begin)
    if trace.exit_code is None:
        raise ValueError(f"{path} does not show how its process ended")
    return trace


def understand(trace, files, begin, end, thread, name, arguments, result, opened):
    # Who asks for more care opens the same file.
    name = "openat" if name == "openat2" else name
    add = lambda **more: trace.calls.append(  # noqa: E731
        Call(name, begin, end, result=int(result), thread=thread, **more)
    )
    on_fd = re.match(FD, arguments)
    if name == "access" and arguments.startswith('"planted '):
        _, how, kind, site = arguments[1:].split(" ")[:4]
        trace.sites.append((how, kind, site))
    elif name in ("open", "openat"):
        if int(result) >= 0:
            files[result] = opened
            add(path=opened, text=arguments)
    elif name == "newfstatat":
        found = re.match(FD + ", " + STRING, arguments)
        if found:
            add(path=os.path.join(found.group(1), found.group(2)), text=arguments[found.end() :])
    elif int(result) < 0:
        return
    elif name in ("renameat", "renameat2", "linkat"):
        found = re.match(f"{FD}, {STRING}, {FD}, {STRING}", arguments)
        folder, old, target, new = found.groups()
        of_fd = re.fullmatch(r"/proc/self/fd/(\d+)", old)
        source = files[of_fd.group(1)] if of_fd else os.path.join(folder, old)
        # tempfile reaches a folder by its descriptor too.
        add(path=os.path.join(target, new), source=source)
    elif name in ("unlinkat", "mkdirat"):
        found = re.match(f"{FD}, {STRING}", arguments)
        if found:
            add(path=os.path.join(*found.groups()))
    elif on_fd:
        name = "fsync" if name == "fdatasync" else name
        add(path=on_fd.group(1), text=arguments[on_fd.end() :], fd=arguments.split("<", 1)[0])
