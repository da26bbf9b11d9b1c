//! Debian's docker-registry in the ways that users have it: with TLS, with passwords, with tokens,
//! behind a mirror, and as it is restarted in the middle of a layer.
#![cfg(feature = "cli")]

#[path = "../endpoints/authority.rs"]
mod authority;
mod closed;
mod data;
mod mirror;
#[path = "../tools/peers.rs"]
mod peers;
mod restart;
#[path = "../tools/store.rs"]
mod store;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::Output;

use store::Store;

/// A user with a home, who has a store.
struct User {
    dir: tempfile::TempDir,
    store: Store,
}

impl User {
    fn new() -> User {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("store"));
        User { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command, with the settings of this user alone.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.store.command(args);
        command.env_clear().env("HOME", self.dir.path());
        command.env("XDG_CONFIG_HOME", self.path("config"));
        let output = command.output().unwrap();
        let text = format!("{output:?}");
        assert!(!text.contains("canary"), "{text}");
        output
    }

    #[track_caller]
    fn pulls(&self, args: &[&str]) -> serde_json::Value {
        let output = self.run(&[&["--json", "pull"], args].concat());
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A pull that ends with this code, a reason, and nothing in the store.
    #[track_caller]
    fn is_refused(&self, args: &[&str], code: i32, reason: &str) {
        let output = self.run(&[&["pull"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(reason), "{}", said(&output));
        assert!(self.store.blobs().is_empty());
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The registry with all images.
fn start(folder: &Path, options: &[&str]) -> peers::Registry {
    peers::Registry::start_on(folder, &peers::data(), options)
}
