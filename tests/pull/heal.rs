//! Blobs that were found to be damaged are brought anew by the next pull of their image.

use super::*;
use crate::support::images;

use layerstore::CheckOptions;
use layerstore::fetch::PullPolicy;

/// Changes a byte of a blob where it lies, as a disk does.
pub(super) fn rot(world: &World, digest: &str) {
    let path = world.store.root().join("blobs").join(digest.replace(':', "/"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

fn marks(world: &World) -> usize {
    match std::fs::read_dir(world.store.root().join(".layerstore/suspect")) {
        Ok(entries) => entries.count(),
        Err(_) => 0,
    }
}

fn image() -> Image {
    images::synthetic(&[300_000, 1_000])
}

#[test]
fn what_a_check_found_the_next_pull_heals() {
    let world = World::new();
    let image = image();
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    let blobs = image.closure();
    for (digest, _) in &blobs {
        rot(&world, digest);
        let report = world.store.check(&CheckOptions::default(), |_| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!(marks(&world), 1);
        let pulled = world.pull("demo:1").unwrap();
        assert_eq!(pulled.fetched_blobs, 1, "only what is damaged: {digest}");
        assert_eq!(marks(&world), 0);
        world.assert_has("demo:1", &image);
        world.assert_tidy(0);
    }
    assert!(world.store.check(&CheckOptions::default(), |_| {}).unwrap().is_sound());
}

#[test]
fn what_a_reader_found_is_marked_and_healed_too() {
    let world = World::new();
    let image = image();
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    for layer in &image.layers {
        rot(&world, &layer.digest);
        let digest: Digest = layer.digest.parse().unwrap();
        let mut blob = world.store.open_blob(&digest).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut blob, &mut bytes).unwrap_err();
        assert_eq!(marks(&world), 1);
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        // The reader from before has the old file, and marks nothing for it.
        blob.read_at(&mut [0; 10], 150_000).err();
        assert_eq!(marks(&world), 0);
    }
}

#[test]
fn a_damaged_document_is_fetched_anew_in_the_same_pull() {
    let world = World::new();
    let image = image();
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    for digest in [&image.digest, &image.config.as_ref().unwrap().digest] {
        rot(&world, digest);
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        assert_eq!(marks(&world), 0);
    }
}

#[test]
fn a_collection_takes_marks_away_with_their_blobs() {
    let world = World::new();
    let image = image();
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    rot(&world, &image.layers[0].digest);
    world.store.check(&CheckOptions::default(), |_| {}).unwrap();
    let grace = Duration::ZERO;
    let options = layerstore::GcOptions { grace, ..Default::default() };
    layerstore::gc::collect(&world.store, &options).unwrap();
    assert_eq!(marks(&world), 1, "a ref is never dropped for it, nor its blob");
    world.store.remove_refs(&[world.reference("demo:1").to_string()]).unwrap();
    layerstore::gc::collect(&world.store, &options).unwrap();
    assert_eq!(marks(&world), 0);
}

#[test]
fn a_mark_on_a_good_blob_goes_with_the_next_check() {
    let world = World::new();
    let image = image();
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    let marks_dir = world.store.root().join(".layerstore/suspect");
    std::fs::create_dir(&marks_dir).unwrap();
    for layer in &image.layers {
        std::fs::write(marks_dir.join(layer.digest.replace(':', "-")), b"").unwrap();
    }
    assert!(world.store.check(&CheckOptions::default(), |_| {}).unwrap().is_sound());
    assert_eq!(marks(&world), 0);
}

/// Of the image so many blobs came, the others were there, and all of it is as it should be.
#[track_caller]
fn assert_healed(world: &World, image: &Image, pulled: &Pulled, fetched: u64) {
    let reused = image.closure().len() as u64 - fetched;
    assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (fetched, reused), "{pulled:?}");
    assert_eq!(marks(world), 0);
    world.assert_has("demo:1", image);
    world.assert_tidy(0);
}

/// Another tool's blob has the right length, and nobody has compared its bytes before it is to be named.
#[test]
fn what_another_tool_wrote_wrongly_is_healed_in_the_same_pull() {
    for policy in [PullPolicy::Always, PullPolicy::Missing, PullPolicy::Never] {
        let world = World::new();
        let image = image();
        world.registry.push("demo", "1", &image);
        world.pull("demo:1").unwrap();
        for layer in &image.layers {
            rot(&world, &layer.digest);
            let reference = world.reference("demo:1");
            let pulled = run(world.puller().policy(policy).pull(&reference));
            if policy == PullPolicy::Never {
                let error = pulled.unwrap_err();
                assert!(matches!(error, Error::Damaged { .. }), "{error}");
                assert_eq!(marks(&world), 1);
                world.pull("demo:1").unwrap();
                continue;
            }
            assert_healed(&world, &image, &pulled.unwrap(), 1);
        }
    }
}

/// So is one of an image that is not here yet, and one that somebody else finds to be damaged after the
/// pull has seen it.
#[test]
fn what_turns_out_to_be_damaged_at_the_end_is_healed_in_the_same_pull() {
    let world = World::new();
    let image = image();
    world.registry.push("demo", "1", &image);
    for found_by_others in [false, true] {
        world.pull("demo:1").unwrap();
        world.store.remove_refs(&[world.reference("demo:1").to_string()]).unwrap();
        let layer = &image.layers[0].digest;
        let marks_dir = world.store.root().join(".layerstore/suspect");
        let mark = marks_dir.join(layer.replace(':', "-"));
        match found_by_others {
            false => rot(&world, layer),
            true => std::fs::create_dir_all(&marks_dir).unwrap(),
        }
        let observer = Observer::new(move |event| {
            if found_by_others && matches!(event, Event::Planned { .. }) {
                std::fs::write(&mark, b"").unwrap();
            }
        });
        let reference = world.reference("demo:1");
        let pulled = run(world.puller().observer(observer).pull(&reference)).unwrap();
        assert_healed(&world, &image, &pulled, 1);
    }
}

/// Of an image that has no name here and that another tool wrote, everything may be wrong, the config too,
/// which is read before the layers are looked at.
#[test]
fn all_that_another_tool_wrote_wrongly_is_healed_in_one_pull() {
    let world = World::new();
    let image = images::synthetic(&[300_000, 1_000, 100_000, 70_000, 2_000]);
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    world.store.remove_refs(&[world.reference("demo:1").to_string()]).unwrap();
    let blobs = image.closure();
    blobs.iter().for_each(|(digest, _)| rot(&world, digest));
    assert_healed(&world, &image, &world.pull("demo:1").unwrap(), blobs.len() as u64);
}
