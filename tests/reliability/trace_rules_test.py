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
SYNC_ROOT = "fsync(4</s>) = 0"
REAP = f'unlinkat(7</s/.layerstore/leases>, "{"1" * 32}", 0) = 0'
REMOVE = f'unlinkat(8</s/blobs/sha256>, "{HEX}", 0) = 0'
END = "exit_group(0) = ?"


def trace(*lines):
    with tempfile.NamedTemporaryFile("w", suffix=".trace") as file:
        file.writelines(line if line[0].isdigit() else f"7 {line}" for line in map("{}\n".format, lines))
        file.flush()
        return traces.read(file.name)


class Rules(unittest.TestCase):
    def broken(self, operation, *lines):
        return trace_rules.broken(operation, trace(*lines))

    def test_a_collection_in_its_order(self):
        self.assertEqual(self.broken("gc", REAP, READ, SYNC, SYNC_ROOT, REMOVE, END), [])

    def test_refs_that_are_read_before_leases_are_reaped(self):
        self.assertEqual(len(self.broken("gc", READ, REAP, SYNC, SYNC_ROOT, REMOVE, END)), 1)

    def test_refs_that_are_synced_before_they_are_read(self):
        self.assertEqual(len(self.broken("gc", SYNC, SYNC_ROOT, READ, REMOVE, END)), 2)

    def test_a_removal_before_the_sync(self):
        self.assertEqual(len(self.broken("gc", READ, SYNC, REMOVE, SYNC_ROOT, END)), 1)

    def test_a_sync_that_is_not_over(self):
        lines = (READ, SYNC, "7 fsync(4</s> <unfinished ...>", REMOVE.replace("unlinkat", "8 unlinkat", 1))
        resumed = "7 <... fsync resumed>) = 0"
        self.assertEqual(len(self.broken("gc", *lines, resumed, END)), 1)
        self.assertEqual(len(self.broken("gc", *lines[:3], resumed, lines[3], END)), 0)

    def test_a_command_that_failed_proves_nothing(self):
        self.assertEqual(len(self.broken("gc", REAP, READ, SYNC, SYNC_ROOT, REMOVE, "exit_group(1) = ?")), 1)

    def test_nothing_done_proves_nothing(self):
        for operation in ("init", "pull", "put", "lease-add", "lease-rm", "gc", "logout", "library"):
            self.assertNotEqual(self.broken(operation, END), [], operation)

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
