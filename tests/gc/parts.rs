//! Downloads that nobody continues.

use std::path::PathBuf;
use std::time::Duration;

use layerstore::gc::{self, GcOptions};
use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim, Part};

use crate::images::{collect, garbage, private, put, set_age, store};

const TEXT: &[u8] = b"a blob that is downloaded in two steps";

fn begin(store: &BlobStore, lease: &layerstore::Lease) -> Part {
    let pinned = lease.pin_one(Algorithm::Sha256.digest(TEXT), TEXT.len() as u64).unwrap();
    let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
    let done = usize::try_from(part.len()).unwrap();
    part.write(&TEXT[done..done + 10]).unwrap();
    part
}

fn files(store: &BlobStore) -> [PathBuf; 2] {
    let digest = Algorithm::Sha256.digest(TEXT);
    let stem = private(store, "parts").join(format!("sha256-{}", digest.hex()));
    [stem.with_extension("part"), stem.with_extension("lock")]
}

fn are_there(store: &BlobStore) -> [bool; 2] {
    files(store).map(|path| path.exists())
}

const DAYS: Duration = Duration::from_secs(3 * 86400);

#[test]
fn a_part_is_kept_for_a_day() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    drop(begin(&store, &lease));
    drop(lease);
    let report = collect(&store);
    assert_eq!((report.parts_removed, are_there(&store)), (0, [true, true]));
    set_age(&files(&store)[0], DAYS);
    let report = collect(&store);
    assert_eq!((report.parts_removed, report.parts_removed_bytes), (1, 10), "{report:?}");
    assert_eq!(are_there(&store), [false, false]);
}

#[test]
fn a_part_that_is_worked_on_is_kept_whatever_its_age() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let mut part = begin(&store, &lease);
    set_age(&files(&store)[0], DAYS);
    let report = collect(&store);
    assert_eq!((report.parts_removed, are_there(&store)), (0, [true, true]));
    part.write(&TEXT[10..]).unwrap();
    part.commit().unwrap();
    assert_eq!(are_there(&store), [false, false]);
}

#[test]
fn a_part_whose_blob_is_there_is_of_no_use() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let part = begin(&store, &lease);
    put(&store, &lease, TEXT);
    assert_eq!(collect(&store).parts_removed, 0, "it is worked on");
    drop(part);
    let dry = gc::collect(&store, &GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
    assert_eq!((dry.parts_removed, are_there(&store)), (1, [true, true]));
    assert_eq!(collect(&store).parts_removed, 1);
    assert_eq!(are_there(&store), [false, false]);
}

#[test]
fn a_part_whose_blob_is_damaged_is_what_mends_it() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let digest = *put(&store, &lease, TEXT).digest();
    let path = store.root().join("blobs/sha256").join(digest.hex());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, [b'?'; TEXT.len()]).unwrap();
    assert!(store.open_blob(&digest).unwrap().verify().is_err());
    drop(begin(&store, &lease));
    assert_eq!((collect(&store).parts_removed, are_there(&store)), (0, [true, true]));
}

#[test]
fn halves_of_a_part() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let [part, lock] = files(&store);
    drop(begin(&store, &lease));
    std::fs::remove_file(&part).unwrap();
    assert_eq!(collect(&store).parts_removed, 0, "a lock alone is none");
    assert_eq!(are_there(&store), [false, false]);

    drop(begin(&store, &lease));
    std::fs::remove_file(&lock).unwrap();
    set_age(&part, DAYS);
    assert_eq!(collect(&store).parts_removed, 1);
    assert_eq!(are_there(&store), [false, false]);
}

#[test]
fn other_files_among_the_parts_are_left_alone() {
    let (_dir, store) = store();
    garbage(&store, b"garbage");
    let names = ["notes.txt", "sha256-00.part", "sha256.lock", "md5-0.part"];
    for name in names {
        std::fs::write(private(&store, "parts").join(name), b"?").unwrap();
        set_age(&private(&store, "parts").join(name), DAYS);
    }
    assert_eq!(collect(&store).parts_removed, 0);
    assert!(names.iter().all(|name| private(&store, "parts").join(name).exists()));
}

#[test]
fn claims_beside_a_collector_that_expires_at_once() {
    let (_dir, store) = store();
    let options = GcOptions { part_ttl: Duration::ZERO, ..GcOptions::default() };
    let lease = store.lease("test").unwrap();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut removed = 0;
            for _ in 0..150 {
                removed += gc::collect(&store, &options).unwrap().parts_removed;
            }
            removed
        });
        while !collector.is_finished() {
            let pinned = lease.pin_one(Algorithm::Sha256.digest(TEXT), TEXT.len() as u64).unwrap();
            // The collector holds the lock for a moment; a puller would wait as for any other.
            let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { continue };
            let done = usize::try_from(part.len()).unwrap();
            if done < 30 {
                part.write(&TEXT[done..done + 10]).unwrap();
                assert!(files(&store)[0].exists(), "the part was removed under its lock");
                drop(part);
                // As after a kill: nobody has it.
                std::thread::sleep(Duration::from_millis(2));
            } else {
                part.discard().unwrap();
            }
        }
        assert!(collector.join().unwrap() > 0, "no part was ever removed");
    });
}
