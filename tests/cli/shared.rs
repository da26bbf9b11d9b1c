//! A store that several users share.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::sandbox::{Done, Sandbox};
use crate::store_support::{is_root, set_mode};
use crate::support::{Action, Fault, Image, Layer, Registry};

const GROUP: u32 = 64_000;
const FIRST: (u32, u32) = (64_001, GROUP);
const SECOND: (u32, u32) = (64_002, GROUP);
const STRANGER: (u32, u32) = (64_003, 64_003);

/// The command as another user would run it, with a umask that takes everything from others.
fn command(sandbox: &Sandbox, (user, group): (u32, u32), args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let ids = [format!("--reuid={user}"), format!("--regid={group}")];
    command.args(ids).args(["--clear-groups", "--", "sh", "-c", "umask 077; exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_store")).args(args);
    command.env_clear().env("STORE_ROOT", sandbox.root()).stdin(Stdio::null());
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command
}

fn run(sandbox: &Sandbox, user: (u32, u32), args: &[&str]) -> Done {
    Done::new(command(sandbox, user, args).output().unwrap())
}

#[track_caller]
fn ok(sandbox: &Sandbox, user: (u32, u32), args: &[&str]) -> String {
    let done = run(sandbox, user, args);
    assert_eq!(done.code, Some(0), "{user:?} {args:?}: {done:?}");
    done.out
}

#[track_caller]
fn refused(sandbox: &Sandbox, user: (u32, u32), args: &[&str], reason: &str) {
    let done = run(sandbox, user, args);
    assert_eq!(done.code, Some(1), "{user:?} {args:?}: {done:?}");
    assert!(done.err.contains(reason), "{user:?} {args:?}: {done:?}");
}

/// A sandbox that everybody may look into, and the empty directory of a group in it.
fn of_group() -> Sandbox {
    let sandbox = Sandbox::empty();
    set_mode(sandbox.dir.path(), 0o755);
    std::fs::create_dir(sandbox.root()).unwrap();
    chown(sandbox.root(), Some(FIRST.0), Some(GROUP)).unwrap();
    set_mode(&sandbox.root(), 0o2770);
    sandbox
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// Every entry has the mode that the format gives it in a store of a group.
fn assert_modes(root: &Path) {
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        assert_eq!(mode(&dir), 0o2770, "{}", dir.display());
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let wanted = match path.file_name().unwrap().to_str().unwrap() {
                "index.json" | "oci-layout" | "version" => 0o644,
                _ if path.components().any(|part| part.as_os_str() == "blobs") => 0o1444,
                _ => 0o660,
            };
            assert_eq!(mode(&path), wanted, "{}", path.display());
        }
    }
}

#[test]
fn only_with_shared_may_others_write() {
    let sandbox = Sandbox::empty();
    sandbox.ok(&["--shared", "init"]);
    assert_modes(&sandbox.root());
    sandbox.fails(&["images"], 1, "--shared");
    sandbox.fails(&["pull", "localhost/a:1"], 1, "--shared");
    sandbox.ok(&["--shared", "images"]);

    // Of a store that is nobody else's it makes no difference.
    let private = Sandbox::new();
    private.ok(&["--shared", "images"]);
    private.ok(&["--shared", "init"]);
    assert_eq!(mode(&private.root()), 0o700);
}

#[test]
fn a_mode_with_which_sharing_cannot_work_is_refused() {
    for (wrong, reason) in [(0o3770, "chmod -t"), (0o1777, "chmod -t"), (0o770, "chmod g+s")] {
        let sandbox = Sandbox::empty();
        sandbox.ok(&["--shared", "init"]);
        set_mode(&sandbox.root(), wrong);
        sandbox.fails(&["--shared", "images"], 1, reason);
    }
    for dir in ["blobs", "blobs/sha256", ".layerstore", ".layerstore/leases"] {
        let sandbox = Sandbox::empty();
        sandbox.ok(&["--shared", "init"]);
        set_mode(&sandbox.root().join(dir), 0o2777);
        sandbox.fails(&["--shared", "blob", "ls"], 1, "give it the mode");
    }
}

#[test]
#[ignore = "needs root to be two other users"]
fn two_users_of_a_group_pull_tag_and_collect() {
    assert!(is_root());
    let (sandbox, registry) = (of_group(), Registry::start());
    let shared = Layer::random_file("shared", 1, 50_000);
    let one = Image::of(&[shared.clone(), Layer::random_file("one", 2, 30_000)]);
    let two = Image::of(&[shared, Layer::random_file("two", 3, 30_000)]);
    registry.push("demo", "1", &one);
    registry.push("demo", "2", &two);
    let name = |tag: &str| registry.reference(&format!("demo:{tag}"));
    let pull = ["--shared", "pull", "--plain-http"];
    ok(&sandbox, FIRST, &[&pull[..], &[&name("1")]].concat());
    ok(&sandbox, SECOND, &[&pull[..], &[&name("2")]].concat());
    assert_eq!(registry.blob_sends(&one.layers[0].digest), 1, "what one has the other finds");
    ok(&sandbox, SECOND, &["--shared", "tag", &name("1"), "example.org/theirs:1"]);
    ok(&sandbox, FIRST, &["--shared", "rm", &name("1"), "example.org/theirs:1"]);
    let digest = ok(&sandbox, FIRST, &["--shared", "blob", "put", "/proc/version"]);
    assert_eq!(ok(&sandbox, SECOND, &["--shared", "blob", "put", "/proc/version"]), digest);
    let lease = ok(&sandbox, FIRST, &["--shared", "lease", "add", digest.trim()]);
    assert_modes(&sandbox.root());

    // Each removes what the other has made.
    ok(&sandbox, SECOND, &["--shared", "gc", "--grace", "0s"]);
    assert_eq!(
        run(&sandbox, SECOND, &["--shared", "blob", "stat", &one.layers[1].digest]).code,
        Some(4)
    );
    ok(&sandbox, SECOND, &["--shared", "lease", "rm", lease.trim()]);
    ok(&sandbox, FIRST, &["--shared", "rm", &name("2")]);
    ok(&sandbox, FIRST, &["--shared", "gc", "--grace", "0s"]);
    let left = ok(&sandbox, SECOND, &["--shared", "blob", "ls", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&left).unwrap(), serde_json::json!([]));
    ok(&sandbox, SECOND, &["--shared", "check", "--read-data"]);
    assert_modes(&sandbox.root());
}

#[test]
#[ignore = "needs root to be two other users"]
fn a_user_goes_on_with_the_part_of_another() {
    let (sandbox, registry) = (of_group(), Registry::start());
    let image = Image::of(&[Layer::random_file("big", 1, 3_000_000)]);
    registry.push("demo", "1", &image);
    let (name, layer) = (registry.reference("demo:1"), &image.layers[0].digest);
    let args = ["--shared", "pull", "--plain-http", &name, "--json"];
    registry.fault(Fault::on("GET", layer).then(Action::Hold(2_000_000)));
    let mut first = command(&sandbox, FIRST, &args).stderr(Stdio::null()).spawn().unwrap();
    let part = sandbox.root().join(format!(".layerstore/parts/{}.part", layer.replace(':', "-")));
    while part.metadata().map_or(0, |meta| meta.len()) < 1_000_000 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(part.metadata().unwrap().uid(), FIRST.0);
    assert_modes(&sandbox.root());
    registry.clear_faults();
    registry.release();

    let report: serde_json::Value = serde_json::from_str(&ok(&sandbox, SECOND, &args)).unwrap();
    assert!(report["resumedBytes"].as_u64().unwrap() >= 1_000_000, "{report}");
    let hex = layer.strip_prefix("sha256:").unwrap();
    let blob = sandbox.root().join("blobs/sha256").join(hex).metadata().unwrap();
    assert_eq!((blob.uid(), blob.gid()), (SECOND.0, GROUP));
    assert_modes(&sandbox.root());
    ok(&sandbox, FIRST, &["--shared", "check", "--read-data"]);
}

#[test]
#[ignore = "needs root to be two other users"]
fn what_a_host_asked_for_is_told_to_the_other_user() {
    let (sandbox, registry) = (of_group(), Registry::start());
    registry.push("demo", "1", &Image::of(&[Layer::random_file("any", 1, 5_000)]));
    let args = ["--shared", "pull", "--plain-http", &registry.reference("demo:1"), "--json"];
    let busy = || {
        let busy = Action::status(429, &[("Retry-After", "1")], "");
        registry.fault(Fault::on("GET", "/manifests/").times(1).then(busy))
    };
    // The first makes the file, and the second replaces it.
    for user in [FIRST, SECOND] {
        let fault = busy();
        ok(&sandbox, user, &args);
        assert_eq!(fault.hits(), 1);
        let hosts = std::fs::read_dir(sandbox.root().join(".layerstore/hosts")).unwrap();
        let closed: Vec<_> = hosts
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "closed"))
            .collect();
        assert_eq!(closed.len(), 1, "{closed:?}");
        assert_eq!(closed[0].metadata().unwrap().uid(), user.0);
        assert_modes(&sandbox.root());
        ok(&sandbox, user, &["--shared", "rm", &registry.reference("demo:1")]);
        ok(&sandbox, user, &["--shared", "gc", "--grace", "0s"]);
    }
}

#[test]
#[ignore = "needs root to be two other users"]
fn who_is_not_of_the_group_is_refused() {
    let sandbox = of_group();
    ok(&sandbox, FIRST, &["--shared", "init"]);
    refused(&sandbox, STRANGER, &["--shared", "images"], "ermission denied");
    refused(&sandbox, STRANGER, &["images"], "ermission denied");
    refused(&sandbox, SECOND, &["images"], "--shared");

    // A store that is not shared is nobody else's, whatever they say.
    let private = Sandbox::empty();
    set_mode(private.dir.path(), 0o777);
    ok(&private, FIRST, &["init"]);
    for user in [SECOND, STRANGER] {
        refused(&private, user, &["images"], "ermission denied");
        refused(&private, user, &["--shared", "images"], "ermission denied");
    }
    // Nor where its files may be read.
    set_mode(&private.root(), 0o755);
    set_mode(&private.root().join(".layerstore"), 0o755);
    for user in [SECOND, STRANGER] {
        refused(&private, user, &["images"], "it belongs to user 64001");
        refused(&private, user, &["--shared", "images"], "it belongs to user 64001");
    }
    ok(&private, FIRST, &["images"]);
}

#[test]
#[ignore = "needs root to be two other users"]
fn everybody_may_use_a_store_that_everybody_may_write_to() {
    let sandbox = of_group();
    set_mode(&sandbox.root(), 0o2777);
    ok(&sandbox, FIRST, &["--shared", "init"]);
    let digest = ok(&sandbox, STRANGER, &["--shared", "blob", "put", "/proc/version"]);
    ok(&sandbox, SECOND, &["--shared", "blob", "cat", digest.trim()]);
    ok(&sandbox, SECOND, &["--shared", "gc", "--grace", "0s"]);
    assert_eq!(run(&sandbox, FIRST, &["--shared", "blob", "cat", digest.trim()]).code, Some(4));
    refused(&sandbox, FIRST, &["images"], "--shared");
}
