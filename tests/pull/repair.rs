//! What a check found is mended: of a blob only what is wrong comes anew, and what cannot be had is put
//! away, until it can.

use std::collections::HashSet;
use std::path::PathBuf;

use layerstore::fetch::RepairReport;
use layerstore::{CheckOptions, CheckReport, DamageKind, GcOptions, gc};

use super::*;
use crate::corrupt::{KINDS, Kind, Random, bound, corrupt, flip, outboard};
use crate::support::{Action, Fault, images};

const GROUP: u64 = 16 * 1024;

pub(crate) fn check(world: &World) -> CheckReport {
    world.store.check(&CheckOptions::default(), |_| {}).unwrap()
}

/// Checks, and mends what was found.
pub(crate) fn repair(world: &World) -> RepairReport {
    let found = check(world);
    run(world.puller().repair(&found)).unwrap()
}

pub(crate) fn path(world: &World, digest: &str) -> PathBuf {
    world.store.root().join("blobs").join(digest.replace(':', "/"))
}

fn quarantine(world: &World) -> Vec<String> {
    world.names_in(".layerstore/quarantine")
}

fn collect(world: &World) {
    let grace = Duration::ZERO;
    gc::collect(&world.store, &GcOptions { grace, ..GcOptions::default() }).unwrap();
}

/// A world with a pulled image of a large layer and a small one.
fn pulled(size: u64) -> (World, Image) {
    let world = World::new();
    let image = images::synthetic(&[size, 1_000]);
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    world.registry.clear_requests();
    (world, image)
}

#[test]
fn only_the_groups_that_are_wrong_are_fetched() {
    let (world, image) = pulled(5_000_000);
    let layer = &image.layers[0].digest;
    let reader = std::fs::File::open(path(&world, layer)).unwrap();
    // Two neighbours, one alone, and the short last one.
    for at in [16_400, 33_000, 2_000_000, 4_999_999] {
        flip(&path(&world, layer), at, 3);
    }
    let before = std::fs::read(path(&world, layer)).unwrap();
    let report = repair(&world);
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.mended.len(), 1);
    let wanted = 3 * GROUP + 5_000_000 % GROUP;
    assert_eq!(world.registry.bytes_sent(layer), wanted);
    assert_eq!((report.mended[0].fetched_bytes, report.fetched_bytes), (wanted, wanted));
    let repository = world.reference("demo:1").to_string();
    assert_eq!(report.mended[0].from.as_deref(), repository.strip_suffix(":1"));
    let ranges: Vec<_> = world.registry.requests().into_iter().filter_map(|r| r.range).collect();
    assert_eq!(ranges, ["bytes=16384-49151", "bytes=1998848-2015231", "bytes=4997120-"]);
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
    // Whoever had the damaged file open has it still.
    let mut old = vec![0; before.len()];
    std::os::unix::fs::FileExt::read_exact_at(&reader, &mut old, 0).unwrap();
    assert!(old == before);
    assert!(repair(&world).mended.is_empty());
}

#[test]
fn a_pull_that_heals_fetches_no_more_either() {
    let (world, image) = pulled(5_000_000);
    let layer = &image.layers[0].digest;
    flip(&path(&world, layer), 2_000_000, 0);
    assert_eq!(check(&world).damage.len(), 1);
    let pulled = world.pull("demo:1").unwrap();
    assert_eq!((pulled.fetched_bytes, pulled.resumed_bytes), (GROUP, 5_000_000 - GROUP));
    assert_eq!(world.registry.bytes_sent(layer), GROUP);
    world.assert_has("demo:1", &image);
}

#[test]
fn what_is_missing_comes_from_where_it_was_pulled() {
    let (world, image) = pulled(300_000);
    // A name says nothing of where it came from.
    let lease = world.store.lease("test").unwrap();
    let name = world.reference("demo:1").to_string();
    world.store.tag(&lease, &name, "mine").unwrap();
    world.store.remove_refs(&[name]).unwrap();
    for (digest, _) in image.closure() {
        std::fs::remove_file(path(&world, &digest)).unwrap();
        let report = repair(&world);
        assert!(report.is_sound(), "{digest}: {report:?}");
        assert_eq!(report.mended.len(), 1);
        world.assert_blobs(&image);
    }
    // All of it at once: each says what the next is.
    for (digest, _) in image.closure() {
        std::fs::remove_file(path(&world, &digest)).unwrap();
    }
    let report = repair(&world);
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.mended.len(), image.closure().len());
    world.assert_blobs(&image);
    let digest = image.digest.parse().unwrap();
    let origins = world.store.origins(&digest).unwrap();
    let repository = format!("{}/demo@{digest}", world.registry.address());
    assert_eq!(origins.iter().map(ToString::to_string).collect::<Vec<_>>(), [repository]);
}

#[test]
fn the_platform_that_was_pulled_is_the_one_that_comes_back() {
    let world = World::new();
    let image = images::multi_platform(&["linux/amd64", "linux/s390x"]);
    world.registry.push("demo", "1", &image);
    let wanted = layerstore::oci::PlatformChoice::One("linux/s390x".parse().unwrap());
    run(world.puller().platform(wanted).pull(&world.reference("demo:1"))).unwrap();
    let blobs: HashSet<String> = world.names_in("blobs/sha256").into_iter().collect();
    for name in &blobs {
        if *name != image.digest.replace("sha256:", "") {
            std::fs::remove_file(world.store.root().join("blobs/sha256").join(name)).unwrap();
        }
    }
    let found = check(&world);
    assert_eq!(found.damage[0].kind, DamageKind::NoPlatform);
    let report = run(world.puller().repair(&found)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(world.names_in("blobs/sha256").into_iter().collect::<HashSet<_>>(), blobs);
}

#[test]
fn what_cannot_be_had_is_put_away_and_comes_back_with_the_next_pull() {
    let (world, image) = pulled(500_000);
    let layer = &image.layers[0].digest;
    flip(&path(&world, layer), 200_000, 5);
    world.registry.remove_blob(layer);
    let report = repair(&world);
    assert!(!report.is_sound());
    let [failed] = &report.failed[..] else { panic!("{report:?}") };
    assert_eq!(failed.digest.to_string(), *layer);
    assert_eq!(failed.refs, [world.reference("demo:1").to_string()]);
    assert!(failed.quarantined && failed.reason.contains("404"), "{failed:?}");
    assert_eq!(quarantine(&world), [layer.replace(':', "-")]);
    assert!(report.damage.iter().all(|it| it.kind == DamageKind::MissingBlob), "{report:?}");
    assert!(!world.has_blob(layer));
    assert!(world.store.find_ref(&world.reference("demo:1").to_string()).is_ok(), "never the ref");
    // Neither a collection nor another attempt makes anything worse.
    collect(&world);
    assert_eq!(quarantine(&world).len(), 1);
    assert!(!repair(&world).is_sound());
    assert_eq!(quarantine(&world).len(), 1);

    world.registry.put_blob(image.layers[0].content.clone());
    world.registry.clear_requests();
    world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    assert_eq!(world.registry.bytes_sent(layer), GROUP, "what is good of it was used");
    collect(&world);
    assert!(quarantine(&world).is_empty());
    assert!(check(&world).is_sound());
}

#[test]
fn a_registry_that_is_down_makes_nothing_worse() {
    let World { registry, store, _dir } = World::new();
    let image = images::synthetic(&[500_000, 200_000, 1_000]);
    registry.push("demo", "1", &image);
    let world = World { registry, store, _dir };
    world.pull("demo:1").unwrap();
    let port = world.registry.port();
    for layer in &image.layers {
        flip(&path(&world, &layer.digest), 700, 1);
    }
    let puller = world.puller();
    let World { registry, store, _dir } = world;
    let content = registry;
    drop(content);
    let found = store.check(&CheckOptions::default(), |_| {}).unwrap();
    assert_eq!(found.damage.len(), 3);
    let report = run(puller.repair(&found)).unwrap();
    assert_eq!((report.failed.len(), report.mended.len()), (3, 0), "{report:?}");
    assert!(report.failed.iter().all(|it| it.quarantined && it.refs.len() == 1), "{report:?}");
    let registry = Registry::builder().port(port).start();
    registry.push("demo", "1", &image);
    let world = World { registry, store, _dir };
    let report = repair(&world);
    assert!(report.is_sound() && report.mended.len() == 3, "{report:?}");
    assert!(quarantine(&world).is_empty(), "a repair tidies up itself");
    world.assert_has("demo:1", &image);
    assert_eq!(world.registry.bytes_sent(&image.layers[0].digest), GROUP);
}

#[test]
fn a_server_that_sends_wrong_bytes_mends_nothing() {
    let (world, image) = pulled(500_000);
    let layer = &image.layers[0].digest;
    flip(&path(&world, layer), 200_000, 5);
    let fault = world.registry.fault(Fault::on("GET", layer).then(Action::Corrupt(100)));
    let report = repair(&world);
    assert!(!report.is_sound() && fault.hits() > 0, "{report:?}");
    assert!(!world.has_blob(layer), "in quarantine, and nothing in its place");
    fault.remove();
    world.registry.clear_requests();
    assert!(repair(&world).is_sound());
    assert_eq!(world.registry.bytes_sent(layer), GROUP, "the hashes are not to blame");
    world.assert_has("demo:1", &image);
}

/// The repository that was pulled from last is asked first, and the one before it where that has the
/// blob no more.
#[test]
fn a_repository_that_has_lost_a_blob_is_followed_by_the_one_before() {
    let world = World::new();
    let image = images::synthetic(&[500_000, 1_000]);
    let layer = &image.layers[0].digest;
    for repository in ["a", "b"] {
        world.registry.push(repository, "1", &image);
        world.pull(&format!("{repository}:1")).unwrap();
        // Which was last is told by the times of files, and these go in ticks.
        std::thread::sleep(Duration::from_millis(20));
    }
    world.registry.clear_requests();
    let lost = format!("/v2/b/blobs/{layer}");
    let lost = world.registry.fault(Fault::on("GET", &lost).then(Action::error(
        404,
        "BLOB_UNKNOWN",
        "no more",
    )));
    flip(&path(&world, layer), 200_000, 5);
    let report = repair(&world);
    assert!(report.is_sound() && lost.hits() > 0, "{report:?}");
    let [mended] = &report.mended[..] else { panic!("{report:?}") };
    assert_eq!(mended.from, Some(format!("{}/a", world.registry.address())));
    assert_eq!(mended.fetched_bytes, GROUP);
    let asked = world.registry.requests().into_iter().filter(|it| it.path.contains("/blobs/"));
    let asked: Vec<_> = asked.map(|it| (it.path, it.status)).collect();
    let from = |repository| format!("/v2/{repository}/blobs/{layer}");
    assert_eq!(asked, [(from("b"), 404), (from("a"), 206)]);
    world.assert_has("a:1", &image);
    world.assert_has("b:1", &image);

    // Where it has it, it alone is asked.
    lost.remove();
    world.registry.clear_requests();
    flip(&path(&world, layer), 300_000, 5);
    let report = repair(&world);
    assert_eq!(report.mended[0].from, Some(format!("{}/b", world.registry.address())));
    assert!(world.registry.requests().iter().all(|it| !it.path.starts_with("/v2/a/")));
}

#[test]
fn two_repairs_at_once_mend_each_blob_once() {
    let world = World::new();
    let image = images::synthetic(&[900_000, 800_000, 700_000, 600_000]);
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    for layer in &image.layers {
        flip(&path(&world, &layer.digest), 100_000, 1);
        flip(&path(&world, &layer.digest), 500_000, 1);
    }
    let found = check(&world);
    world.registry.clear_requests();
    let (one, two) = (world.puller(), world.puller());
    let (one, two) = run(async { tokio::join!(one.repair(&found), two.repair(&found)) });
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.is_sound() && two.is_sound(), "{one:?} {two:?}");
    for layer in &image.layers {
        assert_eq!(world.registry.bytes_sent(&layer.digest), 2 * GROUP);
    }
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
}

#[test]
fn a_blob_that_somebody_works_with_stays_where_it_is() {
    let (world, image) = pulled(500_000);
    let layer = &image.layers[0].digest;
    flip(&path(&world, layer), 200_000, 5);
    world.registry.remove_blob(layer);
    let lease = world.store.lease("test").unwrap();
    let pinned = lease.pin_one(layer.parse().unwrap(), 500_000).unwrap();
    let report = repair(&world);
    assert!(!report.is_sound() && !report.failed[0].quarantined, "{report:?}");
    assert!(quarantine(&world).is_empty());
    drop((lease, pinned));
    assert!(repair(&world).failed[0].quarantined);
    // A good one is never moved.
    assert!(!world.store.quarantine(&image.digest.parse().unwrap()).unwrap());
}

/// A thousand random corruptions: each is mended, with no more than the wrong groups and 64 KiB each
/// where groups were wrong.
#[test]
fn a_thousand_corruptions_are_mended() {
    const ROUNDS: usize = 100;
    const AT_ONCE: usize = 10;
    let world = World::new();
    let sizes: Vec<u64> =
        (0..25).map(|n| [5_000, 65_536, 65_537, 100_000, 150_000][n % 5] + 97 * n as u64).collect();
    let image = images::synthetic(&sizes);
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    let contents: Vec<Vec<u8>> = image.layers.iter().map(|it| it.content.to_vec()).collect();
    let digests: Vec<Digest> = image.layers.iter().map(|it| it.digest.parse().unwrap()).collect();
    let has_hashes = |digest: &Digest| outboard(&world.store, digest).exists();
    let (mut random, mut mended, mut fetched, mut allowed) = (Random(7), 0, 0, 0);
    let mut kinds = KINDS.into_iter().cycle();
    for round in 0..ROUNDS {
        let mut rest: Vec<usize> = (0..digests.len()).collect();
        let mut victims = Vec::new();
        for kind in kinds.by_ref().take(AT_ONCE) {
            let may = |at: &usize| !kind.needs_hashes() || has_hashes(&digests[*at]);
            victims.push((random.take(&mut rest, may).unwrap(), kind));
        }
        world.registry.clear_requests();
        for (at, kind) in &victims {
            let other = &digests[rest[random.below(rest.len())]];
            corrupt(&world.store, &mut random, *kind, &digests[*at], other);
        }
        let bounds: Vec<u64> = victims
            .iter()
            .map(|(at, kind)| allowance(&world, *kind, &digests[*at], &contents[*at]))
            .collect();
        let report = repair(&world);
        assert!(report.is_sound(), "round {round}: {victims:?} {report:?}");
        let bad = victims.iter().filter(|(_, kind)| !kind.leaves_blob_good()).count();
        assert_eq!(report.mended.len(), bad, "round {round}: {report:?}");
        mended += bad;
        for ((at, kind), bound) in victims.iter().zip(bounds) {
            let sent = world.registry.bytes_sent(&digests[*at].to_string());
            assert!(sent <= bound, "{kind:?} in round {round}: {sent} bytes, and not {bound}");
            assert!(
                std::fs::read(path(&world, &digests[*at].to_string())).unwrap() == contents[*at]
            );
            (fetched, allowed) = (fetched + sent, allowed + bound);
        }
    }
    println!(
        "corruptions mended: {mended} of {mended}, bytes fetched: {fetched}, allowed: {allowed}"
    );
    assert!(check(&world).is_sound());
    assert!(quarantine(&world).is_empty());
}

/// How many bytes a repair may fetch of a blob as it lies there now.
fn allowance(world: &World, kind: Kind, digest: &Digest, good: &[u8]) -> u64 {
    let has_hashes = good.len() > 65_536 && !kind.needs_hashes() && kind != Kind::Swapped;
    let found = std::fs::read(path(world, &digest.to_string())).unwrap_or_default();
    match kind.leaves_blob_good() {
        true => 0,
        false => bound(good, &found, has_hashes),
    }
}
