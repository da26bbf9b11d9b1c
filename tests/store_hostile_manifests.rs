//! Manifests that lie, and what they must not do to the blobs of others.

mod store_support;

use std::fs;
use std::time::{Duration, SystemTime};

use layerstore::gc::{self, GcOptions};
use layerstore::oci::MediaType;
use layerstore::{Claim, Error};
use store_support::{add_image, blob_path, descriptor, index_text, put, put_image, store};

fn at_once() -> GcOptions {
    GcOptions { grace: Duration::ZERO, ..GcOptions::default() }
}

#[test]
fn a_part_that_is_a_second_name_of_a_blob_is_never_written_to() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"the layer of somebody"]);
    let blob = blob_path(&store, &image.layers[0]);
    let stem = format!("sha256-{}", image.layers[0].hex());
    for wrong_size in [3, 1000] {
        // What is left where a link and an unlink stand for a rename, and the process dies between.
        let part = store.root().join(format!(".layerstore/parts/{stem}.part"));
        fs::hard_link(&blob, &part).unwrap();
        let lease = store.lease("test").unwrap();
        let pinned = lease.pin_one(image.layers[0], wrong_size).unwrap();
        assert!(!pinned.is_present());
        let Claim::Held(mut download) = store.claim(&pinned).unwrap() else { panic!("not held") };
        download.write(b"xyz").unwrap();
        download.restart().unwrap();
        download.discard().unwrap();
        assert_eq!(fs::read(&blob).unwrap(), b"the layer of somebody");
        let _ = fs::remove_file(part);
    }
}

#[test]
fn a_smaller_size_does_not_throw_another_download_away() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let digest = layerstore::oci::Algorithm::Sha256.digest(b"the whole blob");
    let pinned = lease.pin_one(digest, 14).unwrap();
    let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
    part.write(b"the whole").unwrap();
    drop(part);
    let lie = lease.pin_one(digest, 2).unwrap();
    let Claim::Held(part) = store.claim(&lie).unwrap() else { panic!("not held") };
    assert!(part.is_empty());
    drop(part);
    let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
    assert_eq!(part.len(), 9);
    part.write(b" blob").unwrap();
    part.commit().unwrap();
}

#[test]
fn an_index_cannot_stop_collections() {
    let (_dir, store) = store();
    let good = add_image(&store, "a:1", &[b"layer"]);
    let lease = store.lease("test").unwrap();
    let json_layer = put(&store, &lease, br#"{"schemaVersion":2,"no":"manifest"}"#);
    let binary_layer = put(&store, &lease, &[0x1f, 0x8b, 0, 1, 2, 3]);
    let lies = [
        descriptor(MediaType::OCI_MANIFEST, &json_layer),
        descriptor(MediaType::OCI_INDEX, &binary_layer),
        descriptor("application/vnd.docker.distribution.manifest.v1+json", &binary_layer),
    ];
    let children: Vec<_> = std::iter::once(good.target).chain(lies).collect();
    let index = put(&store, &lease, index_text(&children).as_bytes());
    let target = descriptor(MediaType::OCI_INDEX, &index);
    store.publish("lies:1", &target, &[index, json_layer.clone(), binary_layer.clone()]).unwrap();
    let garbage = put(&store, &lease, b"nobody's");
    drop(lease);
    let (digest, kept) = (*garbage.digest(), [*json_layer.digest(), *binary_layer.digest()]);
    drop((garbage, json_layer, binary_layer));
    let report = gc::collect(&store, &at_once()).unwrap();
    assert_eq!(report.removed, 1, "{report:?}");
    assert!(store.open_blob(&digest).is_err());
    for layer in kept {
        store.open_blob(&layer).unwrap();
    }
}

#[test]
fn a_layer_that_calls_itself_a_manifest_is_a_layer() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let (inner, mut pinned) = put_image(&store, &lease, b"{}", &[b"a layer that goes"]);
    let config = put(&store, &lease, b"{ }");
    let text = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor(store_support::CONFIG, &config),
        "layers": [inner.target],
    });
    let outer = put(&store, &lease, text.to_string().as_bytes());
    let target = descriptor(MediaType::OCI_MANIFEST, &outer);
    pinned.extend([config, outer]);
    store.publish("a:1", &target, &pinned).unwrap();
    fs::remove_file(blob_path(&store, &inner.layers[0])).unwrap();
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert_eq!(report.damage, [], "what a layer has inside is its own business");
}

#[test]
fn a_lasting_lease_is_given_for_whole_images_only() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    store.lasting_lease("test", &[image.target.digest], None).unwrap();
    fs::remove_file(blob_path(&store, &image.layers[0])).unwrap();
    let error = store.lasting_lease("test", &[image.target.digest], None).unwrap_err();
    assert!(matches!(error, Error::BlobNotFound { digest } if digest == image.layers[0]));
    assert_eq!(store.leases().unwrap().len(), 1, "only the first");
}

#[test]
fn what_is_put_again_is_new_again() {
    let (_dir, store) = store();
    let digest = *put(&store, &store.lease("test").unwrap(), b"old").digest();
    let path = blob_path(&store, &digest);
    let old = SystemTime::now() - Duration::from_secs(3 * 86400);
    fs::File::open(&path).unwrap().set_modified(old).unwrap();
    put(&store, &store.lease("test").unwrap(), b"old");
    let report = gc::collect(&store, &GcOptions::default()).unwrap();
    assert_eq!((report.removed, report.kept_young), (0, 1), "{report:?}");
    fs::File::open(&path).unwrap().set_modified(old).unwrap();
    assert_eq!(gc::collect(&store, &GcOptions::default()).unwrap().removed, 1);
}

#[test]
fn an_entry_that_nobody_understands_hides_no_others() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let index = store.root().join("index.json");
    let mut document: serde_json::Value =
        serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let strange = serde_json::json!({
        "mediaType": "a/b", "size": 1, "digest": format!("sha384:{}", "a".repeat(96)),
    });
    document["manifests"].as_array_mut().unwrap().push(strange);
    document["manifests"][0]["urls"] = serde_json::Value::Null;
    fs::write(&index, document.to_string()).unwrap();
    assert_eq!(store.find_ref("a:1").unwrap().descriptor.digest, image.target.digest);
    assert_eq!(store.refs().unwrap().len(), 1);
    let error = gc::collect(&store, &at_once()).unwrap_err();
    assert!(matches!(error, Error::UnreadableRoot { .. }), "what it keeps is unknown: {error}");
    assert_eq!(store.remove_refs(&["a:1".to_owned()]).unwrap(), [true]);
    assert!(fs::read_to_string(&index).unwrap().contains("sha384:"));
}
