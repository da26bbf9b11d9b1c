//! Why a blob is kept, or that it would go.

use std::collections::HashMap;

use serde::Serialize;

use super::stock::tree;
use super::{GcOptions, Goal, cycle};
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Digest, Document};
use crate::store::{BlobStore, LeaseState, Ref, reading};

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
/// [`Error::BlobNotFound`], and as of [`collect`](super::collect), which is asked what it would do.
pub fn why(store: &BlobStore, digest: &Digest, options: &GcOptions) -> Result<Why> {
    if store.layout().blob_meta(digest)?.is_none() {
        return Err(Error::BlobNotFound { digest: *digest });
    }
    let options = GcOptions { dry_run: true, ..options.clone() };
    let cycle = cycle(store, &options, &Goal { limits: options.limits, ..Goal::default() })?;
    let dropped = cycle.report.room.as_ref().map_or(&[][..], |room| &room.dropped);
    let is_kept =
        |digest: &Digest| cycle.marker.keeper(digest).is_some() && !cycle.would_go.contains(digest);
    let meta = store.layout().blob_meta(digest)?;
    let old = meta.is_some_and(|meta| cycle.is_older(meta.modified, options.grace));
    let mut reasons = reasons(store, digest)?;
    for subject in subjects_of(store, digest)? {
        if is_kept(&subject) {
            reasons.push(Reason::Subject { digest: subject });
        }
    }
    let young = cycle.marker.keeper(digest).is_none() && !old;
    Ok(Why {
        digest: *digest,
        would_go: !is_kept(digest) && !young,
        would_be_dropped: dropped.iter().any(|image| image.digest == *digest),
        young,
        reasons,
    })
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

fn document(store: &BlobStore, digest: &Digest) -> Result<Option<Document>> {
    Ok(reading::sniff(store.layout(), digest)?.map(|(_, document)| document))
}

/// What a blob is about, by its being, or being part of, a document with a subject.
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
            let Some(subject) = reading::subject(store.layout(), &about)? else {
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
