//! What the tests of the store share: small images, and the same test program run as a child.
#![allow(dead_code, unreachable_pub)]

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{BlobStore, Claim, Descriptor, Digest, Lease, Part, Pinned};

/// The variable that tells a test program that it is a child, and what to do.
pub const CHILD: &str = "LAYERSTORE_TEST_CHILD";

pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that was put into a store.
#[derive(Clone, Debug)]
pub struct Image {
    pub target: Descriptor,
    pub config: Digest,
    pub layers: Vec<Digest>,
}

pub fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::init(dir.path().join("store")).unwrap();
    (dir, store)
}

pub fn put_as(store: &BlobStore, lease: &Lease, algorithm: Algorithm, bytes: &[u8]) -> Pinned {
    let mut ingest = store.ingest(lease, algorithm, 1 << 30).unwrap();
    ingest.write_all(bytes).unwrap();
    ingest.commit().unwrap()
}

pub fn put(store: &BlobStore, lease: &Lease, bytes: &[u8]) -> Pinned {
    put_as(store, lease, Algorithm::Sha256, bytes)
}

/// A part of a blob that nobody has: under its name, or of this process alone.
pub fn part(store: &BlobStore, pinned: &Pinned, private: bool) -> Part {
    if private {
        return store.private_part(pinned).unwrap();
    }
    match store.claim(pinned).unwrap() {
        Claim::Held(part) => part,
        other => panic!("not held: {other:?}"),
    }
}

pub fn descriptor(media_type: &str, pinned: &Pinned) -> Descriptor {
    Descriptor::new(MediaType::new(media_type), *pinned.digest(), pinned.size())
}

/// Puts a manifest with its config and layers into the store, without a name.
pub fn put_image(
    store: &BlobStore,
    lease: &Lease,
    config: &[u8],
    layers: &[&[u8]],
) -> (Image, Vec<Pinned>) {
    let mut pinned: Vec<Pinned> = layers.iter().map(|bytes| put(store, lease, bytes)).collect();
    let list: Vec<Descriptor> = pinned.iter().map(|layer| descriptor(LAYER, layer)).collect();
    let config = put(store, lease, config);
    let text = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": list,
    });
    let manifest = put(store, lease, text.to_string().as_bytes());
    let image = Image {
        target: descriptor(MediaType::OCI_MANIFEST, &manifest),
        config: *config.digest(),
        layers: list.iter().map(|layer| layer.digest).collect(),
    };
    pinned.extend([config, manifest]);
    (image, pinned)
}

/// Puts an image into the store and names it.
pub fn add_image(store: &BlobStore, name: &str, layers: &[&[u8]]) -> Image {
    let lease = store.lease("test").unwrap();
    let config = format!(r#"{{"architecture":"amd64","os":"linux","of":"{name}"}}"#);
    let (image, pinned) = put_image(store, &lease, config.as_bytes(), layers);
    store.publish(name, &image.target, &pinned).unwrap();
    image
}

/// The text of an index of these manifests.
pub fn index_text(manifests: &[Descriptor]) -> String {
    let media_type = MediaType::OCI_INDEX;
    serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests })
        .to_string()
}

pub fn blob_path(store: &BlobStore, digest: &Digest) -> std::path::PathBuf {
    store.root().join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// Puts other bytes of the same length in the place of a blob, and hashes of groups that fit them: as
/// somebody can who may write to the store, and no disk does (docs/format.md, "What is derived").
pub fn replace_with_its_hashes(store: &BlobStore, digest: &Digest, bytes: &[u8]) {
    let lease = store.lease("test").unwrap();
    let other = *put(store, &lease, bytes).digest();
    let outboard = |digest: &Digest| {
        let folder = store.root().join(".layerstore/outboard");
        folder.join(digest.algorithm().name()).join(digest.hex())
    };
    let mut hashes = std::fs::read(outboard(&other)).unwrap();
    hashes[28..32].fill(0);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&hashes[..64]);
    crc.update(digest.to_string().as_bytes());
    hashes[28..32].copy_from_slice(&crc.finalize().to_le_bytes());
    std::fs::write(outboard(digest), hashes).unwrap();
    std::fs::rename(blob_path(store, &other), blob_path(store, digest)).unwrap();
    std::fs::remove_file(outboard(&other)).unwrap();
}

/// Runs this program again for the test `name` alone, with `task` in [`CHILD`].
pub fn child(name: &str, task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, task)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a child and shows what it said if it failed.
pub fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

pub fn task() -> Option<String> {
    std::env::var(CHILD).ok()
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

/// Words before a command that make its user another one than root, whom neither modes nor limits
/// hold back, and the owner of a directory.
pub fn unprivileged(dir: &Path) -> Vec<String> {
    if !is_root() {
        return Vec::new();
    }
    std::os::unix::fs::chown(dir, Some(65534), Some(65534)).unwrap();
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"].map(str::to_owned).into()
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn mkfifo(path: &Path) {
    let status = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

/// Bytes that look random and are the same each time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
