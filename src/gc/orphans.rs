use super::Cycle;
use super::sweep::TEMPORARY;
use crate::error::Result;
use crate::oci::{Algorithm, Digest};
use crate::store::{collector, suspect};
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
                    Ok(digest) => self.layout.blob_meta(&digest)?.is_none(),
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
        let (suspects, used) = (self.layout.suspects.dir()?, self.layout.used.dir()?.cloned());
        suspects.iter().chain(&used).try_for_each(|dir| self.remove_marks(dir))
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
