#!/usr/bin/env python3
"""What the harnesses of kills, errors and full disks must notice, planted: commands that lose something,
want repair, fetch twice, panic or sync a file again, or do not say that the disk is full. Prints how many
were planted and caught.

    planted_test.py [--store COMMAND]
"""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import unittest

import errors
import full_disk
import harness
import readers
import step
import world

# Runs the real command, between what is planted.
WRAPPER = """#!{python}
import glob, json, os, shutil, subprocess, sys
arguments = sys.argv[1:]
root = arguments[arguments.index("--root") + 1]
known = ("pull", "tag", "rm", "pin", "unpin", "touch", "config", "gc", "check", "lease", "blob")
command = next(it for it in arguments if it in known)
private = root + "/.layerstore"
{before}
code = subprocess.run([{store!r}, *arguments]).returncode
{after}
sys.exit(code)
"""
FORGETS = """
if command == {when!r} and code == 0:
    with open(root + "/index.json") as file:
        index = json.load(file)
    index["manifests"] = [it for it in index["manifests"] if "{name}" not in str(it)]
    with open(root + "/index.json", "w") as file:
        json.dump(index, file)
"""
# Takes the pin from a name, or gives it one.
PINS = """
if command == {when!r} and code == 0:
    with open(root + "/index.json") as file:
        index = json.load(file)
    for it in index["manifests"]:
        if "{name}" in str(it):
            it["annotations"].pop("layerstore.pinned", None)
            it["annotations"].update({more})
    with open(root + "/index.json", "w") as file:
        json.dump(index, file)
"""
LOSES = """
if command == {when!r}:
    path = max(glob.glob(root + "/blobs/sha256/*"), key=os.path.getsize)
    {how}
"""
# What another tool wrote stays its file.
FOREIGN = (
    'foreign = [it for it in glob.glob(root + "/blobs/sha256/*") if os.stat(it).st_mode & 0o7777 != 0o1444]'
)
LEFT = "[os.chmod(it, 0o644) for it in foreign if os.path.exists(it)]"
UNLINKS = '[os.unlink(it) for it in glob.glob(private + "/parts/*")]'
# A byte less of each part, and an account without the last range.
CUTS = '[os.truncate(it, os.path.getsize(it) - 1) for it in glob.glob(private + "/parts/*.part")]'
FORGETFUL = """
    import zlib
    for path in glob.glob(private + "/parts/*.state"):
        with open(path, "r+") as file:
            ranges = [it.split()[1] for it in file if it.startswith("bytes ")][-1]
            text = "bytes " + ranges.rpartition(",")[0]
            file.write(f"\\n{text} {zlib.crc32(text.encode()):08x}\\n")
"""
# By what is planted: the operation, the sabotage before and after it, what must be reported.
PLANTED = {
    "a tag that loses another": ("tag", "", FORGETS.format(when="tag", name="base"), "ref: "),
    "a tag that does nothing": ("tag", "", FORGETS.format(when="tag", name="copy"), "ref: "),
    "a collection that removes too much": (
        "gc", "", LOSES.format(when="gc", how="os.unlink(path)"), "lost: ",
    ),
    "a collection that does nothing": ("rm", 'if command == "gc": sys.exit(0)', "", "kept: "),
    "a blob that is cut": (
        "pull", "", LOSES.format(when="pull", how="os.chmod(path, 0o644); os.truncate(path, 9)"),
        "blob: ",
    ),
    "a file that is left behind": (
        "check", "", 'open(root + "/blobs/sha256/tmp", "w")', "stray: ",
    ),
    "parts that are thrown away": (
        "resumed pull",
        'if command == "pull": ' + UNLINKS, "", "the next pull asked for",
    ),
    "a store that wants repair": (
        "lease add",
        'if command == "pull": sys.exit("error: a stale lock")', "", "the next pull ended with 1",
    ),
    "a lease that is lost": (
        "lease add", "",
        'if command == "lease": [os.unlink(it) for it in glob.glob(private + "/leases/*")]',
        "lease: ",
    ),
    "a pin that does nothing": ("pin", 'if command == "pin": sys.exit(0)', "", "pin: "),
    "a pin that is lost when room is made": (
        "eviction", "", PINS.format(when="gc", name="app:v2", more={}), "pin: ",
    ),
    "a pin that stays": (
        "unpin", "",
        PINS.format(when="unpin", name="app:v2", more={"layerstore.pinned": "true"}), "pin: ",
    ),
    "a pinned image that is dropped": (
        "eviction", "", FORGETS.format(when="gc", name="app:v2"), "ref: ",
    ),
    "an image that is dropped by half": (
        "eviction", "", LOSES.format(when="gc", how="os.unlink(path)"), "lost: ",
    ),
    "an image that goes without need": (
        "gc", "", FORGETS.format(when="gc", name="base"), "ref: ",
    ),
    "a use that is not noted": ("touch", 'if command == "touch": sys.exit(0)', "", "used: "),
    "a setting that is lost": ("config", 'if command == "config": sys.exit(0)', "", "config: "),
    "a blob that was put is lost": (
        "blob put", "", LOSES.format(when="blob", how="shutil.rmtree(root + '/blobs/sha256')"),
        "lost: ",
    ),
    "a tag of another tool's file": ("tag of another tool's", FOREIGN, LEFT, "others: "),
    "a lease on another tool's file": ("lease add to another tool's", FOREIGN, LEFT, "others: "),
    "a pull that takes another tool's file": ("pull over another tool's", FOREIGN, LEFT, "others: "),
}  # fmt: skip
# The same on a full disk.
FULL = {
    "a tag that loses another": ("tag", "", FORGETS.format(when="tag", name="base"), "ref: "),
    "parts that are lost": (
        "resumed pull", "", "if code == 8: " + UNLINKS, "parts have lost bytes: ",
    ),
    "parts that are cut": (
        "resumed pull", "", "if code == 8: " + CUTS, "parts have lost bytes: ",
    ),
    "an account of less than there is": (
        "resumed pull", "", "if code == 8: " + FORGETFUL, "parts have lost bytes: ",
    ),
    "another exit code": ("resumed pull", "", "if code == 8: code = 1", "it ended with 1: "),
    "nothing that is said": (
        "resumed pull", "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)", "",
        "it does not say what is missing",
    ),
    "a collection that fails": (
        "resumed pull", 'if command == "gc": sys.exit("error: no space left")', "",
        "a collection on the full disk ended with 1: ",
    ),
    "a collection that removes parts": (
        "resumed pull", "", 'if command == "gc": ' + UNLINKS,
        "a collection removed what can be continued",
    ),
    "a collection that cuts parts": (
        "resumed pull", "", 'if command == "gc": ' + CUTS,
        "a collection removed what can be continued",
    ),
}  # fmt: skip


class Planted(unittest.TestCase):
    planted = caught = 0
    store = None

    def setUp(self):
        step.build()
        self.temp = tempfile.TemporaryDirectory(dir=harness.stores())
        self.addCleanup(self.temp.cleanup)

    def wrap(self, before, after):
        path = os.path.join(self.temp.name, "wrapper")
        text = WRAPPER.format(python=sys.executable, store=self.store, before=before, after=after)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, stat.S_IRWXU)
        return path

    def world(self, command, folder=None):
        folder = folder or self.temp.name
        there = world.World(command, folder, harness.books_beside(folder))
        self.addCleanup(there.close)
        return there

    def test_each_planted_fault_is_reported(self):
        for title, (name, before, after, reported) in PLANTED.items():
            with self.subTest(title):
                there = self.world(self.wrap(before, after))
                it = there.scenarios[name]
                there.renew(it)
                Planted.planted += 1
                # What is thrown away before the first pull is not that pull's to fetch again.
                if name != "resumed pull":
                    there.start(it)
                problems = there.aftermath(it)
                self.assertTrue(any(reported in text for text in problems), problems)
                Planted.caught += 1

    def test_the_real_command_has_none(self):
        there = self.world(self.store)
        for it in there.scenarios.values():
            there.renew(it)
            there.start(it)
            self.assertEqual(there.aftermath(it), [], it.name)

    @unittest.skipIf(os.geteuid(), "not root, who alone may mount a file system")
    def test_each_planted_fault_of_a_full_disk_is_reported(self):
        disk = full_disk.Disk(self.temp.name)
        self.addCleanup(disk.close)
        there = self.world(self.store, disk.path)
        undisturbed = full_disk.fill(there, disk, there.scenarios["resumed pull"], 2)
        self.assertEqual(undisturbed, (True, []))
        for title, (name, before, after, reported) in FULL.items():
            with self.subTest(title):
                there.command = self.wrap(before, after)
                Planted.planted += 1
                left = 640 if name == "tag" else 2
                _, problems = full_disk.fill(there, disk, there.scenarios[name], left)
                self.assertTrue(any(reported in text for text in problems), problems)
                Planted.caught += 1

    @unittest.skipIf(readers.lacking(), "needs skopeo and umoci")
    def test_what_only_other_tools_notice(self):
        # A media type that this store does not look at, once it has what the name leads to.
        change = PINS.format(when="tag", name="copy", more={}).replace(
            'it["annotations"].pop("layerstore.pinned", None)', 'it["mediaType"] = "text/plain"'
        )
        others = readers.Readers()
        for command, count in ((self.store, 0), (self.wrap("", change), 1)):
            there = self.world(command)
            there.readers = others
            it = there.scenarios["tag"]
            there.renew(it)
            there.start(it)
            Planted.planted += count
            problems = there.check() + others.look(there.root)
            self.assertTrue(all(it.startswith("reader: ") for it in problems), problems)
            self.assertEqual((others.stores, others.runs, bool(problems)), (1, 1, bool(count)), problems)
            # One that was found good is not read again, and one that was not is.
            others.look(there.root)
            self.assertEqual(others.taken()[:2], (2, 1 + count))
            Planted.caught += count

    def test_files_that_are_left_behind(self):
        there = self.world(self.store)
        there.renew(there.scenarios["tag"])
        for n, folder in enumerate(("blobs/sha256", ".layerstore", ".layerstore")):
            with open(there.at(f"{folder}/.new-{n}"), "w"):
                # Of a command that has ended; of one that was killed.
                Planted.planted += 1
                self.assertEqual(len(there.left_behind(0)), min(n + 1, 2))
                self.assertEqual(len(there.left_behind(1)), n // 2)
                Planted.caught += 1

    def disturbed(self, code, *how):
        """A program of Python, run under `step`."""
        log = os.path.join(self.temp.name, "calls")
        prefix = step.command(self.temp.name, log, *how)
        done = subprocess.run(
            [*prefix, sys.executable, "-c", code, self.temp.name],
            capture_output=True,
            check=False,
        )
        return done, step.read(log)

    def test_a_second_sync_after_a_failed_one(self):
        code = """if True:
            import os, sys
            fd = os.open(sys.argv[1] + "/x", os.O_RDWR | os.O_CREAT)
            os.write(fd, b"0123456789")
            try:
                os.fsync(fd)
            except OSError:
                pass
            {then}
        """
        rename = "os.rename(sys.argv[1] + '/x', sys.argv[1] + '/y')"
        for then, count in (("os.fsync(fd)", 1), ("pass", 0), (rename, 0)):
            Planted.planted += count
            done, log = self.disturbed(code.format(then=then), "fsync", 1, errno.EIO)
            self.assertEqual((done.returncode, log.hit), (0, True), done.stderr)
            self.assertEqual(len(errors.synced_once(log.calls)), count)
            # It has ended well, whatever it did then.
            Planted.planted += 1
            self.assertEqual(len(errors.believed(done, log.calls)), 1)
            Planted.caught += 1 + count
        done, log = self.disturbed(code.format(then="sys.exit(1)"), "fsync", 1, errno.EIO)
        self.assertEqual((done.returncode, errors.believed(done, log.calls)), (1, []))

    def test_what_step_does_to_a_program(self):
        write = "import os, sys; fd = os.open(sys.argv[1] + '/x', os.O_RDWR | os.O_CREAT); "
        write += "print(os.write(fd, b'0123456789'))"
        done, log = self.disturbed(write, "write", 1, "short")
        self.assertEqual((done.stdout, log.hit, log.status), (b"5\n", True, 0))
        done, log = self.disturbed(write, "write", 1, errno.ENOSPC)
        self.assertIn(b"No space left", done.stderr)
        self.assertEqual(os.path.getsize(os.path.join(self.temp.name, "x")), 5)
        done, log = self.disturbed(write, "write", 1, "kill")
        self.assertEqual((log.hit, log.status, log.calls[-1].name), (True, 137, "write"))
        done, log = self.disturbed(write, "write", 2, "kill")
        self.assertEqual((log.hit, log.status), (False, 0), "a kill that did not happen")

    def test_what_step_does_to_other_calls(self):
        code = """if True:
            import ctypes, os, select, socket, struct, sys
            fd = os.open(sys.argv[1] + "/z", os.O_RDWR | os.O_CREAT)
            here, there = socket.socketpair()
            here.send(b"0123456789")
            print(here.send(b"0123456789"), len(there.recv(6)), len(there.recv(100)))
            buffer = ctypes.create_string_buffer(10)
            piece = struct.pack("QQ", ctypes.addressof(buffer), 10)
            print(os.writev(fd, [b"0123456789", b"x"]), ctypes.CDLL(None).preadv(fd, piece, 1, 0))
            os.dup(fd)
            select.epoll()
            socket.socket()
        """
        for call, at, printed in (
            ("send", 2, b"5 6 9\n11 10\n"),
            ("receive", 1, b"10 3 17\n11 10\n"),
            ("writev", 1, b"10 6 14\n5 5\n"),
            ("preadv", 1, b"10 6 14\n11 5\n"),
        ):
            done, log = self.disturbed(code, call, at, "short")
            self.assertEqual((done.stdout, log.hit), (printed, True), done.stderr)
            os.unlink(os.path.join(self.temp.name, "z"))
        # All that was there came within half of what was asked for.
        done, log = self.disturbed(code, "receive", 2, "short")
        self.assertEqual((done.stdout, log.hit), (b"10 6 14\n11 10\n", False), done.stderr)
        for call in ("duplicate", "epoll_create1", "socket", "socketpair"):
            done, log = self.disturbed(code, call, 1, errno.EMFILE)
            self.assertEqual((done.returncode, log.hit), (1, True), call)
            self.assertIn(os.strerror(errno.EMFILE), done.stderr.decode())

    def test_what_step_calls_an_opening(self):
        code = """if True:
            import ctypes, os, struct, sys
            where = sys.argv[1].encode()
            def openat2(path, flags, mode=0):
                how = struct.pack("QQQ", flags, mode, 0)
                fd = ctypes.CDLL(None, use_errno=True).syscall(437, -100, path, how, len(how))
                return fd if fd >= 0 else sys.exit(os.strerror(ctypes.get_errno()))
            for call in (openat2, os.open):
                call(where, os.O_RDWR | os.O_TMPFILE, 0o600)
                call(where + b"/x", os.O_RDWR | os.O_CREAT, 0o600)
                call(where + b"/x", os.O_WRONLY | os.O_APPEND)
                call(where + b"/x", os.O_RDONLY)
            folder = openat2(where, os.O_PATH | os.O_DIRECTORY)
            os.open(f"/proc/self/fd/{folder}/y", os.O_RDWR | os.O_CREAT)
            os.chmod(f"/proc/self/fd/{folder}", 0o700)
            os.unlink(f"/proc/self/fd/{folder}/y")
        """
        done, log = self.disturbed(code)
        self.assertEqual(done.stderr, b"")
        by_flags = ("create", "create", "open_to_write")
        names = [it.name for it in log.calls if it.name in {*errors.ERRORS} - {"close", "newfstatat"}]
        due = [*by_flags, "openat2", *by_flags, "openat", "openat2", "create", "chmod", "unlink"]
        self.assertEqual(names, due)
        removed = [it.path for it in log.calls if it.name == "unlink"]
        self.assertEqual(removed, [os.path.join(self.temp.name, "y")])
        for at, what in ((1, errno.ENOSPC), (2, errno.EDQUOT), (2, errno.EROFS)):
            done, log = self.disturbed(code, "create", at, what)
            self.assertEqual((log.hit, log.status), (True, 1))
            self.assertIn(os.strerror(what), done.stderr.decode())

    def test_what_a_command_says_when_it_fails(self):
        def ended(code, text):
            return subprocess.CompletedProcess([], code, b"", text)

        bad = (
            (ended(101, b"thread 'main' panicked at x.rs"), "EIO"),
            (ended(1, b""), "EIO"),
            (ended(42, b"error: x"), "EIO"),
            (ended(1, b"error: no space"), "ENOSPC"),
            (ended(6, b"error: x"), "EINTR"),
            (ended(6, b"error: x"), "short"),
        )
        for done, error in bad:
            Planted.planted += 1
            for call in ("write", "receive") if error in ("EINTR", "short") else ("write",):
                self.assertTrue(errors.said_well(done, call, error))
            Planted.caught += 1
        self.assertEqual(errors.said_well(ended(8, b"error: no space"), "write", "ENOSPC"), [])


if __name__ == "__main__":
    if "--store" in sys.argv:
        place = sys.argv.index("--store")
        Planted.store = os.path.abspath(sys.argv[place + 1])
        del sys.argv[place : place + 2]
    Planted.store = Planted.store or harness.build_store()
    tests = unittest.main(exit=False, verbosity=0).result
    print(f"planted faults of kills, errors and full disks: {Planted.planted}, caught: {Planted.caught}")
    for test, why in tests.skipped:
        print(f"NOT RUN  {test.id()}: {why}")
    sys.exit(not tests.wasSuccessful())
