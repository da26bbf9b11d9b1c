//! A store one of whose files a stranger wrote: whatever the store makes of it, it does not panic,
//! removes nothing that its refs lead to, and touches nothing outside its root.

use std::fs;
use std::io::Write;
use std::time::Duration;

use layerstore::oci::Algorithm;
use layerstore::{BlobStore, CheckOptions, Claim, ErrorKind, GcOptions, gc};

use crate::world::known;

const NAME: &str = "a.example/a:1";
const FILES: [&str; 5] = ["version", "oci-layout", "index.json", "lease", "state"];

/// The first line names the file, the rest is what it has.
pub(crate) fn run(bytes: &[u8]) {
    let (first, rest) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &bytes[bytes.len()..]),
    };
    if let Some(file) = FILES.iter().find(|file| file.as_bytes() == first) {
        one(file, rest);
    }
}

fn one(file: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let store = BlobStore::init(&root).unwrap();
    let lease = store.lease("a test").unwrap();
    for blob in [0, 1, 2, 5] {
        let mut ingest = store.ingest(&lease, Algorithm::Sha256, 1 << 20).unwrap();
        ingest.write_all(&known()[blob].bytes).unwrap();
        ingest.commit().unwrap();
    }
    let of = |blob: usize| &known()[blob].descriptor;
    let closure = [0, 1, 2, 5].map(|blob| (of(blob).digest, of(blob).size));
    store.publish(NAME, of(5), &lease.pin(&closure).unwrap()).unwrap();
    let pinned = lease.pin_one(of(3).digest, of(3).size).unwrap();
    if let Claim::Held(mut part) = store.claim(&pinned).unwrap() {
        part.write_at(0, &known()[3].bytes[..9]).unwrap();
    }
    let state = format!(".layerstore/parts/sha256-{}.state", of(3).digest.hex());
    let path = match file {
        "version" => ".layerstore/version".to_owned(),
        "lease" => format!(".layerstore/leases/{:032x}", 7),
        "state" => state,
        other => other.to_owned(),
    };
    fs::write(root.join(&path), bytes).unwrap();
    // What a pin of a live process keeps says nothing about what the file does.
    drop((pinned, lease));

    let opened = BlobStore::open(&root);
    if let Err(error) = &opened {
        assert!(matches!(file, "version" | "oci-layout"), "{error}");
    } else if file == "version" {
        assert_eq!(bytes.trim_ascii(), b"1");
    }
    let Ok(store) = opened else { return };
    let _ = (store.refs(), store.find_ref(NAME), store.leases(), store.usage());
    store.check(&CheckOptions::default(), |_| {}).unwrap();
    let before = blobs(&store);
    let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    let collected = gc::collect(&store, &options);
    let after = blobs(&store);
    match (&collected, file) {
        (Err(_), _) => assert_eq!(after, before, "a collection that gave up removed something"),
        (Ok(_), "index.json") => names_keep(bytes, &before, &after),
        (Ok(_), _) => assert_eq!(after, before, "the ref leads to all of them"),
    }
    if file == "state" {
        download(&store);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing outside the root");
}

/// Read by plain JSON: what is named as a digest by an entry stays.
fn names_keep(bytes: &[u8], before: &[String], after: &[String]) {
    let index: serde_json::Value = serde_json::from_slice(bytes).expect("it was read as JSON");
    let entries = index["manifests"].as_array().cloned().unwrap_or_default();
    let named = entries.iter().filter_map(|entry| entry["digest"].as_str());
    for digest in named.filter(|digest| before.iter().any(|it| it == digest)) {
        assert!(after.iter().any(|it| it == digest), "{digest} has a name");
    }
}

/// Whatever the account of a part says, the blob that comes of it is the blob, or nothing does.
fn download(store: &BlobStore) {
    let (lease, known) = (store.lease("a test").unwrap(), &known()[3]);
    let pinned = lease.pin_one(known.descriptor.digest, known.descriptor.size).unwrap();
    for _ in 0..2 {
        let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { break };
        for range in part.missing() {
            let within = range.start as usize..range.end as usize;
            part.write_at(range.start, &known.bytes[within]).unwrap();
        }
        match part.commit() {
            Ok(()) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}"),
        }
    }
    let path = store.root().join("blobs/sha256").join(known.descriptor.digest.hex());
    assert_eq!(fs::read(path).unwrap(), known.bytes);
}

fn blobs(store: &BlobStore) -> Vec<String> {
    let all = store.blobs().unwrap().map(|info| info.unwrap().digest.to_string());
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}
