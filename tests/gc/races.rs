//! Pins that arrive while a collection runs.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layerstore::gc::{self, GcReport};
use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Digest, Error, Lease, Result};

use crate::images::{
    assert_holds, at_once, collect, garbage, image, is_there, path_of, private, put, replace, store,
};

/// Runs a collection and, when it has listed its candidates and waits to remove them, `meanwhile`.
///
/// For that this holds the gate shared, as a process that pins does.
fn collect_and(store: &BlobStore, meanwhile: impl FnOnce()) -> Result<GcReport> {
    let gate = File::open(private(store, "locks/gate")).unwrap();
    gate.lock_shared().unwrap();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| gc::collect(store, &at_once()));
        let turn = File::open(private(store, "locks/turn")).unwrap();
        while turn.try_lock_shared().is_ok() {
            turn.unlock().unwrap();
            assert!(!collector.is_finished(), "{:?}", collector.join());
            std::thread::sleep(Duration::from_millis(1));
        }
        meanwhile();
        drop(gate);
        collector.join().unwrap()
    })
}

/// What a process writes that pins: to its own lease, or to a new one.
fn pin_by_hand(store: &BlobStore, lease: Option<&Lease>, kind: &str, digest: &Digest) {
    let line = |text: String| format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
    let id = lease.map_or("0123456789abcdef0123456789abcdef", Lease::id);
    let mut file =
        File::options().append(true).create(true).open(private(store, "leases").join(id)).unwrap();
    if lease.is_none() {
        file.write_all(line("holder somebody else".to_owned()).as_bytes()).unwrap();
    }
    file.write_all(line(format!("{kind} {digest}")).as_bytes()).unwrap();
}

#[test]
fn a_pin_that_comes_after_the_candidates_were_listed() {
    for own in [true, false] {
        let (_dir, store) = store();
        let wanted = garbage(&store, b"wanted");
        garbage(&store, b"unwanted");
        let lease = store.lease("test").unwrap();
        let report = collect_and(&store, || {
            pin_by_hand(&store, own.then_some(&lease), "blob", &wanted);
        })
        .unwrap();
        assert_holds(&store, &[[wanted].into()]);
        assert_eq!((report.kept_leased, report.removed), (1, 1), "{report:?}");
    }
}

#[test]
fn a_tree_that_is_pinned_after_the_candidates_were_listed() {
    for own in [true, false] {
        let (_dir, store) = store();
        let lease = store.lease("test").unwrap();
        let wanted = image(&store, &lease, "wanted", &[b"layer", b"wanted layer"]);
        image(&store, &lease, "unwanted", &[b"layer", b"unwanted layer"]);
        let kept = wanted.digests();
        let root = wanted.target.digest;
        drop(lease);
        let lease = store.lease("test").unwrap();
        let report = collect_and(&store, || {
            pin_by_hand(&store, own.then_some(&lease), "tree", &root);
        })
        .unwrap();
        assert_holds(&store, &[kept]);
        assert_eq!((report.kept_leased, report.removed), (4, 3), "{report:?}");
    }
}

#[test]
fn a_tree_that_cannot_be_read_stops_the_removal() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let wanted = image(&store, &lease, "wanted", &[b"layer"]);
    let digests = wanted.digests();
    let root = wanted.target.digest;
    drop(lease);
    replace(&path_of(&store, &root), b"{}");
    let error = collect_and(&store, || pin_by_hand(&store, None, "tree", &root)).unwrap_err();
    assert!(matches!(error, Error::UnreadableRoot { .. }), "{error:?}");
    assert!(error.to_string().contains("0123456789abcdef0123456789abcdef"), "{error}");
    assert_holds(&store, &[digests]);
}

#[test]
fn an_image_that_is_published_and_let_go_of_after_the_refs_were_read() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let published = image(&store, &lease, "published", &[b"layer"]);
    let kept = [published.digests()];
    let pinned = lease.pin(&published.blobs).unwrap();
    garbage(&store, b"garbage");
    collect_and(&store, || {
        store.publish("example.org/published:1", &published.target, &pinned).unwrap();
        drop((lease, pinned));
    })
    .unwrap();
    assert_holds(&store, &kept);
    assert_eq!(store.leases().unwrap().len(), 1, "its owner left it to the collector");
    let report = collect(&store);
    assert_eq!((report.leases_removed, report.live), (1, 3));
    assert_holds(&store, &kept);
}

/// Beside a collector that never rests, processes pin what may be garbage. Whatever they find in
/// place must stay for as long as they pin it.
#[test]
fn what_was_found_stays() {
    const BLOBS: u32 = 40;
    let (_dir, store) = store();
    let bytes = |n: u32| format!("blob {}", n % BLOBS).into_bytes();
    let (stop, cycles) = (AtomicBool::new(false), AtomicU64::new(0));
    let stop_after = Instant::now() + Duration::from_secs(4);
    let (found, removed) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut removed = 0;
            while !stop.load(Ordering::SeqCst) {
                removed += collect(&store).removed;
                cycles.fetch_add(1, Ordering::SeqCst);
            }
            removed
        });
        let pinners: Vec<_> = (0..3u32)
            .map(|seed| {
                let (store, cycles) = (&store, &cycles);
                scope.spawn(move || {
                    let (mut n, mut found) = (seed * 7, 0);
                    while Instant::now() < stop_after {
                        n = n.wrapping_add(13);
                        let digest = Algorithm::Sha256.digest(&bytes(n));
                        let lease = store.lease("pinner").unwrap();
                        let pinned = lease.pin_one(digest, bytes(n).len() as u64).unwrap();
                        if !pinned.is_present() {
                            put(store, &lease, &bytes(n));
                            continue;
                        }
                        found += 1;
                        let before = cycles.load(Ordering::SeqCst);
                        while cycles.load(Ordering::SeqCst) < before + 2
                            && Instant::now() < stop_after
                        {
                            assert!(is_there(store, &digest), "{digest} was found, then collected");
                            std::thread::sleep(Duration::from_micros(200));
                        }
                        assert!(is_there(store, &digest), "{digest} was found, then collected");
                    }
                    found
                })
            })
            .collect();
        let found: Vec<std::thread::Result<u64>> =
            pinners.into_iter().map(|pinner| pinner.join()).collect();
        stop.store(true, Ordering::SeqCst);
        let found: u64 = found.into_iter().map(|found| found.unwrap()).sum();
        (found, collector.join().unwrap())
    });
    assert!(found > 0 && removed > 0, "found {found}, removed {removed}");
}
