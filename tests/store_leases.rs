//! Leases: what a dead process leaves, who may remove one, and those that outlive their process.

mod store_support;

use std::fs;
use std::io::Write;
use std::time::Duration;

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, Descriptor, Error, LeaseState};
use store_support::*;

fn lease_path(store: &BlobStore, id: &str) -> std::path::PathBuf {
    store.root().join(".layerstore/leases").join(id)
}

#[test]
fn a_torn_tail_is_left_out_and_a_bad_line_is_damage() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let first = put(&store, &lease, b"first");
    let path = lease_path(&store, lease.id());
    let whole = fs::read(&path).unwrap();
    // What a crash leaves of a record that was being written, from its first byte to its last.
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    let record = &whole[last + 1..];
    assert!(record.starts_with(b"blob sha256:"), "{}", String::from_utf8_lossy(record));
    for cut in [1, 20, record.len() - 1] {
        fs::write(&path, [&whole[..], &record[..cut]].concat()).unwrap();
        let leases = store.leases().unwrap();
        assert_eq!(leases[0].blobs, [*first.digest()], "cut at {cut}");
    }
    for bad in ["blob sha256:x 00000000\n", "\n", "blob\n\n"] {
        fs::write(&path, [&whole[..], bad.as_bytes()].concat()).unwrap();
        let error = store.leases().unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(lease.id()), "{error}");
    }
}

#[test]
fn a_killed_process_leaves_a_lease_that_has_ended() {
    if let Some(root) = task() {
        let store = BlobStore::open(root).unwrap();
        let lease = store.lease("the child").unwrap();
        put(&store, &lease, b"of the child");
        println!("\nlease {}", lease.id());
        std::io::stdout().flush().unwrap();
        loop {
            std::thread::park();
        }
    }
    let (_dir, store) = store();
    let mut child =
        child("a_killed_process_leaves_a_lease_that_has_ended", store.root().to_str().unwrap());
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let line = std::io::BufRead::lines(out)
        .map(Result::unwrap)
        .find(|line| line.starts_with("lease "))
        .unwrap();
    let id = line.strip_prefix("lease ").unwrap();
    let only = || store.leases().unwrap().pop().unwrap();
    assert_eq!((only().id.as_str(), only().state), (id, LeaseState::Live));
    assert!(only().holder.contains("the child"), "{}", only().holder);
    let error = store.remove_lease(id).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&child.id().to_string()), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(only().state, LeaseState::Ended);
    assert_eq!(only().blobs, [Algorithm::Sha256.digest(b"of the child")]);
    store.remove_lease(id).unwrap();
    assert!(store.leases().unwrap().is_empty());
}

#[test]
fn no_lease_is_removed_under_a_running_collection() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let lasting = store.lasting_lease("test", &[image.target.digest], None).unwrap();
    let gc = fs::File::open(store.root().join(".layerstore/locks/gc")).unwrap();
    gc.lock().unwrap();
    let error = store.remove_lease(&lasting).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let id = lease.id().to_owned();
    drop(lease);
    assert_eq!(store.leases().unwrap().len(), 2, "an owner leaves its file to the collection");
    drop(gc);
    store.remove_lease(&lasting).unwrap();
    store.remove_lease(&id).unwrap();
    assert!(matches!(store.remove_lease(&id), Err(Error::LeaseNotFound { .. })));
}

#[test]
fn only_a_leases_name_is_looked_for() {
    let (_dir, store) = store();
    let outside = store.root().join(".layerstore/locks/gate");
    for id in ["", ".", "..", "../locks/gate", "x", &"g".repeat(32), &"0".repeat(31), "0/../../x"] {
        assert!(matches!(store.remove_lease(id), Err(Error::LeaseNotFound { .. })), "{id:?}");
    }
    assert!(outside.exists());
}

#[test]
fn a_lasting_lease_outlives_its_maker() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let root = image.target.digest;
    let for_ever = store.lasting_lease("keeper", &[root], None).unwrap();
    let hour = store.lasting_lease("keeper", &[root], Some(Duration::from_secs(3600))).unwrap();
    let over = store.lasting_lease("keeper", &[root], Some(Duration::ZERO)).unwrap();
    let store = BlobStore::open(store.root()).unwrap();
    let leases = store.leases().unwrap();
    let find = |id: &str| leases.iter().find(|lease| lease.id == id).unwrap();
    assert_eq!((find(&for_ever).state, find(&for_ever).until), (LeaseState::Lasting, None));
    assert_eq!(find(&hour).state, LeaseState::Lasting);
    assert_eq!(find(&over).state, LeaseState::Ended);
    assert!(leases.iter().all(|lease| lease.trees == [root] && lease.blobs.is_empty()));
}

/// Until its id is given out it ends with its maker, who may be killed while blobs are copied.
#[test]
fn a_lasting_lease_lasts_only_once_it_is_given_out() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let id = store.lasting_lease("keeper", &[image.target.digest], None).unwrap();
    let path = store.root().join(".layerstore/leases").join(&id);
    let text = std::fs::read_to_string(&path).unwrap();
    let untils: Vec<_> = text.lines().filter(|line| line.starts_with("until ")).collect();
    assert!(untils.len() == 2 && untils[0].starts_with("until 0 "), "{text}");
    assert!(untils[1].starts_with("until never ") && text.ends_with(&format!("{}\n", untils[1])));
    // As its maker leaves it when it is killed before.
    std::fs::write(&path, text.strip_suffix(&format!("{}\n", untils[1])).unwrap()).unwrap();
    let lease = store.leases().unwrap().into_iter().find(|it| it.id == id).unwrap();
    assert_eq!(lease.state, LeaseState::Ended);
}

#[test]
fn a_lasting_lease_of_what_is_not_there_is_not_made() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[b"layer"]);
    let missing = Algorithm::Sha256.digest(b"missing");
    let error = store.lasting_lease("x", &[image.target.digest, missing], None).unwrap_err();
    assert!(matches!(error, Error::BlobNotFound { digest } if digest == missing), "{error}");
    assert!(store.leases().unwrap().is_empty());
}

#[test]
fn a_lease_lives_as_long_as_the_last_that_it_pinned() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let clone = lease.clone();
    let pinned = put(&store, &lease, b"x");
    drop(lease);
    drop(clone);
    assert_eq!(store.leases().unwrap().len(), 1);
    drop(pinned);
    assert_eq!(store.leases().unwrap().len(), 0);
}

#[test]
fn an_index_without_any_platform_is_not_there_to_be_kept() {
    let (_dir, store) = store();
    let lease = store.lease("test").unwrap();
    let absent = Algorithm::Sha256.digest(b"a platform that a pull is about to bring");
    let absent = Descriptor::new(MediaType::new(MediaType::OCI_MANIFEST), absent, 40);
    let index = put(&store, &lease, index_text(std::slice::from_ref(&absent)).as_bytes());
    let error = store.lasting_lease("test", &[*index.digest()], None).unwrap_err();
    assert!(matches!(error, Error::BlobNotFound { digest } if digest == absent.digest), "{error}");

    let (image, _) = put_image(&store, &lease, b"{}", &[b"layer"]);
    let index = put(&store, &lease, index_text(&[absent, image.target]).as_bytes());
    store.lasting_lease("test", &[*index.digest()], None).unwrap();
}
