//! Ways to damage a blob where it lies, at random but the same in every run.
#![allow(dead_code, unreachable_pub)]

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use layerstore::{BlobStore, Digest};

/// What happens to a blob, or to the hashes of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    BitFlip,
    ZeroedPage,
    Truncated,
    Grown,
    Swapped,
    Deleted,
    /// Only the hashes are wrong, and the blob is good.
    StaleHashes,
    /// The blob is wrong, and so are the hashes.
    BitFlipAndTornHashes,
}

pub const KINDS: [Kind; 8] = [
    Kind::BitFlip,
    Kind::ZeroedPage,
    Kind::Truncated,
    Kind::Grown,
    Kind::Swapped,
    Kind::Deleted,
    Kind::StaleHashes,
    Kind::BitFlipAndTornHashes,
];

/// Numbers that are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
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
    set_mode(path, 0o600);
    change(&File::options().read(true).write(true).open(path).unwrap());
    set_mode(path, 0o444);
}

pub fn flip(path: &Path, at: usize, bit: usize) {
    change(path, |file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], at as u64).unwrap();
    });
}

pub fn corrupt(
    store: &BlobStore,
    random: &mut Random,
    kind: Kind,
    blob: (&Digest, usize),
    other: &Digest,
) {
    let (digest, len) = blob;
    let path = blob_path(store, digest);
    let hashes = outboard(store, digest);
    match kind {
        Kind::BitFlip => flip(&path, random.below(len), random.below(8)),
        Kind::ZeroedPage => change(&path, |file| {
            let at = random.below(len) / 4096 * 4096;
            file.write_all_at(&vec![0; 4096.min(len - at)], at as u64).unwrap();
        }),
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
        Kind::StaleHashes | Kind::BitFlipAndTornHashes => {
            if let Ok(bytes) = std::fs::read(&hashes) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => flip(&hashes, at, random.below(8)),
                    1 => std::fs::write(&hashes, &bytes[..at]).unwrap(),
                    _ => {
                        let zeroes = vec![0; bytes.len() - at];
                        std::fs::write(&hashes, [&bytes[..at], &zeroes[..]].concat()).unwrap();
                    }
                }
            }
            if kind == Kind::BitFlipAndTornHashes {
                flip(&path, random.below(len), random.below(8));
            }
        }
    }
}
