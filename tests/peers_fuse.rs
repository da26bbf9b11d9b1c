//! A store on a file system whose locks another machine may not see: FUSE, by bindfs. It also has
//! neither nameless files nor renames that refuse to replace, so every write takes the other way.
#![cfg(feature = "cli")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

/// Unmounts when it goes.
struct Mount(tempfile::TempDir);

impl Mount {
    fn of(real: &Path, options: &[&str]) -> Mount {
        let dir = tempfile::tempdir().unwrap();
        let mut bindfs = Command::new("bindfs");
        let status = bindfs.args(options).arg(real).arg(dir.path()).status().unwrap();
        assert!(status.success(), "bindfs cannot mount");
        Mount(dir)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn store(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
    command.arg("--root").arg(root).args(args).output().unwrap()
}

#[test]
#[ignore = "needs Debian's bindfs, and root: run ./tests/all"]
fn pulls_are_warned_and_nothing_is_collected() {
    let real = tempfile::tempdir().unwrap();
    let mount = Mount::of(real.path(), &[]);
    let root = mount.0.path().join("store");
    let file = real.path().join("file");
    std::fs::write(&file, "some bytes").unwrap();

    let put = store(&root, &["blob", "put", file.to_str().unwrap()]);
    assert!(put.status.success(), "{put:?}");
    let digest = String::from_utf8(put.stdout).unwrap();
    let cat = store(&root, &["blob", "cat", digest.trim()]);
    assert_eq!(cat.stdout, b"some bytes");

    // The warning comes before the network, which is not needed to hear it.
    let pull = store(&root, &["pull", "--policy=never", "127.0.0.1:1/a:1"]);
    assert_eq!(pull.status.code(), Some(4), "{pull:?}");
    assert!(String::from_utf8_lossy(&pull.stderr).contains("lies on FUSE"), "{pull:?}");

    let gc = store(&root, &["gc", "--grace=0s"]);
    assert_eq!(gc.status.code(), Some(1), "{gc:?}");
    let said = String::from_utf8_lossy(&gc.stderr).into_owned();
    assert!(said.contains("nothing is collected there"), "{said}");
    assert_eq!(store(&root, &["blob", "cat", digest.trim()]).stdout, b"some bytes");

    let blobs: Vec<_> =
        std::fs::read_dir(real.path().join("store/blobs/sha256")).unwrap().collect();
    assert_eq!(blobs.len(), 1, "no temporary name is left: {blobs:?}");
    let check = store(&root, &["check", "--read-data"]);
    assert!(check.status.success(), "{check:?}");
}

/// As of one that knows no modes, and takes them without a word: then who wrote a blob is not to be told.
#[test]
#[ignore = "needs Debian's bindfs, and root: run ./tests/all"]
fn where_modes_do_not_hold_images_are_named_all_the_same() {
    let real = tempfile::tempdir().unwrap();
    let mount = Mount::of(real.path(), &["--chmod-ignore"]);
    let root = mount.0.path().join("store");
    let file = real.path().join("file");
    std::fs::write(&file, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    let put = store(&root, &["blob", "put", file.to_str().unwrap()]);
    assert!(put.status.success(), "{put:?}");
    let digest = String::from_utf8(put.stdout).unwrap();
    let blob = root.join("blobs/sha256").join(digest.trim().strip_prefix("sha256:").unwrap());
    let inode = || std::fs::metadata(&blob).unwrap().ino();
    assert_ne!(std::fs::metadata(&blob).unwrap().mode() & 0o222, 0, "modes hold here");
    let before = inode();
    for args in [["tag", digest.trim(), "a:1"], ["lease", "add", digest.trim()]] {
        let done = store(&root, &args);
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(inode(), before, "and nothing is copied");
}
