//! Making a store: again and again, by many at once, and not over other people's things.

mod store_support;

use std::path::Path;
use std::time::Duration;

use layerstore::{BlobStore, Error, ErrorKind, GcOptions};
use store_support::*;

#[test]
fn init_is_idempotent_and_keeps_what_is_there() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    for _ in 0..3 {
        let again = BlobStore::init(store.root()).unwrap();
        assert_eq!(again.find_ref("a:1").unwrap().descriptor.digest, image.target.digest);
    }
}

#[test]
fn an_interrupted_init_is_no_store_and_is_completed() {
    let private = ["version", "locks/turn", "parts", "leases"];
    for lost in private.map(|name| format!(".layerstore/{name}")) {
        let (_dir, store) = store();
        let path = store.root().join(&lost);
        match path.is_dir() {
            true => std::fs::remove_dir(&path).unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
        if lost != ".layerstore/locks/turn" {
            let error = BlobStore::open(store.root()).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::NoStore | ErrorKind::Damage),
                "{lost}: {error}"
            );
        }
        let again = BlobStore::init(store.root()).unwrap();
        add_image(&again, "a:1", &[b"layer"]);
    }
}

#[test]
fn a_store_that_lost_its_refs_is_not_given_an_empty_list() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    for lost in ["index.json", ".layerstore/parts"] {
        let path = store.root().join(lost);
        match path.is_dir() {
            true => std::fs::remove_dir(&path).unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
    }
    let again = BlobStore::init(store.root()).unwrap();
    assert_eq!(again.refs().unwrap_err().kind(), ErrorKind::Damage);
    let now = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    assert!(layerstore::gc::collect(&again, &now).is_err());
    assert!(again.open_blob(&image.layers[0]).is_ok());
}

#[test]
fn eight_threads_make_one_store() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b/store");
        std::thread::scope(|scope| {
            let made: Vec<_> =
                (0..8).map(|_| scope.spawn(|| BlobStore::init(&root).map(drop))).collect();
            for thread in made {
                thread.join().unwrap().unwrap();
            }
        });
        let store = BlobStore::open(&root).unwrap();
        assert_eq!(store.refs().unwrap(), []);
        assert!(store.check(&Default::default(), |_| {}).unwrap().is_sound());
    }
}

#[test]
fn other_peoples_things_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = BlobStore::init(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStore);
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn what_is_no_store_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let none = |path: &Path| BlobStore::open(path).unwrap_err();
    assert!(matches!(none(dir.path()), Error::NoStore { .. }));
    assert!(matches!(none(&dir.path().join("missing")), Error::NoStore { .. }));
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(none(&dir.path().join("file")), Error::Io { .. }));
    assert!(BlobStore::init(dir.path().join("file")).is_err());
}
