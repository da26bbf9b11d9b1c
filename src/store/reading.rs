//! How a blob is read by those who follow images: the collector, and who tells what it would keep.

use super::blob::Blob;
use super::layout::Layout;
use crate::error::{Error, Result};
use crate::oci::{BlobKind, Descriptor, Digest, Document, MAX_DOCUMENT_SIZE, MediaType};

/// What is said of a blob by what leads to it.
#[derive(Debug)]
pub(crate) enum Reading {
    /// It is made of nothing else.
    Leaf,
    /// A ref says that it is an index or a manifest, so it has to be one.
    Root(MediaType),
    /// An index says that it is an index or a manifest.
    Child(MediaType),
    /// It may be either, or neither.
    Unknown,
}

/// What a blob turned out to be.
#[derive(Debug)]
pub(crate) enum Found {
    Absent,
    Document(Document),
    /// Neither an index nor a manifest.
    Other,
}

impl Reading {
    /// Of what a ref names with this media type.
    pub(crate) fn of_root(media_type: &MediaType) -> Reading {
        Reading::declared(media_type, Reading::Root)
    }

    /// Of a child with this media type, of an index or else of a manifest.
    pub(crate) fn of_child(media_type: &MediaType, of_index: bool) -> Reading {
        match of_index {
            true => Reading::declared(media_type, Reading::Child),
            false => Reading::Leaf,
        }
    }

    fn declared(media_type: &MediaType, reading: impl Fn(MediaType) -> Reading) -> Reading {
        match media_type.kind() {
            BlobKind::Index | BlobKind::Manifest | BlobKind::Schema1 => reading(media_type.clone()),
            // Another tool's word for what may well be a document.
            BlobKind::Other => Reading::Unknown,
        }
    }
}

/// Reads a blob, its digest verified. It may be absent, as a platform that was not pulled is.
///
/// What a ref calls an index or a manifest and cannot be read as one is an error, also where the
/// bytes are those of the digest: another program may know what it is made of. An index, which
/// anybody may have written, is not trusted to stop every collection so: its child is then
/// what it looks like.
pub(crate) fn read(layout: &Layout, digest: &Digest, reading: &Reading) -> Result<Found> {
    if matches!(reading, Reading::Leaf) {
        return Ok(Found::Other);
    }
    let Some(blob) = open(layout, digest)? else {
        return Ok(Found::Absent);
    };
    let size = blob.len();
    let document = match reading {
        Reading::Root(media_type) => {
            let parsed = Document::parse(&blob.read_small(size)?, media_type);
            Some(parsed.map_err(|error| error.of_document(digest))?)
        }
        _ if size > MAX_DOCUMENT_SIZE => None,
        Reading::Child(media_type) => {
            let bytes = blob.read_small(size)?;
            Document::parse(&bytes, media_type).ok().or_else(|| Document::sniff(&bytes))
        }
        Reading::Unknown | Reading::Leaf => Document::sniff(&blob.read_small(size)?),
    };
    Ok(document.map_or(Found::Other, Found::Document))
}

/// A blob that nothing leads to, if it is a document, and what a ref to it would say. A damaged one is
/// none, and of others no more than a byte is read.
pub(crate) fn sniff(layout: &Layout, digest: &Digest) -> Result<Option<(Descriptor, Document)>> {
    match open(layout, digest)? {
        Some(blob) if blob.may_be_document()? => sniff_whole(blob),
        _ => Ok(None),
    }
}

/// What a blob is about, if it is a document that is about another. A damaged one is none, and what
/// does not speak of a subject is neither hashed nor parsed: a collection asks this of all garbage.
pub(crate) fn subject(layout: &Layout, digest: &Digest) -> Result<Option<Descriptor>> {
    match open(layout, digest)? {
        Some(blob) if blob.may_be_document_with("subject")? => {
            Ok(sniff_whole(blob)?.and_then(|(_, document)| document.subject().cloned()))
        }
        _ => Ok(None),
    }
}

fn open(layout: &Layout, digest: &Digest) -> Result<Option<Blob>> {
    match Blob::open(layout, digest) {
        Err(Error::BlobNotFound { .. }) => Ok(None),
        opened => opened.map(Some),
    }
}

fn sniff_whole(blob: Blob) -> Result<Option<(Descriptor, Document)>> {
    let (digest, size) = (*blob.digest(), blob.len());
    let bytes = match blob.read_small(size) {
        Err(Error::DigestMismatch { .. } | Error::TooLarge { .. }) => return Ok(None),
        bytes => bytes?,
    };
    let with = |it: Document| (Descriptor::new(it.media_type().clone(), digest, size), it);
    Ok(Document::sniff(&bytes).map(with))
}

/// What a ref to a blob would say, if the blob is an index or a manifest that says so itself.
pub(crate) fn descriptor_of(layout: &Layout, digest: &Digest) -> Result<Option<Descriptor>> {
    let blob = Blob::open(layout, digest)?;
    let size = blob.len();
    if size > MAX_DOCUMENT_SIZE {
        return Ok(None);
    }
    let document = Document::sniff(&blob.read_small(size)?);
    Ok(document.map(|it| Descriptor::new(it.media_type().clone(), *digest, size)))
}
