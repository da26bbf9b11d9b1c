//! Images to put into a store, and what is left of them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use layerstore::gc::{self, GcOptions, GcReport};
use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, Descriptor, Digest, Lease, Pinned};

pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A new store, which goes with the first value.
pub(crate) fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::init(dir.path().join("store")).unwrap();
    (dir, store)
}

/// Options under which age protects nothing.
pub(crate) fn at_once() -> GcOptions {
    GcOptions { grace: Duration::ZERO, ..GcOptions::default() }
}

pub(crate) fn collect(store: &BlobStore) -> GcReport {
    gc::collect(store, &at_once()).unwrap()
}

pub(crate) fn put(store: &BlobStore, lease: &Lease, bytes: &[u8]) -> Pinned {
    put_as(store, lease, Algorithm::Sha256, bytes)
}

pub(crate) fn put_as(
    store: &BlobStore,
    lease: &Lease,
    algorithm: Algorithm,
    bytes: &[u8],
) -> Pinned {
    let mut ingest = store.ingest(lease, algorithm, bytes.len() as u64).unwrap();
    ingest.write_all(bytes).unwrap();
    ingest.commit().unwrap()
}

/// A blob that nothing keeps.
pub(crate) fn garbage(store: &BlobStore, bytes: &[u8]) -> Digest {
    *put(store, &store.lease("garbage").unwrap(), bytes).digest()
}

/// A document and every blob that it is made of, the document first, each with its size.
///
/// It pins nothing itself.
pub(crate) struct Image {
    pub(crate) target: Descriptor,
    pub(crate) blobs: Vec<(Digest, u64)>,
}

impl Image {
    pub(crate) fn publish(&self, store: &BlobStore, lease: &Lease, name: &str) {
        store.publish(name, &self.target, &lease.pin(&self.blobs).unwrap()).unwrap();
    }

    pub(crate) fn digests(&self) -> BTreeSet<Digest> {
        self.blobs.iter().map(|(digest, _)| *digest).collect()
    }
}

fn entry(media_type: &str, digest: &Digest, size: u64) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

fn about(subject: Option<&Descriptor>) -> String {
    subject.map_or(String::new(), |to| {
        format!(r#","subject":{}"#, entry(to.media_type.as_str(), &to.digest, to.size))
    })
}

fn document(
    store: &BlobStore,
    lease: &Lease,
    media_type: &str,
    text: &str,
    mut children: Vec<(Digest, u64)>,
) -> Image {
    let pinned = put(store, lease, text.as_bytes());
    let target = Descriptor::new(MediaType::new(media_type), *pinned.digest(), text.len() as u64);
    children.insert(0, (target.digest, target.size));
    Image { target, blobs: children }
}

pub(crate) fn image(store: &BlobStore, lease: &Lease, config: &str, layers: &[&[u8]]) -> Image {
    image_about(store, lease, config, layers, None)
}

pub(crate) fn image_about(
    store: &BlobStore,
    lease: &Lease,
    config: &str,
    layers: &[&[u8]],
    subject: Option<&Descriptor>,
) -> Image {
    let config = put(store, lease, format!(r#"{{"config":"{config}"}}"#).as_bytes());
    let layers: Vec<_> = layers.iter().map(|layer| put(store, lease, layer)).collect();
    let list: Vec<_> = layers.iter().map(|it| entry(LAYER, it.digest(), it.size())).collect();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]{}}}"#,
        MediaType::OCI_MANIFEST,
        entry(CONFIG, config.digest(), config.size()),
        list.join(","),
        about(subject),
    );
    let children = [config].iter().chain(&layers).map(|it| (*it.digest(), it.size())).collect();
    document(store, lease, MediaType::OCI_MANIFEST, &text, children)
}

/// An index of images that are there, and of descriptors of some that are not.
pub(crate) fn index(
    store: &BlobStore,
    lease: &Lease,
    images: &[&Image],
    absent: &[Descriptor],
) -> Image {
    let list: Vec<_> = (images.iter().map(|image| &image.target).chain(absent))
        .map(|child| entry(child.media_type.as_str(), &child.digest, child.size))
        .collect();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        MediaType::OCI_INDEX,
        list.join(",")
    );
    let children = images.iter().flat_map(|image| image.blobs.iter().copied()).collect();
    document(store, lease, MediaType::OCI_INDEX, &text, children)
}

/// Every name below `blobs/`, whether it is a blob's or not.
pub(crate) fn names(store: &BlobStore) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for algorithm in std::fs::read_dir(store.root().join("blobs")).unwrap() {
        let algorithm = algorithm.unwrap();
        let prefix = algorithm.file_name().into_string().unwrap();
        for blob in std::fs::read_dir(algorithm.path()).unwrap() {
            let name = blob.unwrap().file_name().into_string().unwrap();
            names.insert(format!("{prefix}:{name}"));
        }
    }
    names
}

/// Asserts that exactly these blobs are in the store.
#[track_caller]
pub(crate) fn assert_holds(store: &BlobStore, expected: &[BTreeSet<Digest>]) {
    let expected: BTreeSet<String> = expected.iter().flatten().map(Digest::to_string).collect();
    assert_eq!(names(store), expected);
}

pub(crate) fn path_of(store: &BlobStore, digest: &Digest) -> PathBuf {
    store.root().join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

pub(crate) fn is_there(store: &BlobStore, digest: &Digest) -> bool {
    path_of(store, digest).exists()
}

pub(crate) fn private(store: &BlobStore, name: &str) -> PathBuf {
    store.root().join(".layerstore").join(name)
}

/// Puts other bytes in the place of a file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

pub(crate) fn set_age(path: &Path, age: Duration) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}
