//! Where an image is asked for, and how its servers are spoken to: mirrors, certificates, proxies.
#![cfg(feature = "fetch")]

mod authority;
mod command;
#[path = "../store_support/corrupt.rs"]
mod corrupt;
mod credentials;
mod mirrors;
mod proxies;
mod proxy;
mod repair;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use layerstore::fetch::{
    Event, HttpRegistry, HttpRegistryBuilder, Observer, Puller, RegistrySettings, RetryPolicy,
};
use layerstore::{BlobStore, Error, Reference};
use support::{Image, Layer, Registry};

/// Blobs, and the servers that they came from.
type Served = Arc<Mutex<Vec<(String, Vec<String>)>>>;

/// A store, and a directory for settings.
struct World {
    dir: tempfile::TempDir,
    store: BlobStore,
    served: Served,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::init(dir.path().join("store")).unwrap();
        World { dir, store, served: Arc::default() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Settings of a `registries.conf` with this text, and of the directory `certs.d`.
    fn settings(&self, conf: &str) -> RegistrySettings {
        self.write("registries.conf", conf);
        RegistrySettings::new()
            .registries_conf(self.path("registries.conf"))
            .unwrap()
            .certs_dir(self.path("certs.d"))
    }

    fn client(&self, conf: &str) -> HttpRegistryBuilder {
        HttpRegistry::builder().settings(self.settings(conf)).read_timeout(Duration::from_secs(2))
    }

    /// A puller as a process of its own would have it.
    fn puller(&self, client: HttpRegistryBuilder) -> Puller {
        let mut patience = RetryPolicy::default();
        patience.retries = 1;
        patience.first_delay = Duration::from_millis(1);
        patience.max_delay = Duration::from_millis(2);
        let served = Arc::clone(&self.served);
        let observer = Observer::new(move |event| {
            if let Event::Served { digest, origins } = event {
                let origins = origins.iter().map(ToString::to_string).collect();
                served.lock().unwrap().push((digest.to_string(), origins));
            }
        });
        Puller::new(self.store.clone(), Arc::new(client.build().unwrap()))
            .retry(patience)
            .observer(observer)
    }

    fn pull(&self, client: HttpRegistryBuilder, name: &str) -> Result<(), Error> {
        let image: Reference = name.parse().unwrap();
        run(self.puller(client).pull(&image)).map(drop)
    }

    fn has(&self, name: &str, image: &Image) {
        let found = self.store.find_ref(name).unwrap().descriptor;
        assert_eq!(found.digest.to_string(), image.digest);
        for (digest, content) in image.closure() {
            let blob = self.store.open_blob(&digest.parse().unwrap()).unwrap();
            assert_eq!(blob.map_unverified().unwrap().as_ref(), content.to_vec(), "{digest}");
        }
    }

    /// The servers that a blob came from.
    fn origins(&self, digest: &str) -> Vec<String> {
        let served = self.served.lock().unwrap();
        served.iter().find(|(of, _)| of == digest).map(|(_, all)| all.clone()).unwrap_or_default()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("the pull hangs")
    })
}

fn image() -> Image {
    Image::of(&[Layer::generated(7, 3_000_000), Layer::files(&[("etc/motd", b"hello")])])
}

/// A registry that has `image` as `demo:1`, and under other names if asked.
fn with(image: &Image, repository: &str) -> Registry {
    let registry = Registry::start();
    registry.push(repository, "1", image);
    registry
}

/// A port of this machine where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
