use super::*;
use crate::support::images;
use layerstore::fetch::PullPolicy;

#[test]
fn an_image_that_is_there_costs_one_head() {
    let world = World::new();
    let image = images::multi_platform(&["linux/amd64", "linux/arm64"]);
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    world.registry.clear_requests();
    let again = world.pull("demo:1").unwrap();
    let requests: Vec<_> = world.registry.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(requests, ["HEAD"]);
    assert_eq!((again.fetched_blobs, again.fetched_bytes), (0, 0));
    assert!(again.reused_blobs >= 4 && again.reused_bytes == again.size);
}

#[test]
fn a_moved_tag_is_followed_and_only_what_is_new_is_fetched() {
    let world = World::new();
    let [first, second]: [Image; 2] = images::series(2).try_into().unwrap();
    world.registry.push("demo", "1", &first);
    world.pull("demo:1").unwrap();
    world.registry.push("demo", "1", &second);
    let pulled = world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &second);
    assert_eq!(world.store.refs().unwrap().len(), 1);
    assert_eq!(pulled.reused_blobs, 2, "base and runtime");
    assert_eq!(pulled.fetched_blobs, 3, "manifest, config and application");
}

#[test]
fn missing_asks_nobody_when_all_is_there() {
    let world = World::new();
    let image = images::synthetic(&[1000]);
    world.registry.push("demo", "1", &image);
    let missing = || world.puller().policy(PullPolicy::Missing);
    run(missing().pull(&world.reference("demo:1"))).unwrap();
    world.registry.clear_requests();
    run(missing().pull(&world.reference("demo:1"))).unwrap();
    assert_eq!(world.registry.requests().len(), 0);
    // A hole in the image is no image.
    let hex = image.layers[0].digest.trim_start_matches("sha256:");
    std::fs::remove_file(world.store.root().join("blobs/sha256").join(hex)).unwrap();
    run(missing().pull(&world.reference("demo:1"))).unwrap();
    world.assert_has("demo:1", &image);
}

#[test]
fn never_asks_nobody_ever() {
    let world = World::new();
    let image = images::synthetic(&[1000]);
    world.registry.push("demo", "1", &image);
    let never = || run(world.puller().policy(PullPolicy::Never).pull(&world.reference("demo:1")));
    assert!(matches!(never(), Err(Error::RefNotFound { .. })));
    assert_eq!(world.registry.requests().len(), 0);
    world.pull("demo:1").unwrap();
    world.registry.clear_requests();
    assert_eq!(never().unwrap().reused_blobs, 3);
    assert_eq!(world.registry.requests().len(), 0);
}

#[test]
fn an_index_that_names_another_again_and_again_is_followed_once() {
    let world = World::new();
    let image = images::synthetic(&[1000]);
    world.registry.push("demo", "0", &image);
    let (mut digest, mut size) = (image.digest.clone(), image.manifest.len());
    let mut media_type = image.media_type.clone();
    for level in 1..=3 {
        let child = serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size });
        media_type = "application/vnd.oci.image.index.v1+json".to_owned();
        let text = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "manifests": vec![child; 400],
        });
        let bytes = text.to_string().into_bytes();
        size = bytes.len();
        let tag = level.to_string();
        digest = world.registry.put_manifest("demo", Some(tag.as_str()), &media_type, bytes);
    }
    // The second time all is there already, and is looked through.
    for _ in 0..2 {
        let all = world.puller().platform(layerstore::oci::PlatformChoice::All);
        run(all.pull(&world.reference("demo:3"))).unwrap();
    }
    world.assert_blobs(&image);
}
