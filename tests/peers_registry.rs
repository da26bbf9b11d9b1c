//! The registry that the other peer tests count on serves what was built, and counts what it sends.

#[path = "tools/peers.rs"]
mod peers;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use peers::{Registry, Sent, TAGS};

fn copy_with_skopeo(registry: &Registry, tag: &str, to: &Path) {
    let output = Command::new("skopeo")
        .args(["copy", "-q", "--insecure-policy", "--src-tls-verify=false"])
        .arg(format!("docker://{}/real/{tag}:v1", registry.address))
        .arg(format!("oci:{}:{tag}", to.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The name and size of each blob of a layout.
fn blobs(layout: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let entry = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    };
    entries.map(|found| entry(found.unwrap())).collect()
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn the_registry_serves_the_images_and_counts_what_it_sent() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::start(&temp.path().join("registry"));
    assert!(registry.sent().is_empty());

    let (tag, layers) = TAGS[2];
    for copy in ["first", "second"] {
        copy_with_skopeo(&registry, tag, &temp.path().join(copy));
    }

    let got = blobs(&temp.path().join("first"));
    let built = blobs(&peers::images());
    assert_eq!(got.len(), layers + 2, "the layers, a config and a manifest: {got:?}");
    for name in got.keys() {
        let read = |layout: &Path| fs::read(layout.join("blobs/sha256").join(name)).unwrap();
        assert!(built.contains_key(name), "{name} is not among the images");
        assert!(read(&temp.path().join("first")) == read(&peers::images()), "{name} differs");
    }

    let sent = registry.sent();
    // The manifest is not sent as a blob.
    assert_eq!(sent.len(), layers + 1, "{sent:?}");
    for (digest, sent) in sent {
        let size = got[digest.strip_prefix("sha256:").unwrap()];
        assert_eq!(sent, Sent { responses: 2, bytes: 2 * size }, "{digest}");
    }
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn the_tags_share_their_layers() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::start(&temp.path().join("registry"));
    for (at, (tag, layers)) in TAGS.into_iter().enumerate() {
        copy_with_skopeo(&registry, tag, &temp.path().join("layout"));
        // Each tag brings a layer, a config and a manifest.
        assert_eq!(blobs(&temp.path().join("layout")).len(), 3 * (at + 1), "{tag}");
        assert_eq!(layers, at + 1);
    }
}
