//! Whatever stands in a blob's place and is not the blob is replaced by a commit.

mod store_support;

use std::fs;
use std::io::Write;
use std::path::Path;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim, Pinned};
use store_support::*;

const BYTES: &[u8] = b"the right bytes";

#[derive(Clone, Copy, Debug)]
enum By {
    Ingest,
    Part,
    PrivatePart,
}

/// Commits the blob in one of the ways; its pin from before says that it is not there.
fn commit(store: &BlobStore, by: By) -> layerstore::Result<()> {
    let lease = store.lease("test").unwrap();
    let pinned: Pinned = lease.pin_one(Algorithm::Sha256.digest(BYTES), BYTES.len() as u64)?;
    assert!(!pinned.is_present());
    let mut part = match by {
        By::Ingest => {
            let mut ingest = store.ingest(&lease, Algorithm::Sha256, 100)?;
            ingest.write_all(BYTES).unwrap();
            return ingest.commit().map(drop);
        }
        By::Part => match store.claim(&pinned)? {
            Claim::Held(part) => part,
            other => panic!("not held: {other:?}"),
        },
        By::PrivatePart => store.private_part(&pinned)?,
    };
    // An attempt that failed at its last step left all of them.
    if part.is_empty() {
        part.write(BYTES)?;
    }
    part.commit()
}

/// What lies under a blob's name, in words, and how it comes to be there.
type InTheWay = (&'static str, Box<dyn Fn(&Path)>);

fn in_the_way(victim: &Path) -> Vec<InTheWay> {
    let victim = victim.to_owned();
    vec![
        ("a shorter file", Box::new(|path: &Path| fs::write(path, &BYTES[1..]).unwrap())),
        ("a longer file", Box::new(|path| fs::write(path, [BYTES, b"!"].concat()).unwrap())),
        ("an empty file", Box::new(|path| fs::write(path, b"").unwrap())),
        ("a FIFO", Box::new(mkfifo)),
        (
            "a link to a file outside",
            Box::new(move |path| std::os::unix::fs::symlink(&victim, path).unwrap()),
        ),
        (
            "a link to nothing",
            Box::new(|path| std::os::unix::fs::symlink("/nonexistent/x", path).unwrap()),
        ),
    ]
}

#[test]
fn a_commit_heals_what_is_not_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    // As long as the blob, so that only its being a link tells.
    fs::write(&victim, b"somebody's file").unwrap();
    assert_eq!(fs::metadata(&victim).unwrap().len(), BYTES.len() as u64);
    for (what, put_there) in in_the_way(&victim) {
        for by in [By::Ingest, By::Part, By::PrivatePart] {
            let (_dir, store) = store();
            let path = blob_path(&store, &Algorithm::Sha256.digest(BYTES));
            put_there(&path);
            commit(&store, by).unwrap_or_else(|error| panic!("{what}, {by:?}: {error}"));
            assert!(path.symlink_metadata().unwrap().is_file(), "{what}, {by:?}");
            assert_eq!(fs::read(&path).unwrap(), BYTES, "{what}, {by:?}");
            let report = store.check(&Default::default(), |_| {}).unwrap();
            assert!(report.is_sound() && report.temporary == 0, "{what}, {by:?}: {report:?}");
        }
    }
    assert_eq!(fs::read(&victim).unwrap(), b"somebody's file");
}

#[test]
fn a_directory_in_the_way_is_an_error_that_leaves_no_litter() {
    for by in [By::Ingest, By::Part, By::PrivatePart] {
        let (_dir, store) = store();
        let path = blob_path(&store, &Algorithm::Sha256.digest(BYTES));
        fs::create_dir(&path).unwrap();
        let error = commit(&store, by).unwrap_err();
        assert!(matches!(error, layerstore::Error::Io { .. }), "{by:?}: {error}");
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "{by:?}: only the directory itself");
        fs::remove_dir(&path).unwrap();
        commit(&store, by).unwrap();
    }
}
