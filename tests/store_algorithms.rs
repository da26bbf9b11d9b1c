//! sha512 and blake3 beside sha256, and blobs without a byte.

mod store_support;

use std::io::{Read, Seek, SeekFrom};

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{Claim, Error};
use store_support::*;

#[test]
fn each_algorithm_by_ingest_and_by_part() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    for algorithm in Algorithm::ALL {
        for (n, len) in [0, 1, 4096, 1_234_567].into_iter().enumerate() {
            let by_ingest = noise(len, n as u64);
            let pinned = put_as(&store, &lease, algorithm, &by_ingest);
            assert_eq!(*pinned.digest(), algorithm.digest(&by_ingest));

            let by_part = noise(len + 1, 100 + n as u64);
            let digest = algorithm.digest(&by_part);
            let pinned = lease.pin_one(digest, by_part.len() as u64).unwrap();
            let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
            part.write(&by_part).unwrap();
            part.commit().unwrap();

            for (bytes, digest) in [(&by_ingest, algorithm.digest(&by_ingest)), (&by_part, digest)]
            {
                let mut blob = store.open_blob(&digest).unwrap();
                blob.verify().unwrap();
                assert_eq!(blob.map_unverified().unwrap().as_ref(), bytes);
                let mut read = Vec::new();
                blob.read_to_end(&mut read).unwrap();
                assert_eq!(&read, bytes);
                if len > 1 {
                    blob.seek(SeekFrom::Start(1)).unwrap();
                    read.clear();
                    blob.read_to_end(&mut read).unwrap();
                    assert_eq!(read, bytes[1..]);
                }
            }
        }
    }
    // The empty blob and seven others of each algorithm.
    assert_eq!(store.blobs().unwrap().count(), 24);
}

#[test]
fn an_image_with_digests_of_every_kind() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let config = put_as(&store, &lease, Algorithm::Sha512, b"{}");
    let layer = put_as(&store, &lease, Algorithm::Blake3, b"layer");
    let text = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    });
    let manifest = put_as(&store, &lease, Algorithm::Sha512, text.to_string().as_bytes());
    let target = descriptor(MediaType::OCI_MANIFEST, &manifest);
    let layer_digest = *layer.digest();
    store.publish("a:1", &target, &[config, layer, manifest]).unwrap();
    let nodes = store.closure(&target).unwrap();
    assert!(nodes.len() == 3 && nodes.iter().all(|node| node.present));
    assert_eq!(store.document(&target).unwrap().children().count(), 2);
    assert_eq!(store.usage().unwrap().images[0].total.count, 3);

    let path = blob_path(&store, &layer_digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "LAYER").unwrap();
    let error = store.open_blob(&layer_digest).unwrap().verify().unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}
