"""Whether a pull made everything durable, and in the right order, by what it asked of the kernel.

    python3 benches/peers/durable.py        tests this file itself
"""

import re
import subprocess

CALLS = "openat,openat2,fsync,fdatasync,linkat,rename,renameat,renameat2,clone,clone3"


def traced(command, log):
    subprocess.run(["strace", "-f", "-y", "-s", "300", "-o", log, "-e", f"trace={CALLS}", *command],
                   check=True, stdout=subprocess.DEVNULL)
    return joined(open(log).read().splitlines())


def joined(lines):
    """One line for each call that succeeded, where it ended: strace splits those that overlap.

    Before the number of a file comes that of its process, as in `71.9</file>`: of two processes, each has
    its own file 9."""
    begun, ended, process = {}, [], {}
    for line in lines:
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", call):
            call = begun.pop(thread, "") + resumed[1]
        if re.search(r"\) += \d", call):
            ended.append((thread, call))
            if made := re.search(r"\bCLONE_THREAD\b.*= (\d+)$", call):
                process[made[1]] = thread

    def one_of(thread):
        while thread in process:
            thread = process[thread]
        return thread

    return [re.sub(r"(?<=[( ])\d+(?=<)|(?<=/proc/self/fd/)\d+(?=\")",
                   lambda number: f"{one_of(thread)}.{number[0]}", call) for thread, call in ended]


def complaint(calls, digests, with_ref=True):
    """What is wrong, or nothing. `digests` are the names, in hexadecimal, of all blobs."""
    synced, named, folders = set(), set(), set()  # `folders`: where a name is not synced yet
    root = None
    for call in calls:
        if opened := re.search(r"^openat.*= ([\d.]+)<", call):
            synced.discard(opened[1])
        elif sync := re.match(r"f(?:data)?sync\(([\d.]+)<(.*?)>(?:\(deleted\))?\)", call):
            synced.update(sync.groups())
            folders.discard(sync[2])
        elif link := re.search(r'^linkat\(.*"/proc/self/fd/([\d.]+)", [\d.]+<(.*?/blobs/sha256)>, '
                               r'"([0-9a-f]{64})"', call):
            if link[1] not in synced:
                return f"the blob {link[3]} was named before its bytes were synced"
            named.add(link[3])
            folders.add(link[2])
        elif moved := re.search(r'^rename.*?<(.*?)>, "(.*?)".*<(.*?)>, "([^"]*)"', call):
            was_synced = f"{moved[1]}/{moved[2]}" in synced
            # What is derived from a blob has its name too, in another folder, and need not be synced.
            if moved[3].endswith("/blobs/sha256") and re.fullmatch("[0-9a-f]{64}", moved[4]):
                if not was_synced:
                    return f"the blob {moved[4]} was named before its bytes were synced"
                named.add(moved[4])
                folders.add(moved[3])
            elif moved[4] == "index.json":
                if not was_synced:
                    return "index.json was put in place before its bytes were synced"
                if folders or set(digests) - named:
                    return "the ref was written before the names of the blobs were synced"
                root = moved[3]
                folders.add(root)
    if missing := set(digests) - named:
        return f"{len(missing)} blobs got no name that was seen"
    if folders:
        return f"names were not synced in {', '.join(sorted(folders))}"
    if with_ref and root is None:
        return "the ref was not written"
    return None


def self_test():
    """A log that is right, and the same without each of the calls that make it so, or with another folder
    or file synced in its place."""
    part, blob, other = "/s/.layerstore/parts", "a" * 64, "b" * 64
    hashes = "/s/.layerstore/outboard/sha256"
    calls = [
        f'fsync(9<{part}/sha256-{blob}.part>) = 0',
        f'renameat2(5<{part}>, "sha256-{blob}.part", 6</s/blobs/sha256>, "{blob}", 1) = 0',
        'openat(6</s/blobs/sha256>, ".", O_RDWR|O_TMPFILE) = 9</s/blobs/sha256/#1>(deleted)',
        'fsync(9</s/blobs/sha256/#1>(deleted)) = 0',
        f'linkat(AT_FDCWD</>, "/proc/self/fd/9", 6</s/blobs/sha256>, "{other}", 0) = 0',
        'fsync(6</s/blobs/sha256>) = 0',
        'openat(AT_FDCWD</>, "/proc/self/fd/3/.new-x", O_RDWR|O_CREAT|O_EXCL) = 7</s/.new-x>',
        'fsync(7</s/.new-x>) = 0',
        'renameat(3</s>, ".new-x", 3</s>, "index.json") = 0',
        'fsync(3</s>) = 0',
        'fsync(8</s/.layerstore>) = 0',
    ]
    names = [blob, other]
    assert complaint(calls, names) is None, complaint(calls, names)
    derived = f'renameat(7<{hashes}>, ".new-y", 7<{hashes}>, "{blob}") = 0'
    assert complaint([derived, *calls], names) is None, "hashes are no promise"
    assert complaint([derived, *calls[2:]], names), "and no blob"
    for n, call in enumerate(calls[:-1]):
        if not call.startswith("openat"):
            assert complaint(calls[:n] + calls[n + 1:], names), f"not missed: {call}"
            late = calls[:n] + calls[n + 1:-1] + [call]
            assert call == "fsync(3</s>) = 0" or complaint(late, names), f"not missed before the end: {call}"
    for right, wrong in (("fsync(3</s>)", "fsync(8</s/.layerstore>)"), ("fsync(3</s>)", "fsync(3</s/blobs>)"),
                         ("fsync(7</s/.new-x>)", "fsync(7</s/.layerstore/.new-x>)"),
                         ("fsync(6</s/blobs/sha256>)", "fsync(6</other/blobs/sha256>)")):
        swapped = [call.replace(right, wrong) for call in calls]
        assert swapped != calls and complaint(swapped, names), f"passes as {right}: {wrong}"

    by_two = [f"{1 + n % 2} {call}" for n, call in enumerate(calls)]
    assert complaint(joined(by_two), names), "one process synced its file 9, and another named its own"
    clone = ["1 clone3({flags=CLONE_VM|CLONE_THREAD <unfinished ...>", *by_two, "1 <... clone3 resumed>) = 2"]
    assert complaint(joined(clone), names) is None, "two threads of one process have the same files"


if __name__ == "__main__":
    self_test()
