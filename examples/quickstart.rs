//! layerstore in a minute, with no network: `cargo run --release --example quickstart`.
//!
//! A registry on loopback serves three versions of an image. Four processes pull them into one new
//! store at the same moment, one tag is removed, and a collection frees what only it needed.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use layerstore::fetch::{HttpRegistry, Pulled, Puller};
use layerstore::gc::{self, GcOptions};
use layerstore::{BlobStore, Reference};
use support::{Registry, images};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PROCESSES: usize = 4;
const VERSIONS: u64 = 3;
/// The layers of each version, in bytes: one that all share, one that two share, one of its own.
const SIZES: [u64; 3] = [24 << 20, 12 << 20, 3 << 20];

fn main() -> Result<()> {
    // Started by itself, the example is one of the processes that pull.
    if let [_, child, root, registry] = &*std::env::args().collect::<Vec<_>>()
        && child == "--pull"
    {
        return pull_all(Path::new(root), registry);
    }

    let dir = tempfile::Builder::new().prefix("layerstore-quickstart-").tempdir()?.keep();
    let root = dir.join("store");
    let registry = Registry::start();
    println!("A registry on {} serves demo:1, demo:2 and demo:3.", registry.address());
    for (n, image) in images::series_of_sizes(VERSIONS, SIZES).iter().enumerate() {
        registry.push("demo", &(n + 1).to_string(), image);
    }

    println!("\n{PROCESSES} processes pull all three into one store, at the same moment:\n");
    let store = BlobStore::init(&root)?;
    let children = (0..PROCESSES).map(|_| start_puller(&root, &registry));
    for mut child in children.collect::<Result<Vec<_>>>()? {
        if !child.wait()?.success() {
            return Err("a puller failed".into());
        }
    }
    let sent: u64 = registry.requests().iter().map(|request| request.body_bytes_sent).sum();
    let usage = store.usage()?;
    println!("\n  asked for      {}", mib(PROCESSES as u64 * VERSIONS * SIZES.iter().sum::<u64>()));
    println!("  sent, once     {}", mib(sent));
    println!("  on disk        {}", mib(usage.total.disk));

    let name = registry.reference("demo:1");
    println!("\nRemoving {name} and collecting what only it needed:\n");
    store.remove_refs(std::slice::from_ref(&name))?;
    let report = gc::collect(&store, &GcOptions { grace: Duration::ZERO, ..GcOptions::default() })?;
    println!("  removed        {} blobs, {}", report.removed, mib(report.removed_bytes));
    println!("  kept           {} blobs, {}", report.live, mib(report.live_bytes));

    println!(
        "\nThe store is an OCI image layout: {root}\n\n\
         Look into it, with the command or with any tool of the field:\n\n\
         \x20 store --root {root} images\n\
         \x20 skopeo inspect oci:{root}:{left}\n\n\
         And with a real registry:\n\n\
         \x20 store pull docker.io/library/alpine:3.20",
        root = root.display(),
        left = registry.reference("demo:2"),
    );
    Ok(())
}

fn start_puller(root: &Path, registry: &Registry) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--pull").arg(root).arg(registry.address()).stdin(Stdio::null());
    Ok(command.spawn()?)
}

/// One of the processes: it knows nothing of the others.
fn pull_all(root: &Path, registry: &str) -> Result<()> {
    let client = Arc::new(HttpRegistry::builder().plain_http(registry).build()?);
    let puller = Puller::new(BlobStore::open(root)?, client);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for version in 1..=VERSIONS {
        let reference: Reference = format!("{registry}/demo:{version}").parse()?;
        let Pulled { fetched_bytes, reused_bytes, waited_blobs, .. } =
            runtime.block_on(puller.pull(&reference))?;
        println!(
            "  process {:>6}  demo:{version}  fetched {:>9}, found {:>9}, waited for {waited_blobs} blobs",
            std::process::id(),
            mib(fetched_bytes),
            mib(reused_bytes),
        );
    }
    Ok(())
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
