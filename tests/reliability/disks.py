"""Disks that power is cut from: images in memory, loop devices, and the block log.

Everything is mounted in a namespace of the harness's own, where its processes live too: however it
ends, SIGKILL included, the kernel ends the processes, unmounts, and frees the loop devices.
"""

import contextlib
import os
import random
import shutil
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MIB = 1024 * 1024
# The smallest that mkfs.xfs makes is 300 MiB. The images are sparse.
SIZE = 320 * MIB
SECTOR = 512

MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
# Copies of one file system have the same UUID. A discard would be one more thing to reorder.
OPTIONS = {"ext4": "nodiscard", "xfs": "nodiscard,nouuid", "btrfs": "nodiscard"}
# What a disk writes whole or not at all, in bytes. ext4 is content with a sector, but for its superblock:
# that has two, with one checksum over both, and what is torn between them is not mounted, whatever
# else is there. It is written at its place each time that the first file without a name comes or the
# last one goes. XFS and btrfs rely on 4 KiB: torn within, a directory block of the one has a CRC that recovery takes for damage, and
# the superblock of the other no second copy that is looked at.
SUPERBLOCK = 4096
ATOMS = {"ext4": (SECTOR, 4096), "xfs": (4096,), "btrfs": (4096,)}

NEEDS = {
    "unshare": "util-linux", "losetup": "util-linux", "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs", "xfs_io": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "strace": "strace",
    "fusermount3": "fuse3",
}


def why_not():
    """Why no disk can be made here; None where it can."""
    if os.geteuid() != 0:
        return "not root, who alone may mount"
    for command, package in NEEDS.items():
        if shutil.which(command) is None:
            return f"{command} is missing (Debian: {package})"
    for device in ("/dev/loop-control", "/dev/fuse"):
        if not os.path.exists(device):
            return f"there is no {device}"
    with open("/proc/filesystems", encoding="ascii") as file:
        known = file.read().split()
    for fs in MKFS:
        if fs not in known and subprocess.run(["modprobe", fs], capture_output=True).returncode:
            return f"the kernel has no {fs}"
    return None


def build():
    """The block log, and the command, if that is not said otherwise."""
    if os.environ.get("LAYERSTORE_CUTS_UNSHARED") == "1":
        return
    target = os.path.join(ROOT, "target/reliability")
    blocklog = ["--manifest-path", os.path.join(HERE, "blocklog/Cargo.toml"), "--release"]
    cargo = ["cargo", "build", "--locked", "--quiet"]
    subprocess.run([*cargo, *blocklog, "--target-dir", target], cwd=ROOT, check=True)
    subprocess.run(cargo, cwd=ROOT, check=True)


def into_namespace():
    """Goes on in namespaces of its own, as a new process."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.environ.get("LAYERSTORE_CUTS_UNSHARED") == "1":
        return
    os.environ["LAYERSTORE_CUTS_UNSHARED"] = "1"
    unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork"]
    unshare += ["--kill-child=KILL", "--mount-proc", sys.executable]
    os.execvp("unshare", unshare + sys.argv)


@contextlib.contextmanager
def workspace():
    """A folder in memory, for the images."""
    folder = os.path.join(ROOT, "target", "reliability", f"work-{random.randbytes(6).hex()}")
    os.makedirs(folder)
    try:
        run("mount", "-t", "tmpfs", "-o", "mode=0700,size=8g", "none", folder)
        try:
            yield folder
        finally:
            run("umount", "--lazy", folder)
    finally:
        os.rmdir(folder)


def run(*command):
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise OSError(f"{' '.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout


def make(fs, image):
    """A new file system in a file."""
    with open(image, "wb") as file:
        file.truncate(SIZE)
    run(*MKFS[fs], image)


def mount(fs, image, folder):
    """By a loop device that goes when the file system is unmounted."""
    os.makedirs(folder, exist_ok=True)
    run("mount", "-t", fs, "-o", f"loop,{OPTIONS[fs]}", image, folder)


def unmount(fs, folder):
    device = None
    if fs == "btrfs":
        with open("/proc/mounts", encoding="utf-8") as file:
            device = next((it.split()[0] for it in file if it.split()[1] == folder), None)
    # A process that was killed may not have left yet.
    for attempt in range(200):
        try:
            run("umount", folder)
            break
        except OSError:
            if attempt == 199:
                raise
            time.sleep(0.02)
    if device is not None:
        # btrfs remembers devices by the UUID that all states of one disk share, and would refuse
        # an older one. Where the device has gone already, so has the memory.
        subprocess.run(["btrfs", "device", "scan", "--forget", device], capture_output=True)


def copy(source, target):
    """With holes for what is empty."""
    run("cp", "--sparse=auto", source, target)


class BlockLog:
    """A disk whose writes and flushes are recorded; see blocklog/src/main.rs."""

    def __init__(self, image, log, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.disk = folder, os.path.join(folder, "disk")
        self.process = subprocess.Popen(
            [os.path.join(ROOT, "target/reliability/release/blocklog"), folder, image, log],
            stdout=subprocess.PIPE,
        )
        if self.process.stdout.readline() != b"ready\n":
            raise OSError("blocklog did not mount its disk")
        self.mark_fd = os.open(os.path.join(folder, "mark"), os.O_WRONLY)

    def mark(self, line):
        if os.write(self.mark_fd, line) != len(line):
            raise OSError("a mark was not written whole")

    def close(self):
        os.close(self.mark_fd)
        # The loop device lets the file go a moment after it was unmounted.
        for _ in range(200):
            if subprocess.run(["umount", self.folder], capture_output=True).returncode == 0:
                break
            time.sleep(0.02)
        if self.process.wait(timeout=60) != 0:
            raise OSError("blocklog failed")


def read_log(path):
    """The records: (kind, offset, bytes)."""
    with open(path, "rb") as file:
        data = memoryview(file.read())
    at, records = 0, []
    while at < len(data):
        kind, offset, length = struct.unpack_from("<cQQ", data, at)
        at += 17
        if len(data) < at + length:
            raise ValueError(f"{path} ends within a record")
        records.append((kind, offset, data[at : at + length]))
        at += length
    return records


def write_state(records, cut, choice, atom, image):
    """Makes an image of what a disk may hold when its power goes before record number `cut`: all
    that was written before the last flush, and of what came later any part, in any order.

    `choice` picks, with its own mind for each atom of `atom` bytes, whether it got there; the block of
    the superblock is one. Later
    writes to a place may get there without earlier ones, which is all that an order can show."""
    flushed = max((n for n in range(cut) if records[n][0] == b"F"), default=-1)
    lucky = choice.choice((0.0, 0.1, 0.5, 0.5, 0.9))
    with open(image, "r+b") as file:
        fd = file.fileno()
        for n in range(cut):
            kind, offset, data = records[n]
            if kind != b"W":
                continue
            if n < flushed:
                os.pwrite(fd, data, offset)
                continue
            at = 0
            while at < len(data):
                whole = max(atom, SUPERBLOCK) if offset + at < SUPERBLOCK else atom
                length = min(whole - (offset + at) % whole, len(data) - at)
                if choice.random() < lucky:
                    os.pwrite(fd, data[at : at + length], offset + at)
                at += length
