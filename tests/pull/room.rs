//! Room for what is pulled: made, reserved, or missing before the first byte.

use layerstore::{ConfigKey, ErrorKind};

use super::repair::{check, path, repair};
use super::*;
use crate::corrupt::flip;
use crate::support::{Action, Fault, images};
use crate::waiters::wait_for_a_waiter;

const MIB: u64 = 1024 * 1024;

/// What `du` says.
fn du(world: &World) -> u64 {
    let output =
        std::process::Command::new("du").args(["-s", "-B1"]).arg(world.store.root()).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// A store that may take so much more than it does.
fn limited(world: &World, more: u64) -> u64 {
    let cap = du(world) + more;
    world.store.set_config(ConfigKey::MaxUsedSpace, Some(&cap.to_string())).unwrap();
    cap
}

fn push(world: &World, name: &str, layers: &[u64]) -> Image {
    let image = images::synthetic(layers);
    world.registry.push(name, "1", &image);
    image
}

fn sends(world: &World, image: &Image) -> u64 {
    image.layers.iter().map(|layer| world.registry.blob_sends(&layer.digest) as u64).sum()
}

#[test]
fn a_pull_drops_what_was_used_the_longest_ago() {
    let world = World::new();
    let sizes = [2 * MIB, 2 * MIB + 1, 2 * MIB + 2, 2 * MIB + 3];
    let images: Vec<Image> =
        (0..4).map(|n| push(&world, &format!("demo{n}"), &[100, sizes[n]])).collect();
    let cap = limited(&world, 5 * MIB);
    for (n, image) in images.iter().enumerate() {
        let (observer, events) = recorder();
        run(world.puller().observer(observer).pull(&world.reference(&format!("demo{n}:1"))))
            .unwrap();
        assert!(du(&world) <= cap, "{} of {cap}", du(&world));
        world.assert_has(&format!("demo{n}:1"), image);
        let heard = events.lock().unwrap();
        let dropped = heard.iter().find_map(|event| match event {
            Event::Dropped { names, freed, .. } => Some((names.clone(), *freed)),
            _ => None,
        });
        let expected =
            (n >= 2).then(|| vec![world.reference(&format!("demo{}:1", n - 2)).to_string()]);
        assert_eq!(dropped.as_ref().map(|(names, _)| names), expected.as_ref());
        assert!(dropped.is_none_or(|(_, freed)| freed >= 2 * MIB));
        age(&world, image, 60 - n as u64);
    }
    assert_eq!(world.store.refs().unwrap().len(), 2);
    // What is there needs no room, however little there may be.
    world.store.set_config(ConfigKey::MaxUsedSpace, Some("1")).unwrap();
    assert_eq!(world.pull("demo3:1").unwrap().fetched_blobs, 0);
    assert_eq!(world.store.refs().unwrap().len(), 2);
}

/// Uses that lie so many minutes apart: their times are in whole minutes only.
fn age(world: &World, image: &Image, minutes: u64) {
    let name = image.digest.replace(':', "-");
    let path = world.store.root().join(".layerstore/used").join(name);
    let then = std::time::SystemTime::now() - Duration::from_secs(60 * minutes);
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(then).unwrap();
    let blob = world.store.root().join("blobs").join(image.digest.replace(':', "/"));
    std::fs::File::open(blob).unwrap().set_modified(then).unwrap();
}

#[test]
fn what_cannot_have_room_fails_before_its_first_byte_and_drops_nothing() {
    let world = World::new();
    for (name, size) in [("pinned", 2 * MIB), ("other", 2 * MIB + 1)] {
        push(&world, name, &[size]);
        world.pull(&format!("{name}:1")).unwrap();
    }
    let pinned = world.reference("pinned:1").to_string();
    world.store.set_pinned(&pinned, true).unwrap();
    let image = push(&world, "large", &[100, 4 * MIB]);
    let cap = limited(&world, MIB);
    let error = world.pull("large:1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverCap, "{error}");
    for part in [&format!("may take {cap} "), &pinned, "pins keep ", " are reserved for others"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let Error::NoRoom(room) = error else { panic!("{error}") };
    assert!((4 * MIB..5 * MIB).contains(&room.needed) && room.reserved == 0, "{room:?}");
    assert_eq!(sends(&world, &image), 0, "no byte of a layer was asked for");
    assert_eq!(world.store.refs().unwrap().len(), 2);
    assert!(world.names_in(".layerstore/parts").is_empty());
    world.store.set_pinned(&pinned, false).unwrap();
    world.pull("large:1").unwrap();
    world.assert_has("large:1", &image);
    assert!(du(&world) <= cap);
}

#[test]
fn what_others_have_still_to_write_is_theirs_until_they_end() {
    let world = World::new();
    let first = push(&world, "first", &[3 * MIB]);
    let second = push(&world, "second", &[3 * MIB + 1]);
    world.registry.push("again", "1", &first);
    let cap = limited(&world, 5 * MIB);
    let layer = &first.layers[0].digest;
    world.registry.fault(Fault::on("GET", layer).times(1).then(Action::Hold(500_000)));
    let (holder, reference) = (world.puller(), world.reference("first:1"));
    run(async {
        let mut held = Box::pin(holder.pull(&reference));
        run_until_held(&world, &mut held).await;
        let error = world.puller().pull(&world.reference("second:1")).await.unwrap_err();
        let Error::NoRoom(room) = error else { panic!("{error}") };
        assert!(room.cap.is_some() && room.needed > 3 * MIB, "{room:?}");
        // The part has its space set aside, so hardly anything is reserved beside that.
        assert!(room.reserved < 3 * MIB + MIB / 2, "{room:?}");
        assert_eq!(sends(&world, &second), 0);
        // The same blob is no second one.
        let again = world.puller();
        let name = world.reference("again:1");
        let mut waiting = Box::pin(again.pull(&name));
        tokio::select! {
            result = &mut waiting => panic!("it did not wait: {result:?}"),
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        drop(waiting);
        // Who ends wants nothing any more, and what it left goes first.
        drop(held);
        world.puller().pull(&world.reference("second:1")).await.unwrap();
    });
    world.assert_has("second:1", &second);
    assert!(du(&world) <= cap);
}

/// Runs a pull that does not come to its end, until the registry holds it.
async fn run_until_held(world: &World, pull: impl Future<Output = Result<Pulled, Error>>) {
    let held = async {
        while world.registry.held() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = pull => panic!("it ended: {result:?}"),
        () = held => {}
    }
}

/// What nobody has begun takes nothing of the disk yet: it is reserved all the same.
#[test]
fn what_others_have_not_even_begun_is_theirs_too() {
    let world = World::new();
    let first = push(&world, "first", &[100_000, 3 * MIB]);
    let second = push(&world, "second", &[3 * MIB + 1]);
    let cap = limited(&world, 5 * MIB);
    // The small one comes first, and no other beside it.
    let (small, large) = (&first.layers[0].digest, &first.layers[1].digest);
    world.registry.fault(Fault::on("GET", small).times(1).then(Action::Hold(50_000)));
    let (holder, reference) = (world.puller().concurrency(1), world.reference("first:1"));
    run(async {
        let mut held = Box::pin(holder.pull(&reference));
        run_until_held(&world, &mut held).await;
        assert_eq!(world.registry.blob_sends(large), 0, "it waits for its turn");
        let error = world.puller().pull(&world.reference("second:1")).await.unwrap_err();
        let Error::NoRoom(room) = error else { panic!("{error}") };
        assert!((3 * MIB..3 * MIB + MIB / 2).contains(&room.reserved), "{room:?}");
        assert!((3 * MIB..3 * MIB + MIB / 2).contains(&room.needed), "{room:?}");
        assert_eq!(room.cap.unwrap().max_used, Some(cap));
        assert_eq!(sends(&world, &second), 0);
        drop(held);
        world.puller().pull(&world.reference("second:1")).await.unwrap();
    });
    assert!(du(&world) <= cap);
}

#[test]
fn a_file_system_that_is_too_full_is_told_before_the_first_byte() {
    let world = World::new();
    let image = push(&world, "demo", &[MIB]);
    // As if so much had to stay free.
    world.store.set_config(ConfigKey::MinFreeSpace, Some("1000000T")).unwrap();
    let error = world.pull("demo:1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverCap, "{error}");
    assert!(error.to_string().contains("have to stay free (min-free-space)"), "{error}");
    assert_eq!(sends(&world, &image), 0);
    // But for what the store may keep whatever is free.
    world.store.set_config(ConfigKey::ReservedSpace, Some("1T")).unwrap();
    world.pull("demo:1").unwrap();
}

/// What is reserved is so from `min-free-space` alone: not from the cap, and not where it cannot be had.
#[test]
fn what_is_reserved_lets_no_pull_in_that_has_no_room() {
    let world = World::new();
    push(&world, "old", &[2 * MIB]);
    world.pull("old:1").unwrap();
    let large = push(&world, "large", &[20 * MIB]);
    let cap = limited(&world, MIB);
    let used = cap - MIB;
    // More than is there, or less by what the image has.
    for reserved in [1 << 40, used - MIB] {
        world.store.set_config(ConfigKey::ReservedSpace, Some(&reserved.to_string())).unwrap();
        let error = world.pull("large:1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OverCap, "{error}");
        assert_eq!((sends(&world, &large), world.store.refs().unwrap().len()), (0, 1));
    }
    push(&world, "next", &[2 * MIB + 1]);
    world.pull("next:1").unwrap();
    assert!(du(&world) <= cap);
}

/// What went is told, also where it went in vain.
#[test]
fn what_was_dropped_is_told_by_a_pull_that_fails() {
    let world = World::new();
    for (n, size) in [(0, 2 * MIB), (1, 2 * MIB + 1)] {
        push(&world, &format!("demo{n}"), &[size]);
    }
    world.pull("demo0:1").unwrap();
    limited(&world, MIB);
    let lock = world.store.root().join(".layerstore/locks/index");
    let file = std::fs::File::options().write(true).open(&lock).unwrap();
    file.lock().unwrap();
    let (observer, events) = recorder();
    let puller = world.puller().observer(observer);
    let reference = world.reference("demo1:1");
    let error = std::thread::scope(|scope| {
        let pull = scope.spawn(|| run(puller.pull(&reference)));
        // The image is chosen. What another tool writes then ends the collection that follows.
        wait_for_a_waiter(&lock);
        let index = world.store.root().join("index.json");
        let text = std::fs::read_to_string(&index).unwrap();
        let lost = format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"sha256:{}"}},"#,
            "0".repeat(64)
        );
        std::fs::write(
            &index,
            text.replacen(r#""manifests":["#, &format!(r#""manifests":[{lost}"#), 1),
        )
        .unwrap();
        file.unlock().unwrap();
        pull.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, Error::UnreadableRoot { .. }), "{error}");
    let told = |event: &Event| matches!(event, Event::Dropped { names, .. } if names.len() == 1);
    assert!(events.lock().unwrap().iter().any(told));
}

/// The size that was noted is an upper bound: what is gone since is found out before anything is dropped.
#[test]
fn what_was_noted_of_the_size_is_measured_before_it_costs_an_image() {
    let world = World::new();
    push(&world, "kept", &[MIB]);
    push(&world, "gone", &[3 * MIB]);
    let next = push(&world, "next", &[3 * MIB + 1]);
    let cap = limited(&world, 5 * MIB);
    world.pull("kept:1").unwrap();
    world.pull("gone:1").unwrap();
    let usage = world.store.root().join(".layerstore/usage");
    assert!(usage.exists());
    world.store.remove_refs(&[world.reference("gone:1").to_string()]).unwrap();
    let at_once = layerstore::GcOptions { grace: Duration::ZERO, ..Default::default() };
    layerstore::gc::collect(&world.store, &at_once).unwrap();
    world.pull("next:1").unwrap();
    assert_eq!(world.store.refs().unwrap().len(), 2);
    world.assert_has("next:1", &next);
    // Nothing that lies in its place is believed.
    for bytes in [&b"usage 1 9999999999 00000000\n"[..], b"", &[0; 100], &[b'x'; 5000]] {
        world.store.remove_refs(&[world.reference("next:1").to_string()]).unwrap();
        layerstore::gc::collect(&world.store, &at_once).unwrap();
        std::fs::write(&usage, bytes).unwrap();
        world.pull("next:1").unwrap();
        assert!(du(&world) <= cap);
    }
}

/// A store with an older image and a newer one, of which the older has a damaged layer; the cap, within
/// which that has no room to be rebuilt unless the newer goes.
fn rotten() -> (World, Image, u64) {
    let world = World::new();
    let old = push(&world, "old", &[100, 2 * MIB]);
    let new = push(&world, "new", &[3 * MIB]);
    for (n, (name, image)) in [("old:1", &old), ("new:1", &new)].into_iter().enumerate() {
        world.pull(name).unwrap();
        age(&world, image, 60 - n as u64);
    }
    let layer = old.layers.iter().max_by_key(|it| it.content.len()).unwrap();
    flip(&path(&world, &layer.digest), 100_000, 1);
    let cap = limited(&world, MIB);
    world.registry.clear_requests();
    (world, old, cap)
}

#[test]
fn a_repair_makes_room_for_what_it_rebuilds_and_not_of_what_it_mends() {
    let (world, old, cap) = rotten();
    let report = repair(&world);
    assert!(report.is_sound() && report.mended.len() == 1, "{report:?}");
    assert!(du(&world) <= cap);
    let names: Vec<_> = world.store.refs().unwrap().into_iter().filter_map(|it| it.name).collect();
    assert_eq!(names, [world.reference("old:1").to_string()], "the longest unused, but damaged");
    world.assert_has("old:1", &old);
}

#[test]
fn a_repair_that_has_no_room_fetches_nothing_and_moves_nothing() {
    let (world, old, cap) = rotten();
    let pinned = world.reference("new:1").to_string();
    world.store.set_pinned(&pinned, true).unwrap();
    let found = check(&world);
    let error = run(world.puller().repair(&found)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverCap, "{error}");
    assert!(error.to_string().contains(&format!("may take {cap} ")), "{error}");
    assert!(error.to_string().contains(&pinned), "{error}");
    assert_eq!(sends(&world, &old), 0);
    assert_eq!(world.store.refs().unwrap().len(), 2);
    assert!(world.names_in(".layerstore/quarantine").is_empty());
    world.store.set_config(ConfigKey::MaxUsedSpace, None).unwrap();
    assert!(repair(&world).is_sound());
    world.assert_has("old:1", &old);
}
