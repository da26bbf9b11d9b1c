//! When images were used last: `.layerstore/used/ALGORITHM-HEX`, empty files whose time says so.
//!
//! The digest is that of what a ref stands for, so that all names of an image are one, and a name,
//! which anybody may have chosen, is no path. A use is written down once a minute at most, and never
//! synced: the kernel writes times out within half a minute. What cannot be written down, in a store that
//! may only be read for example, was not used as far as anybody can tell; nothing fails for it.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::BlobStore;
use super::access;
use super::layout::Layout;
use super::refs;
use super::suspect;
use crate::error::Result;
use crate::oci::{Descriptor, Digest};
use crate::sys::Dir;

/// How often a use is written down.
const OFTEN: Duration = Duration::from_secs(60);

/// The records of use.
#[derive(Debug)]
pub(crate) struct Used {
    root: Dir,
    private: Dir,
    dir: OnceLock<Dir>,
}

impl Used {
    pub(crate) fn new(root: &Dir, private: &Dir) -> Used {
        Used { root: root.clone(), private: private.clone(), dir: OnceLock::new() }
    }

    /// The directory of the records; `None` if there was never one.
    pub(crate) fn dir(&self) -> Result<Option<&Dir>> {
        if let Some(dir) = self.dir.get() {
            return Ok(Some(dir));
        }
        self.private.open_dir("used")?.map(|dir| self.keep(dir)).transpose()
    }

    fn keep(&self, dir: Dir) -> Result<&Dir> {
        access::check(&dir, &self.root)?;
        Ok(self.dir.get_or_init(|| dir))
    }

    /// Notes that an image is being used. That this fails is nobody's business.
    pub(crate) fn note(&self, digest: &Digest) {
        if let Err(error) = self.try_note(digest) {
            tracing::debug!(%digest, %error, "the use of an image is not noted");
        }
    }

    /// As [`note`](Used::note), for those who ask for nothing else.
    pub(crate) fn try_note(&self, digest: &Digest) -> Result<()> {
        if self.note_known(digest)? {
            return Ok(());
        }
        let dir = match self.dir()? {
            Some(dir) => dir,
            None => self.keep(self.private.make_dir("used")?)?,
        };
        dir.open_or_create(&suspect::name(digest)).map(drop)
    }

    /// Notes the opening of a blob, if it is what some ref stands for: such a one has a record.
    pub(crate) fn note_opened(&self, digest: &Digest) {
        if let Err(error) = self.note_known(digest) {
            tracing::debug!(%digest, %error, "the use of an image is not noted");
        }
    }

    /// Whether there is a record, which then says now, but for the last minute.
    fn note_known(&self, digest: &Digest) -> Result<bool> {
        let Some(dir) = self.dir()? else {
            return Ok(false);
        };
        let name = suspect::name(digest);
        let Some(record) = dir.meta(&name)? else {
            return Ok(false);
        };
        // A time that has not come was set by a clock that was wrong.
        match SystemTime::now().duration_since(record.modified) {
            Ok(since) if since < OFTEN => Ok(true),
            _ => dir.touch(&name).map(|_| true),
        }
    }

    /// What the record of an image says; `None` if it has none.
    pub(crate) fn last(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        match self.dir()? {
            Some(dir) => Ok(dir.meta(&suspect::name(digest))?.map(|record| record.modified)),
            None => Ok(None),
        }
    }
}

impl BlobStore {
    /// Notes that the image of a name is in use, as a pull, [`find_ref`](BlobStore::find_ref),
    /// [`pin_ref`](BlobStore::pin_ref) and the opening of the ref's own manifest or index do by
    /// themselves. It is kept to the minute; what its image is.
    ///
    /// # Errors
    ///
    /// [`Error::RefNotFound`](crate::Error::RefNotFound); [`Error::Io`](crate::Error::Io) if it
    /// cannot be noted, and as of [`refs`](BlobStore::refs).
    pub fn touch(&self, name: &str) -> Result<Descriptor> {
        let target = refs::find(self.layout(), name)?.descriptor;
        self.layout().used.try_note(&target.digest)?;
        Ok(target)
    }

    /// When an image was used last, given what a ref stands for. One whose use nobody has noted, for
    /// another tool brought it, counts from when its manifest or index was written; `None` if that
    /// is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub fn last_used(&self, target: &Digest) -> Result<Option<SystemTime>> {
        last(self.layout(), target)
    }
}

/// When an image was used last; see [`BlobStore::last_used`].
pub(crate) fn last(layout: &Layout, target: &Digest) -> Result<Option<SystemTime>> {
    let written = layout.blob_meta(target)?.map(|meta| meta.modified);
    Ok(written.max(layout.used.last(target)?))
}
