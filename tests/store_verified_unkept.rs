//! Group hashes that are wrong or in the way, where no others can be kept, take nothing from a good
//! blob, and its reads are compared all the same.

mod store_support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore::{BlobStore, CheckOptions, Digest, Error};
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

/// What rots after a blob was opened and read is not given out.
fn is_guarded(store: &BlobStore, digest: &Digest, bytes: &[u8]) {
    let mut blob = store.open_blob(digest).unwrap();
    let mut read = vec![0; LEN];
    assert_eq!(blob.read_at(&mut read, 0).unwrap(), LEN);
    assert!(read == bytes);
    let path = blob_path(store, digest);
    set_mode(&path, 0o600);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[!bytes[20_000]], 20_000).unwrap();
    for at in [0, 4096, 19_990] {
        read.fill(1);
        let error = blob.read_at(&mut read, at).unwrap_err();
        assert!(matches!(error, Error::CorruptBlob { offset: 16_384, .. }), "{at}: {error}");
        assert_ne!(read[20_000 - at as usize], !bytes[20_000], "{at}: the wrong byte");
    }
    let mut some = vec![0; 4096];
    assert_eq!(blob.read_at(&mut some, 8192).unwrap(), 4096);
    assert!(some == bytes[8192..12_288], "what is good is given");
    file.write_all_at(&bytes[20_000..20_001], 20_000).unwrap();
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
        is_guarded(&store, &digest, &bytes);
    }
    let (_dir, store) = store();
    let (bytes, digest, outboard) = blob(&store);
    // The directory of them is nothing that can be used either.
    set_mode(outboard.parent().unwrap(), 0o777);
    let store = BlobStore::open(store.root()).unwrap();
    is_good(&store, &digest, &bytes);
    is_guarded(&store, &digest, &bytes);
}
