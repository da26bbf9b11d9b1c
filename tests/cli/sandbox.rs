//! A store in a directory of its own, and the command run on it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use layerstore::BlobStore;
use serde_json::Value;

use crate::store_support::{self, Image};

pub(crate) struct Sandbox {
    pub(crate) dir: tempfile::TempDir,
}

/// What a run of the command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Sandbox {
    /// A directory with nothing in it.
    pub(crate) fn empty() -> Sandbox {
        Sandbox { dir: tempfile::tempdir().unwrap() }
    }

    /// A directory with a store in it.
    pub(crate) fn new() -> Sandbox {
        let sandbox = Sandbox::empty();
        sandbox.library();
        sandbox
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn library(&self) -> BlobStore {
        BlobStore::init(self.root()).unwrap()
    }

    pub(crate) fn add_image(&self, name: &str, layers: &[&[u8]]) -> Image {
        store_support::add_image(&self.library(), name, layers)
    }

    /// The command on this store, with nothing else in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
        command.env_clear().env("STORE_ROOT", self.root()).stdin(Stdio::null()).args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::new(self.command(args).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Done::new(child.wait_with_output().unwrap())
    }

    /// What a run that succeeds prints as its result.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
        done.out
    }

    /// The JSON document that a run that succeeds prints.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// A run that fails, prints no result and says why.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], code: i32, reason: &str) {
        let done = self.run(args);
        assert_eq!(done.code, Some(code), "{args:?}: {done:?}");
        assert!(done.err.starts_with("error: ") && done.err.contains(reason), "{args:?}: {done:?}");
        assert_eq!(done.out, "", "{args:?}");
    }

    /// What the command writes to a terminal.
    pub(crate) fn on_terminal(&self, args: &[&str], variables: &[(&str, &str)]) -> String {
        let quoted: Vec<String> = [env!("CARGO_BIN_EXE_store")]
            .iter()
            .chain(args)
            .map(|word| format!("'{word}'"))
            .collect();
        let output = Command::new("script")
            .args(["-q", "-e", "-c", &quoted.join(" "), "/dev/null"])
            .env("STORE_ROOT", self.root())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("`script` of bsdutils, which is part of every Debian");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Done {
    pub(crate) fn new(output: Output) -> Done {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The keys of a JSON object, in their order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}
