//! Where no thread is to be had, what several do side by side is done all the same.

mod store_support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, GcOptions, gc};
use rustix::process::{Resource, Rlimit, setrlimit};
use store_support::*;

fn work_alone(dir: &Path) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Nproc, none).unwrap();
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "there are threads to be had");
    let store = BlobStore::init(dir.join("store")).unwrap();
    let lease = store.lease("test").unwrap();
    let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 100).unwrap();
    for n in 0..300 {
        batch.put(n.to_string().as_bytes(), "a blob").unwrap();
    }
    assert_eq!(batch.commit().unwrap().len(), 300);
    drop(lease);
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert!(report.is_sound() && report.read_blobs == 300, "{report:?}");
    let options = GcOptions { grace: Duration::ZERO, ..Default::default() };
    assert_eq!(gc::collect(&store, &options).unwrap().removed, 300);
}

#[test]
fn batch_check_and_collection_need_none() {
    if let Some(dir) = task() {
        return work_alone(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    // The limit holds nobody back who is root: then the child is another user.
    let output = Command::new("env")
        .args(unprivileged(dir.path()))
        .arg(std::env::current_exe().unwrap())
        .args(["batch_check_and_collection_need_none", "--exact", "--nocapture"])
        // With this, the test runs on the main thread.
        .arg("--test-threads=1")
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
