//! What a repair needs of the store; how blobs come is in `fetch::repair`.

use std::collections::{HashMap, HashSet};

#[cfg(feature = "fetch")]
use super::adopt;
use super::quarantine::{self, Fate};
use super::recover::{self, RefsRepair};
use super::{BlobStore, Lease, origins, refs};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
#[cfg(feature = "fetch")]
use crate::oci::Document;
use crate::oci::{Descriptor, Digest, Reference};

impl BlobStore {
    /// Rebuilds `index.json` if it is missing or makes no sense, from the copy that is kept of it, and
    /// says which images have no name. Without a copy the names are lost, and every image gets a
    /// name that says so, for else the next collection would remove them all.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], [`Error::NotDurable`], [`Error::NoSpace`], [`Error::Io`].
    pub fn recover_refs(&self) -> Result<RefsRepair> {
        recover::recover(&self.layout)
    }

    /// Names a manifest or an index that is there, with all that it is made of, and that may have no
    /// name; its descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::BlobNotFound`] if it, or something of it, is not there; [`Error::InvalidDocument`] if
    /// it is neither; and as of [`publish`](BlobStore::publish).
    pub fn tag_digest(&self, lease: &Lease, digest: &Digest, name: &str) -> Result<Descriptor> {
        refs::tag_digest(&self.layout, lease, digest, name)
    }

    /// Where a blob came from: the repositories that it was pulled from, as names with its digest, the
    /// one that was pulled from last first; 16 at most.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Unsafe`].
    pub fn origins(&self, digest: &Digest) -> Result<Vec<Reference>> {
        let found = origins::of(&self.layout, &[*digest].into())?;
        Ok(found.into_values().next().unwrap_or_default())
    }

    /// Writes down that blobs are to be had from the repository of `image`, and of each whether it was
    /// just fetched from there. Nothing relies on it: that it fails is no error.
    pub fn record_origins(&self, image: &Reference, blobs: &[(Digest, bool)]) {
        origins::record(&self.layout, image, blobs);
    }

    /// As [`origins`](BlobStore::origins), of many blobs.
    ///
    /// # Errors
    ///
    /// As of [`origins`](BlobStore::origins).
    pub fn origins_of(&self, blobs: &HashSet<Digest>) -> Result<HashMap<Digest, Vec<Reference>>> {
        origins::of(&self.layout, blobs)
    }

    /// Moves a blob out of the way whose bytes are not those of its digest, durably; whether that was
    /// done. One that somebody works with stays, as does one that is good. What is good of it is used
    /// when the blob is downloaded again.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], [`Error::NotDurable`], [`Error::Io`]; [`Error::Damaged`] if what has the
    /// blob's name is no regular file.
    pub fn quarantine(&self, digest: &Digest) -> Result<bool> {
        Ok(quarantine::put(&self.layout, digest)? == Fate::Moved)
    }

    /// Marks a blob that is damaged or cannot be read, so that it counts as missing; whether it is so.
    #[cfg(feature = "fetch")]
    pub(crate) fn condemn(&self, digest: &Digest) -> Result<bool> {
        let Some((file, _)) = self.layout.open_blob(digest)? else {
            return Ok(false);
        };
        let is_good = quarantine::is_good(&file, digest)?;
        if !is_good {
            self.layout.suspects.mark(digest, &file);
        }
        Ok(!is_good)
    }

    /// How long a blob should be: as the hashes of its groups have it, or else as it is.
    #[cfg(feature = "fetch")]
    pub(crate) fn likely_size(&self, digest: &Digest) -> Result<Option<u64>> {
        if let Some(len) = self.layout.outboards.len_of(digest)? {
            return Ok(Some(len));
        }
        Ok(self.layout.blob_meta(digest)?.filter(|meta| meta.is_file).map(|meta| meta.len))
    }

    /// A blob that is a document, and what it says.
    #[cfg(feature = "fetch")]
    pub(crate) fn sniff(&self, digest: &Digest) -> Option<(Descriptor, Document)> {
        recover::document(&self.layout, digest)
    }

    /// Makes a blob that is there durable, whoever put it there, and its name.
    #[cfg(feature = "fetch")]
    pub(crate) fn settle_blob(&self, lease: &Lease, digest: &Digest, size: u64) -> Result<()> {
        adopt::settle_found(&self.layout, lease, &[(*digest, size)])
    }

    /// Takes a blob out of quarantine that is there again.
    #[cfg(feature = "fetch")]
    pub(crate) fn release(&self, digest: &Digest) -> Result<()> {
        self.layout.quarantine.unlink(&quarantine::name(digest)).map(drop)
    }
}
