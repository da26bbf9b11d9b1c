#!/usr/bin/env python3
"""Each kind of fault, planted in a copy of a sound store, is reported by the checker; and nothing
is in a sound one. Prints how many were planted and caught."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import checker
import layout
import ledger as ledgers
import samples

APP, MULTI, OTHER = "registry.test/app:v1", "registry.test/multi:v1", "registry.test/other:v1"
LEASE, OLD_LEASE = "0" * 31 + "1", "0" * 31 + "2"


class Case(unittest.TestCase):
    planted = caught = 0

    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.root = os.path.join(self.temp.name, "store")
        self.images = images = samples.standard()
        self.app, self.multi = images.images["app:v1"], images.images["multi:v1"]
        self.other = images.images["other:v1"]
        manifests = json.loads(images.blobs[self.multi["digest"]])["manifests"]
        self.arm = manifests[1]["digest"]
        self.put = samples.digest_of(b"a blob that was put")
        images.blobs[self.put] = b"a blob that was put"
        wanted = {
            APP: images.closure(self.app),
            MULTI: images.closure(self.multi, without=(self.arm,)),
        }
        samples.make_store(self.root)
        for blobs in (*wanted.values(), images.closure(self.other), [self.put]):
            samples.add_blobs(self.root, images, blobs)
        samples.set_refs(self.root, {APP: self.app, MULTI: self.multi})
        samples.add_lease(self.root, LEASE, "holder test", f"tree {self.other['digest']}", "until never")
        samples.add_lease(self.root, OLD_LEASE, "holder test", f"blob {self.put}")
        layer = json.loads(images.blobs[images.images["app:v2"]["digest"]])["layers"][2]
        self.half = layer["digest"]
        data = images.blobs[self.half]
        samples.add_part(self.root, self.half, data[:30000], [(0, 10000), (20000, 30000)])
        self.book = os.path.join(self.temp.name, "ledger")
        with ledgers.Ledger(self.book) as book:
            for name, root in ((APP, self.app), (MULTI, self.multi)):
                book.acknowledged("pull", ref=name, digest=root["digest"], wanted=wanted[name])
            book.acknowledged("put", digest=self.put, size=len(images.blobs[self.put]))
            book.acknowledged("lease-add", lease=LEASE, trees=[self.other["digest"]], until=None)

    # --- Helpers ---

    def at(self, path):
        return os.path.join(self.root, path)

    def blob(self, digest):
        return layout.blob_path(self.root, digest)

    def problems(self, **how):
        return checker.check(self.root, self.book, **how).problems

    def reports(self, kind, text="", **how):
        """The checker has found what was planted just now, under this kind."""
        Case.planted += 1
        found = self.problems(**how)
        self.assertTrue(found, "nothing was reported")
        self.assertTrue(any(it.startswith(kind + ":") and text in it for it in found), found)
        Case.caught += 1

    def record(self, op, outcome, **what):
        with ledgers.Ledger(self.book) as book:
            name = book.begin(op, **what)
            if outcome:
                getattr(book, outcome)(name)

    def overwrite(self, path, data):
        os.chmod(path, 0o644)
        with open(path, "r+b") as file:
            file.write(data)
        os.chmod(path, layout.OWN_BLOB)

    def a_layer(self, root):
        return json.loads(self.images.blobs[root["digest"]])["layers"][0]["digest"]


class Sound(Case):
    def test_a_sound_store_has_no_fault(self):
        report = checker.check(self.root, self.book)
        self.assertEqual(report.problems, [])
        self.assertEqual((report.refs, report.leases, report.parts), (2, 2, 1))

    def test_missing_bytes_are_counted_by_account_and_length(self):
        data = self.images.blobs[self.half]
        self.assertEqual(layout.missing_bytes(self.root, {self.half: len(data)}), len(data) - 20000)
        os.unlink(self.at(f".layerstore/parts/{self.half.replace(':', '-')}.state"))
        self.assertEqual(layout.missing_bytes(self.root, {self.half: len(data)}), len(data) - 30000)
        self.assertEqual(layout.missing_bytes(self.root, {self.put: 19}), 0)

    def test_the_live_set_is_what_refs_and_lasting_leases_lead_to(self):
        alive = layout.live(self.root, time.time())
        wanted = set()
        for root in (self.app, self.multi, self.other):
            wanted |= self.images.closure(root, without=(self.arm,)).keys()
        self.assertEqual(alive, wanted)
        self.assertEqual(checker.after_collection(self.root, alive), [f"kept: the collection left {self.put}"])
        os.unlink(self.blob(self.a_layer(self.other)))
        self.assertIn("lost", checker.after_collection(self.root, alive)[0])

    def test_a_document_about_a_live_one_is_live(self):
        about = self.images.manifest([], subject=self.app)
        samples.add_blobs(self.root, self.images, self.images.closure(about))
        self.assertIn(about["digest"], layout.live(self.root, time.time()))


class Files(Case):
    def test_documents_of_the_layout(self):
        for path, kind in (
            ("oci-layout", "layout"),
            ("index.json", "index"),
            (".layerstore/version", "layout"),
        ):
            for data in (b"", bytes(9), b"{}", b"[1"):
                with open(self.at(path), "rb") as file:
                    before = file.read()
                with open(self.at(path), "wb") as file:
                    file.write(data)
                self.reports(kind)
                with open(self.at(path), "wb") as file:
                    file.write(before)
        self.assertEqual(self.problems(), [])
        os.unlink(self.at("index.json"))
        self.reports("index")

    def test_a_store_that_is_gone(self):
        os.unlink(self.at(".layerstore/version"))
        self.reports("layout", "there is no store")

    def test_stray_files(self):
        for path in (
            "x", "blobs/x", "blobs/sha256/x", "blobs/sha256/" + "A" * 64, ".layerstore/x",
            ".layerstore/locks/x", ".layerstore/leases/x", ".layerstore/parts/x",
            ".layerstore/locks/.new-x", f".layerstore/parts/sha256-{'0' * 63}.part",
            ".layerstore/quarantine/x", ".layerstore/hosts/x", ".layerstore/outboard/x",
            ".layerstore/outboard/sha256/x", ".layerstore/suspect/x", ".layerstore/trash/x",
            ".layerstore/used/x",
        ):  # fmt: skip
            os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
            with open(self.at(path), "wb"):
                pass
            self.reports("stray", path)
            os.unlink(self.at(path))

    def test_types_and_modes(self):
        layer = self.a_layer(self.app)
        # 0444 is another tool's blob, which nobody has synced.
        for mode in (0o600, 0o444):
            os.chmod(self.blob(layer), mode)
            self.reports("mode", layer.partition(":")[2])
        os.unlink(self.blob(layer))
        os.symlink("/dev/null", self.blob(layer))
        self.reports("type")
        self.reports("lost", layer)

    def test_locks(self):
        part = f".layerstore/parts/{self.half.replace(':', '-')}.lock"
        for path in (".layerstore/locks/gate", part, f".layerstore/leases/{LEASE}"):
            with open(self.at(path), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                self.reports("lock", path)
                self.assertEqual(self.problems(busy=True), [])


class Blobs(Case):
    def test_bytes_that_are_not_those_of_the_name(self):
        layer = self.blob(self.a_layer(self.app))
        self.overwrite(layer, b"\0\0")
        self.reports("blob")
        self.reports("lost", f"of {APP}")

    def test_a_blob_that_no_ref_needs_is_hashed_too(self):
        blank = self.at("blobs/sha256/" + "0" * 64)
        samples.write(blank, b"", layout.OWN_BLOB)
        self.reports("blob")

    def test_an_empty_and_a_cut_blob(self):
        for size in (0, 100):
            os.truncate(self.blob(self.a_layer(self.app)), size)
            self.reports("blob")

    def test_each_blob_that_is_missing(self):
        for digest in self.images.closure(self.app):
            path = self.blob(digest)
            os.rename(path, self.at("../aside"))
            self.reports("lost", digest)
            os.rename(self.at("../aside"), path)

    def test_the_platform_that_was_pulled_is_missing(self):
        manifests = json.loads(self.images.blobs[self.multi["digest"]])["manifests"]
        os.unlink(self.blob(manifests[0]["digest"]))
        self.reports("lost", f"no platform of {MULTI}")

    def test_a_size_that_is_not_the_descriptor_s(self):
        samples.set_refs(self.root, {APP: {**self.app, "size": 1}, MULTI: self.multi})
        self.reports("size", self.app["digest"])

    def test_a_put_blob_is_gone(self):
        os.unlink(self.blob(self.put))
        self.reports("lost", self.put)
        # One with a grace time of an hour could not have removed it, one without might have.
        self.record("gc", "killed", grace=3600)
        self.reports("lost", self.put)
        self.record("gc", None, grace=0)
        self.assertEqual(self.problems(), [])


class Refs(Case):
    def test_a_lost_a_foreign_and_a_wrong_ref(self):
        samples.set_refs(self.root, {APP: self.app})
        self.reports("ref", MULTI)
        samples.set_refs(self.root, {APP: self.app, MULTI: self.multi, OTHER: self.other})
        self.reports("ref", "nobody ever named")
        samples.set_refs(self.root, {APP: self.other, MULTI: self.multi})
        self.reports("ref", APP)

    def test_a_name_twice(self):
        with open(self.at("index.json"), "rb") as file:
            value = json.load(file)
        value["manifests"] *= 2
        with open(self.at("index.json"), "w", encoding="utf-8") as file:
            json.dump(value, file)
        self.reports("index", "twice")

    def test_what_was_not_acknowledged_may_have_happened_or_not(self):
        for outcome in (None, "killed", "failed"):
            self.record("tag", outcome, ref=OTHER, digest=self.other["digest"])
            self.assertEqual(self.problems(), [])
        samples.set_refs(self.root, {APP: self.app, MULTI: self.multi, OTHER: self.other})
        self.assertEqual(self.problems(), [])
        samples.set_refs(self.root, {APP: self.app, MULTI: self.multi, OTHER: self.app})
        self.reports("ref", OTHER)

    def test_an_acknowledged_removal_and_change(self):
        self.record("tag", "done", ref=APP, digest=self.other["digest"])
        self.reports("ref", APP)
        samples.set_refs(self.root, {APP: self.other, MULTI: self.multi})
        self.assertEqual(self.problems(), [])
        self.record("rm", "done", ref=APP)
        self.reports("ref", APP)
        samples.set_refs(self.root, {MULTI: self.multi})
        self.assertEqual(self.problems(), [])

    def test_changes_at_the_same_time_may_end_in_any_order(self):
        with ledgers.Ledger(self.book) as book:
            one = book.begin("tag", ref=APP, digest=self.other["digest"])
            two = book.begin("rm", ref=APP)
            book.done(two)
            book.done(one)
        for refs in ({APP: self.other}, {}):
            samples.set_refs(self.root, {MULTI: self.multi, **refs})
            self.assertEqual(self.problems(), [])
        samples.set_refs(self.root, {MULTI: self.multi, APP: self.app})
        self.reports("ref", APP)


class Room(Case):
    """Pins, and what is dropped to make room."""

    def both(self, *pinned):
        samples.set_refs(self.root, {APP: self.app, MULTI: self.multi}, pinned)

    def test_a_lost_and_a_foreign_pin(self):
        self.record("pin", "killed", ref=APP)
        self.assertEqual(self.problems(), [])
        self.both(APP)
        self.assertEqual(self.problems(), [])
        self.record("pin", "done", ref=APP)
        self.both()
        self.reports("pin", f"{APP} should be pinned")
        self.both(APP)
        self.record("unpin", "killed", ref=APP)
        self.assertEqual(self.problems(), [])
        self.record("unpin", "done", ref=APP)
        self.reports("pin", f"{APP} should be unpinned")

    def test_a_pin_goes_with_its_name(self):
        self.record("pin", "done", ref=APP)
        self.record("rm", "done", ref=APP)
        self.record("pull", "done", ref=APP, digest=self.app["digest"])
        self.assertEqual(self.problems(), [])

    def test_what_is_not_pinned_may_be_dropped_whole(self):
        for outcome in ("killed", "done", None):
            self.record("pin", "done", ref=APP)
            self.record("gc", outcome, grace=3600, evicts=True)
            self.both(APP)
            self.assertEqual(self.problems(), [])
            samples.set_refs(self.root, {APP: self.app}, [APP])
            self.assertEqual(self.problems(), [])
            # A name whose image is gone is not dropped.
            self.both(APP)
            path = self.blob(self.multi["digest"])
            os.rename(path, self.at("../aside"))
            self.reports("lost", MULTI)
            os.rename(self.at("../aside"), path)
            # What came again since is there; but for one that goes on.
            self.record("pull", "done", ref=MULTI, digest=self.multi["digest"])
            samples.set_refs(self.root, {APP: self.app}, [APP])
            if outcome is not None:
                self.reports("ref", MULTI)

    def test_a_pinned_name_that_is_dropped(self):
        self.record("pin", "done", ref=APP)
        for outcome in ("killed", "done"):
            self.record("gc", outcome, grace=0, evicts=True)
            samples.set_refs(self.root, {MULTI: self.multi})
            self.reports("ref", APP)
        # Another collection drops nothing, pinned or not.
        self.record("unpin", "done", ref=APP)
        self.record("gc", "done", grace=0)
        self.reports("ref", APP)

    def test_a_pin_that_came_or_went_beside_a_collection(self):
        for op in ("pin", "unpin"):
            self.record("pull", "done", ref=APP, digest=self.app["digest"])
            self.record("unpin" if op == "pin" else "pin", "done", ref=APP)
            with ledgers.Ledger(self.book) as book:
                gc = book.begin("gc", grace=0, evicts=True)
                book.acknowledged(op, ref=APP)
                book.done(gc)
            samples.set_refs(self.root, {MULTI: self.multi})
            self.assertEqual(self.problems(), [])

    def test_a_use_that_is_not_noted(self):
        digest = self.app["digest"]
        self.record("touch", "killed", digest=digest)
        self.assertEqual(self.problems(), [])
        self.record("touch", "done", digest=digest)
        self.reports("used", digest)
        os.mkdir(self.at(".layerstore/used"), 0o700)
        path = self.at(f".layerstore/used/{digest.replace(':', '-')}")
        samples.write(path, b"", 0o600)
        self.assertEqual(self.problems(), [])
        os.utime(path, (1, 1))
        self.reports("used", digest)

    def test_a_use_that_power_took(self):
        digest, now = self.app["digest"], time.time()
        self.record("touch", "done", digest=digest)
        os.utime(self.blob(digest), (1, 1))
        late = now + ledgers.WRITTEN_OUT

        def expected(cut):
            return ledgers.expected(ledgers.read(self.book), cut=cut)

        # What the kernel had no time for may be gone, and what it had is not.
        self.assertEqual(checker.check(self.root, expected(late - 5)).problems, [])
        Case.planted += 1
        found = checker.check(self.root, expected(late + 5)).problems
        self.assertTrue(any(it.startswith("used:") and digest in it for it in found), found)
        Case.caught += 1
        # An image that was brought anew was used by that.
        os.utime(self.blob(digest), (now, now))
        self.assertEqual(checker.check(self.root, expected(late + 5)).problems, [])
        self.reports("used", digest)

    def test_a_setting_that_is_lost_or_torn(self):
        path = self.at(".layerstore/config.toml")
        self.record("config", "killed", key="max-used-space", value="20G")
        self.assertEqual(self.problems(), [])
        self.record("config", "done", key="max-used-space", value="20G")
        self.reports("config", "None and should be 20G")
        for text, good in (
            (b'max-used-space = "20G"\n', True),
            (b'max-used-space = "2', False),
            (b"", False),
            (b'max-used-space = "5G"\n', False),
        ):
            samples.write(path, text, 0o644)
            if good:
                self.assertEqual(self.problems(), [])
            else:
                self.reports("config")


class Copy(Case):
    def copy(self, refs, pinned=()):
        """Writes the copy of index.json."""
        before = samples.read(self.at("index.json"))
        samples.set_refs(self.root, refs, pinned)
        body = samples.read(self.at("index.json"))
        samples.write(self.at("index.json"), before, 0o644)
        heading = samples.sealed(f"refs blake3:{'0' * 64} {len(body)}")
        samples.write(self.at(".layerstore/refs"), heading + body, 0o600)

    def test_a_copy_that_lacks_what_was_acknowledged(self):
        self.copy({APP: self.app, MULTI: self.multi})
        self.assertEqual(self.problems(), [])
        self.copy({APP: self.app})
        self.reports("copy", MULTI)
        self.copy({APP: self.other, MULTI: self.multi})
        self.reports("copy", APP)

    def test_a_copy_without_a_pin(self):
        self.record("pin", "done", ref=APP)
        both = {APP: self.app, MULTI: self.multi}
        samples.set_refs(self.root, both, [APP])
        self.copy(both, [APP])
        self.assertEqual(self.problems(), [])
        self.copy(both)
        self.reports("pin", "in the copy")

    def test_a_copy_that_is_cut(self):
        self.copy({APP: self.app, MULTI: self.multi})
        whole = samples.read(self.at(".layerstore/refs"))
        for end in (0, 20, len(whole) - 1):
            samples.write(self.at(".layerstore/refs"), whole[:end], 0o600)
            self.reports("copy")

    def test_what_lies_in_quarantine(self):
        for name in (self.put.replace(":", "-"), "index.json-" + "0" * 32, "refs-" + "0" * 32):
            samples.write(self.at(".layerstore/quarantine/" + name), b"", layout.OWN_BLOB)
        self.assertEqual(self.problems(), [])
        samples.write(self.at(".layerstore/quarantine/x"), b"", layout.OWN_BLOB)
        self.reports("stray", "quarantine/x")


class Leases(Case):
    def test_a_lost_lease_a_lost_tree_and_a_damaged_line(self):
        path = self.at(f".layerstore/leases/{LEASE}")
        with open(path, "rb") as file:
            text = file.read()
        for bad in (text.replace(b"tree", b"tref"), text[20:], text + b"until never 00000000\n"):
            with open(path, "wb") as file:
                file.write(bad)
            self.reports("lease")
        samples.add_lease(self.root, LEASE, "holder test", "until never")
        self.reports("lease", "does not keep")
        os.unlink(path)
        self.reports("lease", "is gone")

    def test_what_a_lease_keeps_is_gone(self):
        os.unlink(self.blob(self.a_layer(self.other)))
        self.reports("lost", f"the lease {LEASE}")

    def test_a_lease_that_nobody_made(self):
        samples.add_lease(self.root, "f" * 32, "holder test", f"blob {self.put}", "until never")
        self.reports("lease", "f" * 32)
        self.record("lease-add", "killed", trees=[self.put], until=None)
        self.assertEqual(self.problems(), [])

    def test_a_removed_lease_stays_removed(self):
        self.record("lease-rm", "killed", lease=LEASE)
        self.assertEqual(self.problems(), [])
        self.record("lease-rm", "done", lease=LEASE)
        self.reports("lease", LEASE)


class Book(Case):
    def test_a_ledger_beside_the_store_is_refused_and_a_torn_line_says_nothing(self):
        with self.assertRaises(ValueError):
            ledgers.Ledger(os.path.join(self.temp.name, "x"), store=self.root)
        with open(self.book, "ab") as file:
            file.write(b'{"id": "torn')
        self.assertEqual(self.problems(), [])

    def test_the_command_exits_by_what_it_found(self):
        command = [sys.executable, checker.__file__, self.root, "--ledger", self.book]
        self.assertEqual(subprocess.run(command, capture_output=True, check=False).returncode, 0)
        os.unlink(self.blob(self.put))
        Case.planted += 1
        done = subprocess.run(command, capture_output=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"lost: " + self.put.encode(), done.stdout)
        Case.caught += 1


@unittest.skipUnless(shutil.which("skopeo") and shutil.which("umoci"), "needs skopeo and umoci")
class Readers(Case):
    def test_other_readers(self):
        self.assertEqual(self.problems(second_readers=True), [])
        self.overwrite(self.blob(self.a_layer(self.app)), b"\0\0")
        self.reports("reader", "skopeo", second_readers=True)


if __name__ == "__main__":
    tests = unittest.main(exit=False, verbosity=0).result
    print(f"planted faults of the checker: {Case.planted}, caught: {Case.caught}")
    for test, why in tests.skipped:
        print(f"NOT RUN  {test.id()}: {why}")
    sys.exit(not tests.wasSuccessful())
