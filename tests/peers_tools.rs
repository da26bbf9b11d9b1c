//! Other tools use the live store as the image layout that it is.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use peers::{Registry, images};
use store::{Store, closure, must};

fn skopeo_copy(from: &str, to: &str) {
    must(
        Command::new("skopeo")
            .args(["copy", "-q", "--insecure-policy", "--src-tls-verify=false"])
            .args([from, to]),
    );
}

fn umoci(arguments: &[&str]) -> String {
    must(Command::new("umoci").args(arguments))
}

/// An image is whole in a layout that another tool wrote, and is the one that was built.
#[track_caller]
fn assert_copied(layout: &Path, name: &str, tag: &str) {
    let copy = Store::at(layout.to_path_buf());
    assert_eq!(copy.assert_complete(name), closure(&images(), tag));
    copy.assert_sound();
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn skopeo_and_umoci_read_the_store_while_a_pull_writes_to_it() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::start(&temp.path().join("registry"));
    // The third layer alone takes minutes.
    let slow = Registry::start_slow(&temp.path().join("slow"), "200k");
    let store = Store::at(temp.path().join("store"));
    // A name with two colons and two slashes.
    let name = format!("{}/real/debian-apt:v1", registry.address);
    store.pull(&name);
    let mut pull = store.start_pull(&format!("{}/real/python:v1", slow.address));
    while store.parts().values().all(|bytes| *bytes == 0) {
        assert!(pull.try_wait().unwrap().is_none(), "the pull has ended");
        std::thread::sleep(Duration::from_millis(10));
    }

    let copy = temp.path().join("copy");
    skopeo_copy(&store.oci(&name), &format!("oci:{}:copied", copy.display()));
    assert_copied(&copy, "copied", "debian-apt");

    let inspected = must(Command::new("skopeo").args(["inspect", &store.oci(&name)]));
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], store.json(&["inspect", &name])["descriptor"]["digest"]);
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);

    let root = store.root().to_str().unwrap();
    assert_eq!(umoci(&["ls", "--layout", root]), format!("{name}\n"));
    let bundle = temp.path().join("bundle");
    let image = format!("{root}:{name}");
    umoci(&["unpack", "--rootless", "--image", &image, bundle.to_str().unwrap()]);
    let version = fs::read_to_string(bundle.join("rootfs/etc/debian_version")).unwrap();
    assert!(!version.trim().is_empty());
    // Of the second layer.
    assert!(bundle.join("rootfs/usr/bin/apt").is_file());

    assert!(pull.try_wait().unwrap().is_none(), "the pull has ended");
    pull.kill().unwrap();
    pull.wait().unwrap();
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn what_skopeo_and_umoci_write_is_listed_kept_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::start(&temp.path().join("registry"));
    let store = Store::at(temp.path().join("store"));
    let own = format!("{}/real/debian:v1", registry.address);
    store.pull(&own);
    let listed = || {
        let rows = store.json(&["images"]);
        let names = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap());
        names.map(str::to_string).collect::<Vec<_>>()
    };

    skopeo_copy(&format!("docker://{}/real/debian-apt:v1", registry.address), &store.oci("v1"));
    // A config, a manifest and a name, by a third tool.
    let image = format!("{}:v1", store.root().display());
    umoci(&["config", "--image", &image, "--tag", "v2", "--config.user", "nobody"]);
    assert_eq!(listed(), [&own, "v1", "v2"]);

    let before = store.blobs();
    assert!(before.keys().eq(store.live().keys()), "the tools left more than they named");
    assert_eq!(store.gc()["removed"], 0);
    assert_eq!(store.blobs(), before);

    store.run(&["rm", "v1"]);
    // The config and the manifest; v2 has the layers too.
    assert_eq!(store.gc()["removed"], 2);
    assert_eq!(listed(), [&own, "v2"]);
    let copy = temp.path().join("copy");
    skopeo_copy(&store.oci("v2"), &format!("oci:{}:copied", copy.display()));
    Store::at(copy).assert_sound();

    store.run(&["rm", "v2"]);
    store.gc();
    assert_eq!(listed(), [own.as_str()]);
    assert_eq!(store.blobs(), closure(&images(), "debian"));
    store.assert_sound();
}
