//! A check by the hashes of groups: it finds what a disk does, condemns no good blob, and comes round
//! to all blobs when it reads a part of them each time.

mod store_support;

use std::collections::HashSet;
use std::fs::File;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use layerstore::{BlobStore, CheckOptions, CheckReport, DamageKind, Digest};
use store_support::*;

const LEN: usize = 3 << 20;
const HOUR: Duration = Duration::from_secs(3600);

fn check(store: &BlobStore, options: CheckOptions) -> CheckReport {
    store.check(&options, |_| {}).unwrap()
}

fn default(store: &BlobStore) -> CheckReport {
    check(store, CheckOptions::default())
}

fn outboard_path(store: &BlobStore, digest: &Digest) -> PathBuf {
    store.root().join(".layerstore/outboard").join(digest.algorithm().name()).join(digest.hex())
}

fn overwrite(store: &BlobStore, digest: &Digest, at: u64, bytes: &[u8]) {
    let path = blob_path(store, digest);
    set_mode(&path, 0o600);
    File::options().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
    set_mode(&path, 0o1444);
}

fn checked(store: &BlobStore, digest: &Digest) -> SystemTime {
    std::fs::metadata(outboard_path(store, digest)).unwrap().modified().unwrap()
}

/// As if a blob had been checked so long ago.
fn set_checked(store: &BlobStore, digest: &Digest, ago: Duration) {
    let file = File::open(outboard_path(store, digest)).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

#[test]
fn a_flipped_bit_is_found_and_its_place_told() {
    let (_dir, store) = store();
    let bytes = noise(LEN, 1);
    let image = add_image(&store, "a:1", &[&bytes]);
    let layer = image.layers[0];
    let report = default(&store);
    assert!(report.is_sound());
    assert_eq!((report.read_blobs, report.read_bytes), (report.blobs, report.blob_bytes));

    for at in [0, 16_383, 16_384, 2_000_000, LEN - 1] {
        overwrite(&store, &layer, at as u64, &[bytes[at] ^ 4]);
        let quick = || check(&store, CheckOptions { quick: true, ..CheckOptions::default() });
        assert!(quick().is_sound(), "nothing else can see it");
        let report = default(&store);
        assert_eq!(report.damage.len(), 1, "{report:?}");
        let damage = &report.damage[0];
        assert_eq!((damage.kind, damage.digest), (DamageKind::WrongDigest, Some(layer)));
        assert_eq!(damage.refs, ["a:1"]);
        let place = format!("wrong from byte {} on", at / 16_384 * 16_384);
        assert!(damage.message.contains(&place), "{}", damage.message);
        let marked = quick().damage;
        assert_eq!(
            (marked.len(), &marked[0].refs[..]),
            (1, &["a:1".to_owned()][..]),
            "it is known"
        );
        overwrite(&store, &layer, at as u64, &[bytes[at]]);
        assert!(default(&store).is_sound(), "the mark is taken back");
    }
    assert!(default(&store).is_sound());
}

#[test]
fn hashes_that_are_wrong_are_mended_and_no_damage() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[&noise(LEN, 2)]);
    let path = outboard_path(&store, &image.layers[0]);
    let good = std::fs::read(&path).unwrap();
    for at in [3, 20, 40, 64, 64 + 32, good.len() - 1] {
        let mut stale = good.clone();
        stale[at] ^= 1;
        std::fs::write(&path, &stale).unwrap();
        assert!(default(&store).is_sound(), "byte {at}");
        assert!(std::fs::read(&path).unwrap() == good, "byte {at}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(default(&store).is_sound());
    assert!(std::fs::read(&path).unwrap() == good);
    // With damage there too, both are seen through.
    std::fs::write(&path, &good[..200]).unwrap();
    overwrite(&store, &image.layers[0], 99, b"x");
    assert_eq!(default(&store).damage.len(), 1);
}

#[test]
fn the_digest_decides_where_blob_and_hashes_were_changed_together() {
    let (_dir, store) = store();
    let (one, two) = (noise(LEN, 3), noise(LEN, 4));
    let image = add_image(&store, "a:1", &[&one, &two]);
    let [a, b] = image.layers[..] else { panic!() };
    std::fs::remove_file(blob_path(&store, &a)).unwrap();
    std::fs::copy(blob_path(&store, &b), blob_path(&store, &a)).unwrap();
    std::fs::copy(outboard_path(&store, &b), outboard_path(&store, &a)).unwrap();
    let report = default(&store);
    assert_eq!(report.damage.len(), 1, "the header is of another blob: {report:?}");
    assert_eq!(report.damage[0].digest, Some(a));
}

/// What nothing but the digest can see.
#[test]
fn read_data_finds_what_was_changed_with_hashes_that_fit() {
    let (_dir, store) = store();
    let good = noise(LEN, 11);
    let layer = add_image(&store, "a:1", &[&good]).layers[0];
    let mut bad = good.clone();
    bad[2_000_000] ^= 1;
    replace_with_its_hashes(&store, &layer, &bad);
    assert!(default(&store).is_sound(), "the hashes fit");
    let read_data = || check(&store, CheckOptions { read_data: true, ..CheckOptions::default() });
    let report = read_data();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    let damage = &report.damage[0];
    assert_eq!((damage.kind, damage.digest), (DamageKind::WrongDigest, Some(layer)));
    assert_eq!(damage.refs, ["a:1"]);
    // What is known is not forgotten by a check that would not have found it.
    for options in [CheckOptions::default(), CheckOptions { quick: true, ..Default::default() }] {
        assert_eq!(check(&store, options).damage.len(), 1);
    }
    overwrite(&store, &layer, 2_000_000, &good[2_000_000..2_000_001]);
    assert!(default(&store).is_sound(), "the digest holds again");
    assert!(read_data().is_sound());
}

#[test]
fn a_blob_of_another_tool_gets_hashes_once_its_digest_held() {
    let (_dir, store) = store();
    store.set_group_hashes(false);
    let image = add_image(&store, "a:1", &[&noise(LEN, 5), &noise(LEN, 6)]);
    overwrite(&store, &image.layers[1], 7, b"x");
    assert_eq!(default(&store).damage.len(), 1);
    assert!(!outboard_path(&store, &image.layers[0]).exists(), "they are switched off");
    store.set_group_hashes(true);
    assert_eq!(default(&store).damage.len(), 1);
    assert!(outboard_path(&store, &image.layers[0]).exists());
    assert!(!outboard_path(&store, &image.layers[1]).exists(), "its digest did not hold");
}

#[test]
fn since_passes_over_what_was_read_lately() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[&noise(LEN, 7), &noise(LEN, 8)]);
    let [a, b] = image.layers[..] else { panic!() };
    set_checked(&store, &a, 3 * HOUR);
    set_checked(&store, &b, HOUR);
    let since = |hours| CheckOptions { since: Some(hours * HOUR), ..CheckOptions::default() };
    let mut last = None;
    let report = store.check(&since(2), |step| last = Some(step)).unwrap();
    let small = report.blob_bytes - 2 * LEN as u64;
    assert_eq!(report.read_bytes, LEN as u64 + small, "and what is small");
    assert_eq!(last.unwrap().total_bytes, report.read_bytes);
    assert!(checked(&store, &a) > SystemTime::now() - HOUR, "it was read now");
    assert_eq!(check(&store, since(2)).read_bytes, small);
    // Damage is never taken for checked.
    set_checked(&store, &a, 3 * HOUR);
    overwrite(&store, &a, 7, b"x");
    for _ in 0..2 {
        assert_eq!(check(&store, since(2)).damage.len(), 1);
    }
    // Nor is what a clock said that was wrong.
    File::open(outboard_path(&store, &b)).unwrap().set_modified(SystemTime::now() + HOUR).unwrap();
    assert_eq!(check(&store, since(2)).read_blobs, 2 + 2);
}

#[test]
fn subsets_come_round_to_all() {
    let (_dir, store) = store();
    let layers: Vec<Vec<u8>> = (0..10).map(|n| noise(200_000, 20 + n)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let image = add_image(&store, "a:1", &layers);
    for (n, layer) in (1..).zip(&image.layers) {
        set_checked(&store, layer, HOUR * n);
    }
    let subset = |share| CheckOptions { subset: Some(share), ..CheckOptions::default() };
    let mut seen: HashSet<&Digest> = HashSet::new();
    for round in 1..=5 {
        let report = check(&store, subset(2_000));
        assert_eq!(report.read_blobs, 2 + 2, "two layers, config and manifest: {report:?}");
        let lately = SystemTime::now() - HOUR / 2;
        seen.extend(image.layers.iter().filter(|layer| checked(&store, layer) > lately));
        assert_eq!(seen.len(), 2 * round);
    }
    assert_eq!(check(&store, subset(1)).read_blobs, 1 + 2, "one at least");
    assert_eq!(check(&store, subset(10_000)).read_blobs, 12);
}

#[test]
fn a_limit_of_the_rate_changes_nothing_else() {
    let (_dir, store) = store();
    add_image(&store, "a:1", &[&noise(LEN, 9), &noise(LEN, 10)]);
    let limit_rate = NonZeroU64::new(1 << 30);
    let threads = NonZeroUsize::new(3);
    let report = check(&store, CheckOptions { limit_rate, threads, ..CheckOptions::default() });
    assert!(report.is_sound());
    assert_eq!(report.read_bytes, report.blob_bytes);
}

/// At least as long as the bytes take at that rate; how much longer is the machine's affair.
#[test]
fn no_faster_than_the_limit_of_the_rate() {
    let (_dir, store) = store();
    add_image(&store, "a:1", &[&noise(LEN, 12)]);
    let limit_rate = NonZeroU64::new(2 << 20);
    for read_data in [false, true] {
        let begun = Instant::now();
        let options = CheckOptions { limit_rate, read_data, ..CheckOptions::default() };
        assert!(check(&store, options).is_sound());
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1), "3 MiB at 2 MiB a second in {took:?}");
    }
}
