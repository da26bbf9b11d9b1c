//! The memory of a pull does not depend on the image.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;
mod support;

use std::process::Command;

use store::{Store, must};
use support::{Content, Image, Layer, Registry, media_type};

/// What a pull may take, in KiB.
const LIMIT: u64 = 64 * 1024;

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn an_image_of_three_layers() {
    let temp = tempfile::tempdir().unwrap();
    let registry = peers::Registry::start(&temp.path().join("registry"));
    let store = Store::at(temp.path().join("store"));
    let name = format!("{}/real/python:v1", registry.address);
    let (report, peak) = store.pull_measured(&name);
    println!("{peak} KiB at most for {} bytes", report["fetchedBytes"]);
    assert_eq!(report["fetchedBlobs"], 5);
    assert!(peak > 0 && peak < LIMIT, "{peak} KiB");
    store.assert_complete(&name);
}

/// A GiB that the registry makes as it sends it. Its digest is known, which saves the time to make
/// it once more.
fn gibibyte() -> Layer {
    let digest =
        "sha256:4bbaad95feb98d609ed2f9e6a6a2962a494e4782200c13ce12f976e6a5e91aa9".to_owned();
    Layer {
        media_type: media_type::LAYER.to_owned(),
        diff_id: digest.clone(),
        digest,
        size: 1 << 30,
        content: Content::generated(1, 1 << 30),
    }
}

#[test]
#[ignore = "needs a GiB of disk: run ./tests/all"]
fn a_layer_of_a_gibibyte() {
    let registry = Registry::start();
    registry.push("demo", "1", &Image::of(&[gibibyte()]));
    let temp = tempfile::tempdir().unwrap();
    let store = Store::at(temp.path().join("store"));
    let (report, peak) = store.pull_measured(&registry.reference("demo:1"));
    println!("{peak} KiB at most for {} bytes", report["fetchedBytes"]);
    assert!(peak > 0 && peak < LIMIT, "{peak} KiB");
    store.assert_sound();

    // Going on from a part takes no more: it is hashed from its first byte.
    let digest = gibibyte().digest;
    let hex = digest.strip_prefix("sha256:").unwrap();
    let part = store.root().join(format!(".layerstore/parts/sha256-{hex}.part"));
    store.run(&["rm", &registry.reference("demo:1")]);
    let blob = store::blob_in(store.root(), &digest);
    std::fs::rename(blob, &part).unwrap();
    must(Command::new("truncate").args(["--size", "1000M"]).arg(&part));
    let (report, peak) = store.pull_measured(&registry.reference("demo:1"));
    println!("{peak} KiB at most for {} bytes resumed", report["resumedBytes"]);
    assert_eq!(report["resumedBytes"], 1000 << 20);
    assert!(peak > 0 && peak < LIMIT, "{peak} KiB");
    store.assert_sound();
}
