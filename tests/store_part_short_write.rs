//! A write that the disk cuts short is repeated by the caller, and no byte is there twice.

mod store_support;

use std::process::Command;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store_support::*;

const SIZE: usize = 120_000;

/// With a limit on the length of files, a write past it is cut there, as on a full disk.
fn write_past_the_limit(root: &str) {
    let bytes = noise(SIZE, 5);
    let store = BlobStore::open(root).unwrap();
    let lease = store.lease("child").unwrap();
    for (pinned, private) in [
        (lease.pin_one(Algorithm::Sha256.digest(&bytes), SIZE as u64).unwrap(), false),
        (lease.pin_one(Algorithm::Sha512.digest(&bytes), SIZE as u64).unwrap(), true),
    ] {
        let part = match private {
            true => Ok(store.private_part(&pinned).unwrap()),
            false => Err(store.claim(&pinned).unwrap()),
        };
        let mut part = match part {
            Ok(part) | Err(Claim::Held(part)) => part,
            Err(other) => panic!("not held: {other:?}"),
        };
        part.write(&bytes[..1000]).unwrap();
        let hard = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: Some(50_000), maximum: hard }).unwrap();
        let cut = part.write(&bytes[1000..]);
        setrlimit(Resource::Fsize, Rlimit { current: hard, maximum: hard }).unwrap();
        assert!(cut.is_err());
        assert_eq!(part.len(), 1000);
        part.write(&bytes[1000..]).unwrap();
        part.commit().unwrap();
        let blob = store.open_blob(pinned.digest()).unwrap();
        assert_eq!(blob.len(), SIZE as u64);
        blob.verify().unwrap();
    }
}

#[test]
fn a_write_that_was_cut_can_be_repeated() {
    if let Some(root) = task() {
        return write_past_the_limit(&root);
    }
    let (_dir, store) = store();
    // The signal that comes with the limit would kill the child; ignored, it is an error instead.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["a_write_that_was_cut_can_be_repeated", "--exact", "--nocapture"])
        .env(CHILD, store.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
