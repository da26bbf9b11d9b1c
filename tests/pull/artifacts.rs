//! What is no gzipped image for one platform: artifacts, other compressions, odd documents.

use super::*;
use crate::support::{Action, Fault, Layer, images, media_type as media};
use layerstore::oci::{Algorithm, MAX_DESCRIPTORS, MediaType, PlatformChoice};
use serde_json::json;

const SBOM: &str = "application/spdx+json";

#[test]
fn an_artifact_with_an_empty_config() {
    let world = World::new();
    let artifact = Image::artifact(SBOM, None, b"{\"spdxVersion\":\"SPDX-2.3\"}");
    world.registry.push("demo", "sbom", &artifact);
    world.pull("demo:sbom").unwrap();
    world.assert_has("demo:sbom", &artifact);
    // It is for no platform, so also for the one that somebody names.
    let named = PlatformChoice::One("linux/s390x".parse().unwrap());
    run(world.puller().platform(named).pull(&world.reference("demo:sbom"))).unwrap();
    assert!(world.store.check(&Default::default(), |_| {}).unwrap().is_sound());

    // The empty blob as config and as only layer (image specification, "Artifact Usage").
    let nothing = artifact.edited(|manifest| {
        manifest["layers"] = json!([manifest["config"].clone()]);
        manifest["annotations"] = json!({"org.example": "all that there is"});
    });
    world.registry.push("demo", "nothing", &Image { layers: Vec::new(), ..nothing.clone() });
    let pulled = world.pull("demo:nothing").unwrap();
    assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (1, 1));
}

#[test]
fn media_types_of_layers_are_passed_through() {
    let world = World::new();
    let layers = [
        Layer::plain_files(&[("etc/motd", b"plain")]),
        Layer::blob(media::LAYER_ZSTD, b"\x28\xb5\x2f\xfd is taken for what it says it is"),
        Layer::blob("application/vnd.example.weights", b"of a kind that nobody knows"),
        Layer::files(&[("etc/motd", b"gzip")]),
    ];
    let image = Image::of(&layers);
    world.registry.push("demo", "1", &image);
    world.pull("demo:1").unwrap();
    world.assert_has("demo:1", &image);
    let root = world.store.find_ref(&world.reference("demo:1").to_string()).unwrap().descriptor;
    let nodes = world.store.closure(&root).unwrap();
    for layer in &layers {
        let node = nodes.iter().find(|it| it.descriptor.digest.to_string() == layer.digest);
        let node = node.unwrap();
        assert_eq!(node.descriptor.media_type, MediaType::new(&layer.media_type));
        assert!(node.present);
    }
}

#[test]
fn what_content_type_descriptor_and_document_say_must_agree() {
    let image = images::synthetic(&[10]);
    let index = Image::index(std::slice::from_ref(&image));
    let nameless = |image: &Image| {
        image.edited(|document| {
            document.as_object_mut().unwrap().remove("mediaType");
        })
    };
    let sent_as = |digest: &str, media_type: &str, bytes: &[u8]| {
        let answer = Action::status(200, &[("Content-Type", media_type)], bytes.to_vec());
        Fault::on("GET", digest).then(answer)
    };

    // The child is sent as something else than its index says, and does not say itself.
    let child = nameless(&image);
    let parent = Image::index(std::slice::from_ref(&child));
    let world = World::new();
    world.registry.push("demo", "1", &parent);
    world.registry.fault(sent_as(&child.digest, media::DOCKER_MANIFEST, &child.manifest));
    let error = world.pull("demo:1").unwrap_err();
    assert!(error.to_string().contains("is sent as"), "{error}");

    // Its index says something else than it says itself.
    let lying = index.edited(|index| index["manifests"][0]["mediaType"] = json!(media::INDEX));
    let world = World::new();
    world.registry.push("demo", "1", &lying);
    assert!(world.pull("demo:1").is_err());

    // The registry says something else than the document.
    let world = World::new();
    world.registry.push("demo", "1", &image);
    world.registry.fault(sent_as("/manifests/", media::DOCKER_MANIFEST, &image.manifest));
    let error = world.pull("demo:1").unwrap_err();
    assert!(error.to_string().contains("calls itself"), "{error}");

    // A child that is sent without any type is what its index says.
    let world = World::new();
    world.registry.push("demo", "1", &parent);
    let silent = Action::status(200, &[], child.manifest.clone());
    world.registry.fault(Fault::on("GET", &child.digest).then(silent));
    world.pull("demo:1").unwrap();
}

#[test]
fn a_closure_has_its_limit_over_all_documents_together() {
    let entry = |n: usize| {
        json!({
            "mediaType": media::MANIFEST,
            "digest": support::sha256(&n.to_le_bytes()),
            "size": 100,
            "platform": {"os": "linux", "architecture": "vax"},
        })
    };
    let image = images::synthetic(&[10]);
    // The root, the image's manifest, config and layer are the other four.
    for (extra, fits) in [(MAX_DESCRIPTORS - 4, true), (MAX_DESCRIPTORS - 3, false)] {
        let index = Image::index(std::slice::from_ref(&image)).edited(|index| {
            index["manifests"].as_array_mut().unwrap().extend((0..extra).map(entry));
        });
        let world = World::new();
        world.registry.push("demo", "1", &index);
        let pulled = world.pull("demo:1");
        assert_eq!(pulled.is_ok(), fits, "{pulled:?}");
        match pulled {
            // What was pulled can be read.
            Ok(_) => {
                let name = world.reference("demo:1").to_string();
                let root = world.store.find_ref(&name).unwrap().descriptor;
                assert_eq!(world.store.closure(&root).unwrap().len(), MAX_DESCRIPTORS);
            }
            Err(error) => assert!(error.to_string().contains("more than 10000"), "{error}"),
        }
    }
}

#[test]
fn digests_of_sha512_name_layers_and_manifests() {
    let sha512 = |bytes: &[u8]| Algorithm::Sha512.digest(bytes).to_string();
    let world = World::new();
    let image = images::synthetic(&[1000, 300_000]);
    let large = image.layers[1].content.to_vec();
    let image = image.edited(|manifest| manifest["layers"][1]["digest"] = json!(sha512(&large)));
    world.registry.push("demo", "1", &image);
    world.registry.remove_blob(&image.layers[1].digest);
    world.registry.put_blob_as(&sha512(&large), large.clone());
    // The registry names manifests by their sha256, as most do.
    let digest = sha512(&image.manifest);
    let answer = |bytes: &[u8]| Action::status(200, &[("Content-Type", media::MANIFEST)], bytes);
    world.registry.fault(Fault::on("", "/manifests/sha512:").then(answer(&image.manifest)));
    for name in [format!("demo@{digest}"), format!("demo:1@{digest}"), "demo:1".to_owned()] {
        world.pull(&name).unwrap();
    }
    let blob = world.store.open_blob(&sha512(&large).parse().unwrap()).unwrap();
    assert_eq!(blob.map_unverified().unwrap().as_ref(), large);
    assert!(world.store.check(&Default::default(), |_| {}).unwrap().is_sound());

    world.registry.clear_faults();
    let other = images::synthetic(&[7]).manifest;
    world.registry.fault(Fault::on("", "/manifests/sha512:").then(answer(&other)));
    let error = World::beside(world.registry).pull(&format!("demo@{digest}")).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
}

#[test]
fn sizes_that_add_up_to_more_than_there_is() {
    let world = World::new();
    let image = images::synthetic(&[10, 20, 30]).edited(|manifest| {
        for layer in manifest["layers"].as_array_mut().unwrap() {
            layer["size"] = json!(i64::MAX);
        }
    });
    world.registry.push("demo", "1", &image);
    let error = world.pull("demo:1").unwrap_err();
    assert!(matches!(error, Error::NoRoom(_) | Error::SizeMismatch { .. }), "{error:?}");
    assert_eq!(world.store.refs().unwrap(), []);
}

#[test]
fn a_config_that_is_too_large_to_be_read_is_refused() {
    let world = World::new();
    let image = images::synthetic(&[10]);
    let large = Layer::generated(7, 8 * 1024 * 1024 + 1);
    let of = |media_type: &str| {
        let image = image.edited(|manifest| {
            let digest = &large.digest;
            manifest["config"] =
                json!({"mediaType": media_type, "digest": digest, "size": large.size});
        });
        Image { config: Some(large.clone()), ..image }
    };
    world.registry.push("demo", "image", &of(media::CONFIG));
    let error = world.pull("demo:image").unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 0x80_0000, .. }), "{error:?}");
    // What stands in its place in an artifact is nobody's to read.
    let artifact = of("application/vnd.example.model");
    world.registry.push("demo", "artifact", &artifact);
    world.pull("demo:artifact").unwrap();
    world.assert_has("demo:artifact", &artifact);
}
