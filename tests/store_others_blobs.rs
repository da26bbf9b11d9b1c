//! Blobs that another program wrote into the layout: it may not have synced them, or its sync may have
//! failed. Before anything durable names them, they are replaced by copies.
//! That these are synced first, and the others never, is seen by tests/reliability/faults.py.

mod store_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use layerstore::oci::{Algorithm, Descriptor, MediaType};
use layerstore::{BlobStore, Error};
use serde_json::json;
use store_support::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

type Act = fn(&BlobStore, &Image) -> Result<(), Error>;

/// What makes something durable name an image.
const ACTS: [(&str, Act); 3] = [
    ("publish", |store, image| {
        let lease = store.lease("test").unwrap();
        let nodes = store.closure(&image.target).unwrap();
        let blobs: Vec<_> =
            nodes.iter().map(|it| (it.descriptor.digest, it.descriptor.size)).collect();
        store.publish("other:v1", &image.target, &lease.pin(&blobs).unwrap())
    }),
    ("tag", |store, _| {
        let lease = store.lease("test").unwrap();
        store.tag(&lease, "image:v1", "other:v1").map(drop)
    }),
    ("lasting lease", |store, image| {
        store.lasting_lease("test", &[image.target.digest], None).map(drop)
    }),
];

fn mark(store: &BlobStore, digest: &layerstore::oci::Digest) -> PathBuf {
    store.root().join(format!(".layerstore/suspect/sha256-{}", digest.hex()))
}

fn groups_of(store: &BlobStore, blob: &Path) -> PathBuf {
    let hex = blob.file_name().unwrap().to_str().unwrap();
    store.root().join(format!(".layerstore/outboard/sha256/{hex}"))
}

/// An image under a name, all of whose blobs look as if other tools had written them.
fn image_of_others(store: &BlobStore) -> (Image, Vec<std::path::PathBuf>) {
    let image = add_image(store, "image:v1", &[b"one", &noise(100_000, 6)]);
    let digests = [&[image.target.digest, image.config], &image.layers[..]].concat();
    let paths: Vec<_> = digests.iter().map(|digest| blob_path(store, digest)).collect();
    // As skopeo leaves them, oras and umoci, and one of ours that somebody may write to.
    let modes = [0o644, 0o444, 0o600, 0o1644];
    paths.iter().zip(modes.iter().cycle()).for_each(|(path, mode)| set_mode(path, *mode));
    (image, paths)
}

#[test]
fn what_a_ref_or_a_lease_comes_to_name_is_replaced_by_a_copy() {
    let (_dir, store) = store();
    for (what, act) in ACTS {
        let (image, paths) = image_of_others(&store);
        let before: Vec<_> = paths.iter().map(|path| fs::File::open(path).unwrap()).collect();
        let bytes: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        act(&store, &image).unwrap();
        for ((path, before), bytes) in paths.iter().zip(before).zip(bytes) {
            assert_eq!((mode(path), fs::read(path).unwrap()), (0o1444, bytes), "{what}");
            assert_ne!(inode(path), before.metadata().unwrap().ino(), "{what}");
        }
        assert!(groups_of(&store, &paths[3]).exists(), "{what}: hashes of its groups");
        // Once.
        let after: Vec<_> = paths.iter().map(|path| inode(path)).collect();
        act(&store, &image).unwrap();
        assert_eq!(after, paths.iter().map(|path| inode(path)).collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn what_is_put_or_committed_replaces_it() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let bytes = noise(100_000, 3);
    let digest = *put(&store, &lease, &bytes).digest();
    let path = blob_path(&store, &digest);
    // A claim finds it missing and holds its part, and then another program brings it.
    let claimed = |private: bool| {
        fs::remove_file(&path).unwrap();
        let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
        let mut part = part(&store, &pinned, private);
        part.write(&bytes).unwrap();
        fs::write(&path, &bytes).unwrap();
        part.commit().unwrap();
    };
    let acts: [(&str, &dyn Fn()); 4] = [
        ("put", &|| drop(put(&store, &lease, &bytes))),
        ("batch", &|| {
            let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 1 << 20).unwrap();
            batch.put(&bytes[..], "bytes").unwrap();
            batch.commit().unwrap();
        }),
        ("part", &|| claimed(false)),
        ("private part", &|| claimed(true)),
    ];
    for (what, act) in acts {
        set_mode(&path, 0o644);
        let before = fs::File::open(&path).unwrap();
        act();
        assert_eq!(mode(&path), 0o1444, "{what}");
        assert_ne!(inode(&path), before.metadata().unwrap().ino(), "{what}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}");
    }
}

#[test]
fn bytes_that_nobody_has_noticed_to_be_wrong_are_replaced_by_a_put() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    for len in [1, 3000, 600_000] {
        let bytes = noise(len, 4);
        let digest = *put(&store, &lease, &bytes).digest();
        let path = blob_path(&store, &digest);
        let acts: [(&str, &dyn Fn()); 2] = [
            ("put", &|| drop(put(&store, &lease, &bytes))),
            ("batch", &|| {
                let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 1 << 20).unwrap();
                batch.put(&bytes[..], "bytes").unwrap();
                batch.commit().unwrap();
            }),
        ];
        for (what, act) in acts {
            let whole = inode(&path);
            act();
            assert_eq!(inode(&path), whole, "{what}, {len}: a good one stays");
            let mut rotten = bytes.clone();
            rotten[len - 1] ^= 1;
            set_mode(&path, 0o644);
            fs::write(&path, &rotten).unwrap();
            set_mode(&path, 0o1444);
            act();
            assert_eq!(fs::read(&path).unwrap(), bytes, "{what}, {len}");
            store.open_blob(&digest).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn wrong_bytes_are_not_named() {
    let (_dir, store) = store();
    for (what, act) in ACTS {
        let (image, paths) = image_of_others(&store);
        let mut bytes = fs::read(&paths[1]).unwrap();
        bytes[3] ^= 1;
        fs::write(&paths[1], &bytes).unwrap();
        let error = act(&store, &image).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains(&image.config.hex()), "{what}: {error}");
        assert!(mark(&store, &image.config).exists(), "{what}");
        assert!(store.find_ref("other:v1").is_err(), "{what}");
        assert_eq!(mode(&paths[1]), 0o444, "{what}: of the config");
        // Good bytes heal it.
        bytes[3] ^= 1;
        let lease = store.lease("test").unwrap();
        put(&store, &lease, &bytes);
        act(&store, &image).unwrap();
        assert!(!mark(&store, &image.config).exists(), "{what}");
        let _ = store.remove_refs(&["other:v1".to_owned()]);
    }
}

#[test]
fn a_mark_goes_once_the_bytes_are_found_to_be_good() {
    let (_dir, store) = store();
    let (image, paths) = image_of_others(&store);
    let mark = mark(&store, &image.config);
    let make = || {
        fs::create_dir_all(mark.parent().unwrap()).unwrap();
        fs::write(&mark, b"").unwrap();
        set_mode(&paths[1], 0o644);
    };
    for (what, act) in ACTS {
        make();
        act(&store, &image).unwrap();
        assert!(!mark.exists() && mode(&paths[1]) == 0o1444, "by a {what}");
    }
    make();
    assert!(store.check(&Default::default(), |_| {}).unwrap().is_sound());
    assert!(!mark.exists() && mode(&paths[1]) == 0o644, "by a check");
}

/// As a power cut leaves a manifest that another tool wrote, of a platform that nobody has pulled.
#[test]
fn what_has_another_length_is_none_of_the_image() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let image = add_image(&store, "image:v1", &[b"one"]);
    let absent = Descriptor::new(
        MediaType::new(MediaType::OCI_MANIFEST),
        Algorithm::Sha256.digest(b"a manifest"),
        10,
    );
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX,
                       "manifests": [image.target, absent]});
    let index = serde_json::to_vec(&index).unwrap();
    let root = *put(&store, &lease, &index).digest();
    let empty = blob_path(&store, &absent.digest);
    fs::write(&empty, b"").unwrap();
    set_mode(&empty, 0o644);
    store.tag_digest(&lease, &root, "index:v1").unwrap();
    store.lasting_lease("test", &[root], None).unwrap();
    assert_eq!((mode(&empty), fs::metadata(&empty).unwrap().len()), (0o644, 0));
}

/// Who puts a damaged blob away asks which blobs are pinned by themselves, not what trees lead to.
#[test]
fn what_is_copied_is_pinned_one_by_one() {
    let (_dir, store) = store();
    let (image, _) = image_of_others(&store);
    let lease = store.lease("test").unwrap();
    store.tag(&lease, "image:v1", "other:v1").unwrap();
    let leases = store.leases().unwrap();
    let own = leases.iter().find(|it| it.id == lease.id()).unwrap();
    for digest in [&[image.target.digest, image.config], &image.layers[..]].concat() {
        assert!(own.blobs.contains(&digest), "{digest}");
    }
}
