//! Looking for damage: the files that make a store, what every ref leads to, and the bytes of blobs.
//! Nothing is changed but what is derived, and pulls and collections may go on meanwhile.

mod bad;
mod bytes;
mod images;
mod leases;
mod pace;
mod select;
mod structure;

use std::collections::HashMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde::Serialize;

use bad::Bad;

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest};

/// How thoroughly [`BlobStore::check`](crate::BlobStore::check) looks.
///
/// By default all blobs are read and compared with the hashes of their groups, and with their digest
/// where they have none, or where these differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// No byte of a layer is read: only names, lengths, and what refs lead to is looked at.
    pub quick: bool,
    /// Every blob that is read is compared with its digest, though it has hashes of its groups.
    pub read_data: bool,
    /// Only blobs are read that no check has read, and found good, for so long. Of blobs of at most
    /// 64 KiB nobody keeps that; they are all read.
    pub since: Option<Duration>,
    /// Of the bytes of these blobs only a share is read, in hundredths of a percent: the blobs that
    /// were read the longest ago, at least one. A check now and then so comes round to all.
    pub subset: Option<u32>,
    /// How many bytes are read in a second, at most.
    pub limit_rate: Option<NonZeroU64>,
    /// How many threads read; as many as there are processors where this is not set.
    pub threads: Option<NonZeroUsize>,
}

/// How far the reading of blobs has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// Blobs that were read.
    pub blobs: u64,
    /// Blobs to read, when the check began.
    pub total_blobs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The bytes of those blobs.
    pub total_bytes: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CheckReport {
    /// The entries of `index.json`.
    pub refs: u64,
    /// The files under a blob's name.
    pub blobs: u64,
    /// Their lengths together, in bytes.
    pub blob_bytes: u64,
    /// The blobs that were read to their end.
    pub read_blobs: u64,
    /// How many bytes that were.
    pub read_bytes: u64,
    /// The leases, ended ones too.
    pub leases: u64,
    /// The downloads under way or left off.
    pub parts: u64,
    /// Those of them that no process holds: the next pull of their blob goes on from there, or a
    /// collection removes them.
    pub lost_parts: u64,
    /// What these take on disk, in bytes.
    pub lost_part_bytes: u64,
    /// The files in quarantine.
    pub quarantined: u64,
    /// The files with a temporary name: writers at work, or litter for the next collection.
    pub temporary: u64,
    /// What is wrong, the structure first.
    pub damage: Vec<Damage>,
    /// What need not be wrong: platforms of an image that are there in part, as after a pull that
    /// was interrupted, while another platform of it is whole.
    pub notes: Vec<Damage>,
}

impl CheckReport {
    /// Whether no damage was found.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Damage {
    /// What kind of thing.
    pub kind: DamageKind,
    /// Where, from the store's root on. What is no UTF-8 in it is replaced.
    pub path: String,
    /// The blob that it is about.
    pub digest: Option<Digest>,
    /// What a manifest that leads to the blob says of it.
    #[serde(skip)]
    pub descriptor: Option<Box<Descriptor>>,
    /// The refs that suffer: names, or the digest of an entry that has none.
    pub refs: Vec<String>,
    /// What is wrong and what to do about it, in a sentence.
    pub message: String,
}

/// The kinds of [`Damage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum DamageKind {
    /// `oci-layout` or `version` is missing or says something else than it must.
    Layout,
    /// `index.json` is missing or makes no sense.
    Index,
    /// So is the copy that is kept of it.
    RefsCopy,
    /// A lease cannot be read.
    Lease,
    /// A lock file is missing.
    MissingFile,
    /// A name that nothing in the store has.
    Stray,
    /// Something other than a regular file has the name of one, or of a directory.
    WrongType,
    /// Another user owns it or may write to it, or its owner may not read it.
    Permissions,
    /// A blob that a ref or a lasting lease needs is not there.
    MissingBlob,
    /// Of the manifests of an index none is there.
    NoPlatform,
    /// A blob's length is not the one its descriptor gives.
    WrongSize,
    /// A blob's bytes are not those of its digest, or it has a mark that says so.
    WrongDigest,
    /// A manifest or an index has the right bytes, but they make no sense.
    BadDocument,
    /// The disk does not give the bytes back.
    Unreadable,
}

/// Looks at everything; `progress` hears of the reading of blobs.
pub(crate) fn check(
    layout: &Layout,
    options: &CheckOptions,
    progress: impl FnMut(CheckProgress),
) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let mut findings = Findings::default();
    let large = structure::look(layout, &mut report, &mut findings)?;
    if !options.quick {
        bytes::read(layout, options, large, &mut report, &mut findings, progress)?;
    }
    // The refs come last: a blob that the collector removed while others were read is missing only
    // if a ref leads to it now.
    let mut notes = Findings::default();
    let bad = Bad::find(layout, &findings)?;
    images::follow(layout, &bad, &mut report, &mut findings, &mut notes)?;
    leases::follow(layout, &bad, &mut findings, &mut notes)?;
    bad.tell_rest(layout, &mut findings)?;
    (report.damage, report.notes) = (findings.list, notes.list);
    Ok(report)
}

/// Damage as it is found: each thing once, with all refs that it concerns.
#[derive(Debug, Default)]
struct Findings {
    list: Vec<Damage>,
    known: HashMap<(DamageKind, String), usize>,
}

/// One thing that is wrong with a blob, before it is known whom it concerns.
#[derive(Clone, Debug)]
struct Finding {
    kind: DamageKind,
    digest: Digest,
    message: String,
    descriptor: Option<Box<Descriptor>>,
}

impl Findings {
    fn add(&mut self, kind: DamageKind, path: String, message: String) {
        let (digest, descriptor, refs) = (None, None, Vec::new());
        self.put(Damage { kind, path, digest, descriptor, refs, message });
    }

    fn add_blob(&mut self, finding: Finding, refs: &[String]) {
        let Finding { kind, digest, message, descriptor } = finding;
        let (path, digest, refs) = (blob_path(&digest), Some(digest), refs.to_vec());
        self.put(Damage { kind, path, digest, descriptor, refs, message });
    }

    fn put(&mut self, damage: Damage) {
        match self.known.get(&(damage.kind, damage.path.clone())) {
            Some(n) => {
                let known = &mut self.list[*n];
                known.descriptor = known.descriptor.take().or(damage.descriptor);
                let refs = &mut known.refs;
                let new = damage.refs.into_iter().filter(|name| !refs.contains(name));
                let new: Vec<String> = new.collect();
                refs.extend(new);
            }
            None => {
                self.known.insert((damage.kind, damage.path.clone()), self.list.len());
                self.list.push(damage);
            }
        }
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The kind of damage that an error at a blob stands for.
fn kind_of(error: &Error) -> DamageKind {
    match error {
        Error::BlobNotFound { .. } => DamageKind::MissingBlob,
        Error::SizeMismatch { .. } => DamageKind::WrongSize,
        Error::DigestMismatch { .. } => DamageKind::WrongDigest,
        Error::Damaged { .. } => DamageKind::WrongType,
        Error::Unsafe { .. } => DamageKind::Permissions,
        Error::Io { .. } => DamageKind::Unreadable,
        _ => DamageKind::BadDocument,
    }
}
