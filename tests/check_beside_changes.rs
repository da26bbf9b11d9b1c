//! `check` beside pulls and removals: blobs that come and go with their refs are no damage.

mod store_support;

use std::sync::atomic::{AtomicBool, Ordering};

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, CheckOptions};
use store_support::*;

/// Many refs that stay, so that following them all takes long enough for others to go meanwhile.
/// Written as another tool would, which does not sync.
fn add_many(store: &BlobStore, count: usize) {
    let write = |bytes: &[u8]| {
        let digest = Algorithm::Sha256.digest(bytes);
        std::fs::write(blob_path(store, &digest), bytes).unwrap();
        digest
    };
    let entry = |n: usize| {
        let config = format!("{{\"n\":{n}}}");
        let manifest = format!(
            r#"{{"schemaVersion":2,"layers":[],"config":{{"mediaType":"{CONFIG}","digest":"{}","size":{}}}}}"#,
            write(config.as_bytes()),
            config.len()
        );
        serde_json::json!({
            "mediaType": MediaType::OCI_MANIFEST,
            "digest": write(manifest.as_bytes()),
            "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": format!("many:{n}") },
        })
    };
    let entries: Vec<_> = (0..count).map(entry).collect();
    let text = serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    std::fs::write(store.root().join("index.json"), text).unwrap();
}

#[test]
fn what_comes_and_goes_is_no_damage() {
    let (_dir, store) = store();
    add_many(&store, 500);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let store = &store;
        let done = &done;
        for n in 0..2u64 {
            scope.spawn(move || {
                let name = format!("comes-and-goes:{n}");
                let layer = noise(200_000, 10 + n);
                while !done.load(Ordering::Relaxed) {
                    let image = add_image(store, &name, &[&layer]);
                    store.remove_refs(std::slice::from_ref(&name)).unwrap();
                    // As a collection does that began after the removal, without its grace time.
                    for digest in [image.layers[0], image.config, image.target.digest] {
                        std::fs::remove_file(blob_path(store, &digest)).unwrap();
                    }
                }
            });
        }
        for round in 0..20 {
            let (quick, read_data) = (round % 3 == 1, round % 3 == 2);
            let options = CheckOptions { quick, read_data, ..Default::default() };
            let report = store.check(&options, |_| {}).unwrap();
            if !report.is_sound() || !report.notes.is_empty() {
                done.store(true, Ordering::Relaxed);
                panic!("round {round}: {report:#?}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
