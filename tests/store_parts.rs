//! Parts: resumed, discarded, doubled, and held by one process at a time.

mod store_support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim, Digest, Error, Part, Pinned};
use store_support::*;

fn hold(store: &BlobStore, pinned: &Pinned) -> Part {
    match store.claim(pinned).unwrap() {
        Claim::Held(part) => part,
        other => panic!("not held: {other:?}"),
    }
}

fn parts(store: &BlobStore) -> usize {
    std::fs::read_dir(store.root().join(".layerstore/parts")).unwrap().count()
}

fn part_path(store: &BlobStore, digest: &Digest) -> std::path::PathBuf {
    let name = format!("{}-{}.part", digest.algorithm(), digest.hex());
    store.root().join(".layerstore/parts").join(name)
}

#[test]
fn more_than_the_size_is_refused_and_nothing_of_it_written() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let bytes = noise(1000, 1);
    let pinned = lease.pin_one(Algorithm::Sha256.digest(&bytes), 1000).unwrap();
    let mut part = hold(&store, &pinned);
    part.write(&bytes[..999]).unwrap();
    let error = part.write(&bytes[..2]).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { expected: 1000, more: true, .. }), "{error}");
    assert_eq!((part.len(), part.missing()), (999, std::iter::once(999..1000).collect()));
    part.write(&bytes[999..]).unwrap();
    part.commit().unwrap();
    store.open_blob(pinned.digest()).unwrap().verify().unwrap();
}

#[test]
fn a_short_part_is_kept_and_a_wrong_one_is_not() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let bytes = noise(1000, 1);
    let pinned = lease.pin_one(Algorithm::Sha256.digest(&bytes), 1000).unwrap();
    let mut part = hold(&store, &pinned);
    part.write(&bytes[..500]).unwrap();
    let error = part.commit().unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { actual: 500, more: false, .. }), "{error}");

    let mut part = hold(&store, &pinned);
    assert_eq!(part.len(), 500);
    part.write(&noise(500, 2)).unwrap();
    let error = part.commit().unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert_eq!(parts(&store), 0, "what can never become the blob is gone");
    assert!(matches!(store.open_blob(pinned.digest()), Err(Error::BlobNotFound { .. })));

    let mut part = hold(&store, &pinned);
    assert!(part.is_empty());
    part.write(&bytes[..10]).unwrap();
    part.restart().unwrap();
    part.write(&bytes).unwrap();
    part.commit().unwrap();
    store.open_blob(pinned.digest()).unwrap().verify().unwrap();
}

#[test]
fn what_was_left_in_a_part_need_not_be_right() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let bytes = noise(1000, 1);
    let pinned = lease.pin_one(Algorithm::Sha256.digest(&bytes), 1000).unwrap();
    let path = part_path(&store, pinned.digest());

    std::fs::write(&path, noise(1001, 3)).unwrap();
    assert!(hold(&store, &pinned).is_empty(), "one that is too long begins anew");

    std::fs::write(&path, noise(400, 3)).unwrap();
    let mut part = hold(&store, &pinned);
    assert_eq!(part.len(), 400);
    part.write(&bytes[400..]).unwrap();
    assert!(matches!(part.commit(), Err(Error::DigestMismatch { .. })));

    std::fs::write(&path, &bytes).unwrap();
    let part = hold(&store, &pinned);
    assert_eq!((part.len(), part.missing()), (1000, vec![]));
    part.commit().unwrap();
    store.open_blob(pinned.digest()).unwrap().verify().unwrap();
}

/// As a process leaves it that dies between the change of mode and the rename: its sync may have
/// failed, which nobody would ever be told again.
#[test]
fn a_part_that_may_have_been_synced_in_vain_is_copied() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let bytes = noise(3_000_000, 1);
    let pinned = lease.pin_one(Algorithm::Sha256.digest(&bytes), 3_000_000).unwrap();
    let path = part_path(&store, pinned.digest());
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());

    std::fs::write(&path, &bytes).unwrap();
    let untouched = inode();
    drop(hold(&store, &pinned));
    assert_eq!(inode(), untouched);

    set_mode(&path, 0o1444);
    let part = hold(&store, &pinned);
    assert_ne!(inode(), untouched, "the same file would be synced again");
    assert_eq!((part.len(), part.missing()), (3_000_000, vec![]));
    drop(part);

    // Of one with gaps, what its account says is there.
    let mut part = hold(&store, &pinned);
    part.restart().unwrap();
    part.write_at(2_500_000, &bytes[2_500_000..]).unwrap();
    part.write_at(0, &bytes[..1_200_000]).unwrap();
    drop(part);
    set_mode(&path, 0o1444);
    let mut part = hold(&store, &pinned);
    let missing = part.missing();
    for range in missing {
        let place = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        part.write_at(range.start, &bytes[place]).unwrap();
    }
    part.commit().unwrap();
    store.open_blob(pinned.digest()).unwrap().verify().unwrap();
    assert_eq!(parts(&store), 0);
}

/// The umask took every right away, and the maker died before it gave them back.
#[test]
fn a_part_that_nobody_may_read_begins_anew() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let pinned = lease.pin_one(Algorithm::Sha256.digest(b"bytes"), 5).unwrap();
    std::fs::write(part_path(&store, pinned.digest()), b"").unwrap();
    set_mode(&part_path(&store, pinned.digest()), 0);
    let mut part = hold(&store, &pinned);
    part.write(b"bytes").unwrap();
    part.commit().unwrap();
}

#[test]
fn a_private_part_while_another_holds() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let bytes = noise(300_000, 1);
    let pinned = lease.pin_one(Algorithm::Sha256.digest(&bytes), 300_000).unwrap();
    let mut stopped = hold(&store, &pinned);
    stopped.write(&bytes[..1000]).unwrap();
    let Claim::Busy(watch) = store.claim(&pinned).unwrap() else { panic!("not busy") };
    assert_eq!(watch.len().unwrap(), Some(1000));
    assert!(watch.holder().contains(&std::process::id().to_string()), "{}", watch.holder());

    let mut private = store.private_part(&pinned).unwrap();
    private.write(&bytes).unwrap();
    private.commit().unwrap();
    store.open_blob(pinned.digest()).unwrap().verify().unwrap();
    // The one that had stopped goes on, and finds that it was overtaken.
    stopped.write(&bytes[1000..]).unwrap();
    stopped.commit().unwrap();
    store.open_blob(pinned.digest()).unwrap().verify().unwrap();
    assert_eq!(parts(&store), 0);
    assert!(matches!(store.claim(&pinned).unwrap(), Claim::Committed));
    assert_eq!(store.blobs().unwrap().count(), 1);
}

#[test]
fn of_two_processes_one_holds() {
    if let Some(root) = task() {
        let store = BlobStore::open(root).unwrap();
        let lease = store.lease("child").unwrap();
        let pinned = lease.pin_one(Algorithm::Sha256.digest(b"contended"), 9).unwrap();
        let claim = store.claim(&pinned).unwrap();
        println!("\nclaim {}", if matches!(claim, Claim::Held(_)) { "held" } else { "busy" });
        std::io::stdout().flush().unwrap();
        // Until the parent has heard of both.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let (_dir, store) = store();
    for _ in 0..5 {
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["of_two_processes_one_holds", "--exact", "--nocapture"])
                    .env(CHILD, store.root())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let mut said: Vec<String> = children
            .iter_mut()
            .map(|child| {
                let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
                lines.map(Result::unwrap).find(|line| line.starts_with("claim ")).unwrap()
            })
            .collect();
        said.sort();
        assert_eq!(said, ["claim busy", "claim held"]);
        for mut child in children {
            // Closing its input lets it go.
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success());
        }
    }
}
