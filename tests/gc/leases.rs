//! What a lease keeps, and for how long.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use layerstore::gc::{self, GcOptions};
use layerstore::{BlobStore, LeaseState};

use crate::images::{assert_holds, at_once, collect, image, store};

const ROOT: &str = "LAYERSTORE_TEST_CHILD_ROOT";

/// Runs in a child process, which the test below starts: puts an image in and holds its lease.
#[test]
fn as_a_child() {
    let Ok(root) = std::env::var(ROOT) else {
        return;
    };
    let store = BlobStore::open(root).unwrap();
    let lease = store.lease("the child").unwrap();
    let _image = image(&store, &lease, "child", &[b"the child's layer"]);
    println!("holding");
    loop {
        std::thread::park();
    }
}

fn child_with_a_lease(store: &BlobStore) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["leases::as_a_child", "--exact", "--nocapture"])
        .env(ROOT, store.root())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let holding = output.lines().map(Result::unwrap).any(|line| line.contains("holding"));
    assert!(holding, "the child ended");
    child
}

#[test]
fn a_process_keeps_its_blobs_until_it_is_killed() {
    let (_dir, store) = store();
    let mut child = child_with_a_lease(&store);
    let report = collect(&store);
    assert_eq!((report.kept_leased, report.removed, report.leases_removed), (3, 0, 0));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.leases().unwrap()[0].state, LeaseState::Ended);

    let dry = gc::collect(&store, &GcOptions { dry_run: true, ..at_once() }).unwrap();
    assert_eq!((dry.removed, dry.leases_removed), (3, 1), "{dry:?}");
    assert_eq!(store.leases().unwrap().len(), 1, "a dry run leaves it");
    let report = collect(&store);
    assert_eq!((report.removed, report.leases_removed), (3, 1), "{report:?}");
    assert!(store.leases().unwrap().is_empty());
    assert_holds(&store, &[]);
}

#[test]
fn a_live_lease_keeps_single_blobs() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let whole = image(&store, &lease, "whole", &[b"layer"]);
    let other = store.lease("another").unwrap();
    let manifest = whole.target.clone();
    other.pin_one(manifest.digest, manifest.size).unwrap();
    drop(lease);
    let report = collect(&store);
    assert_holds(&store, &[[manifest.digest].into()]);
    assert_eq!((report.kept_leased, report.removed), (1, 2), "a pin of a blob is not of its tree");
    drop(other);
    collect(&store);
    assert_holds(&store, &[]);
}

#[test]
fn a_lasting_lease_keeps_whole_images_until_it_is_removed() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let kept = image(&store, &lease, "kept", &[b"layer", b"kept layer"]);
    let published = image(&store, &lease, "published", &[b"layer"]);
    published.publish(&store, &lease, "example.org/published:1");
    let ttl = Some(Duration::from_secs(1000));
    let id = store.lasting_lease("test", &[kept.target.digest], ttl).unwrap();
    drop(lease);
    let report = collect(&store);
    assert_holds(&store, &[kept.digests(), published.digests()]);
    assert_eq!((report.live, report.kept_leased), (3, 3), "the shared layer needs no lease");
    store.remove_lease(&id).unwrap();
    collect(&store);
    assert_holds(&store, &[published.digests()]);
}

#[test]
fn a_lasting_lease_ends_by_itself() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let kept = image(&store, &lease, "kept", &[b"layer"]);
    store.lasting_lease("test", &[kept.target.digest], Some(Duration::ZERO)).unwrap();
    drop(lease);
    let report = collect(&store);
    assert_eq!((report.removed, report.leases_removed), (3, 1), "{report:?}");
    assert_holds(&store, &[]);
}
