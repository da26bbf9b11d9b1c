//! The time of a blob, from which the collector's grace counts, is that of its commit, however long
//! before its last byte was written.

mod store_support;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, SystemTime};

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, GcOptions, gc};
use store_support::*;

/// Makes files that are open, but have no name yet, look as if they had been written long ago.
fn age_nameless_files(store: &BlobStore) -> usize {
    let blobs = store.root().join("blobs");
    let mut count = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        let Ok(target) = fs::read_link(&path) else { continue };
        if target.starts_with(&blobs) && fs::metadata(&path).unwrap().is_file() {
            File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
fn a_blob_is_as_old_as_its_commit() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let mut ingest = store.ingest(&lease, Algorithm::Sha256, 100).unwrap();
    ingest.write_all(b"by ingest").unwrap();
    assert_eq!(age_nameless_files(&store), 1);
    ingest.commit().unwrap();

    let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 100).unwrap();
    batch.put(&b"one"[..], "it").unwrap();
    batch.put(&b"two"[..], "it").unwrap();
    assert_eq!(age_nameless_files(&store), 2);
    batch.commit().unwrap();

    for private in [false, true] {
        let bytes = format!("a part, private: {private}").into_bytes();
        let digest = Algorithm::Sha256.digest(&bytes);
        let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
        let mut part = part(&store, &pinned, private);
        part.write(&bytes).unwrap();
        let path = store.root().join(format!(".layerstore/parts/sha256-{}.part", digest.hex()));
        match private {
            true => assert_eq!(age_nameless_files(&store), 1),
            false => {
                File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
        }
        part.commit().unwrap();
    }
    drop(lease);
    let options = GcOptions { grace: Duration::from_secs(86400), ..Default::default() };
    let report = gc::collect(&store, &options).unwrap();
    assert_eq!((report.removed, report.kept_young), (0, 5), "{report:?}");
}
