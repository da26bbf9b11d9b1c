//! A small disk of its own, a store on it, and the command run on that.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use layerstore::{BlobStore, Digest};

use crate::support::{Image, Registry};

pub(crate) const MIB: u64 = 1024 * 1024;

/// An ext4 file system on a file, unmounted when it goes.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn mount(size: u64) -> Disk {
        Disk::mount_with(size, "loop", &[])
    }

    /// One on which no space can be set aside: it runs out when something is written, and not before.
    pub(crate) fn without_reservations(size: u64) -> Disk {
        Disk::mount_with(size, "loop,nodelalloc", &["-O", "^extent,^64bit,^has_journal"])
    }

    fn mount_with(size: u64, how: &str, options: &[&str]) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = (dir.path().join("disk"), dir.path().join("mounted"));
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        std::fs::create_dir(&path).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).args(options).arg(&file));
        run(Command::new("mount").args(["-o", how]).args([&file, &path]));
        Disk(dir)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("mounted")
    }

    /// What is taken of it, as `df` says.
    pub(crate) fn used(&self) -> u64 {
        self.df("used")
    }

    /// What it has room for.
    pub(crate) fn size(&self) -> u64 {
        self.df("size")
    }

    /// What is free for anybody.
    pub(crate) fn free(&self) -> u64 {
        self.df("avail")
    }

    /// Leaves no more free than that, until [`make_room`](Disk::make_room).
    pub(crate) fn fill(&self, left: u64) {
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        // A half at a time: the list of a file's blocks takes some too, and what is written waits in
        // memory for its place, of which some is given back then.
        while let more @ 1.. = self.free().saturating_sub(left) {
            let more = vec![0; (more as usize / 2).max(1024)];
            if filler.write_all(&more).and_then(|()| filler.sync_all()).is_err() {
                break;
            }
        }
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    fn df(&self, what: &str) -> u64 {
        let column = format!("--output={what}");
        let output = run(Command::new("df").args(["-B1", &column]).arg(self.path()));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Runs a command that succeeds.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// What `du` says. Files that go while it looks make it fail, and no difference.
pub(crate) fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// The command on a store.
pub(crate) fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
    command.env_clear().arg("--root").arg(root).args(arguments);
    command
}

/// A store beside a registry.
pub(crate) struct World {
    pub(crate) root: PathBuf,
    pub(crate) registry: Registry,
    pub(crate) images: Vec<Image>,
}

impl World {
    pub(crate) fn name(&self, n: u64) -> String {
        self.registry.reference(&format!("demo{n}:1"))
    }

    /// The command that pulls an image.
    pub(crate) fn pull_command(&self, n: u64, more: &[&str]) -> Command {
        let name = self.name(n);
        let arguments = ["pull", "--plain-http", "--progress", "none", &name];
        command(&self.root, &[&arguments, more].concat())
    }

    pub(crate) fn pull(&self, n: u64) -> Output {
        self.pull_command(n, &[]).output().unwrap()
    }

    /// Every byte of an image is there.
    pub(crate) fn assert_whole(&self, store: &BlobStore, n: u64) {
        for (digest, content) in self.images[n as usize].closure() {
            let blob = store.open_blob(&digest.parse::<Digest>().unwrap()).unwrap();
            assert_eq!(blob.len(), content.len());
            blob.verify().unwrap();
        }
    }
}
