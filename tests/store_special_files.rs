//! A FIFO, a link or a directory in place of one of the store's files harms nothing outside, and
//! nobody waits for it for ever.

mod store_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, Claim};
use store_support::*;

const LAYER: &[u8] = b"bytes of a layer";
const PART: &[u8] = b"bytes of a part";

/// Does all that the store can do. Errors are expected; blocking and panics are not.
fn do_everything(root: &Path) -> Vec<String> {
    let mut errors = Vec::new();
    let mut note = |result: layerstore::Result<()>| {
        if let Err(error) = result {
            errors.push(error.to_string());
        }
    };
    note(BlobStore::init(root).map(drop));
    let store = match BlobStore::open(root) {
        Ok(store) => store,
        Err(error) => {
            note(Err(error));
            return errors;
        }
    };
    note(store.refs().map(drop));
    note(store.leases().map(drop));
    note(store.usage().map(drop));
    let options = layerstore::CheckOptions { read_data: true, ..Default::default() };
    match store.check(&options, |_| {}) {
        Ok(report) => errors.extend(report.damage.into_iter().map(|damage| damage.message)),
        Err(error) => errors.push(error.to_string()),
    }
    let mut note = |result: layerstore::Result<()>| {
        if let Err(error) = result {
            errors.push(error.to_string());
        }
    };
    note(store.open_blob(&Algorithm::Sha256.digest(LAYER)).and_then(|blob| blob.verify()));
    let everything = || -> layerstore::Result<()> {
        let lease = store.lease("test")?;
        let mut ingest = store.ingest(&lease, Algorithm::Sha256, 1000)?;
        ingest.write_from(LAYER, "memory")?;
        ingest.commit()?;
        let pinned = lease.pin_one(Algorithm::Sha256.digest(PART), PART.len() as u64)?;
        if let Claim::Held(mut part) = store.claim(&pinned)? {
            part.restart()?;
            part.write(PART)?;
            part.commit()?;
        }
        store.tag(&lease, "a:1", "a:2")?;
        store.remove_refs(&["a:2".to_owned()])?;
        Ok(())
    };
    note(everything());
    let repair = || -> layerstore::Result<()> {
        let digest = Algorithm::Sha256.digest(LAYER);
        store.record_origins(&"a:1".parse()?, &[(digest, true)]);
        store.origins(&digest)?;
        store.quarantine(&digest)?;
        store.recover_refs().map(drop)
    };
    note(repair());
    errors
}

fn places() -> Vec<String> {
    let hex = |bytes: &[u8]| Algorithm::Sha256.digest(bytes).hex();
    let mut places = vec![
        "index.json".to_owned(),
        "oci-layout".to_owned(),
        "blobs".to_owned(),
        "blobs/sha256".to_owned(),
        format!("blobs/sha256/{}", hex(LAYER)),
        format!(".layerstore/parts/sha256-{}.part", hex(PART)),
        format!(".layerstore/parts/sha256-{}.lock", hex(PART)),
        ".layerstore/leases/0123456789abcdef0123456789abcdef".to_owned(),
    ];
    let private = [
        "",
        "/version",
        "/reserve",
        "/refs",
        "/locks",
        "/leases",
        "/parts",
        "/trash",
        "/origins",
        "/quarantine",
    ];
    places.extend(private.map(|name| format!(".layerstore{name}")));
    places.extend(["gc", "turn", "gate", "index"].map(|name| format!(".layerstore/locks/{name}")));
    places
}

fn within_a_minute<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{what} hangs"))
}

/// Every file and directory below `dir`, with what is in it and its mode.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        match path.is_dir() {
            true => {
                all.push((path.clone(), Vec::new(), mode));
                all.extend(contents(&path));
            }
            false => all.push((path.clone(), fs::read(&path).unwrap(), mode)),
        }
    }
    all.sort();
    all
}

#[test]
fn nothing_outside_is_touched_and_nothing_hangs() {
    type Put = fn(&Path, &Path);
    let kinds: [(&str, Put); 5] = [
        ("a FIFO", |path, _| mkfifo(path)),
        ("a link to a file", |path, outside| {
            std::os::unix::fs::symlink(outside.join("file"), path).unwrap()
        }),
        ("a link to a directory", |path, outside| {
            std::os::unix::fs::symlink(outside.join("dir"), path).unwrap()
        }),
        ("a link to nothing", |path, outside| {
            std::os::unix::fs::symlink(outside.join("new"), path).unwrap()
        }),
        ("a directory", |path, _| fs::create_dir(path).unwrap()),
    ];
    for place in places() {
        for (kind, put) in kinds {
            let what = format!("{kind} at {place}");
            let (dir, store) = store();
            add_image(&store, "a:1", &[LAYER]);
            let outside = dir.path().join("outside");
            fs::create_dir_all(outside.join("dir")).unwrap();
            fs::write(outside.join("file"), PART).unwrap();
            set_mode(&outside.join("file"), 0o600);
            let path = store.root().join(&place);
            match path.is_dir() {
                true => fs::remove_dir_all(&path).unwrap(),
                false => drop(fs::remove_file(&path)),
            }
            put(&path, &outside);
            let before = contents(&outside);
            let root = store.root().to_path_buf();
            drop(store);
            let errors = within_a_minute(&what, move || do_everything(&root));
            assert_eq!(contents(&outside), before, "{what}");
            let is_dir = ["blobs", "blobs/sha256", ".layerstore"].contains(&place.as_str())
                || ["locks", "leases", "parts", "trash", "origins", "quarantine"]
                    .iter()
                    .any(|name| place.ends_with(name));
            // An empty directory in place of a directory is what init would make.
            if kind != "a directory" || !is_dir {
                assert!(!errors.is_empty(), "{what} went unnoticed");
            }
        }
    }
}
