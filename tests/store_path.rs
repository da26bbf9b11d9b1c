//! The straight path through the store: make it, put an image in, read it back.

use std::io::{Read, Write};

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, Claim, Descriptor, Digest, Lease, Pinned};

fn put(store: &BlobStore, lease: &Lease, bytes: &[u8]) -> Pinned {
    let mut ingest = store.ingest(lease, Algorithm::Sha256, 1 << 20).unwrap();
    ingest.write_all(bytes).unwrap();
    ingest.commit().unwrap()
}

#[test]
fn an_image_goes_in_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("new/store");
    let store = BlobStore::init(&root).unwrap();
    let lease = store.lease("test").unwrap();

    let layer = vec![7u8; 100_000];
    let layer_digest = Algorithm::Sha256.digest(&layer);
    let pinned_layer = lease.pin_one(layer_digest, layer.len() as u64).unwrap();
    assert!(!pinned_layer.is_present());
    let Claim::Held(mut part) = store.claim(&pinned_layer).unwrap() else { panic!("not held") };
    part.write(&layer[..40_000]).unwrap();
    assert!(matches!(store.claim(&pinned_layer).unwrap(), Claim::Busy(_)));
    drop(part);
    let Claim::Held(mut part) = store.claim(&pinned_layer).unwrap() else { panic!("not held") };
    assert_eq!(part.len(), 40_000, "the part is resumed");
    part.write(&layer[40_000..]).unwrap();
    part.commit().unwrap();
    assert!(matches!(store.claim(&pinned_layer).unwrap(), Claim::Committed));

    let config = put(&store, &lease, b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":{}}}]}}"#,
        MediaType::OCI_MANIFEST,
        config.digest(),
        layer.len()
    );
    let pinned = put(&store, &lease, manifest.as_bytes());
    let target = Descriptor::new(
        MediaType::new(MediaType::OCI_MANIFEST),
        *pinned.digest(),
        manifest.len() as u64,
    );
    store.publish("example.org/a:1", &target, &[pinned, config, pinned_layer]).unwrap();
    drop(lease);

    let store = BlobStore::open(&root).unwrap();
    assert!(store.leases().unwrap().is_empty(), "the lease went with its owner");
    let found = store.find_ref("example.org/a:1").unwrap().descriptor;
    let nodes = store.closure(&found).unwrap();
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(|node| node.present));
    let mut read = Vec::new();
    store.open_blob(&layer_digest).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, layer);
    let mut names: Vec<Digest> = store.blobs().unwrap().map(|blob| blob.unwrap().digest).collect();
    names.sort();
    assert_eq!(names.len(), 3);
    let parts = std::fs::read_dir(root.join(".layerstore/parts")).unwrap().count();
    assert_eq!(parts, 0, "no part is left");
}
