//! Limits that hold over all processes: each pull has its own store handle and its own client, so
//! what they share is on disk.

use std::time::{Duration, Instant};

use super::*;
use crate::support::connections::{established, peak_during};
use crate::support::{Action, Fault, images};

const MIB: u64 = 1 << 20;

/// Images of the same sizes, with nothing in common, each under its number.
fn several(world: &World, count: u64, sizes: [u64; 3]) -> Vec<Image> {
    let images: Vec<Image> = (0..count)
        .map(|n| {
            let layers = sizes
                .iter()
                .zip(0..)
                .map(|(size, m)| support::Layer::generated(100 * n + m, *size));
            Image::of(&layers.collect::<Vec<_>>())
        })
        .collect();
    for (n, image) in images.iter().enumerate() {
        world.registry.push("demo", &n.to_string(), image);
    }
    images
}

/// Pulls all of them at once, each as a process of its own would.
fn pull_all(world: &World, count: usize, limit: usize, shared: bool) {
    std::thread::scope(|scope| {
        for n in 0..count {
            scope.spawn(move || {
                let puller = world.puller().connections(limit).share_connections(shared);
                run(puller.pull(&world.reference(&format!("demo:{n}")))).unwrap();
            });
        }
    });
}

#[test]
fn four_pulls_keep_to_one_limit() {
    let world = World::beside(Registry::builder().throttle(8 * MIB).start());
    let images = several(&world, 4, [10, 300_000, 12 * MIB]);
    let (peak, ()) = peak_during(world.registry.port(), || pull_all(&world, 4, 6, true));
    assert!((4..=6).contains(&peak), "{peak} connections");
    for (n, image) in images.iter().enumerate() {
        world.assert_has(&format!("demo:{n}"), image);
    }
    world.assert_tidy(0);
    assert!(world.store.check(&Default::default(), |_| {}).unwrap().is_sound());
}

#[test]
fn without_that_each_has_its_own() {
    let world = World::beside(Registry::builder().throttle(4 * MIB).start());
    several(&world, 4, [10, 3 * MIB, 3 * MIB]);
    let (peak, ()) = peak_during(world.registry.port(), || pull_all(&world, 4, 2, false));
    assert!(peak > 2, "{peak} connections");
    assert!(!world.names_in(".layerstore").contains(&"hosts".to_owned()));
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let world = World::new();
    let image = images::synthetic(&(1..=40).map(|n| 1000 * n).collect::<Vec<_>>());
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    let requests = world.registry.requests();
    let connections: std::collections::BTreeSet<_> =
        requests.iter().map(|request| request.connection).collect();
    assert!(
        requests.len() > 40 && connections.len() <= 8,
        "{} of {}",
        connections.len(),
        requests.len()
    );
}

#[test]
fn connections_that_serve_nobody_are_given_to_who_waits() {
    let world = World::new();
    let image = images::synthetic(&[1000, 2000, 3000, 4000, 5000, 6000]);
    world.registry.push("demo", "1", &image);
    let (registry, limit) = (&world.registry, 2);
    let held = registry.fault(Fault::on("GET", &image.layers[5].digest).then(Action::Hold(100)));
    let (first, reference) = (world.puller().connections(limit), world.reference("demo:1"));
    let other = images::synthetic(&[7000, 8000]);
    registry.push("other", "1", &other);
    run(async {
        let mut first = Box::pin(first.pull(&reference));
        let waits = async {
            while registry.held() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = &mut first => panic!("it ended: {result:?}"),
            () = waits => {}
        }
        // The first has both connections now, and uses one.
        let second = world.puller().connections(limit);
        let name = world.reference("other:1");
        tokio::select! {
            result = &mut first => panic!("it ended: {result:?}"),
            pulled = second.pull(&name) => { pulled.unwrap(); }
        }
        held.remove();
        registry.release();
        first.await.unwrap();
    });
    world.assert_has("other:1", &other);
    world.assert_has("demo:1", &image);
}

/// A pull that has every connection of the host, and goes on for long. What `then` returns once it
/// has them.
fn beside_a_large_blob<T>(
    world: &World,
    limit: usize,
    then: impl AsyncFnOnce() -> T,
) -> (T, Result<Pulled, Error>) {
    let image = images::synthetic(&[100 * MIB]);
    world.registry.push("large", "1", &image);
    let layer = &image.layers[0].digest;
    let slow = world.registry.fault(Fault::on("GET", layer).then(Action::Throttle(2 * MIB)));
    let reference = world.reference("large:1");
    let puller = world.puller().connections(limit);
    run(async {
        let mut large = Box::pin(puller.pull(&reference));
        let full = async {
            while established(world.registry.port()).len() < limit {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = &mut large => panic!("it ended: {result:?}"),
            () = full => {}
        }
        let then = tokio::select! {
            result = &mut large => panic!("it ended first: {result:?}"),
            then = then() => then,
        };
        slow.remove();
        world.registry.cut_connections();
        (then, large.await)
    })
}

#[test]
fn what_is_small_does_not_wait_for_the_end_of_what_is_large() {
    for limit in [1, 3] {
        let world = World::new();
        let small = images::synthetic(&[20_000]);
        world.registry.push("small", "1", &small);
        let (puller, reference) = (world.puller().connections(limit), world.reference("small:1"));
        let (pulled, large) =
            beside_a_large_blob(&world, limit, async || puller.pull(&reference).await);
        pulled.unwrap();
        world.assert_has("small:1", &small);
        // What was broken off for the small one goes on.
        large.unwrap();
        world.assert_tidy(0);
    }
}

#[test]
fn a_pull_that_ends_gives_its_connections_back_and_who_waits_says_so() {
    let world = World::beside(Registry::builder().throttle(MIB).start());
    let images = several(&world, 2, [10, 20 * MIB, 20 * MIB]);
    let (observer, events) = recorder();
    let first = world.puller().connections(2);
    let second = world.puller().connections(2).observer(observer);
    let (one, two) = (world.reference("demo:0"), world.reference("demo:1"));
    run(async {
        let mut first = Box::pin(first.pull(&one));
        let mut second = Box::pin(second.pull(&two));
        let queued = async {
            let is_queued = |event: &Event| matches!(event, Event::Queued { .. });
            while !events.lock().unwrap().iter().any(is_queued) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = &mut first => panic!("the first ended: {result:?}"),
            result = &mut second => panic!("the second did not wait: {result:?}"),
            () = queued => {}
        }
    });
    // Both were given up in the middle: their connections are anybody's.
    drop((first, second));
    let fast = Fault::on("GET", "/blobs/").then(Action::Throttle(200 * MIB));
    world.registry.fault(fast);
    run(world.puller().connections(2).pull(&two)).unwrap();
    world.assert_has("demo:1", &images[1]);
}

#[test]
fn a_host_that_wants_to_be_left_alone_is_left_alone_by_all() {
    let world = World::new();
    let image = images::synthetic(&[20_000]);
    world.registry.push("demo", "1", &image);
    let busy = Action::status(429, &[("Retry-After", "3")], "");
    let fault = world.registry.fault(Fault::on("GET", "/manifests/").times(1).then(busy));
    let (first, second) = (world.puller(), world.puller());
    let ((one, heard), (two, told)) = (recorder(), recorder());
    let (first, second) = (first.observer(one), second.observer(two));
    let reference = world.reference("demo:1");
    let asked = run(async {
        let mut first = Box::pin(first.pull(&reference));
        let refused = async {
            let is_retrying = |event: &Event| matches!(event, Event::Retrying { .. });
            while !heard.lock().unwrap().iter().any(is_retrying) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = &mut first => panic!("it ended: {result:?}"),
            () = refused => {}
        }
        let mut second = Box::pin(second.pull(&reference));
        let paused = async {
            let is_paused = |event: &Event| matches!(event, Event::Paused { .. });
            while !told.lock().unwrap().iter().any(is_paused) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = &mut first => panic!("it ended: {result:?}"),
            result = &mut second => panic!("it did not wait: {result:?}"),
            () = paused => {}
        }
        let asked = world.registry.requests().len();
        let (first, second) = tokio::join!(first, second);
        first.unwrap();
        second.unwrap();
        asked
    });
    assert_eq!((fault.hits(), asked), (1, 1), "nobody asked in between");
    world.assert_has("demo:1", &image);
}

#[test]
fn nobody_is_told_of_a_wait_that_cannot_be_borne() {
    let world = World::new();
    world.registry.push("demo", "1", &images::synthetic(&[20_000]));
    let absurd = Action::status(429, &[("Retry-After", "86400")], "");
    world.registry.fault(Fault::on("GET", "/manifests/").times(1).then(absurd));
    let error = world.pull("demo:1").unwrap_err();
    assert!(matches!(error, Error::Registry { status: 429, .. }), "{error:?}");
    let (observer, events) = recorder();
    run(world.puller().observer(observer).pull(&world.reference("demo:1"))).unwrap();
    let is_paused = |event: &Event| matches!(event, Event::Paused { .. });
    assert!(!events.lock().unwrap().iter().any(is_paused));
}

#[test]
fn a_mirror_that_wants_to_be_left_alone_is_passed_by() {
    // The settings of mirrors are tested in tests/endpoints; here it is what was said to others.
    let world = World::new();
    let image = images::synthetic(&[20_000]);
    world.registry.push("demo", "1", &image);
    let mirror = Registry::start();
    mirror.push("demo", "1", &image);
    world.store.hosts().unwrap().close(&mirror.url(""), Duration::from_secs(100)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join(world.registry.address());
    std::fs::create_dir(&hosts).unwrap();
    let text = format!(
        "server = {:?}\n[host.{:?}]\ncapabilities = [\"pull\", \"resolve\"]\n",
        world.registry.url(""),
        mirror.url("")
    );
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    let settings = layerstore::fetch::RegistrySettings::new().certs_dir(folder.path());
    let client = HttpRegistry::builder()
        .plain_http(world.registry.address())
        .settings(settings)
        .build()
        .unwrap();
    let begun = Instant::now();
    run(Puller::new(world.store.clone(), Arc::new(client)).pull(&world.reference("demo:1")))
        .unwrap();
    world.assert_has("demo:1", &image);
    assert_eq!(mirror.requests().len(), 0, "after {:?}", begun.elapsed());
}
