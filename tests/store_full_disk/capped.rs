//! A small disk, a standing cap, and eight pulls at once of more images than fit.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use layerstore::{BlobStore, ConfigKey};

use crate::disk::{Disk, MIB, World, command, du, run};
use crate::support::{Action, Fault, Image, Registry, images};

const PULLS: u64 = 8;
/// How many images each of them brings, one after the other.
const STEPS: u64 = 8;
const IMAGES: u64 = 20;
/// One that comes with each, and three of its own.
const LAYERS: [u64; 4] = [MIB, 2 * MIB, 2 * MIB, MIB / 2];
const CAP: u64 = 40 * MIB;

#[test]
#[ignore = "needs root for a file system"]
fn the_cap_holds_under_pulls_of_more_than_fits() {
    // All images together are 91 MiB.
    let disk = Disk::mount(64 * MIB);
    let registry = Registry::start();
    let images: Vec<Image> = (0..IMAGES)
        .map(|n| {
            let sizes = [LAYERS[0], LAYERS[1] + n, LAYERS[2] + 100 + n, LAYERS[3] + 200 + n];
            let image = images::synthetic(&sizes);
            registry.push(&format!("demo{n}"), "1", &image);
            image
        })
        .collect();
    let empty = disk.used();
    let world = World { root: disk.path().join("store"), registry, images };
    let store = BlobStore::init(&world.root).unwrap();
    store.set_config(ConfigKey::MaxUsedSpace, Some(&CAP.to_string())).unwrap();
    // The first is pinned, the second leased for good, and the third by this process.
    for n in 0..3 {
        let done = world.pull(n);
        assert!(done.status.success(), "{done:?}");
    }
    run(&mut command(&world.root, &["pin", &world.name(0)]));
    run(&mut command(&world.root, &["lease", "add", &world.images[1].digest]));
    let lease = store.lease("test").unwrap();
    store.pin_ref(&lease, &world.name(2)).unwrap();

    let stop = AtomicBool::new(false);
    let (most, fullest) = (AtomicU64::new(0), AtomicU64::new(0));
    let (ended, held) = std::thread::scope(|scope| {
        let (world, store, stop) = (&world, &store, &stop);
        let (disk, most, fullest) = (&disk, &most, &fullest);
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                most.fetch_max(du(&world.root), Ordering::SeqCst);
                fullest.fetch_max(disk.used(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let user = scope.spawn(move || use_images(world, store, stop));
        let pulls: Vec<_> = (0..PULLS)
            .map(|worker| {
                let pull =
                    move |step| pull_or_no_room(world, 3 + (worker * 7 + step * 5) % (IMAGES - 3));
                scope.spawn(move || (0..STEPS).map(pull).collect::<Vec<_>>())
            })
            .collect();
        let ended: Vec<_> = pulls.into_iter().map(|pull| pull.join()).collect();
        stop.store(true, Ordering::SeqCst);
        (ended, user.join().unwrap())
    });
    let (mut codes, mut dropped) = (BTreeMap::new(), 0);
    for (code, drops) in ended.into_iter().flat_map(|ended| ended.unwrap()) {
        *codes.entry(code).or_insert(0) += 1;
        dropped += drops;
    }
    let (most, fullest, size) = (most.into_inner(), fullest.into_inner(), disk.size());
    println!(
        "pulls by exit code: {codes:?}; images dropped for them: {dropped}; the most that du saw: \
         {most} of {CAP}, and df {fullest} of {size}; images used: {held}"
    );
    // What makes it a test: there was no room for all, and some came.
    let image = LAYERS.iter().sum::<u64>();
    assert!(most > CAP - image, "the store had always room for one more image: {most} of {CAP}");
    assert!(dropped > 0, "no image was dropped, though not half of them have room: {codes:?}");
    assert!(codes.contains_key(&0), "no pull succeeded: {codes:?}");
    assert!(held > 0, "no image was used while others were dropped");
    // What it asks.
    assert!(most <= CAP + image, "the cap was passed by more than an image: {most} of {CAP}");
    assert!(fullest - empty <= CAP + image, "so it was by what df says: {fullest} of {CAP}");
    let used = du(&world.root);
    assert!(used <= CAP, "the cap does not hold in the end: {used} of {CAP}");
    assert!(used > CAP / 2, "more was dropped than there was need for: {used} of {CAP}");
    for n in 0..3 {
        world.assert_whole(&store, n);
    }
    for entry in store.refs().unwrap() {
        let nodes = store.closure(&entry.descriptor).unwrap();
        assert!(nodes.iter().all(|node| node.present), "{entry:?}");
    }
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert!(report.is_sound() && report.lost_parts == 0, "{report:?}");

    // What the store says of itself, what du says, and what the disk has less.
    let own = store.usage().unwrap().total.disk;
    let taken = disk.used() - empty;
    for (what, bytes) in [("the store", own), ("df", taken)] {
        assert!(bytes.abs_diff(used) * 100 <= used, "{what} says {bytes}, and du {used}");
    }
    drop(lease);
    let done = command(&world.root, &["gc", "--max-used-space", "1M"]).output().unwrap();
    assert_eq!(done.status.code(), Some(9), "{done:?}");
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(text.contains("pins keep ") && text.contains(&world.name(0)), "{text}");
    assert_eq!(store.refs().unwrap().len(), 2);
}

/// The exit code of a pull that succeeds, or is refused for want of room: in the store, or on the disk;
/// and how many images were dropped for it. None is one of those that are kept.
fn pull_or_no_room(world: &World, n: u64) -> (i32, usize) {
    let name = world.name(n);
    let arguments = ["pull", "--plain-http", "--progress", "json", &name];
    let done = command(&world.root, &arguments).output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    let code = done.status.code().unwrap();
    let is_refused = matches!(code, 8 | 9) && text.contains("no room for");
    assert!(code == 0 || is_refused, "a pull ended with {code}, and not for want of room: {text}");
    for n in 0..3 {
        for (digest, content) in world.images[n].closure() {
            let blob = world.root.join("blobs").join(digest.replace(':', "/"));
            let len = std::fs::metadata(blob).map_or(0, |blob| blob.len());
            assert_eq!(len, content.len(), "{digest} of image {n}, which is kept, has gone");
        }
    }
    let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    (code, events.filter(|event: &serde_json::Value| event["event"] == "dropped").count())
}

/// Again and again, takes an image that is there, and sees that it stays for as long as it is held.
fn use_images(world: &World, store: &BlobStore, stop: &AtomicBool) -> u64 {
    let (mut held, mut n) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        n = (n + 7) % IMAGES;
        let lease = store.lease("user").unwrap();
        let Ok(target) = store.pin_ref(&lease, &world.name(n)) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        held += 1;
        let until = SystemTime::now() + Duration::from_millis(30);
        while SystemTime::now() < until {
            let nodes = store.closure(&target).unwrap();
            assert!(nodes.iter().all(|node| node.present), "an image in use has gone");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    held
}

#[test]
#[ignore = "needs root for a file system"]
fn a_pull_that_does_not_fit_on_the_disk_fails_before_its_first_byte() {
    let disk = Disk::mount(32 * MIB);
    let world = world_of(&disk, &[&[40 * MIB]]);
    assert_no_room_on_disk(&world, &world.pull(0), 0);
    assert_eq!(world.registry.blob_sends(&world.images[0].layers[0].digest), 0);
}

/// Without a cap, what others have still to write counts too, on the disk as it is.
#[test]
#[ignore = "needs root for a file system"]
fn what_another_pull_has_still_to_write_is_not_free() {
    let disk = Disk::mount(32 * MIB);
    let world = world_of(&disk, &[&[100_000, 15 * MIB], &[20 * MIB]]);
    assert!(disk.free() > 20 * MIB + MIB / 4, "alone, either has room: {}", disk.free());
    // The small layer comes first, so that of the large one nothing is set aside by then.
    let small = &world.images[0].layers[0].digest;
    world.registry.fault(Fault::on("GET", small).times(1).then(Action::Hold(50_000)));
    let mut first = world.pull_command(0, &["--max-concurrent-blobs", "1"]).spawn().unwrap();
    assert!(world.registry.wait_held(1), "the first pull has not begun");
    let done = world.pull(1);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_no_room_on_disk(&world, &done, 15 * MIB);
    assert_eq!(world.registry.blob_sends(&world.images[1].layers[0].digest), 0);
    // Who is gone wants nothing any more.
    let done = world.pull(1);
    assert!(done.status.success(), "{done:?}");
}

/// A store without limits, and a registry with images of such layers.
fn world_of(disk: &Disk, images: &[&[u64]]) -> World {
    let (root, registry) = (disk.path().join("store"), Registry::start());
    BlobStore::init(&root).unwrap();
    let images: Vec<Image> = images.iter().map(|sizes| images::synthetic(sizes)).collect();
    for (n, image) in images.iter().enumerate() {
        registry.push(&format!("demo{n}"), "1", image);
    }
    World { root, registry, images }
}

/// It was refused, and the numbers that it says leave nothing else.
fn assert_no_room_on_disk(world: &World, done: &Output, others: u64) {
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(8), "{text}");
    let before = |what: &str| -> u64 {
        let (start, _) = text.split_once(what).unwrap_or_else(|| panic!("no {what:?} in {text}"));
        start.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (needed, free) = (before(" bytes in "), before(" are free"));
    let (reserved, missing) = (before(" are reserved for others"), before(" are missing"));
    assert!((others..others + MIB).contains(&reserved), "{text}");
    assert_eq!(missing, needed + reserved - free, "{text}");
    assert!(text.contains(&world.root.display().to_string()), "{text}");
    assert!(text.contains("`store gc` frees what no image uses"), "{text}");
}
