use super::*;
use crate::support::{Action, Fault, images};

const SIZE: u64 = 5_000_000;

/// A world where an earlier pull has left the first part of a layer.
fn interrupted(at: u64) -> (World, Image) {
    let world = World::new();
    let image = images::synthetic(&[SIZE]);
    world.registry.push("demo", "1", &image);
    let layer = image.layers[0].digest.clone();
    world.registry.fault(Fault::on("GET", &layer).times(1).then(Action::Hold(at)));
    let pull = world.puller();
    let reference = world.reference("demo:1");
    run(async {
        // The future is dropped in the middle of the body.
        let mut pull = Box::pin(pull.pull(&reference));
        loop {
            let tick = tokio::time::sleep(Duration::from_millis(5));
            tokio::select! {
                result = &mut pull => panic!("it ended: {result:?}"),
                () = tick => if part_len(&world) + 262_144 > at { break },
            }
        }
    });
    world.registry.release();
    (world, image)
}

fn part_len(world: &World) -> u64 {
    let parts = world.store.root().join(".layerstore/parts");
    std::fs::read_dir(parts)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .max()
        .unwrap_or(0)
}

#[test]
fn the_next_pull_asks_for_the_rest_only() {
    let (world, image) = interrupted(3_000_000);
    world.assert_tidy(1);
    let had = part_len(&world);
    assert!(had > 2_500_000, "{had}");
    world.registry.clear_requests();
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
    assert_eq!(pulled.resumed_bytes, had);
    let layer = &image.layers[0].digest;
    assert_eq!(world.registry.bytes_sent(layer), SIZE - had);
    let ranges: Vec<_> = world.registry.requests().into_iter().filter_map(|r| r.range).collect();
    assert_eq!(ranges, [format!("bytes={had}-")]);
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    for action in [Action::IgnoreRange, Action::WrongOffset, Action::WrongTotal, Action::Multipart]
    {
        let (world, image) = interrupted(3_000_000);
        let layer = &image.layers[0].digest;
        world.registry.fault(Fault::on("GET", layer).then(action));
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        world.assert_tidy(0);
    }
}

#[test]
fn a_part_with_wrong_bytes_is_thrown_away_and_the_blob_fetched_whole() {
    let (world, image) = interrupted(3_000_000);
    let parts = world.store.root().join(".layerstore/parts");
    let name = world.names_in(".layerstore/parts").into_iter().find(|n| n.ends_with(".part"));
    let path = parts.join(name.unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    assert_eq!(pulled.resumed_bytes, 0);
}

#[test]
fn a_part_that_is_whole_needs_no_request() {
    let (world, image) = interrupted(3_000_000);
    let name = world.names_in(".layerstore/parts").into_iter().find(|n| n.ends_with(".part"));
    let path = world.store.root().join(".layerstore/parts").join(name.unwrap());
    std::fs::write(path, image.layers[0].content.to_vec()).unwrap();
    world.registry.clear_requests();
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    assert_eq!(world.registry.blob_sends(&image.layers[0].digest), 0);
    assert_eq!(pulled.resumed_bytes, SIZE);
}

#[test]
fn a_connection_that_breaks_is_continued_within_the_pull() {
    let world = World::new();
    let image = images::synthetic(&[SIZE]);
    world.registry.push("demo", "1", &image);
    let layer = &image.layers[0].digest;
    // More often than one operation is repeated: each brings more than a megabyte.
    for after in [1_500_000, 1_200_000, 0, 1_100_000] {
        world.registry.fault(Fault::on("GET", layer).times(1).then(Action::CloseAfter(after)));
    }
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    assert_eq!(pulled.fetched_bytes, pulled.size);
    assert_eq!(world.registry.bytes_sent(layer), SIZE, "no byte was asked for twice");
}
