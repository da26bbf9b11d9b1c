//! What a pull brings is what the registry has, and no blob of it is sent twice.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use peers::{Registry, Sent, TAGS, images};
use store::{Store, blob_in, closure, messages, must, served};

/// The store has exactly these blobs, the same bytes as in the layout that the registry's were
/// pushed from.
#[track_caller]
fn assert_same(store: &Store, tags: &[&str]) {
    let expected: BTreeSet<_> =
        tags.iter().flat_map(|tag| closure(&images(), tag).into_keys()).collect();
    assert!(store.blobs().into_keys().eq(expected.clone()), "{:?}", store.blobs());
    for digest in expected {
        let read = |layout: &Path| fs::read(blob_in(layout, &digest)).unwrap();
        assert!(read(store.root()) == read(&images()), "{digest} differs");
    }
    store.assert_sound();
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn pulled_blobs_are_those_of_the_registry() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::start(&temp.path().join("registry"));
    let store = Store::at(temp.path().join("store"));
    let mut pulled = Vec::new();
    for (tag, layers) in TAGS {
        let name = format!("{}/real/{tag}:v1", registry.address);
        let report = store.pull(&name);
        pulled.push(tag);
        assert_same(&store, &pulled);

        // Each has a layer, a config and a manifest that the one before has not.
        let new = (&report["fetchedBlobs"], &report["reusedBlobs"]);
        assert_eq!(new, (&3.into(), &(layers - 1).into()), "{report}");
        let size: u64 = store.assert_complete(&name).values().sum();
        assert_eq!(report["size"], size, "{report}");

        // The manifest as the registry gives it to another client.
        let source = format!("docker://{name}");
        let served =
            must(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &source]));
        let digest = report["digest"].as_str().unwrap();
        assert_eq!(served.as_bytes(), fs::read(blob_in(store.root(), digest)).unwrap());
        // By digest it is the same image, and nothing is fetched.
        let report = store.pull(&format!("{}/real/{tag}@{digest}", registry.address));
        assert_eq!((&report["digest"], &report["fetchedBytes"]), (&digest.into(), &0.into()));
    }
    // No blob twice, though three tags have the first layer.
    let sent = registry.sent_after(served(store.root(), "").values().sum());
    assert!(sent.values().all(|sent| sent.responses == 1), "{sent:?}");
    assert!(store.parts().is_empty());
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn eight_processes_have_each_blob_sent_once() {
    let temp = tempfile::tempdir().unwrap();
    // Slow enough that the last to start finds the first at work.
    let registry = Registry::start_slow(&temp.path().join("registry"), "24m");
    let store = Store::at(temp.path().join("store"));
    let name = format!("{}/real/python:v1", registry.address);

    let pulls: Vec<_> = (0..8).map(|_| store.start_pull(&name)).collect();
    let (mut fetched, mut waited) = (0, 0);
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}{}", output.status, messages(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        fetched += report["fetchedBytes"].as_u64().unwrap();
        waited += report["waitedBlobs"].as_u64().unwrap();
    }
    assert_same(&store, &["python"]);
    store.assert_complete(&name);

    let expected = served(&images(), "python");
    let sent = registry.sent_after(expected.values().sum());
    assert_eq!(sent.len(), expected.len(), "{sent:?}");
    for (digest, size) in &expected {
        // A large blob may come in pieces, and where one is cut short the server has sent some bytes
        // ahead; a second download would send it all again.
        let Sent { responses, bytes } = sent[digest];
        let pieces = *size >= 32 << 20;
        assert!(bytes == *size || pieces && bytes < size + size / 2, "{digest}: {sent:?}");
        // Whose process has left its connection to another that waited is continued.
        assert!(responses == 1 || *size >= 1 << 20, "{digest}: {sent:?}");
    }
    // And the reports say so: who did not fetch a blob waited for it, or came too late for that.
    // The manifest may have been asked for by each.
    let blobs: u64 = expected.values().sum();
    let manifest = store.live().values().sum::<u64>() - blobs;
    assert!(fetched >= blobs && fetched <= blobs + 8 * manifest, "{fetched} of {blobs}");
    assert!(waited > 0, "the pulls did not meet");
}
