//! The images are what other tools would make of them.

use std::collections::BTreeSet;
use std::io::Read as _;

use crate::support::raw::Client;
use crate::support::{Image, Layer, Registry, images, media_type, sha256};

fn parse(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
    plain
}

#[test]
fn a_layer_is_a_gzipped_tar_of_its_files() {
    let files: [(&str, &[u8]); 2] = [("usr/bin/tool", b"#!"), ("usr/lib/data", &[7; 5000])];
    let layer = Layer::files(&files);
    let bytes = layer.content.to_vec();
    assert_eq!(layer.digest, sha256(&bytes));
    assert_eq!(layer.size, bytes.len() as u64);
    let tar = gunzip(&bytes);
    assert_eq!(layer.diff_id, sha256(&tar));
    let mut found = Vec::new();
    for entry in tar::Archive::new(&*tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        found.push((path, entry.header().mode().unwrap(), content));
    }
    let folder = |path: &str| (path.to_owned(), 0o755, Vec::new());
    let file = |(path, content): (&str, &[u8])| (path.to_owned(), 0o644, content.to_vec());
    assert_eq!(
        found,
        [folder("usr/"), folder("usr/bin/"), file(files[0]), folder("usr/lib/"), file(files[1])]
    );
    assert_eq!(Layer::files(&files).digest, layer.digest, "the same at every build");
    assert_eq!(Layer::plain_files(&files).digest, layer.diff_id);
}

/// Checks one image's manifest and config against its parts.
fn check(image: &Image, types: [&str; 4]) {
    let manifest = parse(&image.manifest);
    let config = image.config.as_ref().expect("an image has a config");
    assert_eq!(image.digest, sha256(&image.manifest));
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["mediaType"], types[0]);
    assert_eq!(image.media_type, types[0]);
    assert_eq!(manifest["config"]["mediaType"], types[1]);
    assert_eq!(manifest["config"]["digest"], *config.digest);
    assert_eq!(manifest["config"]["size"], config.size);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), image.layers.len());
    let config = parse(&config.content.to_vec());
    for (number, layer) in image.layers.iter().enumerate() {
        let descriptor = &manifest["layers"][number];
        let gzipped = layer.media_type == media_type::LAYER_GZIP;
        assert_eq!(descriptor["mediaType"], types[if gzipped { 2 } else { 3 }]);
        assert_eq!(descriptor["digest"], *layer.digest);
        assert_eq!(descriptor["size"], layer.size);
        assert_eq!(config["rootfs"]["diff_ids"][number], *layer.diff_id);
    }
}

#[test]
fn an_image_is_oci_or_docker() {
    let files: [(&str, &[u8]); 1] = [("a", b"b")];
    let layers = [Layer::files(&files), Layer::plain_files(&files)];
    let image = Image::for_platform("linux/arm64/v8", &layers);
    use media_type::*;
    check(&image, [MANIFEST, CONFIG, LAYER_GZIP, LAYER]);
    check(&image.docker(), [DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_LAYER]);
    let config = parse(&image.config.unwrap().content.to_vec());
    assert_eq!(config["os"], "linux");
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["variant"], "v8");
}

#[test]
fn a_docker_manifest_does_not_survive_being_written_anew() {
    let docker = Image::of(&[Layer::files(&[("a", b"b")])]).docker();
    assert_ne!(parse(&docker.manifest).to_string().into_bytes(), docker.manifest);
}

#[test]
fn an_index_lists_platforms_and_attestations() {
    let index = images::multi_platform(&["linux/amd64", "linux/arm/v7"]);
    let parsed = parse(&index.manifest);
    assert_eq!(parsed["mediaType"], media_type::INDEX);
    let children = parsed["manifests"].as_array().unwrap();
    assert_eq!(children.len(), 4);
    for (child, image) in children.iter().zip(&index.children) {
        assert_eq!(child["digest"], *image.digest);
        assert_eq!(child["size"], image.manifest.len());
        assert_eq!(child["mediaType"], *image.media_type);
    }
    assert_eq!(
        children[1]["platform"],
        serde_json::json!({"os": "linux", "architecture": "arm", "variant": "v7"})
    );
    for (attestation, image) in children[2..].iter().zip(children) {
        let unknown = serde_json::json!({"os": "unknown", "architecture": "unknown"});
        assert_eq!(attestation["platform"], unknown);
        let annotations = &attestation["annotations"];
        assert_eq!(annotations["vnd.docker.reference.type"], "attestation-manifest");
        assert_eq!(annotations["vnd.docker.reference.digest"], image["digest"]);
    }
    let list = index.docker();
    assert_eq!(list.media_type, media_type::DOCKER_LIST);
    assert_eq!(list.children.len(), 2);
    assert_eq!(list.children[0].media_type, media_type::DOCKER_MANIFEST);
}

#[test]
fn a_series_shares_layers() {
    let series = images::series(4);
    let layers: Vec<_> = series.iter().flat_map(|image| &image.layers).collect();
    let distinct: BTreeSet<_> = layers.iter().map(|layer| &layer.digest).collect();
    assert_eq!((layers.len(), distinct.len()), (12, 1 + 2 + 4));
    assert!(series.iter().all(|image| image.layers[0].digest == series[0].layers[0].digest));
    assert_eq!(series[2].layers[1].digest, series[3].layers[1].digest);
    assert_ne!(series[1].layers[1].digest, series[2].layers[1].digest);
}

#[test]
fn a_synthetic_image_has_the_sizes_asked_for() {
    let image = images::synthetic(&[0, 1, 100_000]);
    let sizes: Vec<_> = image.layers.iter().map(|layer| layer.size).collect();
    assert_eq!(sizes, [0, 1, 100_000]);
    check(&image, [media_type::MANIFEST, media_type::CONFIG, "", media_type::LAYER]);
}

#[test]
fn a_pushed_index_can_be_had_whole() {
    let registry = Registry::start();
    let index = images::multi_platform(&["linux/amd64", "linux/arm64/v8"]);
    registry.push("multi", "1", &index);
    let mut client = Client::connect(&registry);
    let manifests: BTreeSet<_> =
        index.children.iter().chain([&index]).map(|one| one.digest.clone()).collect();
    let closure = index.closure();
    // Index; four manifests and four configs; the common layer, two own, two attestations.
    assert_eq!(closure.len(), 1 + 4 + 4 + 1 + 2 + 2);
    for (digest, content) in closure {
        let kind = if manifests.contains(&digest) { "manifests" } else { "blobs" };
        let reply = client.get(&format!("/v2/multi/{kind}/{digest}"));
        assert_eq!(reply.status, 200);
        assert_eq!(reply.body, content.to_vec());
        assert_eq!(sha256(&reply.body), digest);
    }
}
