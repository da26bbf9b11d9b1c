//! Why a blob is kept, or that it would go.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::stock::tree;
use super::{GcOptions, collect};
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Digest, Document, MAX_DOCUMENT_SIZE};
use crate::store::{Blob, BlobStore, LeaseState, Ref};

/// What keeps a blob, and whether a collection would remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Why {
    /// The blob.
    pub digest: Digest,
    /// What leads to it. Nothing does, if this is empty.
    pub reasons: Vec<Reason>,
    /// Whether the next collection with these options removes it.
    pub would_go: bool,
    /// For what a ref names: whether its names would be dropped to make room.
    pub would_be_dropped: bool,
    /// Whether it is only kept for being young.
    pub young: bool,
}

/// One thing that leads to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Reason {
    /// A ref.
    #[serde(rename_all = "camelCase")]
    Ref {
        /// Its name; none for an entry of another tool that has none.
        name: Option<String>,
        /// Whether it is pinned.
        pinned: bool,
        /// From what the ref names to the blob, both included.
        path: Vec<Digest>,
    },
    /// A lease.
    #[serde(rename_all = "camelCase")]
    Lease {
        /// Its id.
        id: String,
        /// Who made it and what for.
        holder: String,
        /// From what the lease names to the blob.
        path: Vec<Digest>,
    },
    /// What it is about is kept.
    #[serde(rename_all = "camelCase")]
    Subject {
        /// That.
        digest: Digest,
    },
}

/// Says why a blob is there, and whether a collection would remove it.
///
/// # Errors
///
/// [`Error::BlobNotFound`], and as of [`collect`], which is asked what it would do.
pub fn why(store: &BlobStore, digest: &Digest, options: &GcOptions) -> Result<Why> {
    if store.layout().blob_meta(digest)?.is_none() {
        return Err(Error::BlobNotFound { digest: *digest });
    }
    let reasons = reasons(store, digest)?;
    let report = collect(store, &GcOptions { dry_run: true, ..options.clone() })?;
    let dropped = report.room.map_or(Vec::new(), |room| room.dropped);
    let dropped: HashSet<Digest> = dropped.into_iter().map(|image| image.digest).collect();
    let is_kept = |reason: &Reason| match reason {
        Reason::Ref { path, .. } => !path.first().is_some_and(|root| dropped.contains(root)),
        Reason::Lease { .. } | Reason::Subject { .. } => true,
    };
    let young = reasons.is_empty() && is_young(store, digest, options)?;
    Ok(Why {
        digest: *digest,
        would_go: !young && !reasons.iter().any(is_kept),
        would_be_dropped: dropped.contains(digest),
        young,
        reasons,
    })
}

fn is_young(store: &BlobStore, digest: &Digest, options: &GcOptions) -> Result<bool> {
    let now = std::time::SystemTime::now();
    let meta = store.layout().blob_meta(digest)?;
    let age = meta.and_then(|meta| now.duration_since(meta.modified).ok());
    Ok(age.is_none_or(|age| age < options.grace))
}

fn reasons(store: &BlobStore, digest: &Digest) -> Result<Vec<Reason>> {
    let mut reasons = Vec::new();
    for entry in store.refs()? {
        if let Some(path) = path_to(store, &entry.descriptor.digest, digest)? {
            let pinned = entry.is_pinned();
            let Ref { name, .. } = entry;
            reasons.push(Reason::Ref { name, pinned, path });
        }
    }
    for lease in store.leases()?.into_iter().filter(|lease| lease.state != LeaseState::Ended) {
        let mut path = lease.blobs.contains(digest).then(|| vec![*digest]);
        for root in &lease.trees {
            if path.is_none() {
                path = path_to(store, root, digest)?;
            }
        }
        if let Some(path) = path {
            reasons.push(Reason::Lease { id: lease.id, holder: lease.holder, path });
        }
    }
    for subject in subjects_of(store, digest)? {
        reasons.push(Reason::Subject { digest: subject });
    }
    Ok(reasons)
}

/// From a root to a blob, by the documents on the way.
fn path_to(store: &BlobStore, root: &Digest, wanted: &Digest) -> Result<Option<Vec<Digest>>> {
    let mut came_from: HashMap<Digest, Option<Digest>> = HashMap::from([(*root, None)]);
    let mut work = vec![*root];
    while let Some(digest) = work.pop() {
        if digest == *wanted {
            let mut path = vec![digest];
            while let Some(Some(parent)) = path.last().and_then(|last| came_from.get(last)) {
                path.push(*parent);
            }
            path.reverse();
            return Ok(Some(path));
        }
        for child in document(store, &digest)?.iter().flat_map(Document::children) {
            came_from.entry(child.digest).or_insert_with(|| {
                work.push(child.digest);
                Some(digest)
            });
        }
    }
    Ok(None)
}

/// What a blob is, if it is a document.
fn document(store: &BlobStore, digest: &Digest) -> Result<Option<Document>> {
    let blob = match Blob::open(store.layout(), digest) {
        Err(Error::BlobNotFound { .. }) => return Ok(None),
        opened => opened?,
    };
    let size = blob.len();
    if size > MAX_DOCUMENT_SIZE || !blob.first_byte_unverified()?.is_some_and(|it| it == b'{') {
        return Ok(None);
    }
    match blob.read_small(size) {
        Err(Error::DigestMismatch { .. }) => Ok(None),
        bytes => Ok(Document::sniff(&bytes?)),
    }
}

/// What keeps a blob by its being, or being part of, a document that is about something that is kept.
fn subjects_of(store: &BlobStore, digest: &Digest) -> Result<Vec<Digest>> {
    let mut subjects = Vec::new();
    for algorithm in Algorithm::ALL {
        let Some(dir) = store.layout().algorithm(algorithm)? else {
            continue;
        };
        for name in dir.names()? {
            let Ok(about) = Digest::from_hex(algorithm, &name?) else {
                continue;
            };
            let Some(subject) = document(store, &about)?.and_then(|it| it.subject().cloned())
            else {
                continue;
            };
            let is_there = store.layout().blob_meta(&subject.digest)?.is_some();
            if is_there && subject.digest != *digest && tree(store, &about)?.contains(digest) {
                subjects.push(subject.digest);
            }
        }
    }
    Ok(subjects)
}
