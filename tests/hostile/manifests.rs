//! Manifests and indexes that lie, or ask for too much.

use serde_json::{Value, json};

use crate::case::{Case, refused, well};
use crate::scene::Scene;
use crate::support::{Action, Content, Fault, media_type, sha256};

/// A manifest with so many layers, all the same.
fn with_layers(count: usize) -> Vec<u8> {
    let hex = "0".repeat(64);
    let layer = format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{hex}","size":1}}"#
    );
    let config = format!(
        r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{hex}","size":1}}"#
    );
    let layers = vec![layer.as_str(); count].join(",");
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#).into_bytes()
}

fn entry(digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type::INDEX, "digest": digest, "size": size})
}

fn index_of(entries: &[Value]) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": entries});
    index.to_string().into_bytes()
}

/// An index of an index of an index, so many deep, each as it should be.
fn nested(scene: &Scene, depth: usize) -> Vec<u8> {
    let mut document = index_of(&[]);
    for _ in 1..depth {
        let digest = scene.registry.put_manifest("demo", None, media_type::INDEX, &*document);
        document = index_of(&[entry(&digest, document.len())]);
    }
    document
}

fn sized(scene: &mut Scene, size: &str) {
    let text = String::from_utf8(scene.image.manifest.clone()).unwrap();
    let changed = text.replacen("\"size\":200000", &format!("\"size\":{size}"), 1);
    assert_ne!(text, changed);
    scene.manifest(changed);
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = too_much();
    cases.extend(lies());
    cases
}

fn too_much() -> Vec<Case> {
    const LIMIT: &str = "larger than the limit of 4194304 bytes";
    vec![
        refused("a manifest without end", 1, LIMIT, |scene| {
            let fault = Fault::on("GET", "/manifests/1").then(Action::Long(1 << 50));
            scene.on(fault.then(Action::NoLength));
        }),
        refused("a manifest of 64 MiB", 1, LIMIT, |scene| {
            scene.on_manifest(Action::Long(64 << 20));
        }),
        refused("a manifest that says it has 2^62 bytes", 1, LIMIT, |scene| {
            scene.on_manifest(Action::status(
                200,
                &[("Content-Type", media_type::MANIFEST)],
                Content::generated(1, 1 << 62),
            ));
        }),
        refused("values ten thousand deep", 1, "not a usable manifest", |scene| {
            let (open, close) = ("{\"a\":".repeat(10_000), "}".repeat(10_000));
            scene.manifest(format!("{open}1{close}"));
        }),
        refused("a million layers", 1, LIMIT, |scene| scene.manifest(with_layers(1_000_000))),
        refused("twenty thousand layers", 1, "10000", |scene| {
            scene.manifest(with_layers(20_000));
        }),
        refused("a config of 9 MiB", 1, "larger than the limit of 8388608 bytes", |scene| {
            scene.edited(|it| it["config"]["size"] = json!(9 << 20));
        }),
        refused("indexes six deep", 1, "deep", |scene| {
            let document = nested(scene, 6);
            scene.index(document);
        }),
        refused("an index that has itself in it", 7, "does not match its digest", |scene| {
            let claimed = sha256(b"the digest of an index that has this digest in it");
            let document = index_of(&[entry(&claimed, 0)]);
            let size = document.len() + 2;
            let document = index_of(&[entry(&claimed, size)]);
            assert_eq!(document.len(), size);
            let answer = Action::status(200, &[("Content-Type", media_type::INDEX)], &*document);
            scene.index(document);
            scene.options.push("--all-platforms".to_owned());
            scene.on(Fault::on("GET", &claimed).then(answer));
        }),
    ]
}

fn lies() -> Vec<Case> {
    const UNUSABLE: &str = "not a usable manifest";
    vec![
        refused("a size below nothing", 1, UNUSABLE, |scene| sized(scene, "-1")),
        refused("a size of 2^63", 1, UNUSABLE, |scene| sized(scene, "9223372036854775808")),
        refused("a size that no disk has", 8, "no room for", |scene| {
            sized(scene, "4611686018427387904");
        }),
        refused("a digest that is a path", 1, UNUSABLE, |scene| {
            scene.edited(|it| it["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd"));
        }),
        refused("a digest in upper case", 1, "digest", |scene| {
            let upper = scene.layer()["sha256:".len()..].to_uppercase();
            scene.edited(|it| it["layers"][0]["digest"] = json!(format!("sha256:{upper}")));
        }),
        refused("a key twice", 1, "duplicate", |scene| {
            let text = String::from_utf8(scene.image.manifest.clone()).unwrap();
            scene.manifest(text.replacen('{', "{\"layers\":[],", 1));
        }),
        refused("layers and manifests", 1, UNUSABLE, |scene| {
            scene.edited(|it| it["manifests"] = json!([]));
        }),
        refused("a media type that is not that of the answer", 1, "it was announced as", |scene| {
            scene.edited(|it| it["mediaType"] = json!(media_type::DOCKER_MANIFEST));
        }),
        refused("no JSON", 1, UNUSABLE, |scene| scene.manifest("\u{feff}{]")),
        refused("a foreign layer that is a file of this machine", 6, "https only", |scene| {
            foreign(scene, "file:///etc/passwd");
        }),
        refused("data that is not what the digest names", 7, "does not match", |scene| {
            scene.edited(|it| {
                it["config"]["data"] = json!("AAAA");
                it["config"]["size"] = json!(3);
            });
        }),
        well("annotations that steer the terminal", |scene| {
            let image = scene.image.edited(|it| {
                it["annotations"] = json!({"org.opencontainers.image.title": "\u{1b}[2J\u{9b}2J"});
            });
            scene.registry.push("demo", "1", &image);
            scene.image = image;
        }),
        refused("a platform that steers the terminal", 4, "has no image for", |scene| {
            let mut child = entry(&scene.image.digest, scene.image.manifest.len());
            child["mediaType"] = json!(media_type::MANIFEST);
            child["platform"] = json!({"os": "\u{1b}[2J", "architecture": "\u{7}"});
            scene.index(index_of(&[child]));
        }),
        refused("schema 1", 1, "schema 1", |scene| {
            let headers =
                [("Content-Type", "application/vnd.docker.distribution.manifest.v1+json")];
            let body = r#"{"schemaVersion":1,"fsLayers":[]}"#;
            scene.on_manifest(Action::status(200, &headers, body));
        }),
    ]
}

/// The layer is foreign, and is said to be there; the registry does not have it.
fn foreign(scene: &mut Scene, url: &str) {
    scene.options.push("--include-foreign".to_owned());
    scene.edited(|it| {
        it["layers"][0]["mediaType"] = json!(media_type::LAYER_FOREIGN);
        it["layers"][0]["urls"] = json!([url]);
    });
    let missing = Action::error(404, "BLOB_UNKNOWN", "no");
    scene.on(Fault::on("GET", &scene.layer()).then(missing));
}
