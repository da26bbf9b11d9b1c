use super::*;
use crate::support::{Action, Bearer, Fault, images};
use layerstore::fetch::{Credentials, StaticCredentials};

#[test]
fn every_blob_is_there_byte_for_byte_and_the_report_adds_up() {
    let world = World::new();
    let image = images::synthetic(&[0, 1, 100_000, 3_000_000]);
    world.registry.push("demo", "1", &image);
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    world.assert_tidy(0);

    let sizes: u64 = image.closure().iter().map(|(_, content)| content.len()).sum();
    assert_eq!(pulled.name, world.reference("demo:1").to_string());
    assert_eq!(pulled.digest.to_string(), image.digest);
    assert_eq!(pulled.media_type.as_str(), image.media_type);
    assert_eq!((pulled.size, pulled.fetched_bytes), (sizes, sizes));
    assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (6, 0));
    assert_eq!((pulled.resumed_bytes, pulled.waited_blobs, pulled.retries), (0, 0, 0));
    for layer in &image.layers {
        // There is nothing to be asked for of an empty blob.
        let expected = usize::from(!layer.content.is_empty());
        assert_eq!(world.registry.blob_sends(&layer.digest), expected);
    }
}

#[test]
fn docker_manifests_and_lists_are_kept_as_they_are() {
    for image in [images::synthetic(&[10]), images::multi_platform(&["linux/amd64"])] {
        let world = World::new();
        let image = image.docker();
        assert!(image.media_type.contains("docker"));
        world.registry.push("demo", "1", &image);
        world.pull("demo:1").unwrap();
        world.assert_has("demo:1", &image);
    }
}

#[test]
fn by_tag_by_digest_and_by_both() {
    let world = World::new();
    let [old, new] = [images::synthetic(&[10]), images::synthetic(&[20])];
    world.registry.push("demo", "1", &old);
    world.registry.push("demo", "1", &new);
    for name in [format!("demo@{}", old.digest), format!("demo:1@{}", old.digest)] {
        world.pull(&name).unwrap();
        world.assert_has(&name, &old);
    }
    world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &new);
    let names: Vec<_> = world.store.refs().unwrap().into_iter().map(|r| r.name.unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn images_share_their_layers() {
    let world = World::new();
    let series = images::series(3);
    for (n, image) in series.iter().enumerate() {
        world.registry.push("demo", &n.to_string(), image);
        world.pull(&format!("demo:{n}")).unwrap();
    }
    for (n, image) in series.iter().enumerate() {
        world.assert_has(&format!("demo:{n}"), image);
        for layer in &image.layers {
            assert_eq!(world.registry.blob_sends(&layer.digest), 1);
        }
    }
}

#[test]
fn credentials_of_every_kind() {
    let image = images::synthetic(&[1000]);
    let build = |kind: usize| match kind {
        0 => Registry::builder().basic("ann", "secret").start(),
        1 => Registry::builder().bearer(Bearer::user("ann", "secret")).start(),
        2 => Registry::builder()
            .bearer(Bearer::user("ann", "secret").fields(&["access_token"]))
            .start(),
        _ => Registry::builder().bearer(Bearer::anonymous()).start(),
    };
    for kind in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::init(dir.path()).unwrap();
        let registry = build(kind);
        registry.push("demo", "1", &image);
        let reference: Reference = registry.reference("demo:1").parse().unwrap();
        let client = |password: &str| {
            let credentials =
                StaticCredentials::new(registry.address(), Credentials::new("ann", password));
            let builder = HttpRegistry::builder().plain_http(registry.address());
            Puller::new(store.clone(), Arc::new(builder.auth(credentials).build().unwrap()))
        };
        if kind < 3 {
            let error = run(client("xyzzy").pull(&reference)).unwrap_err();
            assert!(matches!(error, Error::Unauthorized { .. }), "{kind}: {error:?}");
            assert!(!error.to_string().contains("xyzzy"), "{error}");
        }
        run(client("secret").pull(&reference)).unwrap();
    }
}

#[test]
fn events_tell_the_story() {
    let world = World::new();
    let image = images::synthetic(&[100, 2_000_000]);
    world.registry.push("demo", "1", &image);
    let (observer, events) = recorder();
    run(world.puller().observer(observer).pull(&world.reference("demo:1"))).unwrap();
    let events = events.lock().unwrap();
    let large = image.layers[1].digest.parse::<Digest>().unwrap();
    let steps: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Advanced { digest, done } if *digest == large => Some(*done),
            _ => None,
        })
        .collect();
    assert!(steps.len() > 2 && steps.is_sorted(), "{steps:?}");
    let finished = events.iter().filter(|e| matches!(e, Event::Finished { .. })).count();
    assert_eq!(finished, 3, "config and two layers");
    assert!(matches!(events[0], Event::Resolved { .. }), "{:?}", events[0]);
}

#[test]
fn one_blob_with_two_sizes_or_two_natures_is_refused() {
    let world = World::new();
    let base = images::synthetic(&[1000, 2000]);
    let twice = base.edited(|manifest| {
        let mut again = manifest["layers"][0].clone();
        again["size"] = serde_json::json!(999);
        manifest["layers"].as_array_mut().unwrap().push(again);
    });
    let nature = base.edited(|manifest| {
        let config = manifest["config"].clone();
        manifest["layers"].as_array_mut().unwrap().push(config);
        manifest["layers"][2]["mediaType"] =
            serde_json::json!("application/vnd.oci.image.manifest.v1+json");
    });
    for (tag, image) in [("sizes", &twice), ("natures", &nature)] {
        world.registry.push("demo", tag, image);
        let error = world.pull(&format!("demo:{tag}")).unwrap_err();
        assert!(matches!(error, Error::InvalidDocument { digest: Some(_), .. }), "{error:?}");
        assert!(error.to_string().contains("is listed"), "{error}");
    }
    assert_eq!(world.store.refs().unwrap().len(), 0);
    // The same blob twice is none of that.
    let same = base.edited(|manifest| {
        let again = manifest["layers"][0].clone();
        manifest["layers"].as_array_mut().unwrap().push(again);
    });
    world.registry.push("demo", "same", &same);
    world.pull("demo:same").unwrap();
}

#[test]
fn small_blobs_come_before_large_ones_and_the_config_before_all() {
    let world = World::new();
    let image = images::synthetic(&[300_000, 20_000, 200_000, 10_000]);
    world.registry.push("demo", "1", &image);
    run(world.puller().concurrency(1).pull(&world.reference("demo:1"))).unwrap();
    let requests = world.registry.requests();
    let asked: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.path.split_once("/blobs/").map(|(_, digest)| digest))
        .collect();
    let layers = [3, 1, 2, 0].map(|n| image.layers[n].digest.as_str());
    assert_eq!(asked[0], image.config.as_ref().unwrap().digest);
    assert_eq!(asked[1..], layers);
}

#[test]
fn no_more_blobs_are_fetched_at_once_than_was_said() {
    for limit in [1, 3] {
        let world = World::new();
        let image = images::synthetic(&[1000, 2000, 3000, 4000, 5000, 6000]);
        world.registry.push("demo", "1", &image);
        // Each waits until as many are held as may be; one more would be held beside them.
        for layer in &image.layers {
            world.registry.fault(Fault::on("GET", &layer.digest).then(Action::Hold(100)));
        }
        let (puller, reference) = (world.puller().concurrency(limit), world.reference("demo:1"));
        let mut most = 0;
        std::thread::scope(|scope| {
            let pull = scope.spawn(|| run(puller.pull(&reference)));
            while !pull.is_finished() {
                if world.registry.held() >= limit || pull.is_finished() {
                    std::thread::sleep(Duration::from_millis(50));
                    most = most.max(world.registry.held());
                    world.registry.clear_faults();
                    world.registry.release();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            pull.join().unwrap().unwrap();
        });
        assert_eq!(most, limit, "held at once");
        world.assert_has("demo:1", &image);
    }
}
