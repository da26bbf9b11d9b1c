//! Holding a store within limits.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use layerstore::gc::{self, GcOptions, GcReport};
use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, ConfigKey, Descriptor, Error, ErrorKind, Lease, SpaceLimits};

use crate::images::{
    Image, assert_holds, image, image_about, index, is_there, private, put, set_age, store,
};
use crate::waiters::wait_for_a_waiter;

const MIB: u64 = 1024 * 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// Bytes that no other layer has.
fn layer(of: u8) -> Vec<u8> {
    (0..MIB).map(|n| (n as u8).wrapping_mul(of).wrapping_add((n >> 8) as u8)).collect()
}

/// An image of layers of 1 MiB, used so many minutes ago.
fn add(store: &BlobStore, name: &str, layers: &[u8], minutes: u32) -> Image {
    let lease = store.lease("test").unwrap();
    let layers: Vec<Vec<u8>> = layers.iter().map(|of| layer(*of)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let made = image(store, &lease, name, &layers);
    made.publish(store, &lease, name);
    used(store, &made, minutes);
    made
}

fn used(store: &BlobStore, image: &Image, minutes: u32) {
    let digest = image.target.digest;
    let record = format!("used/{}-{}", digest.algorithm(), digest.hex());
    set_age(&private(store, &record), MINUTE * minutes);
    set_age(&crate::images::path_of(store, &digest), MINUTE * minutes);
}

/// What `du` says.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn limits(max_used: u64) -> GcOptions {
    let mut limits = SpaceLimits::default();
    limits.max_used = Some(max_used);
    GcOptions { limits, ..GcOptions::default() }
}

/// Collects so that at least `less` bytes go; the real size before, and the report.
fn shrink(store: &BlobStore, less: u64) -> GcReport {
    shrink_as(store, less, |_| {})
}

fn shrink_as(store: &BlobStore, less: u64, set: impl FnOnce(&mut GcOptions)) -> GcReport {
    let mut options = limits(du(store.root()) - less);
    set(&mut options);
    let report = gc::collect(store, &options).unwrap();
    let room = report.room.as_ref().unwrap();
    if !options.dry_run {
        assert_eq!(room.used, du(store.root()), "the bytes are real");
        assert_eq!(room.over == 0, room.used <= options.limits.max_used.unwrap(), "{room:?}");
    }
    report
}

fn dropped(report: &GcReport) -> Vec<String> {
    let images = &report.room.as_ref().unwrap().dropped;
    images.iter().map(|image| image.names.join(" ")).collect()
}

#[test]
fn the_longest_unused_goes_first_young_as_it_is() {
    let (_dir, store) = store();
    let a = add(&store, "a:1", &[1], 10);
    add(&store, "b:1", &[2], 30);
    let c = add(&store, "c:1", &[3], 20);
    assert!(gc::collect(&store, &GcOptions::default()).unwrap().room.is_none());
    let report = shrink(&store, MIB / 2);
    assert_eq!(dropped(&report), ["b:1"]);
    let room = report.room.unwrap();
    assert!(room.over == 0 && room.kept.is_none() && room.dropped[0].freed >= MIB, "{room:?}");
    assert_holds(&store, &[a.digests(), c.digests()]);
    assert_eq!(store.refs().unwrap().len(), 2);
    assert_eq!(shrink(&store, 0).room.unwrap().dropped, []);
}

/// Somebody may have put a blob again since its image was dropped, and be about to name it.
#[test]
fn of_a_dropped_image_stays_what_was_written_since_the_collection_began() {
    let (_dir, store) = store();
    add(&store, "a:1", &[1, 2], 10);
    let new = layerstore::oci::Algorithm::Sha256.digest(&layer(2));
    let later = SystemTime::now() + Duration::from_secs(3600);
    let file = std::fs::File::open(crate::images::path_of(&store, &new)).unwrap();
    file.set_modified(later).unwrap();
    let report = shrink(&store, MIB / 2);
    assert_eq!(dropped(&report), ["a:1"]);
    assert!(is_there(&store, &new));
    assert_eq!(crate::images::names(&store).len(), 1, "all else of it went");
}

#[test]
fn a_dry_run_tells_what_would_go_and_touches_nothing() {
    let (_dir, store) = store();
    add(&store, "a:1", &[1], 10);
    add(&store, "b:1", &[2, 4], 30);
    add(&store, "c:1", &[3, 4], 20);
    let before = (crate::images::names(&store), du(store.root()));
    let dry = shrink_as(&store, 2 * MIB, |options| options.dry_run = true);
    assert_eq!((crate::images::names(&store), du(store.root())), before);
    assert_eq!(store.refs().unwrap().len(), 3);
    let done = shrink(&store, 2 * MIB);
    assert_eq!(dropped(&dry), ["b:1", "c:1"]);
    assert_eq!(dropped(&done), dropped(&dry));
    assert_eq!((done.removed, done.removed_bytes), (dry.removed, dry.removed_bytes));
    assert_eq!((done.live, done.live_bytes), (dry.live, dry.live_bytes));
    let (dry, done) = (dry.room.unwrap(), done.room.unwrap());
    assert_eq!(dry.used, done.used);
    assert_eq!(dry.dropped, done.dropped);
}

#[test]
fn what_is_pinned_leased_recent_or_unnamed_stays_and_is_told() {
    let (_dir, store) = store();
    let pinned = add(&store, "pinned:1", &[1], 50);
    store.tag(&store.lease("test").unwrap(), "pinned:1", "also:1").unwrap();
    store.set_pinned("pinned:1", true).unwrap();
    used(&store, &pinned, 50);
    let leased = add(&store, "leased:1", &[2], 40);
    store.lasting_lease("test", &[leased.target.digest], None).unwrap();
    let recent = add(&store, "recent:1", &[3], 5);
    add(&store, "old:1", &[4], 15);
    // As another tool writes it.
    let unnamed = add(&store, "unnamed:1", &[5], 60);
    let index = store.root().join("index.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    value["manifests"].as_array_mut().unwrap().last_mut().unwrap()["annotations"] =
        serde_json::json!({});
    std::fs::write(&index, value.to_string()).unwrap();
    assert!(store.refs().unwrap().iter().any(|entry| entry.name.is_none()));

    let report = shrink_as(&store, 4 * MIB, |options| options.limits.keep = Some(10 * MINUTE));
    assert_eq!(dropped(&report), ["old:1"]);
    let room = report.room.unwrap();
    assert!(room.over > 2 * MIB && room.over < 4 * MIB, "{room:?}");
    let kept = room.kept.unwrap();
    assert_eq!(kept.pinned_names, ["pinned:1"]);
    for bytes in [kept.pinned, kept.leased, kept.recent, kept.unnamed] {
        assert!((MIB..MIB + MIB / 10).contains(&bytes), "{kept:?}");
    }
    let all = [pinned.digests(), leased.digests(), recent.digests(), unnamed.digests()];
    assert_holds(&store, &all);
    assert_eq!(store.refs().unwrap().len(), 5, "all its names stay with a pinned image");
}

#[test]
fn an_image_goes_with_all_its_names_and_what_is_about_it() {
    let (_dir, store) = store();
    let old = add(&store, "old:1", &[1], 30);
    let lease = store.lease("test").unwrap();
    store.tag(&lease, "old:1", "old:2").unwrap();
    used(&store, &old, 30);
    let about = image_about(&store, &lease, "sbom", &[&layer(7), &layer(8)], Some(&old.target));
    drop(lease);
    let kept = add(&store, "kept:1", &[2], 20);
    // What is about it is counted as freed: nothing else needs to go.
    let report = shrink(&store, 2 * MIB + MIB / 2);
    assert_eq!(dropped(&report), ["old:1 old:2"]);
    assert!(!is_there(&store, &about.target.digest));
    assert_holds(&store, &[kept.digests()]);
}

/// Anybody may have written an index: what it calls something else than it is stops no collection, and so
/// no choice of what to drop either.
#[test]
fn an_index_that_is_wrong_about_a_child_is_an_image_like_any() {
    let (_dir, store) = store();
    let plain = add(&store, "plain:1", &[1], 30);
    let lease = store.lease("test").unwrap();
    let inner = image(&store, &lease, "inner", &[&layer(2)]);
    let (config, size) = plain.blobs[1];
    let wrong = MediaType::new(MediaType::OCI_MANIFEST);
    let odd = index(&store, &lease, &[&inner], &[Descriptor::new(wrong, config, size)]);
    odd.publish(&store, &lease, "odd:1");
    drop(lease);
    used(&store, &odd, 20);
    assert!(store.closure(&odd.target).is_err());
    let mut left = odd.digests();
    left.insert(config);
    assert_eq!(dropped(&shrink(&store, MIB / 2)), ["plain:1"]);
    assert_holds(&store, &[left]);
    assert_eq!(dropped(&shrink(&store, MIB / 2)), ["odd:1"]);
    assert_holds(&store, &[]);
}

#[test]
fn abandoned_parts_go_before_images_and_those_in_use_stay() {
    let (_dir, store) = store();
    let kept = add(&store, "kept:1", &[1], 30);
    let lease = store.lease("test").unwrap();
    let part = |of: u8| {
        let bytes = layer(of);
        let digest = layerstore::oci::Algorithm::Sha256.digest(&bytes);
        let pinned = lease.pin_one(digest, 2 * MIB).unwrap();
        let layerstore::Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!() };
        part.write(&bytes).unwrap();
        (part, digest)
    };
    let (held, _) = part(2);
    let wanted = part(3).1;
    drop(lease);
    let lease = store.lease("another").unwrap();
    lease.pin_one(wanted, 2 * MIB).unwrap();
    let other = store.lease("gone").unwrap();
    let digest = layerstore::oci::Algorithm::Sha256.digest(b"abandoned");
    let pinned = other.pin_one(digest, 2 * MIB).unwrap();
    let layerstore::Claim::Held(mut abandoned) = store.claim(&pinned).unwrap() else { panic!() };
    abandoned.write(&layer(9)).unwrap();
    drop((abandoned, pinned, other));
    let dry = shrink_as(&store, MIB, |options| options.dry_run = true);
    assert_eq!((dry.parts_removed, dropped(&dry).len()), (1, 0), "{dry:?}");
    let report = shrink(&store, MIB);
    assert_eq!((report.parts_removed, dropped(&report).len()), (1, 0), "{report:?}");
    assert_eq!(report.room.unwrap().used, dry.room.unwrap().used);
    assert_eq!(
        std::fs::read_dir(private(&store, "parts")).unwrap().count(),
        4,
        "two and their locks"
    );
    drop(held);
    assert_holds(&store, &[kept.digests()]);
}

#[test]
fn young_blobs_of_no_image_stay_and_are_told() {
    let (_dir, store) = store();
    add(&store, "a:1", &[1], 30);
    let young = *put(&store, &store.lease("test").unwrap(), &layer(2)).digest();
    let report = shrink(&store, 2 * MIB);
    assert_eq!(dropped(&report), ["a:1"]);
    let room = report.room.unwrap();
    assert!(room.over > 0 && room.kept.unwrap().young >= MIB);
    assert_holds(&store, &[[young].into()]);
}

#[test]
fn free_space_is_made_down_to_what_is_reserved() {
    let (_dir, store) = store();
    add(&store, "a:1", &[1], 30);
    add(&store, "b:1", &[2], 20);
    let used = du(store.root());
    let collect = |reserved| {
        let mut options = GcOptions::default();
        options.limits.min_free = Some(u64::MAX);
        options.limits.reserved = reserved;
        let report = gc::collect(&store, &options).unwrap();
        (dropped(&report), report.room.unwrap().over)
    };
    assert_eq!(collect(Some(used)), (vec![], 0), "it may keep that whatever is free");
    assert_eq!(collect(Some(used - MIB / 2)), (vec!["a:1".to_owned()], 0));
    let (dropped, over) = collect(None);
    assert_eq!(dropped, ["b:1"]);
    assert!(over > 0, "no store takes nothing");
}

/// It is about what is free alone.
#[test]
fn what_is_reserved_does_not_raise_the_most_that_may_be_taken() {
    let (_dir, store) = store();
    add(&store, "a:1", &[1], 30);
    add(&store, "b:1", &[2], 20);
    let reserve = |options: &mut GcOptions| options.limits.reserved = Some(1 << 40);
    assert_eq!(dropped(&shrink_as(&store, MIB / 2, reserve)), ["a:1"]);
    store.set_pinned("b:1", true).unwrap();
    assert!(shrink_as(&store, MIB / 2, reserve).room.unwrap().over > 0);
}

/// What is being put has no name, and may show nowhere else either: its room is its lease's until that ends.
#[test]
fn a_put_keeps_its_room_until_its_lease_ends() {
    for as_batch in [false, true] {
        let (_dir, store) = store();
        let cap = du(store.root()) + 5 * MIB;
        store.set_config(ConfigKey::MaxUsedSpace, Some(&cap.to_string())).unwrap();
        let lease = store.lease("first").unwrap();
        make_room(&store, &lease, 4 * MIB).unwrap();
        let mut one = None;
        let mut many = store.ingest_batch(&lease, Algorithm::Sha256, 4 * MIB).unwrap();
        match as_batch {
            true => many.put(&layer(1)[..], "a layer").unwrap(),
            false => {
                let ingest = store.ingest(&lease, Algorithm::Sha256, 4 * MIB).unwrap();
                one.insert(ingest).write_all(&layer(1)).unwrap();
            }
        }
        // As another process has it.
        let other = BlobStore::open(store.root()).unwrap();
        let second = other.lease("second").unwrap();
        let error = make_room(&other, &second, 2 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OverCap, "{error}");
        make_room(&other, &second, MIB / 2).unwrap();
        drop((one, many, lease));
        make_room(&other, &second, 2 * MIB).unwrap();
        assert!(du(store.root()) <= cap);
    }
}

/// Room for a blob of this size, for which nothing is dropped.
fn make_room(store: &BlobStore, lease: &Lease, size: u64) -> Result<(), Error> {
    let (dropped, outcome) = gc::make_room_for(store, lease, &[size]);
    assert!(dropped.is_empty(), "{dropped:?}");
    outcome
}

/// Between the choice and the drop stands the lock of index.json: what changes before it is had counts.
#[test]
fn what_is_used_pinned_or_retagged_after_it_was_chosen_stays() {
    let acts: [(&str, Act); 3] = [
        ("touch", |store, _| drop(store.touch("old:1").unwrap())),
        ("lease", |store, image| {
            drop(store.lasting_lease("test", &[image.target.digest], None).unwrap());
        }),
        ("pin", |store, _| by_hand(store, r#""layerstore.pinned":"true","#)),
    ];
    for (what, act) in acts {
        let (_dir, store) = store();
        let old = add(&store, "old:1", &[1], 30);
        let next = add(&store, "next:1", &[2], 20);
        let lock =
            std::fs::File::options().write(true).open(private(&store, "locks/index")).unwrap();
        lock.lock().unwrap();
        let report = std::thread::scope(|scope| {
            let collector = scope.spawn(|| shrink(&store, MIB / 2));
            wait_for_a_waiter(&private(&store, "locks/index"));
            act(&store, &old);
            lock.unlock().unwrap();
            collector.join().unwrap()
        });
        assert_eq!(dropped(&report), ["next:1"], "{what}");
        assert_eq!(report.room.unwrap().over, 0, "{what}");
        assert!(is_there(&store, &old.target.digest) && !is_there(&store, &next.target.digest));
    }
}

/// An image is dropped with just those names that it was chosen with, or chosen anew.
#[test]
fn a_name_that_comes_after_the_choice_is_not_left_alone() {
    let (_dir, store) = store();
    let old = add(&store, "old:1", &[1], 30);
    let report = shrink_and(&store, || second_name(&store, &old));
    assert_eq!(dropped(&report), ["old:1 second:1"]);
    assert_holds(&store, &[]);
}

/// Something that is done with a store and an image.
type Act = fn(&BlobStore, &Image);

/// Makes room for half a layer and, when the image is chosen and about to be dropped, `meanwhile`.
fn shrink_and(store: &BlobStore, meanwhile: impl FnOnce()) -> GcReport {
    let path = private(store, "locks/index");
    let lock = std::fs::File::options().write(true).open(&path).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| shrink(store, MIB / 2));
        wait_for_a_waiter(&path);
        meanwhile();
        lock.unlock().unwrap();
        collector.join().unwrap()
    })
}

/// What `pin` writes to the entry of `old:1`, which it cannot while the lock is held.
fn by_hand(store: &BlobStore, annotation: &str) {
    let index = store.root().join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let name = r#""org.opencontainers.image.ref.name":"old:1""#;
    assert!(text.contains(name));
    std::fs::write(&index, text.replace(name, &format!("{annotation}{name}"))).unwrap();
}

fn second_name(store: &BlobStore, image: &Image) {
    let index = store.root().join("index.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    value["manifests"].as_array_mut().unwrap().push(serde_json::json!({
        "mediaType": image.target.media_type.as_str(),
        "digest": image.target.digest.to_string(),
        "size": image.target.size,
        "annotations": {"org.opencontainers.image.ref.name": "second:1"},
    }));
    std::fs::write(&index, value.to_string()).unwrap();
}
