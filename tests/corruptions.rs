//! A thousand random corruptions: each is found by the check that claims it, and no read gives a byte
//! that is not the blob's.

mod store_support;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use layerstore::{BlobStore, CheckOptions, Digest};
use store_support::*;

const BLOBS: usize = 25;
const ROUNDS: usize = 100;
/// How many of the blobs are corrupted in a round.
const AT_ONCE: usize = 10;

/// What happens to a blob, or to the hashes of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
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

const KINDS: [Kind; 8] = [
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
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn outboard(store: &BlobStore, digest: &Digest) -> PathBuf {
    store.root().join(".layerstore/outboard").join(digest.algorithm().name()).join(digest.hex())
}

fn change(path: &Path, change: impl FnOnce(&File)) {
    set_mode(path, 0o600);
    change(&File::options().read(true).write(true).open(path).unwrap());
    set_mode(path, 0o444);
}

fn flip(path: &Path, at: usize, bit: usize) {
    change(path, |file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], at as u64).unwrap();
    });
}

fn corrupt(
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

/// Reads in pieces of some size, and somewhere: right bytes, or an error.
fn read(store: &BlobStore, random: &mut Random, digest: &Digest, good: &[u8]) {
    let Ok(mut blob) = store.open_blob(digest) else { return };
    for _ in 0..5 {
        let (at, mut buffer) = (random.below(good.len()), vec![0; 1 + random.below(40_000)]);
        if let Ok(read) = blob.read_at(&mut buffer, at as u64) {
            assert!(good[at..].starts_with(&buffer[..read]), "wrong bytes at {at} of {digest}");
        }
    }
    let (mut buffer, mut at) = (vec![0; 1 + random.below(100_000)], 0);
    while let Ok(read @ 1..) = blob.read(&mut buffer) {
        assert!(good[at..].starts_with(&buffer[..read]), "wrong bytes at {at} of {digest}");
        at += read;
    }
}

#[test]
fn a_thousand_corruptions_are_found_and_never_read() {
    let (_dir, store) = store();
    let mut random = Random(1);
    let contents: Vec<Vec<u8>> = (0..BLOBS)
        .map(|n| {
            noise([5_000, 65_536, 65_537, 100_000, 150_000][n % 5] + random.below(3000), n as u64)
        })
        .collect();
    let layers: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let image = add_image(&store, "a:1", &layers);
    let saved: Vec<Option<Vec<u8>>> =
        image.layers.iter().map(|digest| std::fs::read(outboard(&store, digest)).ok()).collect();
    let mut counts: HashMap<Kind, usize> = HashMap::new();
    let (mut found, mut good) = (0, 0);
    for round in 0..ROUNDS {
        let mut chosen: Vec<usize> = (0..BLOBS).collect();
        let mut victims = Vec::new();
        for n in 0..AT_ONCE {
            let at = chosen.remove(random.below(chosen.len()));
            victims.push((at, KINDS[(round * AT_ONCE + n) % KINDS.len()]));
        }
        for (at, kind) in &victims {
            let other = image.layers[chosen[random.below(chosen.len())]];
            let blob = (&image.layers[*at], contents[*at].len());
            corrupt(&store, &mut random, *kind, blob, &other);
            *counts.entry(*kind).or_default() += 1;
        }
        // Readers first in some rounds: then they meet hashes that nobody has mended.
        if round % 2 == 0 {
            for (at, _) in &victims {
                read(&store, &mut random, &image.layers[*at], &contents[*at]);
            }
        }
        let options = CheckOptions { read_data: round % 4 == 3, ..CheckOptions::default() };
        let report = store.check(&options, |_| {}).unwrap();
        let condemned: Vec<Digest> = report.damage.iter().filter_map(|it| it.digest).collect();
        for (at, kind) in &victims {
            let digest = &image.layers[*at];
            let is_bad = *kind != Kind::StaleHashes;
            assert_eq!(
                condemned.contains(digest),
                is_bad,
                "{kind:?} in round {round}: {report:#?}"
            );
            let refs = report.damage.iter().filter(|it| it.digest == Some(*digest));
            assert!(refs.flat_map(|it| &it.refs).all(|name| name == "a:1"));
            read(&store, &mut random, digest, &contents[*at]);
            (found, good) = (found + usize::from(is_bad), good + usize::from(!is_bad));
        }
        let bad = victims.iter().filter(|(_, kind)| *kind != Kind::StaleHashes).count();
        let distinct: std::collections::HashSet<_> = condemned.iter().collect();
        assert_eq!(distinct.len(), bad, "nothing good is condemned: {report:#?}");
        for (at, _) in &victims {
            let digest = &image.layers[*at];
            let _ = std::fs::remove_file(blob_path(&store, digest));
            std::fs::write(blob_path(&store, digest), &contents[*at]).unwrap();
            if let Some(bytes) = &saved[*at] {
                std::fs::write(outboard(&store, digest), bytes).unwrap();
            }
        }
    }
    assert!(store.check(&CheckOptions::default(), |_| {}).unwrap().is_sound());
    assert_eq!(found + good, ROUNDS * AT_ONCE);
    assert!(KINDS.iter().all(|kind| counts[kind] >= 100), "{counts:?}");
}
