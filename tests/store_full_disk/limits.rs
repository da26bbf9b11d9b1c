//! Limits given to `store gc`, on a disk of which they speak.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use layerstore::BlobStore;

use crate::disk::{Disk, MIB, command, du, run};
use crate::store_support::{Image, add_image, blob_path, noise};

/// A store with three images of 4 MiB, each used ten minutes after the one before.
fn three_images(disk: &Disk) -> (BlobStore, Vec<Image>) {
    let store = BlobStore::init(disk.path().join("store")).unwrap();
    let add = |n: u64| {
        let image = add_image(&store, &format!("image{n}:1"), &[&noise(4 << 20, n + 1)]);
        let record = format!(".layerstore/used/sha256-{}", image.target.digest.hex());
        let then = SystemTime::now() - Duration::from_secs(600 * (6 - n));
        for path in [store.root().join(record), blob_path(&store, &image.target.digest)] {
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
        image
    };
    let images = (0..3).map(add).collect();
    (store, images)
}

fn names(store: &BlobStore) -> Vec<String> {
    store.refs().unwrap().into_iter().filter_map(|entry| entry.name).collect()
}

#[test]
#[ignore = "needs root for a file system"]
fn gc_makes_as_much_free_as_is_asked_for() {
    let disk = Disk::mount(64 * MIB);
    let (store, _) = three_images(&disk);
    let gc = |free: u64| command(store.root(), &["gc", "--min-free-space", &free.to_string()]);
    run(&mut gc(disk.free() - MIB));
    assert_eq!(names(&store).len(), 3, "so much is free");
    let wanted = disk.free() + 2 * MIB;
    run(&mut gc(wanted));
    assert!(disk.free() >= wanted, "{} of {wanted}", disk.free());
    assert_eq!(names(&store), ["image1:1", "image2:1"]);
}

/// More has to stay free than the disk has: what is left to the store is what is reserved.
#[test]
#[ignore = "needs root for a file system"]
fn gc_leaves_a_store_what_is_reserved_for_it() {
    let disk = Disk::mount(64 * MIB);
    let (store, _) = three_images(&disk);
    let used = du(store.root());
    let gc = |reserved: u64| {
        let reserved = reserved.to_string();
        let arguments = ["gc", "--min-free-space", "1T", "--reserved-space", &reserved];
        command(store.root(), &arguments)
    };
    run(&mut gc(used + MIB / 2));
    assert_eq!(names(&store).len(), 3, "it takes no more than it may");
    run(&mut gc(used - 2 * MIB));
    assert!(du(store.root()) <= used - 2 * MIB, "{} of {used}", du(store.root()));
    assert_eq!(names(&store), ["image1:1", "image2:1"]);
    let done = command(store.root(), &["gc", "--min-free-space", "1T"]).output().unwrap();
    assert_eq!(done.status.code(), Some(9), "{done:?}");
    assert_eq!(names(&store).len(), 0);
}

/// A file that cannot be removed, since something is mounted on it: itself.
struct Stuck(PathBuf);

impl Stuck {
    fn make(path: &Path) -> Stuck {
        run(Command::new("mount").arg("--bind").args([path, path]));
        Stuck(path.to_path_buf())
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root for a file system"]
fn a_collection_that_fails_tells_what_it_dropped() {
    let disk = Disk::mount(64 * MIB);
    let (store, images) = three_images(&disk);
    // Two have to go. The layer of the second does not.
    let cap = (du(store.root()) - 5 * MIB).to_string();
    let stuck = Stuck::make(&blob_path(&store, &images[1].layers[0]));
    let gc =
        |more: &[&str]| command(store.root(), &[&["gc", "--max-used-space", &cap], more].concat());
    let done = gc(&[]).output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert_eq!(done.stdout, b"", "{text}");
    for (n, image) in images[..2].iter().enumerate() {
        let start = format!("warning: {} was dropped to make room, 4.", image.target.digest);
        let name = format!(": image{n}:1");
        let told = |line: &str| line.starts_with(&start) && line.ends_with(&name);
        assert!(text.lines().any(told), "{n}: {text}");
    }
    // All that the two are made of, but for one.
    assert!(text.contains("warning: 5 blobs, 4.0 MiB, had been removed"), "{text}");
    let stuck_file = stuck.0.file_name().unwrap().to_str().unwrap();
    let why = |line: &str| line.starts_with("error: ") && line.contains(stuck_file);
    assert!(text.lines().any(why), "{text}");
    assert_eq!(names(&store), ["image2:1"]);
    assert!(!blob_path(&store, &images[0].layers[0]).exists());

    // When it may go, it does, and nothing else has to.
    drop(stuck);
    run(&mut gc(&["--grace", "0s"]));
    assert_eq!(names(&store), ["image2:1"]);
    assert!(!blob_path(&store, &images[1].layers[0]).exists());
    assert!(du(store.root()) <= cap.parse().unwrap());
}
