//! Pulls from a registry in this process.
#![cfg(feature = "fetch")]

#[path = "../store_support/corrupt.rs"]
mod corrupt;
#[path = "../support/mod.rs"]
mod support;
#[path = "../store_support/waiters.rs"]
mod waiters;

mod artifacts;
mod cancelled;
mod connections;
mod data;
mod faults;
mod foreign;
mod heal;
mod image;
mod parallel;
mod platforms;
mod policy;
mod referrers;
mod repair;
mod resume;
mod room;
mod secrets;
mod together;
mod turns;
mod versions;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use layerstore::fetch::{Event, HttpRegistry, Observer, Pulled, Puller, RetryPolicy};
use layerstore::{BlobStore, Digest, Error, Reference};
use support::{Image, Registry};

/// A store in a directory of its own, beside a registry.
struct World {
    registry: Registry,
    store: BlobStore,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        World::beside(Registry::start())
    }

    fn beside(registry: Registry) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::init(dir.path().join("store")).unwrap();
        World { registry, store, _dir: dir }
    }

    fn reference(&self, rest: &str) -> Reference {
        self.registry.reference(rest).parse().unwrap()
    }

    /// A puller as a process of its own would have it: nothing is shared but the disk.
    fn puller(&self) -> Puller {
        let registry = HttpRegistry::builder().plain_http(self.registry.address()).build().unwrap();
        let mut patience = RetryPolicy::default();
        patience.first_delay = Duration::from_millis(1);
        patience.max_delay = Duration::from_millis(5);
        let store = BlobStore::open(self.store.root()).unwrap();
        Puller::new(store, Arc::new(registry)).retry(patience)
    }

    fn pull(&self, rest: &str) -> Result<Pulled, Error> {
        run(self.puller().pull(&self.reference(rest)))
    }

    /// The store has the ref, and of the image every byte.
    fn assert_has(&self, rest: &str, image: &Image) {
        let found = self.store.find_ref(&self.reference(rest).to_string()).unwrap().descriptor;
        assert_eq!(found.digest.to_string(), image.digest);
        self.assert_blobs(image);
    }

    fn assert_blobs(&self, image: &Image) {
        for (digest, content) in image.closure() {
            let blob = self.store.open_blob(&digest.parse().unwrap()).unwrap();
            assert_eq!(blob.map_unverified().unwrap().as_ref(), content.to_vec(), "{digest}");
            blob.verify().unwrap();
        }
    }

    fn has_blob(&self, digest: &str) -> bool {
        self.store.open_blob(&digest.parse::<Digest>().unwrap()).is_ok()
    }

    fn names_in(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.root().join(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Nothing of a pull is left but what `parts` names: no lease, no temporary file.
    fn assert_tidy(&self, parts: usize) {
        let found = self.names_in(".layerstore/parts");
        let data = found.iter().filter(|name| name.ends_with(".part")).count();
        assert_eq!(data, parts, "{found:?}");
        assert_eq!(self.names_in(".layerstore/leases"), [""; 0]);
        for name in self.names_in("blobs/sha256") {
            assert!(format!("sha256:{name}").parse::<Digest>().is_ok(), "stray file {name}");
        }
        let root = self.names_in("");
        assert_eq!(root, [".layerstore", "blobs", "index.json", "oci-layout"]);
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("the pull hangs")
    })
}

/// An observer and what it has heard.
fn recorder() -> (Observer, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    (Observer::new(move |event| sink.lock().unwrap().push(event)), events)
}
