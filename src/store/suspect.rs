//! Marks on blobs whose bytes were found to be wrong: `.layerstore/suspect/ALGORITHM-HEX`, empty files.
//!
//! A blob with a mark counts as missing to whoever asks whether it is there, so that the next pull of
//! an image that needs it brings it anew; its commit replaces what is there, whatever its length,
//! and takes the mark away. Readers that have the old file open keep it. Nothing is synced: a mark
//! that a power cut takes away is made again by the next who reads the blob, and one that it brings
//! back costs a download, or goes when a check finds the blob good.

use std::fs::File;

use crate::error::{IoContext, Result};
use crate::oci::{Algorithm, Digest};
use crate::sys::{Dir, Meta};

#[derive(Clone, Debug)]
pub(crate) struct Suspects {
    private: Dir,
    blobs: Dir,
}

impl Suspects {
    pub(crate) fn new(private: &Dir, blobs: &Dir) -> Suspects {
        Suspects { private: private.clone(), blobs: blobs.clone() }
    }

    /// The directory of the marks; `None` if there was never one.
    pub(crate) fn dir(&self) -> Result<Option<Dir>> {
        self.private.open_dir("suspect")
    }

    /// Whether a blob has a mark.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool> {
        match self.dir()? {
            Some(dir) => Ok(dir.meta(&name(digest))?.is_some()),
            None => Ok(false),
        }
    }

    /// Marks a blob whose digest did not hold, if that file still has its name. That this fails
    /// takes nothing from the error that is told in any case.
    pub(crate) fn mark(&self, digest: &Digest, file: &File) {
        if let Err(error) = self.try_mark(digest, file) {
            tracing::debug!(%digest, %error, "the damaged blob is not marked");
        }
    }

    fn try_mark(&self, digest: &Digest, file: &File) -> Result<()> {
        let own = Meta::of(file).context("look at", digest.to_string())?.id;
        let named = match self.blobs.open_dir(digest.algorithm().name())? {
            Some(dir) => dir.meta(&digest.hex())?,
            None => None,
        };
        // It may have been healed, or collected, since it was opened.
        if named.is_some_and(|named| named.id == own) {
            self.private.make_dir("suspect")?.open_or_create(&name(digest))?;
        }
        Ok(())
    }

    /// Takes the mark from a blob, for good bytes have its name now.
    pub(crate) fn clear(&self, digest: &Digest) -> Result<()> {
        match self.dir()? {
            Some(dir) => dir.unlink(&name(digest)).map(drop),
            None => Ok(()),
        }
    }
}

/// The name of what the store keeps of a blob beside it.
pub(crate) fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// Of which blob it is that has this name.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::from_hex(algorithm.parse::<Algorithm>().ok()?, hex).ok()
}
