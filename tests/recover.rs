//! A lost or broken `index.json` is rebuilt with every name that was acknowledged, and until then
//! nothing is collected.

mod store_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstore::oci::MediaType;
use layerstore::{BlobStore, CheckOptions, DamageKind, Error, GcOptions, RefsRepair, gc};
use store_support::*;

fn index(store: &BlobStore) -> PathBuf {
    store.root().join("index.json")
}

fn copy(store: &BlobStore) -> PathBuf {
    store.root().join(".layerstore/refs")
}

fn names(store: &BlobStore) -> Vec<String> {
    store.refs().unwrap().into_iter().filter_map(|entry| entry.name).collect()
}

fn blobs(store: &BlobStore) -> usize {
    store.blobs().unwrap().count()
}

/// What lies in quarantine.
fn quarantined(store: &BlobStore) -> Vec<Vec<u8>> {
    let kept = fs::read_dir(store.root().join(".layerstore/quarantine")).unwrap();
    kept.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

fn collect(store: &BlobStore) -> layerstore::Result<layerstore::GcReport> {
    gc::collect(store, &GcOptions { grace: Duration::ZERO, ..GcOptions::default() })
}

fn kinds(store: &BlobStore) -> Vec<DamageKind> {
    let report = store.check(&CheckOptions::default(), |_| {}).unwrap();
    report.damage.into_iter().map(|it| it.kind).collect()
}

/// A store with three images, one of which has lost its name.
fn three() -> (tempfile::TempDir, BlobStore) {
    let (dir, store) = store();
    for name in ["a:1", "b:1", "c:1"] {
        add_image(&store, name, &[name.as_bytes(), b"shared"]);
    }
    store.remove_refs(&["c:1".to_owned()]).unwrap();
    (dir, store)
}

type Breakage = (&'static str, Box<dyn Fn(&Path)>);

/// All that can happen to `index.json`.
fn breakages() -> Vec<Breakage> {
    let write = |bytes: Vec<u8>| move |path: &Path| fs::write(path, &bytes).unwrap();
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    let mut all: Vec<Breakage> = vec![
        ("removed", Box::new(remove)),
        ("empty", Box::new(write(Vec::new()))),
        ("zeros", Box::new(write(vec![0; 500]))),
        ("another document", Box::new(write(br#"{"schemaVersion":2,"layers":[]}"#.to_vec()))),
        ("a list", Box::new(write(b"[]".to_vec()))),
        ("deeply nested", Box::new(write([vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat()))),
        (
            "a link to nothing",
            Box::new(move |path| {
                remove(path);
                std::os::unix::fs::symlink("/nonexistent/x", path).unwrap();
            }),
        ),
        (
            "a FIFO",
            Box::new(move |path| {
                remove(path);
                mkfifo(path);
            }),
        ),
        (
            "a directory",
            Box::new(move |path| {
                remove(path);
                fs::create_dir(path).unwrap();
            }),
        ),
    ];
    for part in [1, 2, 3] {
        all.push((
            "truncated",
            Box::new(move |path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() * part / 4]).unwrap();
            }),
        ));
    }
    all
}

#[test]
fn whatever_happened_to_it_the_names_are_as_before() {
    for (what, break_it) in breakages() {
        let (_dir, store) = three();
        let (before, there) = (fs::read(index(&store)).unwrap(), blobs(&store));
        break_it(&index(&store));
        assert!(kinds(&store).contains(&DamageKind::Index), "{what}");
        let refused = collect(&store).unwrap_err();
        assert!(matches!(refused, Error::UnreadableRoot { .. }), "{what}: {refused}");
        assert!(!matches!(store.refs(), Ok(refs) if !refs.is_empty()), "{what}");
        let error = store.remove_refs(&["a:1".to_owned()]).unwrap_err().to_string();
        if !what.contains("link") && !what.contains("FIFO") && !what.contains("directory") {
            assert!(error.contains("store check --repair"), "{what}: {error}");
            assert!(refused.to_string().contains("store check --repair"), "{what}: {refused}");
        }
        assert_eq!(blobs(&store), there, "{what}: nothing is collected");

        let repair = store.recover_refs().unwrap();
        assert!(repair.rebuilt && repair.from_copy, "{what}: {repair:?}");
        assert_eq!(repair.restored, ["a:1", "b:1"], "{what}");
        assert_eq!(repair.unnamed.len(), 1, "{what}: the third can be named again");
        assert!(repair.unnamed[0].whole && repair.unnamed[0].name.is_none());
        assert!(fs::read(index(&store)).unwrap() == before, "{what}");
        assert_eq!(kinds(&store), [], "{what}");
        let lease = store.lease("test").unwrap();
        store.tag_digest(&lease, &repair.unnamed[0].digest, "c:1").unwrap();
        drop(lease);
        collect(&store).unwrap();
        assert_eq!(
            (names(&store), blobs(&store)),
            (vec!["a:1".into(), "b:1".into(), "c:1".into()], there)
        );
        assert_eq!(store.recover_refs().unwrap(), RefsRepair::default(), "{what}: all is well");
    }
}

#[test]
fn every_acknowledged_change_is_in_the_copy() {
    let (_dir, store) = store();
    let images: Vec<_> = (0..4).map(|n| add_image(&store, &format!("i:{n}"), &[&[n]])).collect();
    let lease = store.lease("test").unwrap();
    let lose = |store: &BlobStore| {
        let before = names(store);
        fs::remove_file(index(store)).unwrap();
        store.recover_refs().unwrap();
        assert_eq!(names(store), before);
    };
    lose(&store);
    store.tag(&lease, "i:1", "i:tagged").unwrap();
    lose(&store);
    store.remove_refs(&["i:0".to_owned(), "i:2".to_owned()]).unwrap();
    lose(&store);
    assert_eq!(names(&store), ["i:1", "i:3", "i:tagged"]);
    // Another tool adds one, and is seen by the next who changes something, or nothing at all.
    for see in [
        Box::new(|| drop(store.tag(&lease, "i:1", "i:seen").unwrap())) as Box<dyn Fn()>,
        Box::new(|| drop(store.tag(&lease, "i:1", "i:seen").unwrap())),
        Box::new(|| drop(store.remove_refs(&["no such".to_owned()]).unwrap())),
        Box::new(|| {
            collect(&store).unwrap();
        }),
        Box::new(|| drop(store.recover_refs().unwrap())),
    ] {
        let mut value: serde_json::Value =
            serde_json::from_slice(&fs::read(index(&store)).unwrap()).unwrap();
        let mut entry = serde_json::to_value(&images[3].target).unwrap();
        let name = format!("theirs:{}", value["manifests"].as_array().unwrap().len());
        entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": name });
        value["manifests"].as_array_mut().unwrap().push(entry);
        fs::write(index(&store), value.to_string()).unwrap();
        see();
        assert!(names(&store).contains(&name));
        lose(&store);
    }
}

#[test]
fn without_a_copy_every_image_keeps_a_name() {
    for broken in [false, true] {
        let (_dir, store) = three();
        let there = blobs(&store);
        match broken {
            false => fs::remove_file(copy(&store)).unwrap(),
            true => {
                let mut bytes = fs::read(copy(&store)).unwrap();
                let last = bytes.len() - 9;
                bytes[last] ^= 1;
                fs::write(copy(&store), bytes).unwrap();
            }
        }
        fs::write(index(&store), "garbage").unwrap();
        let repair = store.recover_refs().unwrap();
        assert!(repair.rebuilt && !repair.from_copy && repair.restored.is_empty());
        assert_eq!(repair.unnamed.len(), 3);
        let mut recovered = names(&store);
        recovered.sort();
        let mut told: Vec<String> =
            repair.unnamed.iter().map(|it| it.name.clone().unwrap()).collect();
        told.sort();
        assert_eq!(recovered, told);
        assert!(recovered.iter().all(|name| name.starts_with("localhost/recovered:")));
        collect(&store).unwrap();
        assert_eq!(blobs(&store), there, "nothing is collected for want of its name");
        let lease = store.lease("test").unwrap();
        store.tag(&lease, &recovered[0], "a:1").unwrap();
        assert_eq!(kinds(&store), []);
        let kept = quarantined(&store);
        assert!(kept.contains(&b"garbage".to_vec()), "what was found is kept");
        assert_eq!(kept.len(), if broken { 2 } else { 1 });
    }
}

/// What is about something that is there stays with that. With its subject gone it is an image like any.
#[test]
fn without_a_copy_what_is_about_something_absent_gets_a_name_too() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let lease = store.lease("test").unwrap();
    let absent = layerstore::oci::Algorithm::Sha256.digest(b"absent");
    let subject = |digest: &str| {
        serde_json::json!({
            "mediaType": MediaType::OCI_MANIFEST, "digest": digest, "size": 6
        })
    };
    let manifest = |of: &str, about: &str| {
        let config = put(&store, &lease, format!(r#"{{"of":"{of}"}}"#).as_bytes());
        let text = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [],
            "subject": subject(about),
        });
        descriptor(MediaType::OCI_MANIFEST, &put(&store, &lease, text.to_string().as_bytes()))
    };
    let about = manifest("about", &image.target.digest.to_string());
    let alone = manifest("alone", &absent.to_string());
    let (inner, _pinned) = put_image(&store, &lease, b"{}", &[b"inner"]);
    let mut index_of: serde_json::Value =
        serde_json::from_str(&index_text(std::slice::from_ref(&inner.target))).unwrap();
    index_of["subject"] = subject(&absent.to_string());
    let outer = *put(&store, &lease, index_of.to_string().as_bytes()).digest();
    // About each other in a circle, by way of an index: one of them has to be named.
    let (child, _pinned) = put_image(&store, &lease, b"{ }", &[b"child"]);
    let first = manifest("first", &child.target.digest.to_string());
    let mut circle: serde_json::Value =
        serde_json::from_str(&index_text(std::slice::from_ref(&child.target))).unwrap();
    circle["subject"] = subject(&first.digest.to_string());
    put(&store, &lease, circle.to_string().as_bytes());
    drop(lease);

    let there = blobs(&store);
    fs::remove_file(copy(&store)).unwrap();
    fs::write(index(&store), "garbage").unwrap();
    let repair = store.recover_refs().unwrap();
    let named: Vec<_> = repair.unnamed.iter().map(|it| it.digest).collect();
    let mut expected = vec![image.target.digest, alone.digest, outer, child.target.digest];
    expected.sort();
    assert_eq!(named, expected);
    assert!(!named.contains(&about.digest));
    collect(&store).unwrap();
    assert_eq!(blobs(&store), there, "nothing is collected for want of its name");
}

#[test]
fn an_entry_that_makes_no_sense_is_restored_and_others_are_left() {
    let (_dir, store) = three();
    let text = fs::read_to_string(index(&store)).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["manifests"][0]["digest"] = "sha256:zz".into();
    value["manifests"].as_array_mut().unwrap().remove(1);
    fs::write(index(&store), value.to_string()).unwrap();
    assert!(matches!(collect(&store).unwrap_err(), Error::UnreadableRoot { .. }));
    let repair = store.recover_refs().unwrap();
    assert_eq!(repair.restored, ["a:1"]);
    assert_eq!(repair.missing.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["b:1"]);
    assert_eq!(names(&store), ["a:1"], "another tool may have removed the other");
    let lease = store.lease("test").unwrap();
    store.tag_digest(&lease, &repair.missing[0].digest, "b:1").unwrap();
    assert_eq!(names(&store), ["a:1", "b:1"]);
    assert_eq!(kinds(&store), []);
}

#[test]
fn a_damaged_copy_is_reported_and_made_anew() {
    let (_dir, store) = three();
    let good = fs::read(copy(&store)).unwrap();
    for bytes in [Vec::new(), vec![b'x'; 100_000], good[..good.len() - 1].to_vec(), {
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        bad
    }] {
        fs::write(copy(&store), &bytes).unwrap();
        assert_eq!(kinds(&store), [DamageKind::RefsCopy]);
        assert!(!store.recover_refs().unwrap().rebuilt);
        assert!(fs::read(copy(&store)).unwrap() == good);
        assert!(quarantined(&store).contains(&bytes), "what was found is kept");
        assert_eq!(kinds(&store), []);
    }
    // Something else in its place is in nobody's way either.
    fs::remove_file(copy(&store)).unwrap();
    std::os::unix::fs::symlink("/nonexistent/x", copy(&store)).unwrap();
    add_image(&store, "d:1", &[b"d"]);
    assert_eq!(kinds(&store), []);
}

#[test]
fn several_at_once_rebuild_the_same() {
    let (_dir, store) = three();
    let before = fs::read(index(&store)).unwrap();
    for _ in 0..20 {
        fs::write(index(&store), "{").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| store.recover_refs().unwrap());
            }
        });
        assert!(fs::read(index(&store)).unwrap() == before);
    }
}

#[test]
fn only_a_whole_document_can_be_named_by_its_digest() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let lease = store.lease("test").unwrap();
    let tag = |digest| store.tag_digest(&lease, digest, "x:1").unwrap_err();
    assert!(matches!(tag(&image.layers[0]), Error::InvalidDocument { .. }));
    let absent = layerstore::oci::Algorithm::Sha256.digest(b"absent");
    assert!(matches!(tag(&absent), Error::BlobNotFound { .. }));
    fs::remove_file(blob_path(&store, &image.layers[0])).unwrap();
    assert!(matches!(tag(&image.target.digest), Error::BlobNotFound { .. }));
    assert_eq!(names(&store), ["a:1"]);
}
