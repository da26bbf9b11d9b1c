//! One blob over several connections.

use super::*;
use crate::support::connections::established;
use crate::support::{Action, Fault, Request, images};

const SIZE: u64 = 120 << 20;
/// Bytes per second on each connection: slow enough that more connections are worth it.
const RATE: u64 = 12 << 20;

fn slow_world() -> (World, Image) {
    let world = World::new();
    let image = images::synthetic(&[SIZE]);
    world.registry.push("demo", "1", &image);
    world.registry.fault(Fault::on("GET", &image.layers[0].digest).then(Action::Throttle(RATE)));
    (world, image)
}

fn ranges(world: &World) -> Vec<String> {
    world.registry.requests().into_iter().filter_map(|request| request.range).collect()
}

#[test]
fn a_slow_line_is_used_by_several_connections() {
    let (world, image) = slow_world();
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
    assert!(world.registry.peak_connections() > 4, "{}", world.registry.peak_connections());
    assert!(ranges(&world).len() > 4, "{:?}", ranges(&world));
    assert_eq!(pulled.fetched_bytes, pulled.size);
}

#[test]
fn the_limit_on_connections_holds() {
    let (world, image) = slow_world();
    run(world.puller().connections(3).pull(&world.reference("demo:1"))).unwrap();
    world.assert_has("demo:1", &image);
    // One whose body was given up may still be closing while the next is opened.
    assert!(world.registry.peak_connections() <= 4, "{}", world.registry.peak_connections());
}

#[test]
fn a_fast_line_needs_one() {
    let world = World::new();
    let image = images::synthetic(&[10 << 20, 20 << 20]);
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    assert_eq!(ranges(&world), [""; 0]);
    for layer in &image.layers {
        assert_eq!(world.registry.blob_sends(&layer.digest), 1);
    }
}

#[test]
fn what_several_connections_had_brought_is_not_asked_for_again() {
    let (world, image) = slow_world();
    let reference = world.reference("demo:1");
    let (observer, events) = recorder();
    let puller = world.puller().observer(observer);
    // What was sent may still be in the sockets; what has come in is written but for a few batches.
    let is_half = |event: &Event| matches!(event, Event::Advanced { done, .. } if *done > SIZE / 2);
    run(async {
        let mut pull = Box::pin(puller.pull(&reference));
        let enough = async {
            while !events.lock().unwrap().iter().any(is_half) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            result = &mut pull => panic!("it ended: {result:?}"),
            () = enough => {}
        }
    });
    let names = world.names_in(".layerstore/parts");
    assert!(names.iter().any(|name| name.ends_with(".state")), "{names:?}");
    world.registry.clear_requests();
    world.registry.clear_faults();
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
    assert!(pulled.resumed_bytes > SIZE / 4, "{pulled:?}");
    let bytes = pulled.resumed_bytes + pulled.fetched_bytes + pulled.reused_bytes;
    assert_eq!(bytes, pulled.size);
}

#[test]
fn a_server_that_turns_out_to_have_no_ranges_sends_it_on_one() {
    for action in [Action::IgnoreRange, Action::WrongOffset, Action::WrongTotal, Action::Multipart]
    {
        let (world, image) = slow_world();
        world.registry.clear_faults();
        let fault = Fault::on("GET", &image.layers[0].digest);
        world.registry.fault(fault.then(action).then(Action::Throttle(4 * RATE)));
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        world.assert_tidy(0);
    }
}

#[test]
fn connections_that_break_are_made_up_for() {
    let (world, image) = slow_world();
    let layer = &image.layers[0].digest;
    world.registry.clear_faults();
    for after in [5 << 20, 9 << 20, 2 << 20, 0, 7 << 20, 3 << 20] {
        let fault = Fault::on("GET", layer).times(1).then(Action::CloseAfter(after));
        world.registry.fault(fault.then(Action::Throttle(RATE)));
    }
    world.registry.fault(Fault::on("GET", layer).then(Action::Throttle(RATE)));
    world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
}

#[test]
fn a_connection_that_the_server_refuses_is_done_without() {
    let world = World::new();
    let image = images::synthetic(&[64 << 20]);
    world.registry.push("demo", "1", &image);
    let (layer, port) = (&image.layers[0].digest, world.registry.port());
    // As a server does that has a limit on connections.
    let busy = move |_: &Request| established(port).len() > 2;
    let refusal = Action::status(503, &[("Connection", "close")], "");
    let refused = world.registry.fault(Fault::on("GET", layer).when(busy).then(refusal));
    world.registry.fault(Fault::on("GET", layer).then(Action::Throttle(RATE)));
    let mut patience = RetryPolicy::default();
    (patience.retries, patience.total_retries) = (2, 3);
    patience.first_delay = Duration::from_millis(20);
    run(world.puller().retry(patience).pull(&world.reference("demo:1"))).unwrap();
    world.assert_has("demo:1", &image);
    assert!(refused.hits() > 0);
}

#[test]
fn a_rate_limit_is_kept_over_all_connections() {
    let (world, image) = slow_world();
    world.registry.clear_faults();
    let begun = std::time::Instant::now();
    run(world.puller().limit_rate(40 << 20).pull(&world.reference("demo:1"))).unwrap();
    world.assert_has("demo:1", &image);
    // Not sooner than the limit allows; how much later says nothing.
    assert!(begun.elapsed() >= Duration::from_millis(2500), "{:?}", begun.elapsed());
}
