//! Whose turn it is, where there are fewer connections to a host than pulls that want one.

use super::*;
use crate::support::{Action, Fault, FaultHandle, images};

const MIB: u64 = 1 << 20;

/// A puller as a process of its own would have it, of those who have `limit` connections together.
fn puller(world: &World, limit: usize) -> Puller {
    world.puller().connections(limit)
}

/// An image of one layer, under a name of its own.
fn image(world: &World, name: &str, size: u64) -> Image {
    let image = images::synthetic(&[size]);
    world.registry.push(name, "1", &image);
    image
}

/// Answers requests for the only layer of an image so.
fn fault(world: &World, image: &Image, actions: &[Action]) -> FaultHandle {
    let fault = Fault::on("GET", &image.layers[0].digest);
    world.registry.fault(actions.iter().fold(fault, |fault, action| fault.then(action.clone())))
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a part has got by now, for all parts.
fn gathered(world: &World) -> u64 {
    let parts = std::fs::read_dir(world.store.root().join(".layerstore/parts")).unwrap();
    let sizes = parts.map(|entry| entry.unwrap().metadata().map_or(0, |it| it.len()));
    sizes.sum()
}

#[test]
fn what_would_have_to_begin_anew_gives_way_to_nobody() {
    let world = World::new();
    let (large, small) = (image(&world, "large", 16 * MIB), image(&world, "small", 1000));
    // Four seconds, which is longer than a turn.
    let no_ranges = [Action::IgnoreRange, Action::DropHeader("Accept-Ranges".to_owned())];
    let fault = fault(&world, &large, &[&no_ranges[..], &[Action::Throttle(4 * MIB)]].concat());
    let (one, two) = (world.reference("large:1"), world.reference("small:1"));
    let (first, second) = (puller(&world, 1), puller(&world, 1));
    run(async {
        let mut first = Box::pin(first.pull(&one));
        tokio::select! {
            result = &mut first => panic!("it ended: {result:?}"),
            () = until(|| gathered(&world) > 0) => {}
        }
        let (first, second) = tokio::join!(first, second.pull(&two));
        first.unwrap();
        second.unwrap();
    });
    assert_eq!(fault.hits(), 1, "it was asked for once");
    world.assert_has("large:1", &large);
    world.assert_has("small:1", &small);
}

#[test]
fn what_is_large_gets_the_last_connection_when_it_has_waited() {
    let world = World::new();
    // Too small for more than one connection each, and too large for the last one.
    let images = [image(&world, "first", 2 * MIB), image(&world, "second", 2 * MIB + 1)];
    let held = fault(&world, &images[0], &[Action::Hold(MIB + MIB / 2)]);
    let (one, two) = (world.reference("first:1"), world.reference("second:1"));
    let (first, second) = (puller(&world, 2), puller(&world, 2));
    run(async {
        let mut first = Box::pin(first.pull(&one));
        tokio::select! {
            result = &mut first => panic!("it ended: {result:?}"),
            () = until(|| world.registry.held() > 0) => {}
        }
        tokio::select! {
            result = &mut first => panic!("it was not held: {result:?}"),
            result = second.pull(&two) => { result.unwrap(); }
        }
        assert_eq!(held.hits(), 1, "the first still has its connection");
        held.remove();
        world.registry.release();
        first.await.unwrap();
    });
    world.assert_has("first:1", &images[0]);
    world.assert_has("second:1", &images[1]);
}

#[test]
fn the_only_large_body_of_a_pull_gives_way_after_a_while() {
    let world = World::new();
    let [busy_image, large_image, small_image] =
        [("busy", 1000), ("large", 100 * MIB), ("small", 1000)]
            .map(|(name, size)| image(&world, name, size));
    let hold = Fault::on("GET", "/busy/manifests/").then(Action::Hold(1));
    let held = world.registry.fault(hold);
    let slow = fault(&world, &large_image, &[Action::Throttle(MIB)]);
    let names = ["busy:1", "large:1", "small:1"].map(|name| world.reference(name));
    let [busy, large, small] = [(); 3].map(|()| puller(&world, 2));
    run(async {
        // It has the last connection, for what is small, and keeps it.
        let mut busy = Box::pin(busy.pull(&names[0]));
        tokio::select! {
            result = &mut busy => panic!("it ended: {result:?}"),
            () = until(|| world.registry.held() > 0) => {}
        }
        let mut large = Box::pin(large.pull(&names[1]));
        tokio::select! {
            result = &mut busy => panic!("it was not held: {result:?}"),
            result = &mut large => panic!("it ended: {result:?}"),
            () = until(|| gathered(&world) > 0) => {}
        }
        tokio::select! {
            result = &mut busy => panic!("it was not held: {result:?}"),
            result = &mut large => panic!("it ended: {result:?}"),
            result = small.pull(&names[2]) => { result.unwrap(); }
        }
        assert_eq!(held.hits(), 1, "the last connection was not to be had");
        held.remove();
        slow.remove();
        world.registry.release();
        world.registry.cut_connections();
        let (busy, large) = tokio::join!(busy, large);
        busy.unwrap();
        large.unwrap();
    });
    world.assert_has("busy:1", &busy_image);
    world.assert_has("large:1", &large_image);
    world.assert_has("small:1", &small_image);
}
