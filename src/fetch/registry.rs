use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::traffic::Permit;
use super::{ByteRange, Origin, Traffic};
use crate::error::Result;
use crate::oci::{Descriptor, Digest, MediaType, Reference};
use crate::store::Version;

/// What a pull needs of a registry.
///
/// [`HttpRegistry`](super::HttpRegistry) implements it over HTTP; another implementation may read
/// images from anywhere else. Each call is one attempt, so that the caller alone decides what is
/// worth repeating. Dropping a future or a stream ends what it was doing.
pub trait RegistryPull: Send + Sync {
    /// What a name stands for now: the digest, media type and size of its manifest or index.
    ///
    /// A name with a digest is resolved by that digest, also when it has a tag as well.
    fn resolve<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Descriptor>>;

    /// The manifest or index of this digest from the repository of `reference`; without a digest,
    /// the one that `reference` itself stands for.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`](crate::Error::TooLarge) beyond
    /// [`MAX_DOCUMENT_SIZE`](crate::oci::MAX_DOCUMENT_SIZE), and
    /// [`Error::DigestMismatch`](crate::Error::DigestMismatch) where the bytes have another digest
    /// than was demanded, by the caller or by the registry's own header.
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
        digest: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<RawManifest>>;

    /// A blob, or a part of it, from the repository of `reference`.
    ///
    /// A foreign layer comes from the `urls` of its descriptor, if it has any, and only if none of
    /// them has it from the registry.
    ///
    /// The bytes are not verified: who reads them hashes them. Their number is: the stream ends
    /// with an error when there are fewer or more than `blob.size` promises.
    ///
    /// # Errors
    ///
    /// [`Error::UnusableRange`](crate::Error::UnusableRange) where the registry answers a request
    /// for a range with something that cannot be used as that range; asking for the whole blob
    /// may still work. [`Error::SizeMismatch`](crate::Error::SizeMismatch) where it declares
    /// another size than `blob.size`. [`Error::BlobChanged`](crate::Error::BlobChanged) where a range
    /// would be of another version than what came before.
    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        blob: &'a Descriptor,
        range: Option<ByteRange>,
    ) -> BoxFuture<'a, Result<BlobBody>>;

    /// Hears that `blob` is going to be brought: what was held against servers when it was brought
    /// before is forgotten, and so is who sent it then.
    fn begin(&self, reference: &Reference, blob: &Descriptor) {
        let _ = (reference, blob);
    }

    /// Hears that the bytes of `blob` that came from here were not those of its digest. Says
    /// whether there is somebody else to ask, so that it is worth beginning again.
    fn distrust(&self, reference: &Reference, blob: &Descriptor) -> bool {
        let _ = (reference, blob);
        false
    }

    /// Hears that the bytes of `blob` came too slowly, so that others had better be asked first.
    fn lagged(&self, reference: &Reference, blob: &Descriptor) {
        let _ = (reference, blob);
    }

    /// Hears which version of `blob` an earlier download began with, so that no more is taken of
    /// another.
    fn recall(&self, reference: &Reference, blob: &Descriptor, version: &Version) {
        let _ = (reference, blob, version);
    }

    /// The same registry, with what it learns shared, whose requests keep to `traffic`; nothing where
    /// there are no connections to be limited.
    fn limited(&self, traffic: &Traffic) -> Option<Arc<dyn RegistryPull>> {
        let _ = traffic;
        None
    }

    /// The servers that `blob` came from since it was [begun](Self::begin), in the order they were asked.
    fn origins(&self, reference: &Reference, blob: &Descriptor) -> Vec<Origin> {
        let _ = (reference, blob);
        Vec::new()
    }

    /// The tags of the repository of `reference`, all of them, in the registry's order.
    ///
    /// No part of a pull.
    fn tags<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Vec<String>>>;

    /// What refers to `subject` in the repository of `reference`: the descriptors of signatures,
    /// attestations and SBOMs that name it as their subject, with their artifact types; only those
    /// of `artifact_type`, where that is given. None where nothing does.
    ///
    /// Required, and without a default that finds nothing: an image whose signatures were not
    /// looked for must not look like one that has none.
    fn referrers<'a>(
        &'a self,
        reference: &'a Reference,
        subject: &'a Digest,
        artifact_type: Option<&'a MediaType>,
    ) -> BoxFuture<'a, Result<Vec<Descriptor>>>;
}

/// A manifest or an index as it came, not yet parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// Byte for byte what was received: only these bytes have the digest.
    pub bytes: Bytes,
    /// The type that the registry says it has; the document itself may disagree.
    pub media_type: MediaType,
    /// The digest of `bytes`, computed from them.
    pub digest: Digest,
}

impl RawManifest {
    /// The descriptor that points to these bytes.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest, self.bytes.len() as u64)
    }
}

/// The body of a blob, on its way.
#[non_exhaustive]
pub struct BlobBody {
    /// The offset within the blob of the first byte of `stream`: what was asked for, or 0 where
    /// the registry sends the whole blob instead of a range of it.
    pub start: u64,
    /// The size of the whole blob, in bytes, where the registry said it.
    pub total: Option<u64>,
    /// The bytes, in order. Read it to its end: then its connection can serve the next request.
    pub stream: BoxStream<'static, Result<Bytes>>,
    /// The leave to have its connection, for as long as it has it.
    pub(super) connection: Option<Weak<Permit>>,
    /// Which version of the blob it is, where the server said that with a strong entity tag.
    pub version: Option<Version>,
    /// Whether the rest is sure to be had if it is broken off.
    pub(super) resumable: bool,
}

impl BlobBody {
    /// A body that begins at `start` of a blob of `total` bytes.
    pub fn new(start: u64, total: Option<u64>, stream: BoxStream<'static, Result<Bytes>>) -> Self {
        BlobBody { start, total, stream, version: None, connection: None, resumable: false }
    }
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlobBody { start, total, .. } = self;
        f.debug_struct("BlobBody")
            .field("start", start)
            .field("total", total)
            .finish_non_exhaustive()
    }
}
