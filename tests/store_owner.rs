//! A store that somebody else owns, or may write to, is not used.

mod store_support;

use std::os::unix::fs::chown;

use layerstore::{BlobStore, Error};
use store_support::*;

const DIRS: [&str; 8] = [
    "",
    "blobs",
    "blobs/sha256",
    ".layerstore",
    ".layerstore/locks",
    ".layerstore/leases",
    ".layerstore/parts",
    ".layerstore/trash",
];

#[test]
fn a_directory_of_another_user_is_refused() {
    for dir in DIRS {
        let (_dir, store) = store();
        let path = store.root().join(dir);
        match chown(&path, Some(12345), None) {
            Ok(()) => {
                let error = use_it(store.root()).unwrap_err();
                assert!(matches!(error, Error::Unsafe { .. }), "{dir}: {error}");
                assert!(error.to_string().contains("12345"), "{error}");
            }
            // Only root can give a directory away. What everybody can try is root's own.
            Err(_) => {
                assert!(!is_root());
                let error = BlobStore::init("/").unwrap_err();
                assert!(matches!(error, Error::Unsafe { .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    for dir in DIRS {
        for mode in [0o770, 0o707, 0o722] {
            let (_dir, store) = store();
            set_mode(&store.root().join(dir), mode);
            let error = use_it(store.root()).unwrap_err();
            assert!(matches!(error, Error::Unsafe { .. }), "{dir} {mode:o}: {error}");
            assert!(error.to_string().contains("chmod"), "{error}");
        }
    }
}

/// Opens the store and looks at its blobs, whose directories are opened when they are needed.
fn use_it(root: &std::path::Path) -> layerstore::Result<()> {
    let store = BlobStore::open(root)?;
    let count = store.blobs()?.count();
    assert_eq!(count, 0);
    Ok(())
}

#[test]
fn what_others_may_only_read_is_fine() {
    let (_dir, store) = store();
    for dir in DIRS {
        set_mode(&store.root().join(dir), 0o755);
    }
    use_it(store.root()).unwrap();
}
