//! Blobs that another program wrote into the layout: it may not have synced them. Before anything
//! durable names them they are synced, and then have the mode of what is; or they are replaced.
//! That the sync comes first is seen by tests/reliability/faults.py.

mod store_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Error};
use store_support::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// An image under a name, all of whose blobs look as if skopeo had written them.
fn image_of_others(store: &BlobStore) -> (Image, Vec<std::path::PathBuf>) {
    let image = add_image(store, "image:v1", &[b"one", b"two"]);
    let digests = [&[image.target.digest, image.config], &image.layers[..]].concat();
    let paths: Vec<_> = digests.iter().map(|digest| blob_path(store, digest)).collect();
    paths.iter().for_each(|path| set_mode(path, 0o644));
    (image, paths)
}

#[test]
fn what_a_ref_or_a_lease_comes_to_name_is_made_durable() {
    let (_dir, store) = store();
    type Act = fn(&BlobStore, &Image);
    let acts: [(&str, Act); 3] = [
        ("publish", |store, image| {
            let lease = store.lease("test").unwrap();
            let nodes = store.closure(&image.target).unwrap();
            let blobs: Vec<_> =
                nodes.iter().map(|it| (it.descriptor.digest, it.descriptor.size)).collect();
            store.publish("other:v1", &image.target, &lease.pin(&blobs).unwrap()).unwrap();
        }),
        ("tag", |store, _| {
            let lease = store.lease("test").unwrap();
            store.tag(&lease, "image:v1", "third:v1").unwrap();
        }),
        ("lasting lease", |store, image| {
            store.lasting_lease("test", &[image.target.digest], None).unwrap();
        }),
    ];
    for (what, act) in acts {
        let (image, paths) = image_of_others(&store);
        let before: Vec<_> = paths.iter().map(|path| inode(path)).collect();
        act(&store, &image);
        for (path, before) in paths.iter().zip(before) {
            assert_eq!((mode(path), inode(path)), (0o444, before), "{what}: {}", path.display());
        }
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
        assert_eq!(mode(&path), 0o444, "{what}");
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
            set_mode(&path, 0o444);
            act();
            assert_eq!(fs::read(&path).unwrap(), bytes, "{what}, {len}");
            store.open_blob(&digest).unwrap().verify().unwrap();
        }
    }
}

/// A sync that failed is never tried again.
#[test]
fn what_is_marked_is_not_named() {
    let (_dir, store) = store();
    let (image, paths) = image_of_others(&store);
    let mark = store.root().join(format!(".layerstore/suspect/sha256-{}", image.config.hex()));
    fs::create_dir(mark.parent().unwrap()).unwrap();
    fs::write(&mark, b"").unwrap();
    let lease = store.lease("test").unwrap();
    let error = store.tag(&lease, "image:v1", "other:v1").unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let error = store.lasting_lease("test", &[image.target.digest], None).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let nodes = store.closure(&image.target).unwrap();
    let blobs: Vec<_> = nodes.iter().map(|it| (it.descriptor.digest, it.descriptor.size)).collect();
    let pinned = lease.pin(&blobs).unwrap();
    let error = store.publish("other:v1", &image.target, &pinned).unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    assert!(store.find_ref("other:v1").is_err());
    assert_eq!(mode(&paths[1]), 0o644, "of the config");
}

/// Its mark may say that its sync failed: then good bytes are in memory only, and were they believed,
/// the next sync would succeed.
#[test]
fn a_mark_stays_on_what_another_program_wrote_until_it_is_replaced() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let bytes = noise(1000, 5);
    let digest = *put(&store, &lease, &bytes).digest();
    let path = blob_path(&store, &digest);
    let mark = store.root().join(format!(".layerstore/suspect/sha256-{}", digest.hex()));
    fs::create_dir(mark.parent().unwrap()).unwrap();
    fs::write(&mark, b"").unwrap();
    set_mode(&path, 0o644);
    assert!(store.check(&Default::default(), |_| {}).unwrap().is_sound());
    assert!(mark.exists(), "another program's");
    set_mode(&path, 0o444);
    assert!(store.check(&Default::default(), |_| {}).unwrap().is_sound());
    assert!(!mark.exists(), "this program's");
    fs::write(&mark, b"").unwrap();
    set_mode(&path, 0o644);
    put(&store, &lease, &bytes);
    assert!(!mark.exists() && mode(&path) == 0o444, "replaced");
}
