//! Everything at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use layerstore::gc::{self, GcOptions};
use layerstore::{BlobStore, ErrorKind};

use crate::images::{at_once, collect, image, names, put, store};

const THREADS: u32 = 4;
const FOR: Duration = Duration::from_secs(5);

#[track_caller]
fn assert_complete(store: &BlobStore, name: &str) {
    let target = store.find_ref(name).unwrap().descriptor;
    for node in store.closure(&target).unwrap() {
        assert!(node.present, "{name} lost {:?}", node.descriptor.digest);
    }
}

/// Publishes, reads, tags and removes images out of a small pool, so that the threads' images share
/// their layers, and what one removes another has just found.
fn churn(store: &BlobStore, thread: u32, until: Instant) -> Vec<String> {
    let layer = |n: u32| format!("layer {}", n % 7).into_bytes();
    let mut random = thread.wrapping_mul(0x9e37_79b9) | 1;
    let mut published: Vec<String> = Vec::new();
    for n in 0.. {
        if Instant::now() >= until {
            break;
        }
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let name = format!("example.org/thread{thread}:{}", n % 5);
        let lease = store.lease("stress").unwrap();
        if n % 3 == 2 && !published.is_empty() {
            let source = &published[random as usize % published.len()];
            let name = format!("{name}-tag");
            store.tag(&lease, source, &name).unwrap();
            published.push(name);
        } else {
            let (first, second) = (layer(random), layer(random >> 8));
            let config = format!("config {}", random % 3);
            let image = image(store, &lease, &config, &[&first, &second]);
            image.publish(store, &lease, &name);
            published.push(name);
        }
        drop(lease);
        published.sort();
        published.dedup();
        published.iter().for_each(|name| assert_complete(store, name));
        if published.len() > 4 {
            let victim = published.remove(random as usize % published.len());
            assert_eq!(store.remove_refs(&[victim]).unwrap(), [true]);
        }
    }
    published
}

#[test]
fn collections_beside_publishing_and_removing_lose_nothing() {
    let (_dir, store) = store();
    let stop = AtomicBool::new(false);
    let until = Instant::now() + FOR;
    let (published, removed) = std::thread::scope(|scope| {
        let collectors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut removed = 0;
                    while !stop.load(Ordering::SeqCst) {
                        match gc::collect(&store, &at_once()) {
                            Ok(report) => removed += report.removed,
                            // By the other one.
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Locked, "{error}"),
                        }
                    }
                    removed
                })
            })
            .collect();
        let churns: Vec<_> = (0..THREADS)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || churn(store, thread, until))
            })
            .collect();
        let joined: Vec<_> = churns.into_iter().map(|churn| churn.join()).collect();
        stop.store(true, Ordering::SeqCst);
        let published: Vec<String> = joined.into_iter().flat_map(|names| names.unwrap()).collect();
        let removed: u64 = collectors.into_iter().map(|it| it.join().unwrap()).sum();
        (published, removed)
    });
    assert!(removed > 0, "nothing was ever garbage");

    let expected = published.iter().flat_map(|name| {
        assert_complete(&store, name);
        let target = store.find_ref(name).unwrap().descriptor;
        store.closure(&target).unwrap()
    });
    let expected: std::collections::BTreeSet<String> =
        expected.map(|node| node.descriptor.digest.to_string()).collect();
    collect(&store);
    assert_eq!(names(&store), expected, "exactly the live set is left");
    assert_eq!(store.refs().unwrap().len(), published.len());
    assert!(store.leases().unwrap().is_empty());
}

#[test]
fn owners_that_let_go_are_no_collectors() {
    let (_dir, store) = store();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let lease = store.lease("short").unwrap();
                    put(&store, &lease, b"blob");
                }
            });
        }
        let options = GcOptions::default();
        let outcomes: Vec<_> = (0..100).map(|_| gc::collect(&store, &options)).collect();
        stop.store(true, Ordering::SeqCst);
        outcomes.into_iter().for_each(|outcome| assert!(outcome.is_ok(), "{outcome:?}"));
    });
}
