//! `check` finds each kind of damage, says whom it concerns, and changes nothing.

mod store_support;

use std::path::Path;

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, CheckOptions, CheckReport, DamageKind, Descriptor};
use store_support::*;

const LAYER_BYTES: &[u8] = b"the bytes of a layer";

fn check(store: &BlobStore) -> CheckReport {
    store.check(&CheckOptions { quick: true, ..Default::default() }, |_| {}).unwrap()
}

fn check_bytes(store: &BlobStore) -> CheckReport {
    store.check(&CheckOptions { read_data: true, ..Default::default() }, |_| {}).unwrap()
}

/// Kind, path and refs of all damage, sorted.
fn damage(report: &CheckReport) -> Vec<(DamageKind, String, Vec<String>)> {
    let mut list: Vec<_> = report
        .damage
        .iter()
        .map(|damage| (damage.kind, damage.path.clone(), damage.refs.clone()))
        .collect();
    list.sort_by(|a, b| a.1.cmp(&b.1));
    list
}

fn refs(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn path(digest: &layerstore::Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_store_is_counted() {
    let (_dir, store) = store();
    add_image(&store, "a:1", &[LAYER_BYTES, b"second"]);
    add_image(&store, "b:1", &[LAYER_BYTES]);
    let lease = store.lease("test").unwrap();
    let extra = put_as(&store, &lease, Algorithm::Blake3, b"extra");
    let missing = lease.pin_one(Algorithm::Sha256.digest(b"part"), 4).unwrap();
    let layerstore::Claim::Held(mut part) = store.claim(&missing).unwrap() else { panic!() };
    part.write(b"pa").unwrap();

    std::fs::write(store.root().join(".layerstore/quarantine/index.json-x"), "set aside").unwrap();
    let report = check(&store);
    assert_eq!(damage(&report), []);
    assert!(report.notes.is_empty());
    assert_eq!(report.quarantined, 1);
    assert_eq!((report.refs, report.blobs, report.leases, report.parts), (2, 7, 1, 1));
    assert_eq!(report.lost_parts, 0, "this process holds it");
    assert_eq!(report.read_blobs, 0);

    let mut last = layerstore::CheckProgress::default();
    let options = CheckOptions { read_data: true, ..Default::default() };
    let report = store.check(&options, |progress| last = progress).unwrap();
    assert!(report.is_sound());
    assert_eq!((report.read_blobs, report.read_bytes), (7, report.blob_bytes));
    assert_eq!((last.blobs, last.bytes), (last.total_blobs, last.total_bytes));
    drop((part, extra));
    let report = check(&store);
    assert_eq!((report.parts, report.lost_parts), (1, 1));
    assert!(report.lost_part_bytes > 0);
}

#[test]
fn flipped_bits_are_found_only_by_reading_and_blamed_on_every_ref() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[LAYER_BYTES]);
    let lease = store.lease("test").unwrap();
    store.tag(&lease, "a:1", "a:2").unwrap();
    add_image(&store, "b:1", &[LAYER_BYTES]);
    add_image(&store, "c:1", &[b"other"]);
    let layer = blob_path(&store, &image.layers[0]);
    let mut bytes = LAYER_BYTES.to_vec();
    bytes[7] ^= 1;
    replace(&layer, &bytes);

    assert_eq!(damage(&check(&store)), []);
    let report = check_bytes(&store);
    let expected = (DamageKind::WrongDigest, path(&image.layers[0]), refs(&["a:1", "a:2", "b:1"]));
    assert_eq!(damage(&report), [expected]);
    assert_eq!(report.damage[0].digest, Some(image.layers[0]));
    assert_eq!(std::fs::read(&layer).unwrap(), bytes, "nothing is changed");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["damage"][0]["kind"], "wrongDigest");
    assert!(json["blobBytes"].as_u64().unwrap() > 0);
}

#[test]
fn an_unreferenced_blob_is_read_too() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    for algorithm in Algorithm::ALL {
        let pinned = put_as(&store, &lease, algorithm, b"good");
        replace(&blob_path(&store, pinned.digest()), b"evil");
    }
    let report = check_bytes(&store);
    assert_eq!(report.damage.len(), 3);
    assert!(report.damage.iter().all(|damage| damage.kind == DamageKind::WrongDigest));
    assert!(report.damage.iter().all(|damage| damage.refs.is_empty()));
}

#[test]
fn a_missing_blob_and_a_short_one() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[LAYER_BYTES]);
    std::fs::remove_file(blob_path(&store, &image.config)).unwrap();
    replace(&blob_path(&store, &image.layers[0]), &LAYER_BYTES[1..]);
    let mut expected = vec![
        (DamageKind::MissingBlob, path(&image.config), refs(&["a:1"])),
        (DamageKind::WrongSize, path(&image.layers[0]), refs(&["a:1"])),
    ];
    expected.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(damage(&check(&store)), expected);
}

#[test]
fn a_manifest_with_other_bytes_and_one_that_makes_no_sense() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[LAYER_BYTES]);
    let manifest = blob_path(&store, &image.target.digest);
    let mut text = std::fs::read(&manifest).unwrap();
    text.iter_mut().for_each(|byte| *byte = if *byte == b'2' { b'3' } else { *byte });
    replace(&manifest, &text);
    let lease = store.lease("test").unwrap();
    let nonsense = put(&store, &lease, b"{}");
    let target = descriptor(MediaType::OCI_MANIFEST, &nonsense);
    store.publish("b:1", &target, &[nonsense]).unwrap();

    let found = damage(&check(&store));
    assert!(found.contains(&(DamageKind::WrongDigest, path(&image.target.digest), refs(&["a:1"]))));
    assert!(found.contains(&(DamageKind::BadDocument, path(&target.digest), refs(&["b:1"]))));
    assert_eq!(found.len(), 2, "{found:?}");
}

/// An index of two platforms, of which `present` were pulled, named `a:1`.
fn index_of(store: &BlobStore, present: [bool; 2]) -> [Image; 2] {
    let lease = store.lease("test").unwrap();
    let mut pinned = Vec::new();
    let images = [0, 1].map(|n| {
        let (image, blobs) = put_image(store, &lease, format!("{{\"n\":{n}}}").as_bytes(), &[&[n]]);
        if present[usize::from(n)] {
            pinned.extend(blobs);
        } else {
            for blob in blobs {
                std::fs::remove_file(blob_path(store, blob.digest())).unwrap();
            }
        }
        image
    });
    let text = index_text(&[images[0].target.clone(), images[1].target.clone()]);
    let index = put(store, &lease, text.as_bytes());
    let target = descriptor(MediaType::OCI_INDEX, &index);
    pinned.push(index);
    store.publish("a:1", &target, &pinned).unwrap();
    images
}

#[test]
fn platforms_may_be_absent_but_not_all() {
    let (_dir, store) = store();
    let [first, _] = index_of(&store, [true, false]);
    let report = check(&store);
    assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
    std::fs::remove_file(blob_path(&store, &first.target.digest)).unwrap();
    let report = check(&store);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].kind, DamageKind::NoPlatform);
    assert_eq!(report.damage[0].refs, ["a:1"]);
}

#[test]
fn a_platform_in_part_is_damage_only_if_no_other_is_whole() {
    let (_dir, store) = store();
    let [first, second] = index_of(&store, [true, true]);
    std::fs::remove_file(blob_path(&store, &second.layers[0])).unwrap();
    let report = check(&store);
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.notes.len(), 1);
    assert_eq!(report.notes[0].digest, Some(second.layers[0]));
    std::fs::remove_file(blob_path(&store, &first.layers[0])).unwrap();
    let report = check(&store);
    assert_eq!(report.damage.len(), 2, "{report:?}");
    assert!(report.damage.iter().all(|damage| damage.kind == DamageKind::MissingBlob));
    assert!(report.notes.is_empty());
}

#[test]
fn an_unreadable_index_is_in_the_report() {
    let (_dir, store) = store();
    add_image(&store, "a:1", &[LAYER_BYTES]);
    let index = store.root().join("index.json");
    for text in ["", "\0\0\0\0", r#"{"manifests":[{"digest":"sha256:../../x"}]}"#] {
        std::fs::write(&index, text).unwrap();
        let found = damage(&check_bytes(&store));
        assert_eq!(found, [(DamageKind::Index, "index.json".to_owned(), vec![])], "{text:?}");
    }
    std::fs::remove_file(&index).unwrap();
    assert_eq!(check(&store).damage[0].kind, DamageKind::Index);
}

#[test]
fn names_that_nothing_has() {
    let (_dir, store) = store();
    add_image(&store, "a:1", &[LAYER_BYTES]);
    let root = store.root();
    let strays = [
        "note.txt",
        "blobs/md5",
        "blobs/sha256/abc",
        "blobs/sha256/.hidden",
        ".layerstore/cache",
        ".layerstore/locks/other",
        ".layerstore/leases/x",
        ".layerstore/parts/sha256-12.part",
        ".layerstore/outboard/md5",
        ".layerstore/outboard/sha256/abc",
        ".layerstore/suspect/sha256-12",
        ".layerstore/used/x",
        ".layerstore/origins/x",
        ".layerstore/hosts/x",
        ".layerstore/quarantine/x",
    ];
    let made_when_needed = ["outboard", "outboard/sha256", "suspect", "used", "origins", "hosts"];
    for folder in made_when_needed.map(|name| root.join(".layerstore").join(name)) {
        std::fs::create_dir_all(&folder).unwrap();
        set_mode(&folder, 0o700);
    }
    for name in strays {
        std::fs::write(root.join(name), b"").unwrap();
    }
    // A writer at work where files cannot be written without a name.
    std::fs::write(root.join(".new-abcdef"), b"").unwrap();
    // What a repair leaves to people.
    std::fs::write(root.join(".layerstore/quarantine/index.json-0123456789abcdef"), b"").unwrap();
    let mut expected: Vec<_> =
        strays.iter().map(|name| (DamageKind::Stray, (*name).to_owned(), vec![])).collect();
    expected.sort_by(|a, b| a.1.cmp(&b.1));
    let report = check(&store);
    assert_eq!(damage(&report), expected);
    assert_eq!((report.temporary, report.quarantined), (1, 2));
}

#[test]
fn folders_of_what_is_derived_that_others_may_write_to() {
    let (_dir, store) = store();
    add_image(&store, "a:1", &[&noise(100_000, 3)]);
    for folder in ["outboard/sha256", "outboard", "used"] {
        let path = store.root().join(".layerstore").join(folder);
        set_mode(&path, 0o777);
        let expected = (DamageKind::Permissions, format!(".layerstore/{folder}"), vec![]);
        assert_eq!(damage(&check(&store)), [expected]);
        set_mode(&path, 0o700);
    }
    assert!(check(&store).is_sound());
}

/// What only a lasting lease keeps has to be there as much as what a ref names.
#[test]
fn what_a_lasting_lease_keeps_is_followed() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[LAYER_BYTES]);
    let lease = store.lasting_lease("test", &[image.target.digest], None).unwrap();
    store.remove_refs(&["a:1".to_owned()]).unwrap();
    assert!(check(&store).is_sound());
    std::fs::remove_file(blob_path(&store, &image.layers[0])).unwrap();
    let report = check(&store);
    let expected = (DamageKind::MissingBlob, path(&image.layers[0]), vec![]);
    assert_eq!(damage(&report), [expected]);
    assert!(report.damage[0].message.contains(&lease), "{report:?}");
    replace(&blob_path(&store, &image.target.digest), b"{}");
    let expected = (DamageKind::WrongDigest, path(&image.target.digest), vec![]);
    assert_eq!(damage(&check(&store)), [expected]);
    std::fs::remove_file(blob_path(&store, &image.target.digest)).unwrap();
    let expected = (DamageKind::MissingBlob, path(&image.target.digest), vec![]);
    assert_eq!(damage(&check(&store)), [expected]);
    store.remove_lease(&lease).unwrap();
    assert!(check(&store).is_sound());
}

/// A mark is damage also on what no ref leads to, until the blob is seen to be good.
#[test]
fn a_mark_on_a_blob_that_nothing_names() {
    let (_dir, store) = store();
    let digest = *put(&store, &store.lease("test").unwrap(), LAYER_BYTES).digest();
    let marks = store.root().join(".layerstore/suspect");
    std::fs::create_dir(&marks).unwrap();
    set_mode(&marks, 0o700);
    let mark = marks.join(format!("sha256-{}", digest.hex()));
    std::fs::write(&mark, b"").unwrap();
    assert_eq!(damage(&check(&store)), [(DamageKind::WrongDigest, path(&digest), vec![])]);
    // One whose blob has gone is what a collection has not come to yet.
    let gone = marks.join(format!("sha256-{}", "0".repeat(64)));
    std::fs::write(&gone, b"").unwrap();
    assert_eq!(check(&store).damage.len(), 1);
    assert!(check_bytes(&store).is_sound());
    assert!(!mark.exists() && gone.exists());
}

#[test]
fn a_name_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let (_dir, store) = store();
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let dirs = ["", "blobs", "blobs/sha256", ".layerstore", ".layerstore/leases"];
    for dir in dirs {
        std::fs::write(store.root().join(dir).join(name), b"").unwrap();
    }
    let report = check(&store);
    assert_eq!(report.damage.len(), dirs.len());
    assert!(report.damage.iter().all(|damage| damage.kind == DamageKind::Stray));
}

#[test]
fn wrong_types_modes_and_a_lost_lock() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[LAYER_BYTES]);
    let layer = blob_path(&store, &image.layers[0]);
    std::fs::remove_file(&layer).unwrap();
    mkfifo(&layer);
    set_mode(&blob_path(&store, &image.config), 0o666);
    set_mode(&store.root().join(".layerstore/leases"), 0o777);
    std::fs::remove_file(store.root().join(".layerstore/locks/turn")).unwrap();
    let mut expected = vec![
        (DamageKind::WrongType, path(&image.layers[0]), refs(&["a:1"])),
        (DamageKind::Permissions, path(&image.config), vec![]),
        (DamageKind::Permissions, ".layerstore/leases".to_owned(), vec![]),
        (DamageKind::MissingFile, ".layerstore/locks/turn".to_owned(), vec![]),
    ];
    expected.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(damage(&check_bytes(&store)), expected);
    set_mode(&store.root().join(".layerstore/leases"), 0o700);
}

#[test]
fn a_blob_of_another_user() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[LAYER_BYTES]);
    let layer = blob_path(&store, &image.layers[0]);
    match std::os::unix::fs::chown(&layer, Some(12345), None) {
        Ok(()) => {
            let found = damage(&check(&store));
            assert_eq!(found, [(DamageKind::Permissions, path(&image.layers[0]), vec![])]);
        }
        // Only root can give a file away; anybody else's blob is their own, which is no damage.
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            assert!(check(&store).is_sound());
        }
    }
}

#[test]
fn a_lease_that_is_not_one() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let name = "0123456789abcdef0123456789abcdef";
    let file = store.root().join(".layerstore/leases").join(name);
    std::fs::write(&file, "blob sha256:../../x 00000000\n").unwrap();
    let report = check(&store);
    assert_eq!((report.leases, report.damage.len()), (2, 1));
    assert_eq!(report.damage[0].kind, DamageKind::Lease);
    std::fs::write(&file, "a torn line").unwrap();
    assert!(check(&store).is_sound(), "whose writer died before anybody relied on it");
    drop(lease);
}

#[test]
fn the_version_and_layout_files() {
    for (name, text) in [("oci-layout", "{}"), (".layerstore/version", "7\n")] {
        let (_dir, store) = store();
        std::fs::write(store.root().join(name), text).unwrap();
        assert_eq!(damage(&check(&store)), [(DamageKind::Layout, name.to_owned(), vec![])]);
    }
}

/// An index whose entry describes it as larger than it is, as a hostile document would.
#[test]
fn descriptors_that_lie() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let (image, mut pinned) = put_image(&store, &lease, b"{}", &[LAYER_BYTES]);
    let lying = Descriptor { size: image.target.size + 1, ..image.target.clone() };
    let index = put(&store, &lease, index_text(&[lying]).as_bytes());
    let target = descriptor(MediaType::OCI_INDEX, &index);
    pinned.push(index);
    store.publish("a:1", &target, &pinned).unwrap();
    let found = damage(&check(&store));
    assert_eq!(found, [(DamageKind::WrongSize, path(&image.target.digest), refs(&["a:1"]))]);
}

#[test]
fn indexes_nested_too_deep() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let (image, mut pinned) = put_image(&store, &lease, b"{}", &[LAYER_BYTES]);
    let mut target = image.target;
    for _ in 0..5 {
        let index = put(&store, &lease, index_text(&[target]).as_bytes());
        target = descriptor(MediaType::OCI_INDEX, &index);
        pinned.push(index);
    }
    store.publish("a:1", &target, &pinned).unwrap();
    let report = check(&store);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].kind, DamageKind::BadDocument);
}
