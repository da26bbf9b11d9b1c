use super::Cycle;
use crate::error::Result;
use crate::oci::Digest;
use crate::store::{collector, part};

impl Cycle<'_> {
    /// Removes the parts that nobody works on and that are too old to be continued, and those whose
    /// blob has come into place by another way.
    ///
    /// A part is only touched under its lock, which its downloader holds. Files with other names
    /// are left alone.
    pub(super) fn expire_parts(&mut self) -> Result<()> {
        for name in self.layout.parts.names()? {
            let name = name?;
            let Some(digest) = collector::digest_of_part(&name) else {
                continue;
            };
            // A part and its lock are one: the lock only counts where there is no part.
            let (part, _) = part::names(&digest);
            let is_one = name == part || self.layout.parts.meta(&part)?.is_none();
            if is_one && self.is_expired(&digest)? {
                self.expire(&digest)?;
            }
        }
        Ok(())
    }

    /// Whether a part is to be removed. So is a lock without one, which says nothing.
    fn is_expired(&self, digest: &Digest) -> Result<bool> {
        let (name, lock_name) = part::names(digest);
        Ok(match self.layout.parts.meta(&name)? {
            Some(part) => {
                self.is_older(part.modified, self.options.part_ttl)
                    || self.layout.blob_meta(digest)?.is_some_and(|blob| blob.is_file)
            }
            None => self.layout.parts.meta(&lock_name)?.is_some(),
        })
    }

    fn expire(&mut self, digest: &Digest) -> Result<()> {
        let make = !self.options.dry_run;
        let Some(lock) = collector::lock_idle_part(self.layout, digest, make)? else {
            return Ok(());
        };
        // Again, since it may have grown until it was locked.
        if !self.is_expired(digest)? {
            return Ok(());
        }
        let (name, lock_name) = part::names(digest);
        if let Some(part) = self.layout.parts.meta(&name)? {
            self.report.parts_removed += 1;
            self.report.parts_removed_bytes += part.len;
            self.unlink(&self.layout.parts, &name)?;
        }
        // The lock's file goes last and while it is held: whoever waits for it looks whether it
        // still has its name.
        self.unlink(&self.layout.parts, &lock_name)?;
        drop(lock);
        Ok(())
    }
}
