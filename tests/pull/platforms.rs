use super::*;
use crate::support::{Layer, images};
use layerstore::oci::{Platform, PlatformChoice};
use serde_json::json;

fn choice(platform: &str) -> PlatformChoice {
    PlatformChoice::One(platform.parse().unwrap())
}

fn platforms() -> Image {
    let host = Platform::host().to_string();
    images::multi_platform(&["windows/vax", &host, "linux/arm/v6", "linux/arm/v7"])
}

fn child<'a>(image: &'a Image, platform: &str) -> &'a Image {
    image.children.iter().find(|child| child.platform.as_deref() == Some(platform)).unwrap()
}

#[test]
fn one_platform_is_pulled_and_the_index_kept() {
    let world = World::new();
    let image = platforms();
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    let found = world.store.find_ref(&world.reference("demo:1").to_string()).unwrap();
    assert_eq!(found.descriptor.digest.to_string(), image.digest);
    let host = child(&image, &Platform::host().to_string());
    world.assert_blobs(host);
    for other in image.children.iter().filter(|other| other.digest != host.digest) {
        assert!(!world.has_blob(&other.digest), "{:?}", other.platform);
    }

    run(world.puller().platform(choice("linux/arm")).pull(&world.reference("demo:1"))).unwrap();
    world.assert_blobs(child(&image, "linux/arm/v7"));
    assert!(!world.has_blob(&child(&image, "linux/arm/v6").digest));

    let all = world.puller().platform(PlatformChoice::All);
    run(all.pull(&world.reference("demo:1"))).unwrap();
    world.assert_has("demo:1", &image);
}

#[test]
fn a_platform_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let world = World::new();
    world.registry.push("demo", "1", &platforms());
    let puller = world.puller().platform(choice("linux/s390x"));
    let error = run(puller.pull(&world.reference("demo:1"))).unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error:?}");
    assert!(error.to_string().contains("linux/arm/v6, linux/arm/v7"), "{error}");
    assert_eq!(world.store.refs().unwrap(), []);
}

#[test]
fn an_image_without_an_index_is_taken_unless_another_platform_was_asked_for_by_name() {
    let world = World::new();
    let image = Image::for_platform("linux/s390x", &[Layer::generated(1, 1000)]);
    world.registry.push("demo", "1", &image);
    let other = world.puller().platform(choice("linux/amd64"));
    let error = run(other.pull(&world.reference("demo:1"))).unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error:?}");
    assert!(!world.has_blob(&image.layers[0].digest), "no layer of it was fetched");
    let same = world.puller().platform(choice("linux/s390x"));
    run(same.pull(&world.reference("demo:1"))).unwrap();
    world.assert_has("demo:1", &image);
    let error = run(other_now(&world).pull(&world.reference("demo:1"))).unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "also when it is there: {error:?}");
    world.pull("demo:1").unwrap();
}

fn other_now(world: &World) -> Puller {
    world.puller().platform(choice("linux/amd64"))
}

#[test]
fn indexes_may_be_nested_but_not_without_end() {
    for (depth, fits) in [(4, true), (5, false)] {
        let world = World::new();
        let mut image = Image::for_platform("linux/amd64", &[Layer::generated(1, 1000)]);
        for _ in 0..depth {
            image = Image::index(&[image]);
        }
        world.registry.push("demo", "1", &image);
        let all = world.puller().platform(PlatformChoice::All);
        let result = run(all.pull(&world.reference("demo:1")));
        match result {
            Ok(_) => world.assert_has("demo:1", &image),
            Err(ref error) => assert!(error.to_string().contains("deeper"), "{error}"),
        }
        assert_eq!(result.is_ok(), fits, "{depth}: {result:?}");
    }
}

/// What they say is in memory until all is known.
#[test]
fn documents_that_are_too_much_together_are_refused() {
    let world = World::new();
    let child = |n: usize| {
        let image = Image::of(&[Layer::generated(n as u64, 10)]);
        image.edited(|manifest| manifest["annotations"] = json!({ "x": "y".repeat(4_000_000) }))
    };
    let children: Vec<_> = (0..17).map(child).collect();
    world.registry.push("demo", "1", &Image::index(&children));
    let all = world.puller().platform(PlatformChoice::All);
    let error = run(all.pull(&world.reference("demo:1"))).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 0x400_0000, .. }), "{error}");
    assert!(world.store.refs().unwrap().is_empty());
}
