//! A collection leaves exactly what the names lead to.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::collections::BTreeMap;

use peers::{Registry, TAGS, images};
use store::{Store, closure};

/// A store with all tags, and their names there.
fn pulled(folder: &std::path::Path) -> (Store, [String; 3]) {
    let registry = Registry::start(&folder.join("registry"));
    let store = Store::at(folder.join("store"));
    let names = TAGS.map(|(tag, _)| format!("{}/real/{tag}:v1", registry.address));
    names.iter().for_each(|name| drop(store.pull(name)));
    (store, names)
}

fn bytes(blobs: &BTreeMap<String, u64>) -> u64 {
    blobs.values().sum()
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn the_blobs_are_the_live_set_after_each_removal() {
    let temp = tempfile::tempdir().unwrap();
    let (store, names) = pulled(temp.path());
    assert_eq!(store.blobs(), store.live());
    // From the one with all layers down, so that each time a layer goes.
    for (left, name) in names.iter().enumerate().rev() {
        let before = store.blobs();
        store.run(&["rm", name]);
        assert_eq!(store.blobs(), before, "a name was removed, not yet what it led to");
        let told = store.json(&["gc", "--grace", "0s", "--dry-run"]);
        assert_eq!(store.blobs(), before, "a dry run removes nothing");
        let done = store.gc();
        let after = store.blobs();

        assert_eq!(after, store.live());
        assert_eq!(store.names(), names[..left]);
        // A layer, a config and a manifest.
        assert_eq!(before.len() - after.len(), 3);
        for report in [told, done] {
            assert_eq!(report["removed"], 3, "{report}");
            assert_eq!(report["removedBytes"], bytes(&before) - bytes(&after), "{report}");
            assert_eq!(report["live"], after.len(), "{report}");
            assert_eq!(report["liveBytes"], bytes(&after), "{report}");
        }
        store.assert_sound();
    }
    assert!(store.blobs().is_empty());
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn tags_that_share_layers_lose_nothing_to_each_others_removal() {
    for kept in 0..TAGS.len() {
        let temp = tempfile::tempdir().unwrap();
        let (store, names) = pulled(temp.path());
        for (at, name) in names.iter().enumerate() {
            if at != kept {
                store.run(&["rm", name]);
                store.gc();
                store.assert_complete(&names[kept]);
            }
        }
        assert_eq!(store.blobs(), closure(&images(), TAGS[kept].0));
        store.assert_sound();
    }
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn the_grace_time_keeps_what_was_just_removed() {
    let temp = tempfile::tempdir().unwrap();
    let (store, names) = pulled(temp.path());
    let before = store.blobs();
    store.run(&["rm", &names[0], &names[1], &names[2]]);
    let report = store.json(&["gc"]);
    assert_eq!((&report["removed"], &report["keptYoung"]), (&0.into(), &before.len().into()));
    assert_eq!(store.blobs(), before);
}
