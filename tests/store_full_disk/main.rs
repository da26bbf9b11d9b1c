//! On a full disk everything says so, and what was downloaded is kept.
//!
//! The disk is a small tmpfs, which only root can mount.

#[cfg(feature = "cli")]
mod capped;
#[cfg(feature = "cli")]
mod disk;
#[cfg(feature = "cli")]
mod limits;
#[cfg(feature = "cli")]
mod pulls;
#[path = "../store_support/mod.rs"]
mod store_support;
#[cfg(feature = "cli")]
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim, ErrorKind};
use store_support::*;

const MIB: usize = 1024 * 1024;

/// Unmounts when it goes.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: usize) -> Tmpfs {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "a tmpfs cannot be mounted");
        Tmpfs(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
#[ignore = "needs root for a tmpfs"]
fn a_full_disk_is_told_and_the_part_is_kept() {
    let disk = Tmpfs::mount(16 * MIB);
    let store = BlobStore::init(disk.path().join("store")).unwrap();
    let lease = store.lease("test").unwrap();
    let bytes = noise(6 * MIB, 1);
    let digest = Algorithm::Sha256.digest(&bytes);
    let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
    let claim = || match store.claim(&pinned).unwrap() {
        Claim::Held(part) => part,
        other => panic!("not held: {other:?}"),
    };
    // A part with no space set aside for what it lacks, as on file systems that cannot.
    let path = store.root().join(format!(".layerstore/parts/sha256-{}.part", digest.hex()));
    std::fs::write(&path, &bytes[..MIB]).unwrap();
    let filler = disk.path().join("filler");
    let _ = std::fs::write(&filler, vec![0; 16 * MIB]);

    let mut part = claim();
    assert_eq!(part.len(), MIB as u64);
    let error = part.write(&bytes[MIB..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    for told in ["`store gc` frees", " bytes are needed", " are missing", "continues where"] {
        assert!(error.to_string().contains(told), "{error}");
    }
    drop(part);
    assert_eq!(std::fs::read(&path).unwrap(), bytes[..MIB], "the part is as it was");

    // While the disk is full, nothing else is lost or half done.
    let mut ingest = store.ingest(&lease, Algorithm::Sha256, u64::MAX).unwrap();
    let error = ingest.write_from(&bytes[..], "memory").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    for told in ["no space left", "`store gc` frees"] {
        assert!(error.to_string().contains(told), "{error}");
    }
    drop(ingest);
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");

    // With space again, the first byte sets aside what all of it needs.
    std::fs::remove_file(&filler).unwrap();
    let mut part = claim();
    part.write(&bytes[MIB..MIB + 1]).unwrap();
    drop(part);
    let _ = std::fs::write(&filler, vec![0; 16 * MIB]);
    let mut part = claim();
    assert_eq!(part.len(), MIB as u64 + 1);
    part.write(&bytes[MIB + 1..]).unwrap();
    part.commit().unwrap();
    store.open_blob(&digest).unwrap().verify().unwrap();
}

/// A part that may have been synced in vain is copied; where there is no room for two, its bytes are
/// given up, and the room is the download's.
#[test]
#[ignore = "needs root for a tmpfs"]
fn a_part_that_cannot_be_copied_begins_anew() {
    let disk = Tmpfs::mount(16 * MIB);
    let store = BlobStore::init(disk.path().join("store")).unwrap();
    let lease = store.lease("test").unwrap();
    let bytes = noise(8 * MIB, 1);
    let digest = Algorithm::Sha256.digest(&bytes);
    let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
    let path = store.root().join(format!(".layerstore/parts/sha256-{}.part", digest.hex()));
    std::fs::write(&path, &bytes[..7 * MIB]).unwrap();
    set_mode(&path, 0o1444);
    std::fs::write(disk.path().join("filler"), vec![0; 3 * MIB]).unwrap();
    let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
    assert!(part.is_empty());
    part.write(&bytes).unwrap();
    part.commit().unwrap();
    store.open_blob(&digest).unwrap().verify().unwrap();
}

#[test]
#[ignore = "needs root for a tmpfs"]
fn a_collection_makes_room_on_a_full_disk() {
    let disk = Tmpfs::mount(16 * MIB);
    let store = BlobStore::init(disk.path().join("store")).unwrap();
    let kept = add_image(&store, "kept:1", &[&noise(MIB, 1)]);
    let garbage = *put(&store, &store.lease("test").unwrap(), &noise(4 * MIB, 2)).digest();
    let _ = std::fs::write(disk.path().join("filler"), vec![0; 16 * MIB]);
    let at_once = layerstore::GcOptions { grace: std::time::Duration::ZERO, ..Default::default() };
    let report = layerstore::gc::collect(&store, &at_once).unwrap();
    assert_eq!((report.removed, report.removed_bytes), (1, 4 * MIB as u64), "{report:?}");
    assert!(store.open_blob(&garbage).is_err());
    assert!(store.closure(&kept.target).unwrap().iter().all(|node| node.present));
    put(&store, &store.lease("test").unwrap(), &noise(3 * MIB, 3));
}

/// To drop an image is to write `index.json`, which needs what the reserve gave up.
#[test]
#[ignore = "needs root for a tmpfs"]
fn a_full_disk_lets_images_go() {
    let disk = Tmpfs::mount(16 * MIB);
    let store = BlobStore::init(disk.path().join("store")).unwrap();
    let old = add_image(&store, "old:1", &[&noise(2 * MIB, 1)]);
    let kept = add_image(&store, "kept:1", &[&noise(MIB, 2)]);
    store.set_pinned("kept:1", true).unwrap();
    let du = || -> u64 {
        let output = Command::new("du").args(["-s", "-B1"]).arg(store.root()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let mut options = layerstore::GcOptions::default();
    options.limits.max_used = Some(du() - MIB as u64);
    let _ = std::fs::write(disk.path().join("filler"), vec![0; 16 * MIB]);
    let room = layerstore::gc::collect(&store, &options).unwrap().room.unwrap();
    assert_eq!((room.dropped.len(), room.over, room.used), (1, 0, du()), "{room:?}");
    assert!(store.open_blob(&old.target.digest).is_err());
    assert!(store.closure(&kept.target).unwrap().iter().all(|node| node.present));
    let reserve = std::fs::metadata(store.root().join(".layerstore/reserve")).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&reserve);
    assert_eq!(blocks * 512, 4 * MIB as u64, "it is set aside again");
}

#[test]
#[ignore = "needs root for a tmpfs"]
fn refs_survive_a_disk_that_fills() {
    let disk = Tmpfs::mount(8 * MIB);
    let store = BlobStore::init(disk.path().join("store")).unwrap();
    add_image(&store, "a:1", &[b"layer"]);
    let lease = store.lease("test").unwrap();
    let _ = std::fs::write(disk.path().join("filler"), vec![0; 12 * MIB]);
    // To the last byte: a name of this length takes the index over one page and more.
    let mut named = 0;
    let error = loop {
        match store.tag(&lease, "a:1", &format!("{}:{named}", "n".repeat(800))) {
            Ok(_) => named += 1,
            Err(error) => break error,
        }
        assert!(named < 100, "the disk is not full");
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(store.refs().unwrap().len(), 1 + named);
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert!(report.is_sound() && report.temporary == 0, "{report:?}");
}

/// A disk whose size nobody has to mount: a declared size that no disk has.
#[test]
fn more_than_any_disk_holds_is_refused_before_a_byte_is_written() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let pinned = lease.pin_one(Algorithm::Sha256.digest(b"x"), 1 << 60).unwrap();
    let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
    let error = part.write(b"first bytes").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("are missing"), "{error}");
    assert!(part.is_empty());
    assert!(store.usage().unwrap().kinds.parts.disk < 1 << 20);
}
