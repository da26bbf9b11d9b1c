//! Credentials that other tools keep, and those that other tools find.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use peers::Registry;

const PASSWORD: &str = "canary-password";

/// A registry of Debian that lets `me` in, and the tools of a user who has a home in `temp`.
struct Setting {
    temp: tempfile::TempDir,
    registry: Registry,
}

impl Setting {
    fn new() -> Setting {
        let temp = tempfile::tempdir().unwrap();
        let htpasswd = temp.path().join("htpasswd");
        let made = with_input(Command::new("htpasswd").args(["-inB", "me"]), PASSWORD);
        assert!(made.status.success(), "{made:?}");
        fs::write(&htpasswd, made.stdout).unwrap();
        let registry = Registry::start_closed(&temp.path().join("registry"), &htpasswd);
        Setting { temp, registry }
    }

    fn auth_file(&self) -> String {
        self.temp.path().join("auth.json").display().to_string()
    }

    fn tool(&self, program: &str, args: &[&str], input: &str) -> Output {
        let home = self.temp.path();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home)
            .env("STORE_ROOT", home.join("store"))
            .env("GNUPGHOME", home.join("gnupg"))
            .env("REGISTRY_AUTH_FILE", self.auth_file())
            .args(args);
        let output = with_input(&mut command, input);
        let text = format!("{output:?}");
        assert!(!text.contains("canary"), "{text}");
        output
    }

    fn store(&self, args: &[&str], input: &str) -> Output {
        self.tool(env!("CARGO_BIN_EXE_store"), &[args, &["-vvv"]].concat(), input)
    }

    fn skopeo(&self, args: &[&str], input: &str) -> Output {
        self.tool("skopeo", args, input)
    }

    fn log_in(&self, password: &str) -> Output {
        let address = &self.registry.address;
        let args = ["login", "--plain-http", "-u", "me", "--password-stdin", address];
        self.store(&args, password)
    }

    fn pull(&self) -> Output {
        let name = format!("{}/real/debian:v1", self.registry.address);
        self.store(&["pull", "--plain-http", &name], "")
    }

    fn inspect_with_skopeo(&self) -> Output {
        let name = format!("docker://{}/real/debian:v1", self.registry.address);
        self.skopeo(&["inspect", "--raw", "--tls-verify=false", &name], "")
    }
}

fn with_input(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
fn ok(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn refused(output: &Output) {
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and htpasswd: run ./tests/all"]
fn what_skopeo_keeps_is_found() {
    let setting = Setting::new();
    let address = &setting.registry.address;
    fs::write(setting.auth_file(), "{}").unwrap();
    refused(&setting.pull());
    let login = ["login", "--tls-verify=false", "-u", "me", "--password-stdin", address];
    ok(&setting.skopeo(&login, PASSWORD));
    ok(&setting.pull());
    // What skopeo wrote is changed and not written anew.
    ok(&setting.store(&["logout", address], ""));
    refused(&setting.pull());
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and htpasswd: run ./tests/all"]
fn what_is_kept_skopeo_finds() {
    let setting = Setting::new();
    let address = &setting.registry.address;
    refused(&setting.log_in("canary-wrong"));
    assert!(!Path::new(&setting.auth_file()).exists());
    ok(&setting.log_in(PASSWORD));
    ok(&setting.inspect_with_skopeo());
    let who = setting.skopeo(&["login", "--get-login", address], "");
    assert_eq!(String::from_utf8(who.stdout).unwrap(), "me\n");
    ok(&setting.skopeo(&["logout", address], ""));
    refused(&setting.pull());
    ok(&setting.log_in(PASSWORD));
    ok(&setting.store(&["logout", address], ""));
    assert!(!setting.inspect_with_skopeo().status.success());
}

#[test]
#[ignore = "needs docker-registry, skopeo, htpasswd and docker-credential-pass: run ./tests/all"]
fn a_helper_of_docker_keeps_it() {
    let setting = Setting::new();
    let address = &setting.registry.address;
    let gnupg = setting.temp.path().join("gnupg");
    fs::create_dir(&gnupg).unwrap();
    fs::set_permissions(&gnupg, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let key = ["--batch", "--passphrase", "", "--quick-generate-key", "me@example", "default"];
    ok(&setting.tool("gpg", &key, ""));
    ok(&setting.tool("pass", &["init", "me@example"], ""));

    let config = format!("{{\"credHelpers\": {{\"{address}\": \"pass\"}}}}");
    fs::write(setting.auth_file(), config).unwrap();
    refused(&setting.pull());
    ok(&setting.log_in(PASSWORD));
    assert!(!fs::read_to_string(setting.auth_file()).unwrap().contains("auth\""));
    ok(&setting.pull());
    ok(&setting.inspect_with_skopeo());
    ok(&setting.store(&["logout", address], ""));
    refused(&setting.pull());
    // gpg leaves an agent behind.
    ok(&setting.tool("gpgconf", &["--kill", "gpg-agent"], ""));
}
