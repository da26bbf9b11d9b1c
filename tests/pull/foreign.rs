//! Layers that their registry need not have.

use super::*;
use crate::support::{Action, Fault, Layer, media_type as media};
use layerstore::GcOptions;
use serde_json::json;

/// An image of an ordinary layer and a foreign one, which is to be had at these addresses.
fn image(media_type: &str, urls: &[String]) -> Image {
    let layers = [Layer::generated(1, 1000), Layer::generated(2, 300_000)];
    let image = Image::of(&layers);
    image.edited(|manifest| {
        manifest["layers"][1]["mediaType"] = json!(media_type);
        manifest["layers"][1]["urls"] = json!(urls);
    })
}

/// A world whose registry has all of the image but the foreign layer.
fn world(image: &Image) -> World {
    let world = World::new();
    world.registry.push("demo", "1", image);
    world.registry.remove_blob(&image.layers[1].digest);
    world
}

/// Another server, that has the foreign layer at the address returned.
fn elsewhere(of: &Image) -> (Registry, String) {
    let server = Registry::start();
    let digest = server.put_blob(of.layers[1].content.clone());
    let url = server.url(&format!("/v2/any/blobs/{digest}"));
    (server, url)
}

#[test]
fn a_foreign_layer_is_left_out_and_the_image_is_whole_without() {
    for media_type in [media::LAYER_FOREIGN, media::DOCKER_LAYER_FOREIGN] {
        let image = image(media_type, &["https://127.0.0.1:1/layer".to_owned()]);
        let world = world(&image);
        let (observer, events) = recorder();
        let pulled =
            run(world.puller().observer(observer).pull(&world.reference("demo:1"))).unwrap();
        assert_eq!((pulled.foreign_blobs, pulled.foreign_bytes), (1, 300_000));
        assert_eq!(pulled.fetched_blobs, 3, "manifest, config, layer");
        let told = events.lock().unwrap().iter().any(|event| {
            matches!(event, Event::Foreign { digest, size: 300_000, urls }
                if digest.to_string() == image.layers[1].digest && urls.len() == 1)
        });
        assert!(told, "{events:?}");

        // It is no damage, and again there is nothing to do.
        let report = world.store.check(&Default::default(), |_| {}).unwrap();
        assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
        assert_eq!(world.store.usage().unwrap().images[0].problem, None);
        world.registry.clear_requests();
        let again = world.pull("demo:1").unwrap();
        assert_eq!((again.foreign_blobs, again.fetched_blobs), (1, 0));
        assert_eq!(world.registry.requests().len(), 1);
        let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
        assert_eq!(layerstore::gc::collect(&world.store, &options).unwrap().removed, 0);
    }
}

#[test]
fn an_ordinary_layer_that_is_gone_is_damage_beside_a_foreign_one() {
    let image = image(media::LAYER_FOREIGN, &[]);
    let world = world(&image);
    world.pull("demo:1").unwrap();
    let hex = &image.layers[0].digest["sha256:".len()..];
    std::fs::remove_file(world.store.root().join("blobs/sha256").join(hex)).unwrap();
    assert!(!world.store.check(&Default::default(), |_| {}).unwrap().is_sound());
}

#[test]
fn included_it_comes_from_its_addresses_and_without_credentials() {
    let layer = image(media::LAYER_FOREIGN, &[]);
    let (server, url) = elsewhere(&layer);
    let image = image(media::LAYER_FOREIGN, &["https://127.0.0.1:1/gone".to_owned(), url]);
    let world = World::beside(Registry::builder().basic("ann", "canary-secret").start());
    world.registry.push("demo", "1", &image);
    world.registry.remove_blob(&image.layers[1].digest);
    let address = world.registry.address();
    let credentials = layerstore::fetch::Credentials::new("ann", "canary-secret");
    let client = HttpRegistry::builder()
        .plain_http(address.clone())
        .auth(layerstore::fetch::StaticCredentials::new(address, credentials))
        .build()
        .unwrap();
    let puller = Puller::new(world.store.clone(), Arc::new(client)).include_foreign(true);
    let pulled = run(puller.pull(&world.reference("demo:1"))).unwrap();
    assert_eq!((pulled.foreign_blobs, pulled.fetched_blobs), (0, 4));
    world.assert_has("demo:1", &image);
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].authorization.is_none(), "{requests:?}");

    // What is there is kept, also by a pull that does not ask for it.
    let again = world.store.check(&Default::default(), |_| {}).unwrap();
    assert!(again.is_sound());
    let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    assert_eq!(layerstore::gc::collect(&world.store, &options).unwrap().removed, 0);
}

#[test]
fn one_that_was_left_out_is_fetched_when_it_is_asked_for() {
    let layer = image(media::LAYER_FOREIGN, &[]);
    let (server, url) = elsewhere(&layer);
    let image = image(media::LAYER_FOREIGN, &[url]);
    let world = world(&image);
    world.pull("demo:1").unwrap();
    assert_eq!(server.requests().len(), 0);
    let pulled = run(world.puller().include_foreign(true).pull(&world.reference("demo:1")));
    assert_eq!(pulled.unwrap().fetched_blobs, 1);
    world.assert_has("demo:1", &image);
}

/// It was asked for once. Another tool's copy of it that is wrong is not fetched for who does not ask for it.
#[test]
fn one_that_turns_out_to_be_damaged_is_left_out() {
    let layer = image(media::LAYER_FOREIGN, &[]);
    let (server, url) = elsewhere(&layer);
    let image = image(media::LAYER_FOREIGN, &[url]);
    let world = world(&image);
    let reference = world.reference("demo:1");
    run(world.puller().include_foreign(true).pull(&reference)).unwrap();
    for is_named in [true, false] {
        if !is_named {
            run(world.puller().include_foreign(true).pull(&reference)).unwrap();
            world.store.remove_refs(&[reference.to_string()]).unwrap();
        }
        super::heal::rot(&world, &image.layers[1].digest);
        server.clear_requests();
        let pulled = world.pull("demo:1").unwrap();
        assert_eq!((pulled.foreign_blobs, pulled.foreign_bytes), (1, 300_000), "{pulled:?}");
        assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (0, 3), "{pulled:?}");
        assert_eq!(server.requests().len(), 0);
    }
}

#[test]
fn without_an_address_the_registry_is_asked() {
    let image = image(media::LAYER_FOREIGN, &[]);
    let world = World::new();
    world.registry.push("demo", "1", &image);
    run(world.puller().include_foreign(true).pull(&world.reference("demo:1"))).unwrap();
    world.assert_has("demo:1", &image);
}

#[test]
fn what_an_address_gives_is_checked() {
    let layer = image(media::LAYER_FOREIGN, &[]);
    let (server, url) = elsewhere(&layer);
    let digest = &layer.layers[1].digest;
    server.fault(Fault::on("GET", digest).then(Action::Corrupt(1000)));
    let image = image(media::LAYER_FOREIGN, &[url]);
    let world = world(&image);
    let error =
        run(world.puller().include_foreign(true).pull(&world.reference("demo:1"))).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    assert!(!world.has_blob(digest));
    assert_eq!(world.store.refs().unwrap(), []);
}

#[test]
fn addresses_that_are_not_asked() {
    // The server is there, under a name of this machine; but nobody allowed plain HTTP for this
    // image, or the address is of another kind.
    let layer = image(media::LAYER_FOREIGN, &[]);
    let (server, url) = elsewhere(&layer);
    for bad in [
        url.replace("http://", "http://user:password@"),
        url.replace("http://", "ftp://"),
        "not an address".to_owned(),
        String::new(),
    ] {
        let image = image(media::LAYER_FOREIGN, std::slice::from_ref(&bad));
        let world = world(&image);
        let error =
            run(world.puller().include_foreign(true).pull(&world.reference("demo:1"))).unwrap_err();
        let refused = matches!(error, Error::BadResponse { .. } | Error::InvalidDocument { .. });
        assert!(refused, "{bad}: {error:?}");
        assert!(!error.to_string().contains("password"), "{error}");
    }
    assert_eq!(server.requests().len(), 0);
}
