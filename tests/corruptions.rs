//! A thousand random corruptions: each is found by the check that claims it, and no read gives a byte
//! that is not the blob's.

#[path = "store_support/corrupt.rs"]
mod corrupt;
mod store_support;

use std::collections::HashMap;
use std::io::Read;

use corrupt::{KINDS, Kind, Random, corrupt, outboard};
use layerstore::{BlobStore, CheckOptions, Digest};
use store_support::*;

const BLOBS: usize = 25;
const ROUNDS: usize = 100;
/// How many of the blobs are corrupted in a round.
const AT_ONCE: usize = 10;

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
            // With the mode that it had; the check sees its digest hold, and clears its mark.
            set_mode(&blob_path(&store, digest), 0o444);
            if let Some(bytes) = &saved[*at] {
                std::fs::write(outboard(&store, digest), bytes).unwrap();
            }
        }
        assert!(store.check(&CheckOptions::default(), |_| {}).unwrap().is_sound());
    }
    assert!(store.check(&CheckOptions::default(), |_| {}).unwrap().is_sound());
    assert_eq!(found + good, ROUNDS * AT_ONCE);
    assert!(KINDS.iter().all(|kind| counts[kind] >= 100), "{counts:?}");
}
