use super::Cycle;
use super::sweep::TEMPORARY;
use crate::error::Result;
use crate::oci::{Algorithm, Digest};
use crate::store::{collector, quarantine, suspect};
use crate::sys::Dir;

impl Cycle<'_> {
    /// Removes what was derived from blobs that are gone.
    ///
    /// It is written after its blob got its name, so it is never there first. Should the blob come
    /// back between the look and the removal, it has no group hashes until it is first read: they
    /// can always be computed again.
    pub(super) fn remove_orphans(&mut self) -> Result<()> {
        for algorithm in Algorithm::ALL {
            let Some(dir) = self.layout.outboards.dir(algorithm)? else {
                continue;
            };
            for name in dir.names()? {
                let name = name?;
                let is_orphan = match Digest::from_hex(algorithm, &name) {
                    // What is good of a blob in quarantine is known by its hashes.
                    Ok(digest) => {
                        self.layout.blob_meta(&digest)?.is_none()
                            && self.layout.quarantine.meta(&quarantine::name(&digest))?.is_none()
                    }
                    Err(_) => {
                        collector::is_temporary(&name)
                            && (dir.meta(&name)?)
                                .is_some_and(|meta| self.is_older(meta.modified, TEMPORARY))
                    }
                };
                if is_orphan {
                    self.unlink(&dir, &name)?;
                }
            }
        }
        let (suspects, used) = (self.layout.suspects.dir()?, self.layout.used.dir()?);
        suspects.into_iter().chain(used).try_for_each(|dir| self.remove_marks(dir))
    }

    /// Damaged blobs that were put away, and that are there again or that nothing needs.
    pub(super) fn empty_quarantine(&mut self) -> Result<()> {
        let dir = &self.layout.quarantine;
        for name in dir.names()? {
            let name = name?;
            let Some(meta) = dir.meta(&name)? else {
                continue;
            };
            let Some(digest) = quarantine::digest_of(&name) else {
                continue;
            };
            let is_there = self.layout.blob_meta(&digest)?.is_some_and(|blob| blob.is_file)
                && !self.layout.suspects.has(&digest)?;
            let is_needed = self.marker.keeper(&digest).is_some();
            if is_there || !is_needed && self.is_older(meta.modified, self.options.grace) {
                self.unlink(dir, &name)?;
            }
        }
        Ok(())
    }

    /// Marks on damaged blobs, and records of use, of blobs that are gone.
    fn remove_marks(&self, dir: &Dir) -> Result<()> {
        for name in dir.names()? {
            let name = name?;
            if let Some(digest) = suspect::digest_of(&name)
                && self.layout.blob_meta(&digest)?.is_none()
            {
                self.unlink(dir, &name)?;
            }
        }
        Ok(())
    }
}
