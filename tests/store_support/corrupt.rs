//! Ways to damage a blob where it lies, at random but the same for a seed.
#![allow(dead_code, unreachable_pub)]

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use blake3::hazmat::HasherExt;
use layerstore::{BlobStore, Digest};
use twox_hash::XxHash3_64;

/// The lengths of a group and a page, and those of the header and a record in the file that has their
/// hashes (docs/format.md).
pub const GROUP: usize = 16 * 1024;
const PAGE: usize = 4 * 1024;
const HEADER: usize = 64;
const RECORD: usize = 64;

/// What happens to a blob, or to the hashes of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    BitFlip,
    ZeroedPage,
    Truncated,
    Grown,
    Swapped,
    Deleted,
    /// The blob is good, and its hashes are wrong: those of another version of it, at one with
    /// themselves, or with a bit flipped.
    StaleHashes,
    /// The blob is good, and its hashes are cut, or zeros from somewhere on.
    TornHashes,
    /// The blob is wrong, and so are the hashes.
    BitFlipAndTornHashes,
}

pub const KINDS: [Kind; 9] = [
    Kind::BitFlip,
    Kind::ZeroedPage,
    Kind::Truncated,
    Kind::Grown,
    Kind::Swapped,
    Kind::Deleted,
    Kind::StaleHashes,
    Kind::TornHashes,
    Kind::BitFlipAndTornHashes,
];

impl Kind {
    /// Whether the blob itself is as it should be, so that nobody may condemn it.
    pub fn leaves_blob_good(self) -> bool {
        matches!(self, Kind::StaleHashes | Kind::TornHashes)
    }

    /// Whether it happens only to blobs of which hashes are kept.
    pub fn needs_hashes(self) -> bool {
        self.leaves_blob_good() || self == Kind::BitFlipAndTornHashes
    }
}

/// Numbers that are the same for a seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// Takes one of those that `may` be taken out of a list.
    pub fn take<T>(&mut self, from: &mut Vec<T>, may: impl Fn(&T) -> bool) -> Option<T> {
        let places: Vec<usize> = (0..from.len()).filter(|at| may(&from[*at])).collect();
        match places.len() {
            0 => None,
            count => Some(from.remove(places[self.below(count)])),
        }
    }
}

pub fn outboard(store: &BlobStore, digest: &Digest) -> PathBuf {
    store.root().join(".layerstore/outboard").join(digest.algorithm().name()).join(digest.hex())
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn blob_path(store: &BlobStore, digest: &Digest) -> PathBuf {
    store.root().join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

fn change(path: &Path, change: impl FnOnce(&File)) {
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    set_mode(path, 0o600);
    change(&File::options().read(true).write(true).open(path).unwrap());
    set_mode(path, mode & 0o7777);
}

pub fn flip(path: &Path, at: usize, bit: usize) {
    change(path, |file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], at as u64).unwrap();
    });
}

/// Damages a good blob, or its hashes: something of them is another thing afterwards.
pub fn corrupt(
    store: &BlobStore,
    random: &mut Random,
    kind: Kind,
    digest: &Digest,
    other: &Digest,
) {
    let (path, hashes) = (blob_path(store, digest), outboard(store, digest));
    let look = || (std::fs::read(&path).ok(), std::fs::read(&hashes).ok());
    let before = look();
    let good = before.0.as_ref().unwrap();
    let len = good.len();
    match kind {
        Kind::BitFlip => flip(&path, random.below(len), random.below(8)),
        Kind::ZeroedPage => zero_page(random, &path, good),
        Kind::Truncated => change(&path, |file| file.set_len(random.below(len) as u64).unwrap()),
        Kind::Grown => change(&path, |file| file.write_all_at(b"more", len as u64).unwrap()),
        Kind::Swapped => {
            std::fs::remove_file(&path).unwrap();
            std::fs::copy(blob_path(store, other), &path).unwrap();
            if hashes.exists() && outboard(store, other).exists() && random.below(2) == 0 {
                std::fs::copy(outboard(store, other), &hashes).unwrap();
            }
        }
        Kind::Deleted => std::fs::remove_file(&path).unwrap(),
        Kind::StaleHashes => make_stale(random, &hashes, digest, good),
        Kind::TornHashes => tear(random, &hashes),
        Kind::BitFlipAndTornHashes => {
            flip(&path, random.below(len), random.below(8));
            tear(random, &hashes);
        }
    }
    assert!(look() != before, "{kind:?} of {digest} has changed nothing");
}

/// Makes a page of zeros that is not.
fn zero_page(random: &mut Random, path: &Path, good: &[u8]) {
    let at = loop {
        let at = random.below(good.len()) / PAGE * PAGE;
        if good[at..good.len().min(at + PAGE)].iter().any(|byte| *byte != 0) {
            break at;
        }
    };
    let zeros = vec![0; PAGE.min(good.len() - at)];
    change(path, |file| file.write_all_at(&zeros, at as u64).unwrap());
}

/// Cuts a file, or makes the rest of it zeros, which it is not.
fn tear(random: &mut Random, path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let at = random.below(last + 1);
    change(path, |file| {
        file.set_len(at as u64).unwrap();
        if random.below(2) == 0 {
            file.set_len(bytes.len() as u64).unwrap();
        }
    });
}

fn make_stale(random: &mut Random, path: &Path, digest: &Digest, good: &[u8]) {
    let bytes = std::fs::read(path).unwrap();
    if random.below(2) == 0 {
        return flip(path, random.below(bytes.len()), random.below(8));
    }
    let (at, mut version) = (random.below(good.len()), good.to_vec());
    version[at] ^= 1;
    let hashes = of_version(bytes, digest, &version, at / GROUP);
    change(path, |file| file.write_all_at(&hashes, 0).unwrap());
}

/// Makes the hashes of a blob those of a version of it in which group `n` is another.
fn of_version(mut hashes: Vec<u8>, digest: &Digest, version: &[u8], n: usize) -> Vec<u8> {
    let group = &version[n * GROUP..version.len().min((n + 1) * GROUP)];
    let record = &mut hashes[HEADER + n * RECORD..][..RECORD];
    let mut leaf = blake3::Hasher::new();
    leaf.set_input_offset((n * GROUP) as u64).update(group);
    record[..32].copy_from_slice(&leaf.finalize_non_root());
    for (sum, page) in record[32..].chunks_mut(8).zip(group.chunks(PAGE)) {
        sum.copy_from_slice(&XxHash3_64::oneshot(page).to_le_bytes());
    }
    hashes[28..32].fill(0);
    hashes[32..HEADER].copy_from_slice(blake3::hash(version).as_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&hashes[..HEADER]);
    crc.update(digest.to_string().as_bytes());
    hashes[28..32].copy_from_slice(&crc.finalize().to_le_bytes());
    hashes
}

/// Reads in pieces of some size, and somewhere: right bytes, or an error; of a damaged blob the whole
/// is an error sooner or later.
pub fn read(store: &BlobStore, random: &mut Random, kind: Kind, digest: &Digest, good: &[u8]) {
    let Ok(mut blob) = store.open_blob(digest) else {
        assert_eq!(kind, Kind::Deleted, "{digest}");
        return;
    };
    for _ in 0..5 {
        let (at, mut buffer) = (random.below(good.len()), vec![0; 1 + random.below(40_000)]);
        if let Ok(read) = blob.read_at(&mut buffer, at as u64) {
            assert!(good[at..].starts_with(&buffer[..read]), "wrong bytes at {at} of {digest}");
        }
    }
    let (mut buffer, mut at) = (vec![0; 1 + random.below(100_000)], 0);
    let ended = loop {
        match blob.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => {
                assert!(good[at..].starts_with(&buffer[..read]), "wrong bytes at {at} of {digest}");
                at += read;
            }
            Err(_) => break false,
        }
    };
    let is_whole = ended && at == good.len();
    assert_eq!((ended, is_whole), (is_whole, kind.leaves_blob_good()), "{kind:?} of {digest}");
}

/// How many bytes a repair may fetch of a blob of which `good` are the bytes and `found` those that lie
/// there: each group that is wrong, and 64 KiB; all of it where there are no hashes to tell.
pub fn bound(good: &[u8], found: &[u8], has_hashes: bool) -> u64 {
    let is_bad =
        |(n, group): (usize, &[u8])| found.get(n * GROUP..n * GROUP + group.len()) != Some(group);
    let bad = good.chunks(GROUP).enumerate().map(is_bad).filter(|bad| *bad).count();
    let allowed = bad * (GROUP + 64 * 1024);
    (if has_hashes { allowed.min(good.len()) } else { good.len() }) as u64
}
