//! An image layout that another tool made becomes a store, with its refs and all that it says.

mod store_support;

use std::fs;

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, ErrorKind};
use store_support::*;

/// A layout as umoci and skopeo write it: modes by the umask, short names, entries without one.
fn foreign(root: &std::path::Path) -> String {
    fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Algorithm::Sha256.digest(bytes);
        fs::write(root.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        serde_json::json!({ "digest": digest, "size": bytes.len(), "mediaType": CONFIG })
    };
    let config = put(b"{}");
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [] });
    let mut entry = put(manifest.to_string().as_bytes());
    entry["mediaType"] = MediaType::OCI_MANIFEST.into();
    let unnamed = entry.clone();
    entry["annotations"] =
        serde_json::json!({ "org.opencontainers.image.ref.name": "latest", "other": "kept" });
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [entry, unnamed],
        "annotations": { "of": "the whole" },
    });
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    for dir in ["", "blobs", "blobs/sha256"] {
        set_mode(&root.join(dir), 0o755);
    }
    index.to_string()
}

#[test]
fn a_foreign_layout_is_adopted_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = foreign(dir.path());
    assert_eq!(BlobStore::open(dir.path()).unwrap_err().kind(), ErrorKind::NoStore);
    let store = BlobStore::init(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("index.json")).unwrap(), text);
    let refs = store.refs().unwrap();
    let names: Vec<_> = refs.iter().map(|entry| entry.name.as_deref()).collect();
    assert_eq!(names, [Some("latest"), None]);
    assert_eq!(store.closure(&refs[0].descriptor).unwrap().len(), 2);
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");

    add_image(&store, "new:1", &[b"layer"]);
    assert!(store.remove_refs(&["latest".to_owned()]).unwrap()[0]);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["annotations"]["of"], "the whole");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "the unnamed one stays");
}

#[test]
fn a_layout_of_a_version_from_the_future_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    foreign(dir.path());
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion": "2.0.0"}"#).unwrap();
    let error = BlobStore::init(dir.path()).unwrap_err();
    assert!(matches!(error, layerstore::Error::UnsupportedVersion { .. }), "{error}");
    assert!(error.to_string().contains("2.0.0"), "{error}");
}

#[test]
fn a_store_of_a_version_from_the_future_is_left_alone() {
    let (_dir, store) = store();
    let version = store.root().join(".layerstore/version");
    fs::write(&version, "2\n").unwrap();
    for result in [BlobStore::open(store.root()), BlobStore::init(store.root())] {
        let error = result.unwrap_err();
        assert!(matches!(error, layerstore::Error::UnsupportedVersion { .. }), "{error}");
    }
    assert_eq!(fs::read_to_string(&version).unwrap(), "2\n");
}
