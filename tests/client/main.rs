//! The registry client against a registry in this process, well-behaved and not.
#![cfg(feature = "fetch")]

mod blobs;
mod connections;
mod documents;
mod lists;
mod login;
mod redirects;
#[cfg(feature = "cli")]
mod secrets;
#[path = "../support/mod.rs"]
mod support;

use std::future::Future;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use layerstore::fetch::{
    BlobBody, ByteRange, Credentials, HttpRegistry, HttpRegistryBuilder, RegistryPull as _,
    StaticCredentials,
};
use layerstore::oci::MediaType;
use layerstore::{Descriptor, Error, Reference, Result};
use support::{Action, Content, Fault, Image, Layer, Registry, media_type};

const SIZE: u64 = 100_000;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("the client hangs")
    })
}

fn settings(registry: &Registry) -> HttpRegistryBuilder {
    HttpRegistry::builder().plain_http(registry.address())
}

fn client(registry: &Registry) -> HttpRegistry {
    settings(registry).build().unwrap()
}

fn as_user(registry: &Registry, password: &str) -> HttpRegistry {
    let credentials = Credentials::new("user", password);
    settings(registry)
        .auth(StaticCredentials::new(registry.address(), credentials))
        .build()
        .unwrap()
}

/// A registry with an image `demo:1`.
fn with_image(registry: &Registry) -> (Reference, Image) {
    let image = Image::of(&[Layer::files(&[("etc/motd", b"hello")])]);
    registry.push("demo", "1", &image);
    (registry.reference("demo:1").parse().unwrap(), image)
}

/// A blob of `SIZE` bytes in it, and what points to it.
fn with_blob(registry: &Registry) -> (Reference, Descriptor, Vec<u8>) {
    let content = Content::generated(7, SIZE);
    let bytes = content.to_vec();
    let digest = registry.put_blob(content).parse().unwrap();
    let blob = Descriptor::new(MediaType::new(media_type::LAYER), digest, SIZE);
    (registry.reference("demo:1").parse().unwrap(), blob, bytes)
}

async fn read(body: BlobBody) -> Result<Vec<u8>> {
    let append = |mut all: Vec<u8>, chunk: bytes::Bytes| async move {
        all.extend_from_slice(&chunk);
        Ok(all)
    };
    body.stream.try_fold(Vec::new(), append).await
}

async fn fetch(
    client: &HttpRegistry,
    image: &Reference,
    blob: &Descriptor,
    range: Option<ByteRange>,
) -> Result<(u64, Vec<u8>)> {
    let body = client.blob(image, blob, range).await?;
    Ok((body.start, read(body).await?))
}

/// The error of fetching a blob, or a range of it, that meets a fault.
fn blob_error(range: Option<ByteRange>, actions: &[Action]) -> Error {
    let registry = Registry::start();
    let (image, blob, _) = with_blob(&registry);
    let mut fault = Fault::on("GET", "/blobs/");
    for action in actions {
        fault = fault.then(action.clone());
    }
    let fault = registry.fault(fault);
    let client = settings(&registry).read_timeout(Duration::from_millis(300)).build().unwrap();
    let error = run(fetch(&client, &image, &blob, range)).unwrap_err();
    assert_eq!(fault.hits(), 1, "{error}");
    error
}
