//! When images were used last: what counts, how it is kept, and that nothing fails for it.

mod store_support;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use layerstore::{BlobStore, Digest, GcOptions, gc};
use store_support::*;

fn record(store: &BlobStore, digest: &Digest) -> PathBuf {
    let name = format!("{}-{}", digest.algorithm(), digest.hex());
    store.root().join(".layerstore/used").join(name)
}

fn set_time(path: &std::path::Path, time: SystemTime) {
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A store with one image, used so long ago.
fn used_before(age: Duration) -> (tempfile::TempDir, BlobStore, Digest, SystemTime) {
    let (dir, store) = store();
    let digest = add_image(&store, "a:1", &[b"layer"]).target.digest;
    let then = SystemTime::now() - age;
    set_time(&record(&store, &digest), then);
    set_time(&blob_path(&store, &digest), then - age);
    assert_eq!(store.last_used(&digest).unwrap(), Some(then));
    (dir, store, digest, then)
}

/// Something that is done with a store and its image.
type Act = fn(&BlobStore, &Digest);

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_is_a_use_and_what_is_none() {
    let uses: [(&str, Act); 6] = [
        ("find_ref", |store, _| drop(store.find_ref("a:1").unwrap())),
        ("pin_ref", |store, _| drop(store.pin_ref(&store.lease("t").unwrap(), "a:1").unwrap())),
        ("open_blob", |store, digest| drop(store.open_blob(digest).unwrap())),
        ("touch", |store, digest| assert_eq!(store.touch("a:1").unwrap().digest, *digest)),
        ("tag", |store, _| drop(store.tag(&store.lease("t").unwrap(), "a:1", "b:1").unwrap())),
        ("publish", |store, _| drop(add_image(store, "a:1", &[b"layer"]))),
    ];
    for (name, act) in uses {
        let (_dir, store, digest, then) = used_before(HOUR);
        act(&store, &digest);
        let last = store.last_used(&digest).unwrap().unwrap();
        assert!(last > then + HOUR / 2, "{name} is a use");
    }
    let looks: [(&str, Act); 6] = [
        ("refs", |store, _| drop(store.refs().unwrap())),
        ("closure", |store, _| {
            drop(store.closure(&store.refs().unwrap()[0].descriptor).unwrap());
        }),
        ("usage", |store, _| drop(store.usage().unwrap())),
        ("check", |store, _| drop(store.check(&Default::default(), |_| {}).unwrap())),
        ("collect", |store, _| assert!(gc::collect(store, &GcOptions::default()).is_ok())),
        ("last_used", |store, digest| assert!(store.last_used(digest).is_ok())),
    ];
    for (name, act) in looks {
        let (_dir, store, digest, then) = used_before(HOUR);
        act(&store, &digest);
        assert_eq!(store.last_used(&digest).unwrap(), Some(then), "{name} is no use");
    }
}

/// What `index.json` says, which file it is, and when it was changed in any way.
fn index(store: &BlobStore) -> (Vec<u8>, u64, (i64, i64), (i64, i64)) {
    use std::os::unix::fs::MetadataExt;
    let path = store.root().join("index.json");
    let meta = std::fs::metadata(&path).unwrap();
    let (written, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    (std::fs::read(path).unwrap(), meta.ino(), written, changed)
}

/// Who reads must not wait for those who write, and a use is no change that others copy.
#[test]
fn a_use_is_noted_and_index_json_stays_as_it_is() {
    let uses: [(&str, Act); 4] = [
        ("find_ref", |store, _| drop(store.find_ref("a:1").unwrap())),
        ("pin_ref", |store, _| drop(store.pin_ref(&store.lease("t").unwrap(), "a:1").unwrap())),
        ("open_blob", |store, digest| drop(store.open_blob(digest).unwrap())),
        ("touch", |store, _| drop(store.touch("a:1").unwrap())),
    ];
    for (name, act) in uses {
        let (_dir, store, digest, then) = used_before(HOUR);
        let before = index(&store);
        for _ in 0..2 {
            act(&store, &digest);
            assert!(store.last_used(&digest).unwrap().unwrap() > then + HOUR / 2, "{name}");
            assert_eq!(index(&store), before, "{name}");
            // As one that nobody has noted yet; of a blob that is opened nobody says that it is a ref.
            if name != "open_blob" {
                std::fs::remove_file(record(&store, &digest)).unwrap();
            }
        }
    }
}

#[test]
fn it_is_noted_once_a_minute() {
    for (age, is_noted) in [(20, false), (90, true)] {
        let (_dir, store, digest, then) = used_before(Duration::from_secs(age));
        store.find_ref("a:1").unwrap();
        assert_eq!(store.last_used(&digest).unwrap() != Some(then), is_noted, "{age} s");
    }
    // A clock that was wrong does not keep an image for good.
    let (_dir, store, digest, _) = used_before(HOUR);
    set_time(&record(&store, &digest), SystemTime::now() + HOUR);
    store.find_ref("a:1").unwrap();
    assert!(store.last_used(&digest).unwrap().unwrap() < SystemTime::now() + HOUR / 2);
}

#[test]
fn an_image_of_another_tool_was_used_when_it_was_written() {
    let (_dir, store, digest, then) = used_before(HOUR);
    std::fs::remove_dir_all(store.root().join(".layerstore/used")).unwrap();
    let store = BlobStore::open(store.root()).unwrap();
    assert_eq!(store.last_used(&digest).unwrap(), Some(then - HOUR));
    store.open_blob(&digest).unwrap();
    assert!(
        !record(&store, &digest).exists(),
        "a blob is opened, and nobody says that it is a ref"
    );
    store.find_ref("a:1").unwrap();
    assert!(store.last_used(&digest).unwrap().unwrap() > then);
}

/// As in a store that may only be read, or that somebody tampered with.
#[test]
fn reading_does_not_fail_where_nothing_can_be_noted() {
    let (dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let used = store.root().join(".layerstore/used");
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for n in 0..2 {
        std::fs::remove_dir_all(&used).or_else(|_| std::fs::remove_file(&used)).unwrap();
        match n {
            0 => std::fs::write(&used, b"").unwrap(),
            _ => std::os::unix::fs::symlink(&elsewhere, &used).unwrap(),
        }
        let store = BlobStore::open(store.root()).unwrap();
        assert_eq!(store.find_ref("a:1").unwrap().descriptor.digest, image.target.digest);
        store.open_blob(&image.target.digest).unwrap().verify().unwrap();
        store.pin_ref(&store.lease("test").unwrap(), "a:1").unwrap();
        assert!(store.touch("a:1").is_err(), "who asks for nothing else is told");
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "no link is followed");
}

#[test]
fn a_collection_removes_the_records_of_what_is_gone() {
    let (_dir, store) = store();
    let gone = add_image(&store, "gone:1", &[b"gone"]).target.digest;
    let kept = add_image(&store, "kept:1", &[b"kept"]).target.digest;
    store.remove_refs(&["gone:1".to_owned()]).unwrap();
    let at_once = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    gc::collect(&store, &GcOptions { dry_run: true, ..at_once.clone() }).unwrap();
    assert!(record(&store, &gone).exists());
    gc::collect(&store, &at_once).unwrap();
    assert!(!record(&store, &gone).exists());
    assert!(record(&store, &kept).exists());
}
