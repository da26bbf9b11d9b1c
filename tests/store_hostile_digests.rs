//! Thirty hostile digests at every door: none becomes a path.

mod store_support;

use std::fs;

use layerstore::oci::{Algorithm, Document, MediaType};
use layerstore::{BlobStore, Digest, Reference};
use store_support::*;

const GOOD: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn hostile() -> Vec<String> {
    let mut list: Vec<String> = [
        "",
        ":",
        "sha256",
        "sha256:",
        "sha256:..",
        "sha256:../../../../../../../../../../../../../../../../../../../../etc",
        "sha256:/etc/passwd",
        "sha256:.",
        "../sha256:x",
        "..:..",
        "blobs:index.json",
        "sha256:index.json",
        "sha256:%2e%2e%2f",
    ]
    .map(str::to_owned)
    .into();
    list.extend([
        GOOD.to_owned(),
        format!(":{GOOD}"),
        format!("sha256:{}", &GOOD[1..]),
        format!("sha256:{GOOD}0"),
        format!("sha256:{GOOD}/"),
        format!("sha256:{}/../x", &GOOD[5..]),
        format!("sha256:{}", GOOD.to_uppercase()),
        format!("SHA256:{GOOD}"),
        format!("sha256:{GOOD}\n"),
        format!("sha256:{GOOD}\0"),
        format!("sha256: {}", &GOOD[1..]),
        format!("sha512:{GOOD}"),
        format!("md5:{}", &GOOD[..32]),
        format!("sha256/..:{GOOD}"),
        format!("sha256:{}é", &GOOD[2..]),
        format!("sha256:{}", "g".repeat(64)),
        format!("sha256::{}", &GOOD[1..]),
        format!("blake3:{}", "/".repeat(64)),
        format!("sha256:{}", ".".repeat(64)),
    ]);
    assert!(list.len() >= 30);
    list
}

/// Every name below `dir`.
fn names(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(names(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
fn none_is_parsed() {
    for text in hostile() {
        assert!(text.parse::<Digest>().is_err(), "{text:?}");
        assert!(serde_json::from_value::<Digest>(text.clone().into()).is_err(), "{text:?}");
        if !text.is_empty() {
            let name = format!("localhost/a@{text}");
            assert!(name.parse::<Reference>().is_err(), "{name:?}");
        }
        if let Some((_, hex)) = text.split_once(':') {
            // A hash of 64 good digits is one, whatever algorithm was written before it.
            assert!(hex == GOOD || Digest::from_hex(Algorithm::Sha256, hex).is_err(), "{text:?}");
            assert!(Digest::from_hex(Algorithm::Sha512, hex).is_err(), "{text:?}");
        }
    }
}

#[test]
fn none_is_followed_from_a_document() {
    for text in hostile() {
        let good = serde_json::json!({ "mediaType": LAYER, "digest": format!("sha256:{GOOD}"), "size": 0 });
        let bad = serde_json::json!({ "mediaType": LAYER, "digest": text, "size": 0 });
        let manifest = |config: &serde_json::Value, layer: &serde_json::Value| {
            serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer] })
                .to_string()
        };
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [bad] }).to_string();
        for (bytes, media_type) in [
            (manifest(&good, &bad), MediaType::OCI_MANIFEST),
            (manifest(&bad, &good), MediaType::DOCKER_MANIFEST),
            (index, MediaType::OCI_INDEX),
        ] {
            let parsed = Document::parse(bytes.as_bytes(), &MediaType::new(media_type));
            assert!(parsed.is_err(), "{text:?} in a {media_type}");
            assert_eq!(Document::sniff(bytes.as_bytes()), None);
        }
    }
}

#[test]
fn none_is_followed_from_the_stores_own_files() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "somebody's").unwrap();
    for text in hostile() {
        let root = dir.path().join("store");
        let store = BlobStore::init(&root).unwrap();
        let index = root.join("index.json");
        let entry = serde_json::json!({
            "mediaType": MediaType::OCI_MANIFEST,
            "digest": text,
            "size": 10,
            "annotations": { "org.opencontainers.image.ref.name": "a:1" },
        });
        let list = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(&index, list.to_string()).unwrap();
        let before = names(dir.path());
        assert_eq!(store.refs().unwrap(), [], "{text:?}");
        assert!(store.find_ref("a:1").is_err(), "{text:?}");
        assert!(store.usage().is_err(), "{text:?}");
        let lease = store.lease("test").unwrap();
        assert!(store.tag(&lease, "a:1", "b:1").is_err(), "{text:?}");
        drop(lease);
        let report = store.check(&Default::default(), |_| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "{text:?}: {report:?}");

        let line = format!("blob {text}");
        let lease_file = root.join(".layerstore/leases/0123456789abcdef0123456789abcdef");
        fs::write(&lease_file, format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes())))
            .unwrap();
        assert!(store.leases().is_err(), "{text:?}");
        fs::remove_file(lease_file).unwrap();
        assert_eq!(names(dir.path()), before, "{text:?}");
        fs::remove_dir_all(&root).unwrap();
    }
    assert_eq!(fs::read_to_string(victim).unwrap(), "somebody's");
}
