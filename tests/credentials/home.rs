//! A user with a home of their own, and the command run there. Whatever a run prints, and whatever
//! it leaves in the store, is searched for secrets: each has "canary" in it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Image, Layer, Registry};

pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Home {
    pub(crate) fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "kept", "run", "config", ".docker"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let helper =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/credentials/docker-credential-test");
        symlink(helper, dir.path().join("bin/docker-credential-test")).unwrap();
        let mut home = Home { dir, variables: Vec::new() };
        let at = |name: &str| home.path(name).display().to_string();
        let variables = [
            ("HOME", at("")),
            ("STORE_ROOT", at("store")),
            ("HELPER_DIR", at("kept")),
            ("PATH", format!("{}:/usr/bin:/bin", at("bin"))),
            ("XDG_RUNTIME_DIR", at("run")),
            ("XDG_CONFIG_HOME", at("config")),
            ("RUST_LOG", "trace".to_owned()),
        ];
        home.variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Writes an auth file, by default where `store login` does.
    pub(crate) fn write(&self, name: &str, value: &Value) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
        command.env_clear().envs(self.variables.iter().cloned()).args(args).arg("-vvv");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, "")
    }

    /// Runs the command with a standard input, at trace level, and looks for secrets in all that
    /// comes out of it.
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that does not read it may have gone.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        let done = Done { code, out: text(output.stdout), err: text(output.stderr) };
        assert!(
            done.err.contains("DEBUG") || done.code == 2 || args[0] == "logout",
            "no log: {done:?}"
        );
        assert_no_secret(&done.out);
        assert_no_secret(&done.err);
        self.assert_store_has_no_secret();
        done
    }

    fn assert_store_has_no_secret(&self) {
        let mut folders = vec![self.path("store")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => {
                        assert_no_secret(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap()))
                    }
                }
            }
        }
        // Written by the helper: the command line and the environment of both programs.
        let seen = fs::read_to_string(self.path("seen")).unwrap_or_default();
        assert_no_secret(&seen);
    }

    /// Pulls `demo:1`, which is there and needs credentials.
    pub(crate) fn pull(&self, registry: &Registry, more: &[&str]) -> Done {
        let name = registry.reference("team/demo:1");
        self.run(&[&["pull", "--plain-http", &name], more].concat())
    }
}

/// As it is, and in base64 at each of the three places that it can begin at.
#[track_caller]
pub(crate) fn assert_no_secret(text: &str) {
    let encoded = (0..3).map(|skip| {
        let text = STANDARD.encode(format!("{}canary", &"xxx"[..skip]));
        text[(skip * 4).div_ceil(3)..text.len() - 4].to_owned()
    });
    for secret in encoded.chain(["canary".to_owned()]) {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
    assert!(!text.contains("Bearer tok") && !text.contains("Basic "), "{text}");
}

pub(crate) fn auth(user: &str, password: &str) -> Value {
    json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A registry for `me`, with an image `team/demo:1`.
pub(crate) fn registry() -> Registry {
    let registry = Registry::builder().basic("me", "canary-password").start();
    push(&registry);
    registry
}

pub(crate) fn push(registry: &Registry) -> Image {
    let image = Image::of(&[Layer::files(&[("etc/motd", b"hello")])]);
    registry.push("team/demo", "1", &image);
    image
}

/// What was shown to a registry, each once, in order.
pub(crate) fn shown(registry: &Registry) -> Vec<String> {
    let mut shown: Vec<String> =
        registry.requests().into_iter().filter_map(|it| it.authorization).collect();
    shown.dedup();
    registry.clear_requests();
    shown
}
