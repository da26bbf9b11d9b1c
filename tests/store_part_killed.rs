//! A downloader that is killed at any moment leaves a part that the next one continues.

mod store_support;

use std::time::Duration;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim};
use store_support::*;

const SIZE: usize = 3_000_000;
const PIECE: usize = 7_001;

fn bytes() -> Vec<u8> {
    noise(SIZE, 5)
}

/// Downloads until it is done; where it began.
fn download(store: &BlobStore) -> u64 {
    let bytes = bytes();
    let lease = store.lease("downloader").unwrap();
    let pinned = lease.pin_one(Algorithm::Sha256.digest(&bytes), SIZE as u64).unwrap();
    let mut part = match store.claim(&pinned).unwrap() {
        Claim::Committed => return SIZE as u64,
        Claim::Held(part) => part,
        Claim::Busy(watch) => panic!("held by {}", watch.holder()),
    };
    let start = part.len();
    for piece in bytes[usize::try_from(start).unwrap()..].chunks(PIECE) {
        part.write(piece).unwrap();
    }
    part.commit().unwrap();
    start
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    if let Some(root) = task() {
        download(&BlobStore::open(root).unwrap());
        return;
    }
    let mut resumed = 0;
    for round in 0..12u64 {
        let (_dir, store) = store();
        let mut child =
            child("a_killed_download_goes_on_where_it_was", store.root().to_str().unwrap());
        let parts = store.root().join(".layerstore/parts");
        let part = || std::fs::read_dir(&parts).unwrap().next().is_some();
        while !part() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(round * round * 150));
        child.kill().unwrap();
        child.wait().unwrap();

        let report = store.check(&Default::default(), |_| {}).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let start = download(&store);
        resumed += u64::from(start > 0 && start < SIZE as u64);
        let digest = Algorithm::Sha256.digest(&bytes());
        store.open_blob(&digest).unwrap().verify().unwrap();
        assert_eq!(std::fs::read_dir(&parts).unwrap().count(), 0);
    }
    // Some die too early or too late to leave a part; hardly all of them.
    assert!(resumed > 0, "no part was ever resumed");
}
