//! An ingest takes no more than its limit, and a dropped or failed one leaves nothing.

mod store_support;

use std::io::{ErrorKind, Write};

use layerstore::Error;
use layerstore::oci::Algorithm;
use store_support::*;

#[test]
fn over_the_limit_is_over() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    for limit in [0u64, 1, 1000, 300_000] {
        let whole = noise(usize::try_from(limit).unwrap(), 1);
        let more = [&whole[..], b"!"].concat();

        let mut ingest = store.ingest(&lease, Algorithm::Sha256, limit).unwrap();
        let error = ingest.write_from(&more[..], "a stream").unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: l, .. } if l == limit), "{error}");
        assert!(error.to_string().contains("a stream"), "{error}");
        drop(ingest);

        let mut ingest = store.ingest(&lease, Algorithm::Sha256, limit).unwrap();
        ingest.write_all(&whole).unwrap();
        let error = ingest.write_all(b"!").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(ingest.written(), limit, "nothing of what was too much is written");
        let pinned = ingest.commit().unwrap();
        assert_eq!(*pinned.digest(), Algorithm::Sha256.digest(&whole));
    }
    let endless = std::io::repeat(7);
    let mut ingest = store.ingest(&lease, Algorithm::Sha256, 5_000_000).unwrap();
    assert!(matches!(ingest.write_from(endless, "it").unwrap_err(), Error::TooLarge { .. }));
    drop(ingest);
    assert_eq!(store.blobs().unwrap().count(), 4);
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert!(report.is_sound() && report.temporary == 0, "{report:?}");
}

#[test]
fn another_digest_than_expected_is_not_committed() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let mut ingest = store.ingest(&lease, Algorithm::Sha256, 100).unwrap();
    ingest.write_all(b"these").unwrap();
    let error = ingest.commit_as(&Algorithm::Sha256.digest(b"others"), "a file").unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert_eq!(store.blobs().unwrap().count(), 0);
}
