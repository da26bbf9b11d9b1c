//! `usage` says what `du` says, and whose the bytes are.

mod store_support;

use std::process::Command;

use layerstore::{Amount, BlobStore, Usage};
use store_support::*;

/// Everything of a store that there is: images that share, a part, an unreferenced blob, a foreign
/// file.
fn populated() -> (tempfile::TempDir, BlobStore) {
    let (dir, store) = store();
    let base = noise(1_000_000, 1);
    add_image(&store, "a:1", &[&base, &noise(300_000, 2)]);
    add_image(&store, "b:1", &[&base, &noise(100_001, 3)]);
    let lease = store.lease("test").unwrap();
    store.tag(&lease, "a:1", "a:latest").unwrap();
    drop(lease);
    (dir, store)
}

fn du(store: &BlobStore) -> u64 {
    let output =
        Command::new("du").args(["-s", "--block-size=1"]).arg(store.root()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn sum(usage: &Usage) -> u64 {
    let Usage { layers, metadata, unreferenced, parts, derived, other, .. } = usage;
    [layers, metadata, unreferenced, parts, derived, other].iter().map(|part| part.disk).sum()
}

#[test]
fn the_total_is_that_of_du() {
    let (_dir, store) = populated();
    let lease = store.lease("test").unwrap();
    let extra = put(&store, &lease, &noise(70_000, 4));
    let bytes = noise(200_000, 5);
    let digest = layerstore::oci::Algorithm::Sha512.digest(&bytes);
    let pinned = lease.pin_one(digest, 200_000).unwrap();
    let layerstore::Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!() };
    part.write(&bytes[..120_000]).unwrap();
    drop(part);
    let foreign = store.root().join("foreign/deeper");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("file"), noise(50_000, 6)).unwrap();
    std::fs::write(store.root().join("blobs/sha256/litter"), noise(9_000, 7)).unwrap();

    let usage = store.usage().unwrap();
    let du = du(&store);
    assert!(usage.total.disk.abs_diff(du) * 100 <= du, "{} and du {du}", usage.total.disk);
    assert_eq!(sum(&usage), usage.total.disk);
    assert_eq!((usage.layers.count, usage.layers.size), (3, 1_400_001));
    assert_eq!(usage.metadata.count, 4);
    assert_eq!((usage.unreferenced.count, usage.unreferenced.size), (1, extra.size()));
    assert_eq!((usage.parts.count, usage.parts.size), (1, 120_000));
    assert!(usage.other.size >= 59_000);
    // The group hashes of the blobs that are larger than 64 KiB: 64 bytes, and 40 for each 16 KiB.
    let hashes = [1_000_000u64, 300_000, 100_001, 70_000].map(|len| 64 + 40 * len.div_ceil(16_384));
    assert_eq!((usage.derived.count, usage.derived.size), (4, hashes.iter().sum()));
}

#[test]
fn names_of_one_image_share_nothing_and_images_share_layers() {
    let (_dir, store) = populated();
    let usage = store.usage().unwrap();
    assert_eq!(usage.images.len(), 2);
    let [a, b] = [&usage.images[0], &usage.images[1]];
    assert_eq!(a.refs, ["a:1", "a:latest"]);
    assert_eq!(b.refs, ["b:1"]);
    for (image, own) in [(a, 300_000), (b, 100_001)] {
        assert_eq!((image.shared.count, image.shared.size), (1, 1_000_000));
        assert_eq!(image.unique.count, 3, "a layer, the config and the manifest");
        assert!(image.unique.size > own && image.unique.size < own + 2_000);
        assert_eq!(image.total.disk, image.shared.disk + image.unique.disk);
        assert_eq!(image.problem, None);
    }
    store.remove_refs(&["b:1".to_owned()]).unwrap();
    let after = store.usage().unwrap();
    assert_eq!(after.images.len(), 1);
    assert_eq!(after.images[0].shared, Amount::default());
    assert_eq!(after.unreferenced, b.unique, "what only the removed image had");
}

#[test]
fn an_index_and_one_of_its_platforms_are_two_images() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let (image, mut pinned) = put_image(&store, &lease, b"{}", &[&noise(10_000, 1)]);
    store.publish("one:1", &image.target, &pinned).unwrap();
    let index = put(&store, &lease, index_text(std::slice::from_ref(&image.target)).as_bytes());
    let target = descriptor(layerstore::oci::MediaType::OCI_INDEX, &index);
    pinned.push(index);
    store.publish("all:1", &target, &pinned).unwrap();
    let usage = store.usage().unwrap();
    let [one, all] = [&usage.images[0], &usage.images[1]];
    assert_eq!((one.unique.count, one.shared.count), (0, 3));
    assert_eq!((all.unique.count, all.shared.count), (1, 3));
}

#[test]
fn a_damaged_image_is_named_and_does_not_stop_the_count() {
    let (_dir, store) = populated();
    let target = store.find_ref("a:1").unwrap().descriptor;
    let manifest = blob_path(&store, &target.digest);
    let bytes = noise(std::fs::metadata(&manifest).unwrap().len() as usize, 9);
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, bytes).unwrap();
    let usage = store.usage().unwrap();
    assert!(usage.images[0].problem.as_ref().unwrap().contains(&target.digest.hex()));
    assert_eq!(usage.images[1].problem, None);
    assert_eq!(usage.images[1].shared, Amount::default());
    let du = du(&store);
    assert!(usage.total.disk.abs_diff(du) * 100 <= du, "{} and du {du}", usage.total.disk);
}
