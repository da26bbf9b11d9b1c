//! A blob that is put together of several answers is of one version.

use super::*;
use crate::support::{Action, Fault, FaultHandle, Request, images};

const SIZE: u64 = 6_000_000;

fn world() -> (World, Image) {
    let world = World::new();
    let image = images::synthetic(&[SIZE]);
    world.registry.push("demo", "1", &image);
    (world, image)
}

/// Counts the requests for a layer with this `If-Range`, and changes nothing.
fn counted(world: &World, layer: &str, etag: &str) -> FaultHandle {
    let etag = etag.to_owned();
    let has = move |request: &Request| request.header("if-range") == Some(&etag);
    world.registry.fault(Fault::on("GET", layer).when(has).then(Action::Delay(Duration::ZERO)))
}

/// Breaks the next answer for a layer off after 4 MB.
fn break_off(world: &World, layer: &str) {
    world.registry.fault(Fault::on("GET", layer).times(1).then(Action::CloseAfter(4_000_000)));
}

#[test]
fn the_rest_is_asked_for_of_the_same_version() {
    let (world, image) = world();
    let layer = &image.layers[0].digest;
    let asked = counted(&world, layer, &format!("\"{layer}\""));
    break_off(&world, layer);
    world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    assert_eq!(asked.hits(), 1);
    assert_eq!(world.registry.bytes_sent(layer), SIZE);
}

/// A part of which an earlier pull, as another process, brought the first 4 MB.
fn begun(world: &World, layer: &str) {
    break_off(world, layer);
    let refuse = Fault::on("GET", layer).then(Action::error(403, "DENIED", "not now"));
    let refused = world.registry.fault(refuse);
    world.pull("demo:1").unwrap_err();
    refused.remove();
    let names = world.names_in(".layerstore/parts");
    assert!(names.iter().any(|name| name.ends_with(".state")), "{names:?}");
    world.registry.clear_requests();
}

#[test]
fn a_later_process_asks_for_the_same_version() {
    let (world, image) = world();
    let layer = &image.layers[0].digest;
    begun(&world, layer);
    let asked = counted(&world, layer, &format!("\"{layer}\""));
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
    assert_eq!((asked.hits(), pulled.resumed_bytes), (1, 4_000_000));
    assert_eq!(world.registry.bytes_sent(layer), SIZE - 4_000_000);
}

fn etag(value: &str) -> Action {
    Action::SetHeader("ETag".to_owned(), value.to_owned())
}

#[test]
fn another_version_is_begun_anew() {
    for rest in [
        // One that does not heed If-Range, and one that does.
        vec![etag("\"other\"")],
        vec![Action::IgnoreRange, etag("\"other\"")],
    ] {
        let (world, image) = world();
        let layer = &image.layers[0].digest;
        begun(&world, layer);
        let other =
            rest.into_iter().fold(Fault::on("GET", layer), |fault, action| fault.then(action));
        world.registry.fault(other);
        let pulled = world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        world.assert_tidy(0);
        assert_eq!((pulled.resumed_bytes, pulled.fetched_bytes), (0, SIZE), "{pulled:?}");
        let whole = world.registry.requests();
        let whole = whole.iter().filter(|it| it.path.ends_with(layer) && it.range.is_none());
        assert_eq!(whole.count(), 1);
    }
}

#[test]
fn weak_and_absent_tags_are_no_obstacle() {
    for action in [etag("W/\"1\""), Action::DropHeader("ETag".to_owned()), etag("no quotes")] {
        let (world, image) = world();
        let layer = &image.layers[0].digest;
        break_off(&world, layer);
        world.registry.clear_faults();
        let cut = Fault::on("GET", layer).times(1).then(action.clone());
        world.registry.fault(cut.then(Action::CloseAfter(4_000_000)));
        let conditional = Fault::on("GET", layer).when(|it| it.header("if-range").is_some());
        let conditional = world.registry.fault(conditional.then(Action::Delay(Duration::ZERO)));
        world.registry.fault(Fault::on("GET", layer).then(action));
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        assert_eq!((conditional.hits(), world.registry.bytes_sent(layer)), (0, SIZE));
    }
}

#[test]
fn a_server_with_another_tag_each_time_is_read_in_one_go() {
    let world = World::new();
    let size = 80 << 20;
    let image = images::synthetic(&[size]);
    world.registry.push("demo", "1", &image);
    let layer = &image.layers[0].digest;
    for n in 0..60 {
        let fault = Fault::on("GET", layer).times(1).then(etag(&format!("\"{n}\"")));
        world.registry.fault(fault.then(Action::Throttle(20 << 20)));
    }
    world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);
}

#[test]
fn a_token_is_renewed_in_the_middle_of_a_blob() {
    let world = World::beside(Registry::builder().bearer(support::Bearer::anonymous()).start());
    let image = images::synthetic(&[SIZE]);
    world.registry.push("demo", "1", &image);
    let layer = &image.layers[0].digest;
    world.registry.fault(Fault::on("GET", layer).times(1).then(Action::Hold(4_000_000)));
    let (puller, reference) = (world.puller(), world.reference("demo:1"));
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| run(puller.pull(&reference)));
        assert!(world.registry.wait_held(1));
        assert_eq!(world.registry.tokens_issued(), 1);
        world.registry.revoke_tokens();
        world.registry.cut_connections();
        pull.join().unwrap().unwrap();
    });
    world.assert_has("demo:1", &image);
    assert_eq!(world.registry.tokens_issued(), 2);
    let requests = world.registry.requests();
    let of_layer = requests.iter().filter(|it| it.path.ends_with(layer));
    let statuses: Vec<u16> = of_layer.map(|it| it.status).collect();
    assert_eq!(statuses, [200, 401, 206], "cut, refused, and gone on with");
}
