//! Blobs that are put together are what they are when put one by one.

mod store_support;

use std::os::unix::fs::MetadataExt;

use layerstore::oci::Algorithm;
use layerstore::{Error, gc};
use store_support::*;

/// More than are synced at a time, with some twice, an empty one and one that is there already.
#[test]
fn a_batch_has_every_blob_in_order_and_leaves_nothing_else() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let mut before = store.ingest(&lease, Algorithm::Sha256, 1 << 20).unwrap();
    before.write_from(&noise(3000, 3)[..], "it").unwrap();
    before.commit().unwrap();

    let blobs: Vec<_> = (0..600u64).map(|n| noise((n % 300 * 1000) as usize, n % 500)).collect();
    let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 1 << 20).unwrap();
    for blob in &blobs {
        batch.put(&blob[..], "a blob").unwrap();
    }
    let pinned = batch.commit().unwrap();
    assert_eq!(pinned.len(), blobs.len());
    for (pinned, blob) in pinned.iter().zip(&blobs) {
        assert_eq!(*pinned.digest(), Algorithm::Sha256.digest(blob));
        let path = store.root().join("blobs/sha256").join(pinned.digest().hex());
        let meta = std::fs::metadata(path).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o7777), (blob.len() as u64, 0o1444));
    }
    let options = layerstore::CheckOptions { read_data: true, ..Default::default() };
    let report = store.check(&options, |_| {}).unwrap();
    assert!(report.is_sound() && report.temporary == 0, "{report:?}");

    let grace = std::time::Duration::ZERO;
    let collect = || gc::collect(&store, &gc::GcOptions { grace, ..Default::default() }).unwrap();
    assert_eq!((collect().removed, collect().kept_leased), (0, report.blobs), "all are pinned");
    drop((pinned, lease));
    assert_eq!(collect().removed, report.blobs);
}

#[test]
fn a_batch_that_is_dropped_or_fails_leaves_no_litter() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let mut batch = store.ingest_batch(&lease, Algorithm::Blake3, 100).unwrap();
    batch.put(&noise(100, 1)[..], "a blob").unwrap();
    let error = batch.put(&noise(101, 2)[..], "a large one").unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 100, .. }), "{error}");
    assert!(error.to_string().contains("a large one"), "{error}");
    drop(batch);
    assert_eq!(store.blobs().unwrap().count(), 0);
    assert_eq!(
        store.ingest_batch(&lease, Algorithm::Blake3, 0).unwrap().commit().unwrap().len(),
        0
    );
}

/// What was told of a put is not forgotten at the end.
#[test]
fn a_batch_of_which_some_could_not_be_put_in_place_cannot_be_committed() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let in_the_way = blob_path(&store, &Algorithm::Sha256.digest(b"0"));
    std::fs::create_dir(&in_the_way).unwrap();
    let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 100).unwrap();
    let failed = (0..1000).find_map(|n| batch.put(n.to_string().as_bytes(), "a blob").err());
    assert!(matches!(failed, Some(Error::Io { .. })), "{failed:?}");
    std::fs::remove_dir(&in_the_way).unwrap();
    let again = batch.put(&b"more"[..], "a blob").unwrap_err();
    assert!(matches!(again, Error::BrokenBatch), "{again}");
    let error = batch.commit().unwrap_err();
    assert!(matches!(error, Error::BrokenBatch), "{error}");
}
