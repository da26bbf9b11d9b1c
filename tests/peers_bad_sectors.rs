//! A disk that does not give the bytes of a blob, however often it is asked: strace answers each read of
//! the blob's file with EIO. Whoever meets that marks the blob, and the next pull brings it anew.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::path::PathBuf;
use std::process::{Command, Output};

use peers::Registry;
use store::{Store, blob_in, closure};

/// Runs the command on a disk with a bad sector in this file.
fn on_a_bad_disk(store: &Store, blob: &str, arguments: &[&str]) -> Output {
    let command = store.command(arguments);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-q", "-o", "/dev/null", "-P"]).arg(blob_in(store.root(), blob));
    traced.args(["-e", "inject=read,pread64,preadv,preadv2:error=EIO"]);
    traced.arg(command.get_program()).args(command.get_args());
    traced.output().expect("strace can be run")
}

/// A store that has one of the images, beside the registry that it came from.
struct Scene {
    store: Store,
    image: String,
    _registry: Registry,
    _temp: tempfile::TempDir,
}

impl Scene {
    fn with(tag: &str) -> Scene {
        let temp = tempfile::tempdir().unwrap();
        let registry = Registry::start(&temp.path().join("registry"));
        let store = Store::at(temp.path().join("store"));
        let image = format!("{}/real/{tag}:v1", registry.address);
        store.pull(&image);
        Scene { store, image, _registry: registry, _temp: temp }
    }
}

fn mark(store: &Store, digest: &str) -> PathBuf {
    store.root().join(".layerstore/suspect").join(digest.replace(':', "-"))
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
}

#[test]
#[ignore = "needs docker-registry, nginx and strace: run by ./tests/all"]
fn what_the_disk_does_not_give_is_marked_and_the_next_pull_brings_it() {
    let Scene { store, image, _registry, _temp } = Scene::with("debian-apt");
    for digest in closure(store.root(), &image).into_keys() {
        let finders: [&[&str]; 4] = [
            &["check"],
            &["check", "--read-data"],
            &["blob", "cat", &digest],
            &["blob", "cat", &digest, "--range", "10-20"],
        ];
        for finder in finders {
            let found = on_a_bad_disk(&store, &digest, finder);
            let is_check = finder[0] == "check";
            assert_code(&found, if is_check { 3 } else { 1 });
            let said =
                String::from_utf8_lossy(if is_check { &found.stdout } else { &found.stderr });
            assert!(said.contains("Input/output error") && said.contains(&digest), "{said}");
            assert!(mark(&store, &digest).exists(), "{finder:?} of {digest}");
            assert_code(&store.command(&["check", "--quick"]).output().unwrap(), 3);

            let pulled = store.pull(&image);
            assert_eq!(pulled["fetchedBlobs"], 1, "{finder:?} of {digest}: {pulled}");
            assert!(!mark(&store, &digest).exists());
            store.run(&["check", "--read-data"]);
        }
    }
}

#[test]
#[ignore = "needs docker-registry, nginx and strace: run by ./tests/all"]
fn a_pull_that_meets_an_unreadable_manifest_brings_it() {
    let Scene { store, image, _registry, _temp } = Scene::with("debian");
    let manifest = store.json(&["images"])[0]["digest"].as_str().unwrap().to_owned();
    let pull = ["--json", "pull", "--plain-http", "--max-connections=1", &image];
    let pulled = on_a_bad_disk(&store, &manifest, &pull);
    assert_code(&pulled, 0);
    let pulled: serde_json::Value = serde_json::from_slice(&pulled.stdout).unwrap();
    assert_eq!(pulled["fetchedBlobs"], 1, "{pulled}");
    assert!(!mark(&store, &manifest).exists());
    store.run(&["check", "--read-data"]);
}
