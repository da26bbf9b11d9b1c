//! What is removed, when, and what is left alone.

use std::fs::File;
use std::time::Duration;

use layerstore::gc::{self, GcOptions};
use layerstore::oci::Algorithm;
use layerstore::{Error, ErrorKind};

use crate::images::{
    assert_holds, at_once, collect, garbage, image, is_there, names, path_of, private, set_age,
    store,
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_young_stay() {
    let (_dir, store) = store();
    let young = garbage(&store, b"young");
    let old = garbage(&store, b"old");
    let future = garbage(&store, b"from the future");
    set_age(&path_of(&store, &old), 2 * HOUR);
    let file = File::open(path_of(&store, &future)).unwrap();
    file.set_modified(std::time::SystemTime::now() + 48 * HOUR).unwrap();

    let report = gc::collect(&store, &GcOptions::default()).unwrap();
    assert_holds(&store, &[[young, future].into()]);
    assert_eq!((report.kept_young, report.removed, report.removed_bytes), (2, 1, 3), "{report:?}");
    let report = collect(&store);
    assert_holds(&store, &[[future].into()]);
    assert_eq!((report.kept_young, report.removed), (1, 1), "{report:?}");
}

#[test]
fn a_dry_run_tells_what_a_collection_does() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let live = image(&store, &lease, "live", &[b"live layer"]);
    live.publish(&store, &lease, "example.org/live:1");
    drop(lease);
    garbage(&store, b"garbage");
    garbage(&store, &vec![7; 2 << 20]);
    std::fs::write(private(&store, "trash/sha256-0"), b"left").unwrap();
    let part = private(&store, "parts").join(format!("sha256-{}.part", "a".repeat(64)));
    std::fs::write(&part, b"some bytes").unwrap();
    std::fs::write(part.with_extension("lock"), b"").unwrap();
    set_age(&part, 48 * HOUR);
    let temporary = store.root().join(".new-killed");
    std::fs::write(&temporary, b"{").unwrap();
    set_age(&temporary, 48 * HOUR);

    let before = names(&store);
    let mut dry = gc::collect(&store, &GcOptions { dry_run: true, ..at_once() }).unwrap();
    assert_eq!(names(&store), before);
    assert!(part.exists() && temporary.exists() && private(&store, "trash/sha256-0").exists());
    let mut wet = collect(&store);
    assert_holds(&store, &[live.digests()]);
    assert!(!part.exists() && !temporary.exists());
    assert!(dry.dry_run && !wet.dry_run);
    (dry.dry_run, dry.seconds, wet.seconds) = (false, 0.0, 0.0);
    assert_eq!(dry, wet);
    wet.seconds = 1.5;
    let json = serde_json::to_value(&wet).unwrap();
    for (key, value) in [
        ("live", 3.into()),
        ("removed", 2.into()),
        ("removedBytes", ((2 << 20) + 7).into()),
        ("keptYoung", 0.into()),
        ("keptLeased", 0.into()),
        ("partsRemoved", 1.into()),
        ("trashRemoved", 1.into()),
        ("temporariesRemoved", 1.into()),
        ("seconds", serde_json::json!(1.5)),
    ] {
        assert_eq!(json[key], value, "{key} of {json}");
    }
    assert!(json["liveBytes"].is_u64());
}

#[test]
fn many_small_blobs_and_some_large() {
    let (_dir, store) = store();
    let dir = path_of(&store, &Algorithm::Sha256.digest(b"")).parent().unwrap().to_path_buf();
    let lease = store.lease("test").unwrap();
    let live = image(&store, &lease, "live", &[b"live layer", &vec![1; 3 << 20]]);
    live.publish(&store, &lease, "example.org/live:1");
    drop(lease);
    // As another tool would, since a sync each is not the point here.
    for n in 0..2000u32 {
        let bytes = n.to_le_bytes();
        std::fs::write(dir.join(Algorithm::Sha256.digest(&bytes).hex()), bytes).unwrap();
    }
    for n in 0..5u8 {
        garbage(&store, &vec![n; 2 << 20]);
    }
    let report = collect(&store);
    assert_holds(&store, &[live.digests()]);
    assert_eq!((report.live, report.removed), (4, 2005), "{report:?}");
    assert_eq!(report.removed_bytes, 2000 * 4 + 5 * (2 << 20));
    assert_eq!(std::fs::read_dir(private(&store, "trash")).unwrap().count(), 0);
}

#[test]
fn the_trash_of_a_collection_that_was_killed_is_emptied() {
    let (_dir, store) = store();
    for n in 0..3 {
        std::fs::write(private(&store, "trash").join(format!("sha256-{n}")), b"left").unwrap();
    }
    let report = collect(&store);
    assert_eq!((report.trash_removed, report.removed), (3, 0));
    assert_eq!(std::fs::read_dir(private(&store, "trash")).unwrap().count(), 0);
}

#[test]
fn names_that_are_no_blobs_are_left_alone() {
    let (_dir, store) = store();
    let dir = path_of(&store, &garbage(&store, b"garbage")).parent().unwrap().to_path_buf();
    let hex = "0".repeat(64);
    let strange = [format!("{hex}.tmp"), "A".repeat(64), "README".to_owned(), hex[1..].to_owned()];
    for name in &strange {
        std::fs::write(dir.join(name), b"strange").unwrap();
        set_age(&dir.join(name), 1000 * HOUR);
    }
    std::fs::create_dir(dir.join("f".repeat(64))).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("e".repeat(64))).unwrap();
    for (name, age) in [(".new-young", HOUR), (".new-old", 25 * HOUR)] {
        std::fs::write(dir.join(name), b"unfinished").unwrap();
        set_age(&dir.join(name), age);
    }
    let report = collect(&store);
    assert_eq!((report.removed, report.temporaries_removed), (1, 1), "{report:?}");
    let mut left: Vec<_> = names(&store).into_iter().collect();
    left.retain(|name| !strange.iter().any(|strange| name.ends_with(strange)));
    assert_eq!(
        left,
        [
            "sha256:.new-young".to_owned(),
            format!("sha256:{}", "e".repeat(64)),
            format!("sha256:{}", "f".repeat(64))
        ]
    );
}

#[test]
fn there_is_one_collector_at_a_time() {
    let (_dir, store) = store();
    let blob = garbage(&store, b"garbage");
    let other = File::options().write(true).open(private(&store, "locks/gc")).unwrap();
    other.lock().unwrap();
    let error = gc::collect(&store, &at_once()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Locked);
    let own = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&own), "{error} does not name {own}");
    assert!(is_there(&store, &blob));
    drop(other);
    assert_eq!(collect(&store).removed, 1);
}

#[test]
fn the_reserve_is_set_aside_again() {
    let (_dir, store) = store();
    std::fs::remove_file(private(&store, "reserve")).unwrap();
    gc::collect(&store, &GcOptions { dry_run: true, ..at_once() }).unwrap();
    assert!(!private(&store, "reserve").exists());
    collect(&store);
    assert!(private(&store, "reserve").exists());
}
