//! Operations on a store beside the same on a plain map: after each, both have to say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim, Error, GcOptions, Lease, Part, gc};

use crate::world::{Expected, ExpectedPart, Pins, known};

const NAMES: [&str; 3] = ["a.example/a:1", "a.example/b:1", "a.example/b@sha256:x"];

/// A store in a folder of its own, and what it should have.
pub(crate) struct Driver {
    pub(crate) store: BlobStore,
    pub(crate) expected: Expected,
    folder: tempfile::TempDir,
    leases: BTreeMap<usize, Lease>,
    part: Option<Part>,
    junk: BTreeSet<PathBuf>,
}

/// Runs what the bytes say: each operation is one byte, and takes the next two as what it is about.
pub(crate) fn run(bytes: &[u8]) {
    let mut driver = Driver::new();
    // So many are enough to come anywhere, and a run stays short.
    for operation in bytes.chunks_exact(3).take(100) {
        driver.step(operation[0], usize::from(operation[1]), usize::from(operation[2]));
        driver.compare();
    }
    driver.finish();
}

impl Driver {
    pub(crate) fn new() -> Driver {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::init(folder.path().join("root")).unwrap();
        let (expected, junk) = (Expected::default(), BTreeSet::new());
        Driver { store, expected, folder, leases: BTreeMap::new(), part: None, junk }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn step(&mut self, what: u8, a: usize, b: usize) {
        let (slot, blob, name) = (a % 2, b % known().len(), NAMES[a % NAMES.len()]);
        match what % 18 {
            0 => self.end_lease(slot),
            1 | 2 => self.ingest(slot, blob),
            3 => self.ingest_nothing(slot, blob),
            4 => self.claim(b % 4),
            5 => self.write(a, b, false),
            6 => self.write(a, b, a.is_multiple_of(4)),
            7 => self.commit(),
            8 => self.let_part_go(a.is_multiple_of(2)),
            9 => self.truncate_part(a % 4, b),
            10 => self.publish(slot, name, blob),
            11 => self.tag(slot, NAMES[b % NAMES.len()], name),
            12 => self.remove_ref(name),
            13 => self.collect(a.is_multiple_of(2)),
            14 => self.make_lasting(blob),
            15 => self.end_lasting(a),
            16 => self.disturb(a, b),
            _ => self.store = BlobStore::open(self.root()).unwrap(),
        }
    }

    fn lease(&mut self, slot: usize) -> (Lease, &mut Pins) {
        let new = || self.store.lease("operations").unwrap();
        let lease = self.leases.entry(slot).or_insert_with(new).clone();
        (lease, self.expected.leases.entry(slot).or_default())
    }

    fn end_lease(&mut self, slot: usize) {
        self.leases.remove(&slot);
        self.expected.leases.remove(&slot);
    }

    fn ingest(&mut self, slot: usize, blob: usize) {
        let (lease, pins) = self.lease(slot);
        pins.blobs.insert(blob);
        let mut ingest = self.store.ingest(&lease, Algorithm::Sha256, 1 << 20).unwrap();
        known()[blob].bytes.chunks(40_000).for_each(|chunk| ingest.write_all(chunk).unwrap());
        let pinned = ingest.commit().unwrap();
        assert_eq!(*pinned.digest(), known()[blob].descriptor.digest);
        assert_eq!(pinned.is_present(), self.expected.is_there(blob));
        self.expected.blobs.insert(blob, true);
    }

    /// One that is dropped, one over its limit, and one with another digest: nothing comes of them.
    fn ingest_nothing(&mut self, slot: usize, blob: usize) {
        let (lease, _) = self.lease(slot);
        let ingest = |limit| self.store.ingest(&lease, Algorithm::Sha256, limit).unwrap();
        ingest(9).write_all(b"dropped").unwrap();
        ingest(9).write_all(b"more than nine").unwrap_err();
        let mut other = ingest(9);
        other.write_all(b"other").unwrap();
        let error = other.commit_as(&known()[blob].descriptor.digest, "a test").unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    }

    fn claim(&mut self, blob: usize) {
        let there = self.expected.is_there(blob);
        let descriptor = &known()[blob].descriptor;
        let lease = self.store.lease("a part").unwrap();
        let pinned = lease.pin_one(descriptor.digest, descriptor.size).unwrap();
        assert_eq!(pinned.is_present(), there);
        match self.store.claim(&pinned).unwrap() {
            Claim::Busy(_) => assert_eq!(self.expected.held, Some(blob)),
            Claim::Committed => {
                assert!(there && self.expected.held != Some(blob));
                self.expected.parts.remove(&blob);
            }
            Claim::Held(part) => {
                assert!(!there && self.expected.held != Some(blob));
                self.let_part_go(false);
                let expected = self.expected.parts.entry(blob).or_default();
                expected.there.resize(known()[blob].bytes.len(), false);
                expected.adopt();
                assert_eq!(part.len() as usize, count(&expected.there));
                self.expected.held = Some(blob);
                self.part = Some(part);
            }
        }
    }

    fn held(&mut self) -> Option<(usize, &mut Part, &mut ExpectedPart)> {
        let blob = self.expected.held?;
        Some((blob, self.part.as_mut()?, self.expected.parts.get_mut(&blob)?))
    }

    fn write(&mut self, a: usize, b: usize, wrong: bool) {
        let Some((blob, part, expected)) = self.held() else { return };
        let bytes = &known()[blob].bytes;
        let start = a % (bytes.len() + 1);
        let end = (start + b % 40).min(bytes.len());
        let mut bytes = bytes[start..end].to_vec();
        if wrong {
            bytes.fill(0xff);
        }
        part.write_at(start as u64, &bytes).unwrap();
        expected.write(start, &bytes);
        assert_eq!(part.len() as usize, count(&expected.there));
        let size = known()[blob].bytes.len() as u64;
        assert!(part.write_at(size, b"beyond").is_err(), "nothing is written beyond the end");
    }

    fn commit(&mut self) {
        let (Some(part), Some(blob)) = (self.part.take(), self.expected.held.take()) else {
            return;
        };
        let expected = &self.expected.parts[&blob];
        let whole = expected.there.iter().all(|it| *it);
        let right = expected.data == known()[blob].bytes;
        match (part.commit(), whole, right) {
            (Ok(()), true, true) => {
                self.expected.blobs.insert(blob, true);
                self.expected.parts.remove(&blob);
            }
            (Err(Error::DigestMismatch { .. }), true, false) => {
                self.expected.parts.remove(&blob);
            }
            (Err(Error::SizeMismatch { .. }), false, _) => {}
            (other, ..) => panic!("whole: {whole}, right: {right}, and {other:?}"),
        }
    }

    fn let_part_go(&mut self, discards: bool) {
        let (Some(part), Some(blob)) = (self.part.take(), self.expected.held.take()) else {
            return;
        };
        if discards {
            part.discard().unwrap();
            self.expected.parts.remove(&blob);
        }
    }

    /// What a power cut may do to a part.
    fn truncate_part(&mut self, blob: usize, len: usize) {
        if self.expected.held == Some(blob) {
            return;
        }
        let Some(part) = self.expected.parts.get_mut(&blob) else { return };
        let len = len % (part.data.len() + 1);
        part.data.truncate(len);
        let path = self.folder.path().join("root/.layerstore/parts").join(part_name(blob));
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len as u64).unwrap();
    }

    fn publish(&mut self, slot: usize, name: &str, root: usize) {
        let mut tree = BTreeSet::new();
        self.expected.tree(root, &mut tree);
        let (lease, pins) = self.lease(slot);
        pins.blobs.extend(&tree);
        let of = |blob: &usize| &known()[*blob].descriptor;
        let wanted: Vec<_> = tree.iter().map(|it| (of(it).digest, of(it).size)).collect();
        let closure = lease.pin(&wanted).unwrap();
        let complete = tree.iter().all(|blob| self.expected.is_there(*blob));
        match self.store.publish(name, of(&root), &closure) {
            Ok(()) => {
                assert!(complete);
                self.expected.refs.insert(name.to_owned(), root);
            }
            Err(Error::Incomplete { .. }) => assert!(!complete),
            Err(other) => panic!("{other}"),
        }
    }

    fn tag(&mut self, slot: usize, source: &str, name: &str) {
        let found = self.expected.refs.get(source).copied();
        let (lease, pins) = self.lease(slot);
        pins.trees.extend(found);
        match (self.store.tag(&lease, source, name), found) {
            (Ok(target), Some(root)) => {
                assert_eq!(target.digest, known()[root].descriptor.digest);
                self.expected.refs.insert(name.to_owned(), root);
            }
            (Err(Error::RefNotFound { .. }), None) => {}
            (other, found) => panic!("{found:?}, and {other:?}"),
        }
    }

    fn remove_ref(&mut self, name: &str) {
        let removed = self.store.remove_refs(&[name.to_owned()]).unwrap();
        assert_eq!(removed, [self.expected.refs.remove(name).is_some()]);
    }

    fn collect(&mut self, expire: bool) {
        let live = self.expected.live();
        let mut options = GcOptions { grace: std::time::Duration::ZERO, ..GcOptions::default() };
        if expire {
            options.part_ttl = std::time::Duration::ZERO;
        }
        let report = gc::collect(&self.store, &options).unwrap();
        let before = self.expected.blobs.len();
        self.expected.blobs.retain(|blob, _| live.contains(blob));
        assert_eq!(report.removed as usize, before - self.expected.blobs.len());
        assert_eq!(report.leases_removed as usize, self.expected.dead.len());
        self.expected.dead.clear();
        let Expected { parts, held, blobs, .. } = &mut self.expected;
        parts.retain(|blob, _| *held == Some(*blob) || !expire && !blobs.contains_key(blob));
        self.junk.retain(|path| !path.starts_with(".layerstore/trash"));
    }

    fn make_lasting(&mut self, root: usize) {
        let whole = self.expected.is_whole(root);
        match self.store.lasting_lease("for long", &[known()[root].descriptor.digest], None) {
            Ok(id) => {
                assert!(whole);
                self.expected.lasting.insert(id, root);
            }
            Err(Error::BlobNotFound { .. }) => assert!(!whole),
            // One that is damaged is kept no more than one that is not there.
            Err(Error::DigestMismatch { .. }) => {
                assert_eq!(self.expected.blobs.get(&root), Some(&false));
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn end_lasting(&mut self, n: usize) {
        let at = n % self.expected.lasting.len().max(1);
        let Some(id) = self.expected.lasting.keys().nth(at).cloned() else { return };
        self.store.remove_lease(&id).unwrap();
        self.expected.lasting.remove(&id);
        let again = self.store.remove_lease(&id).unwrap_err();
        assert!(matches!(again, Error::LeaseNotFound { .. }), "{again}");
    }

    /// What crashes, other tools and bad disks leave.
    fn disturb(&mut self, a: usize, b: usize) {
        let root = self.root();
        let junk = match a % 6 {
            0 => "blobs/sha256/not-a-digest",
            1 => "blobs/elsewhere",
            2 => ".layerstore/parts/sha256-00.part",
            3 => ".layerstore/trash/left",
            4 => {
                let id = format!("{b:032x}");
                fs::write(root.join(".layerstore/leases").join(&id), "blob sha256:").unwrap();
                self.expected.dead.insert(id);
                return;
            }
            _ => {
                // A plain blob loses its end. Neither documents are damaged here, nor what a ref or a
                // lease names and may be one: a collection refuses to go on then.
                let blob = 2 + b % 3;
                if self.expected.blobs.contains_key(&blob) && !self.expected.is_root(blob) {
                    let path =
                        root.join("blobs/sha256").join(known()[blob].descriptor.digest.hex());
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, b"short").unwrap();
                    self.expected.blobs.insert(blob, false);
                }
                return;
            }
        };
        fs::write(root.join(junk), b"junk").unwrap();
        self.junk.insert(junk.into());
    }

    /// Whether the store says what the map says.
    pub(crate) fn compare(&self) {
        let blobs = self.store.blobs().unwrap().map(|info| info.unwrap());
        let found: BTreeMap<_, _> =
            blobs.map(|info| (info.digest.to_string(), info.size)).collect();
        let expected = self.expected.blobs.iter().map(|(blob, whole)| {
            let descriptor = &known()[*blob].descriptor;
            (descriptor.digest.to_string(), if *whole { descriptor.size } else { 5 })
        });
        assert_eq!(found, expected.collect(), "the blobs");

        let refs = self.store.refs().unwrap().into_iter();
        let found: BTreeMap<_, _> =
            refs.map(|it| (it.name.unwrap(), it.descriptor.digest)).collect();
        let expected = self.expected.refs.iter();
        let expected =
            expected.map(|(name, root)| (name.clone(), known()[*root].descriptor.digest));
        assert_eq!(found, expected.collect(), "the refs");

        let ids: BTreeSet<_> = self.store.leases().unwrap().into_iter().map(|it| it.id).collect();
        let mut expected = self.expected.dead.clone();
        expected.extend(self.expected.lasting.keys().cloned());
        expected.extend(self.leases.values().map(|lease| lease.id().to_owned()));
        let unknown = ids.difference(&expected).count();
        assert!(expected.is_subset(&ids), "a lease is lost");
        assert_eq!(unknown, usize::from(self.part.is_some()), "the lease of the part alone");

        let names = names(&self.root().join(".layerstore/parts"));
        let parts = names.iter().filter(|name| name.ends_with(".part") && !name.contains("-00."));
        let expected: BTreeSet<_> = self.expected.parts.keys().map(|it| part_name(*it)).collect();
        assert_eq!(parts.cloned().collect::<BTreeSet<_>>(), expected, "the parts");

        assert!(self.junk.iter().all(|path| self.root().join(path).exists()), "junk is left alone");
        assert_eq!(names_len(self.folder.path()), 1, "nothing outside the root");
    }

    /// The bytes of what is whole; and that all can be collected when nobody needs it.
    pub(crate) fn finish(mut self) {
        for (blob, _) in self.expected.blobs.iter().filter(|(_, whole)| **whole) {
            let digest = known()[*blob].descriptor.digest;
            let path = self.root().join("blobs/sha256").join(digest.hex());
            assert_eq!(fs::read(path).unwrap(), known()[*blob].bytes, "the bytes of {digest}");
        }
        self.let_part_go(false);
        (0..2).for_each(|slot| self.end_lease(slot));
        NAMES.iter().for_each(|name| self.remove_ref(name));
        while !self.expected.lasting.is_empty() {
            self.end_lasting(0);
        }
        self.collect(true);
        assert!(self.expected.blobs.is_empty() && self.expected.parts.is_empty());
        self.compare();
    }
}

fn count(bits: &[bool]) -> usize {
    bits.iter().filter(|bit| **bit).count()
}

fn part_name(blob: usize) -> String {
    format!("sha256-{}.part", known()[blob].descriptor.digest.hex())
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn names_len(folder: &Path) -> usize {
    names(folder).len()
}
