#!/usr/bin/env python3
"""The rules that no planted fault breaks, and the reading of traces, on traces written by hand."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import trace as traces  # noqa: E402
import trace_rules  # noqa: E402

HEX = "ab" * 32
READ = 'openat(4</s>, "index.json", O_RDONLY) = 5</s/index.json>'
SYNC = "fsync(5</s/index.json>) = 0"
STATUS = "fstat(5</s/index.json>, {st_mode=S_IFREG|0644, st_size=3, ...}) = 0"
SYNC_ROOT = "fsync(4</s>) = 0"
REAP = f'unlinkat(7</s/.layerstore/leases>, "{"1" * 32}", 0) = 0'
REMOVE = f'unlinkat(8</s/blobs/sha256>, "{HEX}", 0) = 0'
END = "exit_group(0) = ?"
LOCKS = "/s/.layerstore/locks"
ENTER = f"flock(9<{LOCKS}/gate>, LOCK_SH|LOCK_NB) = 0"
SHUT = f"flock(9<{LOCKS}/gate>, LOCK_EX|LOCK_NB) = 0"
OPEN = f"close(9<{LOCKS}/gate>) = 0"
LEASES = "getdents64(10</s/.layerstore/leases>, 0x5 /* 3 entries */, 32768) = 104"
PIN = f'write(6</s/.layerstore/leases/{"1" * 32}>, "blob sha256:{HEX} 12345678\\n", 86) = 86'
LOOK = f'newfstatat(8</s/blobs/sha256>, "{HEX}", {{st_mode=S_IFREG|S_ISVTX|0444, st_size=3, ...}}, 0) = 0'
LOCK = f"flock(11<{LOCKS}/index>, LOCK_EX|LOCK_NB) = 0"
UNLOCK = f"close(11<{LOCKS}/index>) = 0"
INDEX = 'renameat(4</s>, ".new-2", 4</s>, "index.json") = 0'


def trace(*lines):
    with tempfile.NamedTemporaryFile("w", suffix=".trace") as file:
        file.writelines(line if line[0].isdigit() else f"7 {line}" for line in map("{}\n".format, lines))
        file.flush()
        return traces.read(file.name)


class Rules(unittest.TestCase):
    def broken(self, operation, *lines):
        return trace_rules.broken(operation, trace(*lines))

    def collected(self, *lines):
        """What a collection breaks that has shut the gate and looked at the leases before, but for the
        status after each sync, which has a test of its own."""
        found = self.broken("gc", SHUT, LEASES, *lines)
        return [it for it in found if not it.startswith("status_after_sync: ")]

    def count(self, rule, *lines):
        return len(list(rule(trace(*lines, END))))

    def test_a_collection_in_its_order(self):
        self.assertEqual(self.collected(REAP, READ, SYNC, SYNC_ROOT, REMOVE, END), [])

    def test_refs_that_are_read_before_leases_are_reaped(self):
        self.assertEqual(len(self.collected(READ, REAP, SYNC, SYNC_ROOT, REMOVE, END)), 1)

    def test_refs_that_are_synced_before_they_are_read(self):
        self.assertEqual(len(self.collected(SYNC, SYNC_ROOT, READ, REMOVE, END)), 2)

    def test_a_removal_before_the_sync(self):
        self.assertEqual(len(self.collected(READ, SYNC, REMOVE, SYNC_ROOT, END)), 1)

    def test_a_sync_that_is_not_over(self):
        lines = (READ, SYNC, "7 fsync(4</s> <unfinished ...>", REMOVE.replace("unlinkat", "8 unlinkat", 1))
        resumed = "7 <... fsync resumed>) = 0"
        self.assertEqual(len(self.collected(*lines, resumed, END)), 1)
        self.assertEqual(len(self.collected(*lines[:3], resumed, lines[3], END)), 0)

    def test_a_command_that_failed_proves_nothing(self):
        self.assertEqual(len(self.collected(REAP, READ, SYNC, SYNC_ROOT, REMOVE, "exit_group(1) = ?")), 1)

    def test_nothing_done_proves_nothing(self):
        for operation in ("init", "pull", "put", "lease-add", "lease-rm", "gc", "logout", "library"):
            self.assertNotEqual(self.broken(operation, END), [], operation)

    def test_the_status_after_a_sync(self):
        rule = trace_rules.status_after_sync
        other = STATUS.replace("5<", "6<")
        for lines, count in (
            ((SYNC, STATUS), 0),
            ((SYNC,), 1),
            ((STATUS, SYNC), 1),
            ((SYNC, other, STATUS), 1),
            ((SYNC, "8 " + other, STATUS), 0),
            ((SYNC, "8 " + STATUS), 1),
            ((SYNC, INDEX, STATUS), 1),
            ((SYNC, STATUS, SYNC_ROOT), 1),
        ):
            self.assertEqual(self.count(rule, *lines), count, lines)

    def test_pins_and_looks_inside_the_gate(self):
        rule = trace_rules.pinned_inside_the_gate
        for lines, count in (
            ((ENTER, PIN, LOOK, OPEN), 0),
            ((ENTER, PIN, LOOK), 0),
            ((PIN, LOOK), 1),
            ((PIN, ENTER, LOOK, OPEN), 1),
            ((ENTER, PIN, OPEN, LOOK), 1),
            ((ENTER, OPEN, PIN, LOOK), 1),
            # Whoever shuts it keeps others out, and is not inside.
            ((SHUT, PIN, LOOK, OPEN), 1),
            # The gate is not left by closing another file of the same number.
            ((ENTER, "close(9</s/x>) = 0", PIN, LOOK, OPEN), 0),
            # What is found later was looked for before.
            ((ENTER, PIN, LOOK, OPEN, LOOK), 0),
            ((ENTER, "7 " + PIN.removesuffix(") = 86") + " <unfinished ...>", "8 " + OPEN,
              "7 <... write resumed>) = 86", LOOK), 1),
        ):
            self.assertEqual(self.count(rule, *lines), count, lines)
        failed = ENTER.replace("= 0", "= -1 EAGAIN (Resource temporarily unavailable)")
        self.assertEqual(self.count(rule, failed, PIN, LOOK), 1)

    def test_the_lock_of_the_index(self):
        rule = trace_rules.index_is_locked
        copy = 'openat(12</s/.layerstore>, "refs", O_RDONLY) = 5</s/.layerstore/refs>'
        for lines, count in (
            ((LOCK, READ, INDEX, UNLOCK), 0),
            ((READ, INDEX), 1),
            ((READ, LOCK, INDEX, UNLOCK), 1),
            ((LOCK, READ, UNLOCK, INDEX), 1),
            ((LOCK, INDEX, READ, UNLOCK), 1),
            ((LOCK.replace("_EX", "_SH"), READ, INDEX, UNLOCK), 1),
            ((LOCK, copy, INDEX, UNLOCK), 0),
            ((LOCK, READ, INDEX, UNLOCK, INDEX), 1),
            ((READ,), 0),
        ):
            self.assertEqual(self.count(rule, *lines), count, lines)

    def test_removals_with_the_gate_shut(self):
        rule = trace_rules.removed_with_the_gate_shut
        trash = f'renameat(8</s/blobs/sha256>, "{HEX}", 9</s/.layerstore/trash>, "sha256-{HEX}") = 0'
        for remove in (REMOVE, trash):
            for lines, count in (
                ((SHUT, LEASES, remove, OPEN), 0),
                ((LEASES, remove), 1),
                ((SHUT, remove, OPEN), 1),
                ((LEASES, SHUT, remove, OPEN), 1),
                ((SHUT, remove, LEASES, OPEN), 1),
                ((SHUT, LEASES, OPEN, remove), 1),
                ((ENTER, LEASES, remove, OPEN), 1),
                ((SHUT, LEASES, OPEN, SHUT, remove, OPEN), 1),
                ((SHUT, LEASES, OPEN, SHUT, LEASES, remove, OPEN), 0),
            ):
                self.assertEqual(self.count(rule, *lines), count, lines)
        # A name that a file gets is none that goes.
        comes = f'renameat(5</s/.layerstore/parts>, "x.part", 8</s/blobs/sha256>, "{HEX}") = 0'
        self.assertEqual(self.count(rule, comes), 0)

    def test_blobs_of_another_program(self):
        blob = f"/s/blobs/sha256/{HEX}"
        look = f'newfstatat(8</s/blobs/sha256>, "{HEX}", {{st_mode=S_IFREG|0644, st_size=3, ...}}, 0) = 0'
        sync = f"fsync(9<{blob}>) = 0"
        replace = f'renameat(8</s/blobs/sha256>, ".new-1", 8</s/blobs/sha256>, "{HEX}") = 0'
        index = 'renameat(4</s>, ".new-2", 4</s>, "index.json") = 0'
        rule = trace_rules.bytes_of_others_promised
        for lines, count in (
            ((look, replace, index), 0),
            ((look, sync, index), 1),
            ((look, sync, replace, index), 1),
            ((look, index, replace), 1),
            ((look, index), 1),
            ((look,), 1),
            ((look.replace("0644", "0444"), index), 1),
            ((look.replace("0644", "S_ISVTX|0444"), index), 1),
            ((look.replace("0644", "S_ISVTX|0644"), index), 1),
        ):
            self.assertEqual(len(list(rule(trace(*lines, END)))), count, lines)

    def test_an_index_that_is_left_as_it_was(self):
        rule = trace_rules.index_synced
        self.assertEqual(list(rule(trace(READ, SYNC, END))), [])
        self.assertEqual(len(list(rule(trace(SYNC, READ, END)))), 1)

    def test_a_trace_without_an_end_is_refused(self):
        with self.assertRaises(ValueError):
            trace(READ)


if __name__ == "__main__":
    unittest.main()
