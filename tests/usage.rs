//! `usage` says what `du` says, and whose the bytes are.

mod store_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use layerstore::gc::{self, GcOptions};
use layerstore::oci::{Algorithm, MediaType};
use layerstore::{Amount, BlobStore, Digest, Role, Usage};
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
    usage.kinds.named().iter().map(|(_, amount)| amount.disk).sum()
}

fn assert_agrees_with_du(store: &BlobStore, usage: &Usage) {
    let du = du(store);
    assert!(usage.total.disk.abs_diff(du) * 100 <= du, "{} and du {du}", usage.total.disk);
    assert_eq!(sum(usage), usage.total.disk);
}

/// A download that was left after these bytes, at this place.
fn leave_part(store: &BlobStore, bytes: &[u8], offset: u64, size: u64) -> PathBuf {
    let lease = store.lease("test").unwrap();
    let digest = Algorithm::Sha512.digest(bytes);
    let pinned = lease.pin_one(digest, size).unwrap();
    let layerstore::Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!() };
    part.write(bytes).unwrap();
    drop(part);
    let path = store.root().join(format!(".layerstore/parts/sha512-{}.part", digest.hex()));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    if offset > 0 {
        file.set_len(offset).unwrap();
    }
    path
}

fn set_age(path: &Path, age: Duration) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

/// Everything that can lie in a store, and below it.
#[test]
fn the_total_is_that_of_du() {
    let (_dir, store) = populated();
    let lease = store.lease("test").unwrap();
    let extra = put(&store, &lease, &noise(70_000, 4));
    leave_part(&store, &noise(120_000, 5), 0, 200_000);
    let root = store.root();
    let foreign = root.join("foreign").join(["deeper"; 40].join("/"));
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("file"), noise(50_000, 6)).unwrap();
    std::fs::write(root.join("blobs/sha256/litter"), noise(9_000, 7)).unwrap();
    std::fs::write(root.join(".layerstore/trash/anything"), noise(33_000, 8)).unwrap();
    std::fs::write(root.join(".layerstore/quarantine/anything"), noise(44_000, 9)).unwrap();
    std::fs::write(root.join(".layerstore/unheard-of"), noise(500_000, 10)).unwrap();

    let usage = store.usage().unwrap();
    assert_agrees_with_du(&store, &usage);
    let kinds = &usage.kinds;
    assert_eq!((kinds.layers.count, kinds.layers.size), (3, 1_400_001));
    assert_eq!((kinds.manifests.count, kinds.configs.count, kinds.indexes.count), (2, 2, 0));
    assert_eq!((kinds.blobs.count, kinds.blobs.size), (1, extra.size()));
    assert_eq!((usage.kept.leases.count, usage.kept.refs.count), (1, 7));
    assert_eq!(kinds.parts.size, 120_000);
    assert_eq!((kinds.trash.size, kinds.quarantine.size), (33_000, 44_000));
    assert_eq!((kinds.reserve.count, kinds.reserve.disk), (1, 4 << 20));
    assert!(kinds.other.size >= 559_000);
    // The group hashes of the blobs that are larger than 64 KiB: 64 bytes, and 64 for each 16 KiB.
    let hashes = [1_000_000u64, 300_000, 100_001, 70_000].map(|len| 64 + 64 * len.div_ceil(16_384));
    assert_eq!((kinds.group_hashes.count, kinds.group_hashes.size), (4, hashes.iter().sum()));
}

#[test]
fn holes_take_nothing_and_a_second_name_takes_nothing_more() {
    let (_dir, store) = populated();
    let before = store.usage().unwrap();
    let part = leave_part(&store, &noise(64 * 1024, 5), 1 << 30, 2 << 30);
    let blob = store.find_ref("b:1").unwrap().descriptor.digest;
    let layer = store.closure(&store.find_ref("b:1").unwrap().descriptor).unwrap()[2].clone();
    std::fs::hard_link(blob_path(&store, &blob), store.root().join("second")).unwrap();
    let big = blob_path(&store, &layer.descriptor.digest);
    std::fs::hard_link(big, store.root().join("third")).unwrap();
    let usage = store.usage().unwrap();
    assert_agrees_with_du(&store, &usage);
    assert!(usage.kinds.parts.size >= 1 << 30);
    let allocated = std::os::unix::fs::MetadataExt::blocks(&part.metadata().unwrap()) * 512;
    assert!(allocated > 0 && usage.kinds.parts.disk < allocated + 16 * 1024);
    assert!(usage.kinds.parts.disk < 256 << 20, "{:?}", usage.kinds.parts);
    assert!(usage.kinds.other.disk < before.kinds.other.disk + 64 * 1024);
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
        assert!(image.frees.disk > image.unique.disk, "the hashes of groups go too");
    }
    store.remove_refs(&["b:1".to_owned()]).unwrap();
    let after = store.usage().unwrap();
    assert_eq!(after.images.len(), 1);
    assert_eq!(after.images[0].shared, Amount::default());
    assert_eq!(after.kept.young, b.unique, "what only the removed image had");
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
    assert_eq!(usage.reclaimable, Amount::default(), "a collection refuses to guess");
    assert_agrees_with_du(&store, &usage);
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Makes everything old, so that a collection takes what nothing keeps.
fn age_everything(store: &BlobStore) {
    let folders = ["blobs/sha256", ".layerstore/parts", ".layerstore/trash"];
    for folder in folders {
        for entry in std::fs::read_dir(store.root().join(folder)).unwrap() {
            set_age(&entry.unwrap().path(), 48 * HOUR);
        }
    }
}

/// A document about another, as signatures are, with a layer of its own; its digest.
fn put_about(store: &BlobStore, subject: &Digest, bytes: &[u8]) -> Digest {
    let lease = store.lease("test").unwrap();
    let layer = put(store, &lease, bytes);
    let config = put(store, &lease, b"{}");
    let text = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.empty.v1+json", &config),
        "layers": [descriptor("application/x-signature", &layer)],
        "subject": { "mediaType": MediaType::OCI_MANIFEST, "digest": subject, "size": 1 },
    });
    *put(store, &lease, text.to_string().as_bytes()).digest()
}

/// Without what a collection does not free: directories do not shrink.
fn files(usage: &Usage) -> u64 {
    usage.total.size
}

#[test]
fn what_is_reclaimable_is_what_a_collection_frees() {
    let (_dir, store) = populated();
    let b = store.find_ref("b:1").unwrap().descriptor.digest;
    put_about(&store, &b, &noise(200_000, 20));
    put_about(&store, &Algorithm::Sha256.digest(b"nobody"), &noise(100_000, 21));
    let leased = *put(&store, &store.lease("test").unwrap(), &noise(80_000, 22)).digest();
    let lasting = store.lasting_lease("test", &[leased], None).unwrap();
    leave_part(&store, &noise(120_000, 23), 0, 200_000);
    std::fs::write(store.root().join(".layerstore/trash/anything"), noise(33_000, 8)).unwrap();
    let outboard = store.root().join(".layerstore/outboard/sha256");
    std::fs::write(outboard.join("0".repeat(64)), noise(5_000, 24)).unwrap();
    age_everything(&store);

    // What it is about keeps a signature, and a lease its blob; what is about nothing goes.
    let before = store.usage().unwrap();
    assert_eq!(before.kept.leases.count, 1);
    let report = gc::collect(&store, &GcOptions::default()).unwrap();
    assert_eq!(report.removed, 2, "the layer and the manifest: both signatures have one config");
    assert_eq!(report.parts_removed, 1);
    let after = store.usage().unwrap();
    assert!(before.reclaimable.size > report.removed_bytes + report.parts_removed_bytes + 38_000);
    assert_eq!(files(&before) - files(&after), before.reclaimable.size);
    assert_eq!(after.reclaimable, Amount::default());

    // An image with what is about it, but for what the lease keeps.
    let image = &before.images[1];
    assert_eq!(image.unique.count, 6, "3, and 3 of its signature");
    store.remove_refs(&["b:1".to_owned()]).unwrap();
    let removed = store.usage().unwrap();
    assert_eq!(removed.reclaimable, image.frees);
    gc::collect(&store, &GcOptions::default()).unwrap();
    let after = store.usage().unwrap();
    let index = |usage: &Usage| usage.kinds.other.size;
    let freed = files(&removed) - index(&removed) - (files(&after) - index(&after));
    assert_eq!(freed, image.frees.size);

    // A lease that ends leaves its blob to the next collection.
    store.remove_lease(&lasting).unwrap();
    let size = 80_000 + 64 + 64 * 80_000u64.div_ceil(16_384);
    assert_eq!(store.usage().unwrap().reclaimable.size, size);
    store.remove_refs(&["a:1".to_owned(), "a:latest".to_owned()]).unwrap();
    gc::collect(&store, &GcOptions::default()).unwrap();
    assert_eq!(store.blobs().unwrap().count(), 0);
    assert_eq!(store.usage().unwrap().reclaimable, Amount::default());
}

#[test]
fn a_blob_says_what_it_is_and_who_has_it() {
    let (_dir, store) = populated();
    let a = store.find_ref("a:1").unwrap().descriptor;
    let signature = put_about(&store, &a.digest, b"signed");
    let usage = store.usage().unwrap();
    assert_eq!(usage.blobs.len(), 10);
    assert!(usage.blobs.is_sorted_by(|a, b| a.disk >= b.disk));
    let base = &usage.blobs[0];
    assert_eq!(
        (base.role, base.size, &base.images[..]),
        (Some(Role::Layer), 1_000_000, &[0, 1][..])
    );
    assert_eq!(base.media_type.as_ref().unwrap().as_str(), LAYER);
    let find = |digest| usage.blobs.iter().find(|blob| blob.digest == digest).unwrap();
    assert_eq!(find(a.digest).role, Some(Role::Manifest));
    assert_eq!(
        (find(signature).role, &find(signature).images[..]),
        (Some(Role::Manifest), &[0][..])
    );
}

#[test]
fn a_lease_that_cannot_be_read_leaves_nothing_to_reclaim() {
    let (_dir, store) = populated();
    store.remove_refs(&["b:1".to_owned()]).unwrap();
    age_everything(&store);
    assert!(store.usage().unwrap().reclaimable.size > 100_000);
    std::fs::write(store.root().join(".layerstore/leases").join("a".repeat(32)), "junk\n").unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.problems.len(), usage.reclaimable), (1, Amount::default()));
    assert!(gc::collect(&store, &GcOptions::default()).is_err());
}
