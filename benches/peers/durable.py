"""Whether a pull made everything durable, and in the right order, by what it asked of the kernel.

    python3 benches/peers/durable.py        tests this file itself
"""

import re
import subprocess

CALLS = "openat,openat2,fsync,fdatasync,linkat,rename,renameat,renameat2"


def traced(command, log):
    subprocess.run(["strace", "-f", "-y", "-s", "300", "-o", log, "-e", f"trace={CALLS}", *command],
                   check=True, stdout=subprocess.DEVNULL)
    return joined(open(log).read().splitlines())


def joined(lines):
    """One line for each call that succeeded, where it ended: strace splits those that overlap."""
    begun, calls = {}, []
    for line in lines:
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>").rstrip()
        elif resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", call):
            calls.append(begun.pop(thread, "") + resumed[1])
        else:
            calls.append(call)
    return [call for call in calls if re.search(r"\) += \d", call)]


def complaint(calls, digests, with_ref=True):
    """What is wrong, or nothing. `digests` are the names, in hexadecimal, of all blobs."""
    synced, named = set(), {}
    directory = root = -1
    index = None
    for at, call in enumerate(calls):
        if opened := re.search(r"^openat.*= (\d+)<", call):
            synced.discard(opened[1])
        elif sync := re.match(r"f(?:data)?sync\((\d+)<(.*?)>(?:\(deleted\))?\)", call):
            synced.update(sync.groups())
            if sync[2].endswith("/blobs/sha256"):
                directory = at
            root = at if index is not None and not sync[2].endswith("256") else root
        elif link := re.search(r'^linkat\(.*"/proc/self/fd/(\d+)".*"([0-9a-f]{64})"', call):
            if link[1] not in synced:
                return f"the blob {link[2]} was named before its bytes were synced"
            named[link[2]] = at
        elif moved := re.search(r'^rename.*?<(.*?)>, "(.*?)".*<(.*?)>, "([^"]*)"', call):
            # What is derived from a blob has its name too, in another folder, and need not be synced.
            if moved[3].endswith("/blobs/sha256") and re.fullmatch("[0-9a-f]{64}", moved[4]):
                if f"{moved[1]}/{moved[2]}" not in synced:
                    return f"the blob {moved[4]} was named before its bytes were synced"
                named[moved[4]] = at
            elif moved[4] == "index.json":
                index = at
    if missing := set(digests) - set(named):
        return f"{len(missing)} blobs got no name that was seen"
    if with_ref and index is None or not max(named.values()) < directory:
        return "the directory of the blobs was not synced after the last name"
    if with_ref and not directory < index < root:
        return "the ref was not written after the names were synced, and synced itself"
    return None


def self_test():
    """A log that is right, and the same without each of the calls that make it so."""
    part, blob, other = "/s/.layerstore/parts", "a" * 64, "b" * 64
    hashes = "/s/.layerstore/outboard/sha256"
    calls = [
        f'fsync(9<{part}/sha256-{blob}.part>) = 0',
        f'renameat2(5<{part}>, "sha256-{blob}.part", 6</s/blobs/sha256>, "{blob}", 1) = 0',
        'openat(6</s/blobs/sha256>, ".", O_RDWR|O_TMPFILE) = 9</s/blobs/sha256/#1>(deleted)',
        'fsync(9</s/blobs/sha256/#1>(deleted)) = 0',
        f'linkat(AT_FDCWD</>, "/proc/self/fd/9", 6</s/blobs/sha256>, "{other}", 0) = 0',
        'fsync(6</s/blobs/sha256>) = 0',
        'renameat(3</s>, ".new-x", 3</s>, "index.json") = 0',
        'fsync(3</s>) = 0',
    ]
    assert complaint(calls, [blob, other]) is None, complaint(calls, [blob, other])
    derived = f'renameat(7<{hashes}>, ".new-y", 7<{hashes}>, "{blob}") = 0'
    assert complaint([derived, *calls], [blob, other]) is None, "hashes are no promise"
    assert complaint([derived, *calls[2:]], [blob, other]), "and no blob"
    for n, call in enumerate(calls):
        if not call.startswith("openat"):
            assert complaint(calls[:n] + calls[n + 1:], [blob, other]), f"not missed: {call}"


if __name__ == "__main__":
    self_test()
