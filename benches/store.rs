//! What the store's own work costs, without a network: `cargo bench --bench store`.
//!
//! Durable operations are bounded by the disk that the temporary directory is on; set `TMPDIR` to
//! measure another.

use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use layerstore::gc::{self, GcOptions};
use layerstore::oci::{Algorithm, Document, MediaType};
use layerstore::{BlobStore, CheckOptions, Descriptor, Digest, Lease};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

fn store() -> (TempDir, BlobStore) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = BlobStore::init(dir.path().join("store")).expect("a store");
    (dir, store)
}

/// Bytes that differ with `seed`.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    let end = len.min(8);
    bytes[..end].copy_from_slice(&seed.to_le_bytes()[..end]);
    bytes
}

fn put(store: &BlobStore, lease: &Lease, bytes: &[u8]) -> Digest {
    let mut ingest = store.ingest(lease, Algorithm::Sha256, u64::MAX).expect("an ingest");
    ingest.write_all(bytes).expect("bytes are written");
    *ingest.commit().expect("a commit").digest()
}

fn digests(c: &mut Criterion) {
    let mut group = c.benchmark_group("digest");
    let data = bytes(MIB, 1);
    group.throughput(Throughput::Bytes(data.len() as u64));
    for algorithm in Algorithm::ALL {
        group.bench_function(algorithm.name(), |b| b.iter(|| algorithm.digest(black_box(&data))));
    }
    group.finish();
}

/// Each blob is new: written, synced and named.
fn ingests(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest");
    group.sample_size(10);
    for (name, len) in [("4 KiB", 4096), ("16 MiB", 16 * MIB)] {
        let (_dir, store) = store();
        let lease = store.lease("bench").expect("a lease");
        let mut seed = 0;
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let fresh = || {
                seed += 1;
                bytes(len, seed)
            };
            b.iter_batched(fresh, |data| put(&store, &lease, &data), BatchSize::PerIteration);
            // Or the disk fills up with blobs of 16 MiB.
            for blob in store.blobs().expect("a listing").flatten() {
                let path = store.root().join("blobs/sha256").join(blob.digest.hex());
                std::fs::remove_file(path).expect("the blob is removed");
            }
        });
    }
    group.finish();
}

fn reads(c: &mut Criterion) {
    let (dir, store) = store();
    let lease = store.lease("bench").expect("a lease");
    let root = dir.path().join("store");
    c.bench_function("open/store", |b| b.iter(|| BlobStore::open(&root).expect("the store")));
    let digest = put(&store, &lease, &bytes(4096, 1));
    c.bench_function("open/blob", |b| b.iter(|| store.open_blob(&digest).expect("the blob")));

    for seed in 0..4 {
        put(&store, &lease, &bytes(16 * MIB, seed));
    }
    let mut group = c.benchmark_group("check");
    group.sample_size(10).throughput(Throughput::Bytes(64 * MIB as u64));
    let options = CheckOptions { read_data: true, ..Default::default() };
    group.bench_function("every byte", |b| {
        b.iter(|| assert!(store.check(&options, |_| {}).expect("a check").is_sound()));
    });
    group.finish();
}

/// What a pull asks of an image of 40 blobs, none of them there.
fn pins(c: &mut Criterion) {
    let (_dir, store) = store();
    let blobs: Vec<_> = (0..40).map(|n| (Algorithm::Sha256.digest(&[n]), 1000)).collect();
    c.bench_function("lease/pin 40", |b| {
        let lease = || store.lease("bench").expect("a lease");
        let pin = |lease: Lease| lease.pin(&blobs).expect("pins");
        b.iter_batched(lease, pin, BatchSize::PerIteration);
    });
}

/// Whether blobs are there: asked with their pins, all at once, and again of each.
fn presence(c: &mut Criterion) {
    const COUNT: u64 = 1000;
    let (_dir, store) = store();
    let lease = store.lease("bench").expect("a lease");
    let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 64).expect("a batch");
    for seed in 0..COUNT {
        batch.put(&bytes(64, seed)[..], "the benchmark").expect("a blob");
    }
    let blobs: Vec<_> = batch.commit().expect("a commit");
    let blobs: Vec<_> = blobs.iter().map(|pinned| (*pinned.digest(), 64)).collect();
    let mut group = c.benchmark_group("presence of 1000");
    group.throughput(Throughput::Elements(COUNT));
    group.bench_function("pin", |b| {
        let lease = || store.lease("bench").expect("a lease");
        let pin = |lease: Lease| {
            let pinned = lease.pin(&blobs).expect("pins");
            assert!(pinned.iter().all(|pinned| pinned.is_present()));
            pinned
        };
        b.iter_batched(lease, pin, BatchSize::PerIteration);
    });
    let pinned = lease.pin(&blobs).expect("pins");
    group.bench_function("look", |b| {
        b.iter(|| assert!(pinned.iter().all(|pinned| pinned.look().expect("a look"))));
    });
    group.bench_function("open", |b| {
        b.iter(|| blobs.iter().for_each(|(digest, _)| drop(store.open_blob(digest).expect("it"))));
    });
    group.finish();
}

/// An `index.json` of so many refs to one manifest, in which one is moved.
fn refs(c: &mut Criterion) {
    let mut group = c.benchmark_group("ref update");
    group.sample_size(10);
    for count in [10, 1_000, 10_000] {
        let (_dir, store) = store();
        let lease = store.lease("bench").expect("a lease");
        let target = MediaType::new(MediaType::OCI_MANIFEST);
        let target = Descriptor::new(target, put(&store, &lease, b"{}"), 2);
        let entry = |n: usize| {
            let mut entry = target.clone();
            let name = format!("registry.example/team/image:{n}");
            entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name);
            entry
        };
        let entries: Vec<_> = (0..count).map(entry).collect();
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
        std::fs::write(store.root().join("index.json"), text.to_string()).expect("an index");
        let mut n = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                n += 1;
                let name = format!("registry.example/moving:{}", n % 2);
                store.tag(&lease, "registry.example/team/image:7", &name).expect("a tag");
                store.remove_refs(&[name]).expect("the name is removed");
            });
        });
    }
    group.finish();
}

/// A collection: what it takes to find that 600 refs, to a manifest, a config and a layer each, keep
/// everything, and what it takes beside that to remove 256 blobs.
fn collections(c: &mut Criterion) {
    let (_dir, store) = store();
    let lease = store.lease("bench").expect("a lease");
    for n in 0..600 {
        publish(&store, &lease, n);
    }
    drop(lease);
    let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    let mut group = c.benchmark_group("collection");
    group.sample_size(10);
    group.bench_function("mark", |b| {
        b.iter(|| assert_eq!(gc::collect(&store, &options).expect("a collection").removed, 0));
    });
    let mut seed = 1 << 32;
    let mut garbage = || {
        let lease = store.lease("bench").expect("a lease");
        let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 4096).expect("a batch");
        for _ in 0..256 {
            seed += 1;
            batch.put(&bytes(4096, seed)[..], "the benchmark").expect("a blob");
        }
        drop(batch.commit().expect("a commit"));
    };
    group.bench_function("mark, sweep 256", |b| {
        let collect = |()| {
            assert_eq!(gc::collect(&store, &options).expect("a collection").removed, 256);
        };
        b.iter_batched(&mut garbage, collect, BatchSize::PerIteration);
    });
    group.finish();
}

/// An image of one layer of its own, under a name.
fn publish(store: &BlobStore, lease: &Lease, n: u64) {
    let put = |bytes: &[u8], media_type: &str| {
        let digest = put(store, lease, bytes);
        Descriptor::new(MediaType::new(media_type), digest, bytes.len() as u64)
    };
    let config = put(&bytes(300, n), "application/vnd.oci.image.config.v1+json");
    let layer = put(&bytes(301, n), "application/vnd.oci.image.layer.v1.tar");
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": [layer],
    });
    let target = put(text.to_string().as_bytes(), MediaType::OCI_MANIFEST);
    let blobs = [&target, &config, &layer].map(|blob| (blob.digest, blob.size));
    let closure = lease.pin(&blobs).expect("pins");
    store.publish(&format!("registry.example/image:{n}"), &target, &closure).expect("a ref");
}

fn manifests(c: &mut Criterion) {
    let blob = |n: u8| {
        let media_type = MediaType::new("application/vnd.oci.image.layer.v1.tar+gzip");
        Descriptor::new(media_type, Algorithm::Sha256.digest(&[n]), 1_000_000)
    };
    let layers: Vec<_> = (1..=30).map(blob).collect();
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": blob(0), "layers": layers,
    });
    let text = text.to_string();
    let media_type = MediaType::new(MediaType::OCI_MANIFEST);
    c.bench_function("manifest of 30 layers", |b| {
        b.iter(|| Document::parse(black_box(text.as_bytes()), &media_type).expect("a manifest"));
    });
}

criterion_group!(benches, digests, ingests, reads, pins, presence, refs, collections, manifests);
criterion_main!(benches);
