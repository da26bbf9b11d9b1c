//! Group hashes that are wrong or in the way, where no others can be kept, take nothing from a good
//! blob.

mod store_support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore::{BlobStore, CheckOptions, Digest};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store_support::*;

const LEN: usize = 6 * 16 * 1024 + 100;

fn blob(store: &BlobStore) -> (Vec<u8>, Digest, PathBuf) {
    let bytes = noise(LEN, 5);
    let digest = *put(store, &store.lease("test").unwrap(), &bytes).digest();
    let outboard = store.root().join(".layerstore/outboard/sha256").join(digest.hex());
    (bytes, digest, outboard)
}

fn is_good(store: &BlobStore, digest: &Digest, bytes: &[u8]) {
    let (mut blob, mut read) = (store.open_blob(digest).unwrap(), Vec::new());
    blob.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    let mut some = vec![0; 5000];
    blob.read_at(&mut some, 20_000).unwrap();
    assert!(some == bytes[20_000..25_000]);
    for since in [None, Some(std::time::Duration::ZERO)] {
        let options = CheckOptions { since, ..Default::default() };
        let report = store.check(&options, |_| {}).unwrap();
        let of_blobs = report.damage.iter().filter(|damage| damage.digest.is_some());
        assert_eq!(of_blobs.count(), 0, "{report:?}");
        assert_eq!(report.read_blobs, 1);
    }
}

/// Nothing longer than a page can be written, as on a full disk.
fn read_without_room(root: &Path) {
    let store = BlobStore::open(root).unwrap();
    let (bytes, digest, outboard) = blob(&store);
    let mut rotten = fs::read(&outboard).unwrap();
    *rotten.last_mut().unwrap() ^= 1;
    fs::write(&outboard, &rotten).unwrap();
    let hard = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: Some(10), maximum: hard }).unwrap();
    is_good(&store, &digest, &bytes);
    setrlimit(Resource::Fsize, Rlimit { current: hard, maximum: hard }).unwrap();
    assert!(fs::read(&outboard).unwrap() == rotten, "nothing was kept");
}

#[test]
fn rotten_hashes_on_a_full_disk() {
    if let Some(root) = task() {
        return read_without_room(Path::new(&root));
    }
    let (_dir, store) = store();
    // The signal that comes with the limit would kill the child; ignored, it is an error instead.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["rotten_hashes_on_a_full_disk", "--exact", "--nocapture"])
        .env(CHILD, store.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn something_else_in_their_place() {
    type Put = fn(&Path);
    let things: [(&str, Put); 3] = [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a FIFO", mkfifo),
        ("a link", |path| std::os::unix::fs::symlink("/nonexistent/x", path).unwrap()),
    ];
    for (what, put_there) in things {
        let (_dir, store) = store();
        let (bytes, digest, outboard) = blob(&store);
        fs::remove_file(&outboard).unwrap();
        put_there(&outboard);
        println!("{what}");
        is_good(&store, &digest, &bytes);
    }
    let (_dir, store) = store();
    let (bytes, digest, outboard) = blob(&store);
    // The directory of them is nothing that can be used either.
    set_mode(outboard.parent().unwrap(), 0o777);
    is_good(&BlobStore::open(store.root()).unwrap(), &digest, &bytes);
}
