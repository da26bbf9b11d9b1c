//! A thousand random corruptions: each is found by the checks that claim it, and no read gives a byte
//! that is not the blob's.

#[path = "store_support/corrupt.rs"]
mod corrupt;
mod store_support;

use std::collections::{BTreeSet, HashMap};

use corrupt::{KINDS, Kind, Random, corrupt, outboard, read};
use layerstore::{BlobStore, CheckOptions, Digest};
use store_support::*;

const BLOBS: usize = 25;
const ROUNDS: usize = 100;
/// How many of the blobs are corrupted in a round.
const AT_ONCE: usize = 10;

struct Layer {
    digest: Digest,
    good: Vec<u8>,
    /// The hashes of its groups, if it is large enough to have any.
    hashes: Option<Vec<u8>>,
}

fn layers(store: &BlobStore, random: &mut Random) -> Vec<Layer> {
    let contents: Vec<Vec<u8>> = (0..BLOBS)
        .map(|n| {
            noise([5_000, 65_536, 65_537, 100_000, 150_000][n % 5] + random.below(3000), n as u64)
        })
        .collect();
    let image = add_image(store, "a:1", &contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let layer = |(digest, good): (Digest, Vec<u8>)| {
        let hashes = std::fs::read(outboard(store, &digest)).ok();
        Layer { digest, good, hashes }
    };
    image.layers.into_iter().zip(contents).map(layer).collect()
}

/// Corrupts some of them; which, and how.
fn corrupt_some<'a>(
    store: &BlobStore,
    random: &mut Random,
    layers: &'a [Layer],
    kinds: &mut impl Iterator<Item = Kind>,
) -> Vec<(&'a Layer, Kind)> {
    let mut rest: Vec<&Layer> = layers.iter().collect();
    let mut victims = Vec::new();
    for kind in kinds.take(AT_ONCE) {
        let may = |layer: &&Layer| layer.hashes.is_some() || !kind.needs_hashes();
        victims.push((random.take(&mut rest, may).unwrap(), kind));
    }
    for (layer, kind) in &victims {
        let other = &rest[random.below(rest.len())].digest;
        corrupt(store, random, *kind, &layer.digest, other);
    }
    victims
}

/// What a check condemns; nothing else may be wrong.
fn condemned(store: &BlobStore, options: &CheckOptions) -> BTreeSet<Digest> {
    let report = store.check(options, |_| {}).unwrap();
    for damage in &report.damage {
        assert!(damage.refs.iter().all(|name| name == "a:1"), "{damage:?}");
    }
    report.damage.iter().map(|it| it.digest.unwrap_or_else(|| panic!("{it:?}"))).collect()
}

/// Of a layer `--quick` knows no more than whether it is there in its length.
fn is_long_as_it_was(store: &BlobStore, layer: &Layer) -> bool {
    let found = std::fs::metadata(blob_path(store, &layer.digest));
    found.is_ok_and(|found| found.len() == layer.good.len() as u64)
}

fn restore(store: &BlobStore, layer: &Layer) {
    let _ = std::fs::remove_file(blob_path(store, &layer.digest));
    std::fs::write(blob_path(store, &layer.digest), &layer.good).unwrap();
    if let Some(bytes) = &layer.hashes {
        std::fs::write(outboard(store, &layer.digest), bytes).unwrap();
    }
}

#[test]
fn a_thousand_corruptions_are_found_and_never_read() {
    let (_dir, store) = store();
    let mut random = Random(1);
    let layers = layers(&store, &mut random);
    let mut counts: HashMap<Kind, usize> = HashMap::new();
    let mut kinds = KINDS.into_iter().cycle();
    let quick = CheckOptions { quick: true, ..CheckOptions::default() };
    for round in 0..ROUNDS {
        let victims = corrupt_some(&store, &mut random, &layers, &mut kinds);
        victims.iter().for_each(|(_, kind)| *counts.entry(*kind).or_default() += 1);
        let shown = victims.iter().filter(|(layer, _)| !is_long_as_it_was(&store, layer));
        let expected: BTreeSet<_> = shown.map(|(layer, _)| layer.digest).collect();
        assert_eq!(condemned(&store, &quick), expected, "quick, round {round}");
        // Readers first in some rounds: then they meet hashes that nobody has mended.
        if round % 2 == 0 {
            for (layer, kind) in &victims {
                read(&store, &mut random, *kind, &layer.digest, &layer.good);
            }
        }
        let options = CheckOptions { read_data: round % 4 == 3, ..CheckOptions::default() };
        let bad = victims.iter().filter(|(_, kind)| !kind.leaves_blob_good());
        let expected: BTreeSet<_> = bad.map(|(layer, _)| layer.digest).collect();
        assert_eq!(condemned(&store, &options), expected, "round {round}");
        for (layer, kind) in &victims {
            if kind.leaves_blob_good() {
                let found = std::fs::read(outboard(&store, &layer.digest)).ok();
                assert!(found == layer.hashes, "{kind:?} in round {round}: not written anew");
            }
            read(&store, &mut random, *kind, &layer.digest, &layer.good);
            restore(&store, layer);
        }
        assert!(store.check(&CheckOptions::default(), |_| {}).unwrap().is_sound());
    }
    assert_eq!(counts.values().sum::<usize>(), ROUNDS * AT_ONCE);
    assert!(KINDS.iter().all(|kind| counts[kind] >= 111), "{counts:?}");
}
