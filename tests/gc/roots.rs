//! What cannot be followed to its end stops a collection before it removes anything.

use std::path::Path;

use layerstore::gc;
use layerstore::{BlobStore, Error, ErrorKind};

use crate::images::{
    Image, at_once, garbage, image, index, names, path_of, private, replace, store,
};

/// Does damage to a store with an image, an index and garbage; then nothing must be removed, and
/// the error must say `named`.
#[track_caller]
fn assert_nothing_is_collected(damage: impl FnOnce(&BlobStore, &Image) -> String) {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let single = image(&store, &lease, "single", &[b"a layer"]);
    let multi = index(&store, &lease, &[&image(&store, &lease, "part", &[b"another"])], &[]);
    single.publish(&store, &lease, "example.org/single:1");
    multi.publish(&store, &lease, "example.org/multi:1");
    drop(lease);
    garbage(&store, b"garbage");
    let named = damage(&store, &multi);

    let before = names(&store);
    let error = gc::collect(&store, &at_once()).unwrap_err();
    assert!(matches!(error, Error::UnreadableRoot { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Damage);
    assert!(error.to_string().contains(&named), "{error} does not name {named}");
    assert_eq!(names(&store), before);
    // A dry run tells the same.
    let dry = gc::collect(&store, &gc::GcOptions { dry_run: true, ..at_once() }).unwrap_err();
    assert_eq!(dry.to_string(), error.to_string());
}

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    replace(path, &bytes);
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    replace(path, &bytes[..bytes.len() / 2]);
}

#[test]
fn index_json_that_is_missing_or_makes_no_sense() {
    let named = || "index.json".to_owned();
    assert_nothing_is_collected(|store, _| {
        std::fs::remove_file(store.root().join("index.json")).unwrap();
        named()
    });
    for text in ["", "{}", "\0\0\0\0", r#"{"manifests":[{"digest":"sha256:0"}]}"#] {
        assert_nothing_is_collected(|store, _| {
            replace(&store.root().join("index.json"), text.as_bytes());
            named()
        });
    }
}

#[test]
fn a_ref_to_an_index_that_is_absent_or_damaged() {
    let ways: [fn(&Path); 3] = [|path| std::fs::remove_file(path).unwrap(), flip_a_bit, cut];
    for damage in ways {
        assert_nothing_is_collected(|store, multi| {
            damage(&path_of(store, &multi.target.digest));
            "the ref \"example.org/multi:1\"".to_owned()
        });
    }
}

#[test]
fn a_manifest_inside_an_index_that_is_damaged() {
    let ways: [fn(&Path); 3] = [flip_a_bit, cut, |path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }];
    for damage in ways {
        assert_nothing_is_collected(|store, multi| {
            let manifest = &multi.blobs[1].0;
            damage(&path_of(store, manifest));
            "the ref \"example.org/multi:1\"".to_owned()
        });
    }
}

#[test]
fn a_lease_that_is_damaged() {
    assert_nothing_is_collected(|store, multi| {
        let id = store.lasting_lease("test", &[multi.target.digest], None).unwrap();
        flip_a_bit(&private(store, "leases").join(&id));
        format!("the lease {id}")
    });
}

#[test]
fn a_lease_that_is_damaged_while_it_is_held() {
    let (_dir, store) = store();
    let held = store.lease("test").unwrap();
    let one = image(&store, &held, "one", &[b"layer"]);
    flip_a_bit(&private(&store, "leases").join(held.id()));
    let error = gc::collect(&store, &at_once()).unwrap_err();
    assert!(error.to_string().contains(held.id()), "{error}");
    crate::images::assert_holds(&store, &[one.digests()]);
}

#[test]
fn a_pinned_tree_that_is_damaged() {
    assert_nothing_is_collected(|store, multi| {
        let names: Vec<_> = store.refs().unwrap().into_iter().filter_map(|it| it.name).collect();
        let id = store.lasting_lease("test", &[multi.target.digest], None).unwrap();
        store.remove_refs(&names).unwrap();
        flip_a_bit(&path_of(store, &multi.target.digest));
        id
    });
}
