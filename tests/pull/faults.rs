use super::*;
use crate::support::{Action, Fault, images};
use layerstore::ErrorKind;

const SIZE: u64 = 400_000;

/// Pulls an image whose layer the server sends as `action` says, every time.
fn pull_with(action: Action) -> (World, Image, Error) {
    let world = World::new();
    let image = images::synthetic(&[SIZE]);
    world.registry.push("demo", "1", &image);
    world.registry.fault(Fault::on("GET", &image.layers[0].digest).then(action));
    let error = world.pull("demo:1").unwrap_err();
    (world, image, error)
}

#[test]
fn wrong_bytes_are_noticed_and_not_kept() {
    let (world, image, error) = pull_with(Action::Corrupt(123_456));
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains(&image.layers[0].digest), "{error}");
    assert_eq!(world.store.refs().unwrap(), []);
    assert!(!world.has_blob(&image.layers[0].digest));
    world.assert_tidy(0);
}

#[test]
fn short_and_long_bodies_are_noticed() {
    for (action, parts) in
        [(Action::Short(1000), 1), (Action::Long(1), 1), (Action::Long(1 << 20), 1)]
    {
        let (world, image, error) = pull_with(action);
        let sized = matches!(error, Error::SizeMismatch { .. } | Error::BadResponse { .. });
        assert!(sized || error.kind() == ErrorKind::Network, "{error:?}");
        assert!(!world.has_blob(&image.layers[0].digest));
        assert!(world.names_in(".layerstore/parts").len() <= 2 * parts);
        assert_eq!(world.names_in(".layerstore/leases"), [""; 0]);
        // What is left can be continued.
        world.registry.clear_faults();
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
        world.assert_tidy(0);
    }
}

#[test]
fn what_passes_is_tried_again() {
    let world = World::new();
    let image = images::synthetic(&[SIZE]);
    world.registry.push("demo", "1", &image);
    let layer = &image.layers[0].digest;
    world.registry.fault(Fault::on("GET", "/manifests/").times(2).then(Action::Close));
    world.registry.fault(Fault::on("GET", layer).times(1).then(Action::status(503, &[], "")));
    world.registry.fault(Fault::on("GET", layer).times(1).then(Action::status(
        429,
        &[("Retry-After", "0")],
        "",
    )));
    let (observer, events) = recorder();
    let pulled = run(world.puller().observer(observer).pull(&world.reference("demo:1"))).unwrap();
    assert_eq!(pulled.retries, 4);
    let told =
        events.lock().unwrap().iter().filter(|e| matches!(e, Event::Retrying { .. })).count();
    assert_eq!(told, 4);
    world.assert_has("demo:1", &image);
}

#[test]
fn what_lasts_is_an_error_that_says_what_the_registry_said() {
    let (_, _, error) = pull_with(Action::error(503, "UNAVAILABLE", "go away"));
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("503: UNAVAILABLE (go away)"), "{error}");

    let world = World::new();
    world.registry.push("demo", "1", &images::synthetic(&[1]));
    let error = world.pull("demo:none").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
}

#[test]
fn who_takes_bytes_slowly_is_not_timed_out() {
    let world = World::new();
    let image = images::synthetic(&[200_000]);
    world.registry.push("demo", "1", &image);
    // Bytes are waited for, and what has come is paid for meanwhile: for longer than a server may take.
    let stall = Action::StallAfter(100_000, Duration::from_millis(400));
    let fault = world.registry.fault(Fault::on("GET", &image.layers[0].digest).then(stall));
    let client = HttpRegistry::builder().plain_http(world.registry.address());
    let client = client.read_timeout(Duration::from_millis(700)).build().unwrap();
    let mut patience = RetryPolicy::default();
    patience.retries = 0;
    let puller = Puller::new(world.store.clone(), Arc::new(client)).retry(patience);
    run(puller.limit_rate(80_000).pull(&world.reference("demo:1"))).unwrap();
    assert_eq!(fault.hits(), 1);
    world.assert_has("demo:1", &image);
}

#[test]
fn nobody_there() {
    let world = World::new();
    let reference: Reference = "127.0.0.1:1/demo:1".parse().unwrap();
    let client = HttpRegistry::builder().plain_http("127.0.0.1:1").build().unwrap();
    let mut patience = RetryPolicy::default();
    patience.first_delay = Duration::from_millis(1);
    let puller = Puller::new(world.store.clone(), Arc::new(client)).retry(patience);
    let error = run(puller.pull(&reference)).unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
    assert!(error.to_string().to_lowercase().contains("connection refused"), "{error}");
}

#[test]
fn manifests_are_checked() {
    let image = images::synthetic(&[10]);
    let cases: [(Action, &str); 3] = [
        (Action::wrong_digest(), "digest"),
        (Action::content_type("text/html"), "text/html"),
        (
            Action::content_type("application/vnd.docker.distribution.manifest.v1+json"),
            "calls itself",
        ),
    ];
    for (action, said) in cases {
        let world = World::new();
        world.registry.push("demo", "1", &image);
        world.registry.fault(Fault::on("GET", "/manifests/").then(action));
        let error = world.pull("demo:1").unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
        assert_eq!(world.names_in("blobs/sha256"), [""; 0]);
        world.assert_tidy(0);
    }
    let world = World::new();
    world.registry.push("demo", "1", &image);
    let name = format!("demo@{}", image.digest);
    world.registry.fault(Fault::on("GET", "/manifests/").then(Action::Corrupt(20)));
    let error = world.pull(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error:?}");
    world.registry.clear_faults();
    let huge = Action::status(200, &[("Content-Type", &image.media_type)], vec![b' '; 4 << 20 | 1]);
    world.registry.fault(Fault::on("GET", "/manifests/").then(huge));
    let error = world.pull("demo:1").unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[test]
fn schema_1_is_refused_with_advice() {
    let world = World::new();
    let text = r#"{"schemaVersion":1,"name":"demo","tag":"1","fsLayers":[],"history":[]}"#;
    let media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let answer = Action::status(200, &[("Content-Type", media_type)], text);
    world.registry.push("demo", "1", &images::synthetic(&[1]));
    world.registry.fault(Fault::on("GET", "/manifests/").then(answer));
    let error = world.pull("demo:1").unwrap_err();
    assert!(matches!(error, Error::Schema1), "{error:?}");
    assert!(error.to_string().contains("push it again"), "{error}");
}
