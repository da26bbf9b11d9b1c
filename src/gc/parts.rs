use super::Cycle;
use crate::error::Result;
use crate::oci::Digest;
use crate::store::collector;
use crate::store::part_names::{self, PartNames};

impl Cycle<'_> {
    /// Removes the parts that nobody works on and that are too old to be continued, and those whose
    /// blob has come into place by another way.
    ///
    /// A part is only touched under its lock, which its downloader holds. Files with other names
    /// are left alone.
    pub(super) fn expire_parts(&mut self) -> Result<()> {
        for name in self.layout.parts.names()? {
            let name = name?;
            let Some(digest) = part_names::digest_of(&name) else {
                continue;
            };
            // They are one: lock and state only count where there is no part.
            let part = PartNames::of(&digest).part;
            let is_one = name == part || self.layout.parts.meta(&part)?.is_none();
            if is_one && self.is_expired(&digest)? {
                self.expire(&digest, false)?;
            }
        }
        Ok(())
    }

    /// The parts that nobody works on or has asked for, though they are not too old yet: the oldest first,
    /// with what each takes on disk.
    pub(super) fn abandoned_parts(&self) -> Result<Vec<(Digest, u64)>> {
        let mut parts = Vec::new();
        for name in self.layout.parts.names()? {
            let Some(digest) = part_names::digest_of(&name?) else {
                continue;
            };
            let names = PartNames::of(&digest);
            if let Some(part) = self.layout.parts.meta(&names.part)?
                && !self.marker.is_leased(&digest)
                && !self.is_expired(&digest)?
            {
                parts.push((part.modified, digest, part.disk));
            }
        }
        parts.sort_by_key(|(modified, digest, _)| (*modified, *digest));
        parts.dedup_by_key(|(_, digest, _)| *digest);
        let mut idle = Vec::new();
        for (_, digest, disk) in parts {
            if collector::lock_idle_part(self.layout, &digest, false)?.is_some()
                || self.layout.parts.meta(&PartNames::of(&digest).lock)?.is_none()
            {
                idle.push((digest, disk));
            }
        }
        Ok(idle)
    }

    /// Removes such parts until so many bytes are free; how many are.
    pub(super) fn remove_parts(&mut self, parts: &[(Digest, u64)], wanted: u64) -> Result<u64> {
        let mut freed = 0;
        for (digest, disk) in parts {
            if freed >= wanted {
                break;
            }
            let before = self.report.parts_removed;
            self.expire(digest, true)?;
            if self.report.parts_removed > before {
                freed += disk;
            }
        }
        Ok(freed)
    }

    /// Whether a part is to be removed. So is a lock or a state without one, which says nothing.
    fn is_expired(&self, digest: &Digest) -> Result<bool> {
        let names = PartNames::of(digest);
        Ok(match self.layout.parts.meta(&names.part)? {
            Some(part) => {
                // Of a blob that is damaged it is what mends it.
                let has_come = || -> Result<bool> {
                    let blob = self.layout.blob_meta(digest)?.filter(|blob| blob.is_file);
                    Ok(blob.is_some() && !self.layout.suspects.has(digest)?)
                };
                self.is_older(part.modified, self.options.part_ttl) || has_come()?
            }
            None => {
                self.layout.parts.meta(&names.lock)?.is_some()
                    || self.layout.parts.meta(&names.state)?.is_some()
            }
        })
    }

    /// `anyway`: however old it is, if nobody works on it.
    fn expire(&mut self, digest: &Digest, anyway: bool) -> Result<()> {
        let make = !self.options.dry_run;
        let Some(lock) = collector::lock_idle_part(self.layout, digest, make)? else {
            return Ok(());
        };
        // Whoever asked for it since the leases were read last may be waiting for this lock.
        if anyway {
            self.mark_new_pins()?;
            if self.marker.is_leased(digest) {
                return Ok(());
            }
        }
        // Again, since it may have grown until it was locked.
        if !anyway && !self.is_expired(digest)? {
            return Ok(());
        }
        let names = PartNames::of(digest);
        if let Some(part) = self.layout.parts.meta(&names.part)? {
            self.report.parts_removed += 1;
            self.report.parts_removed_bytes += part.len;
            self.unlink(&self.layout.parts, &names.part)?;
        }
        self.unlink(&self.layout.parts, &names.state)?;
        // The lock's file goes last and while it is held: whoever waits for it looks whether it
        // still has its name.
        self.unlink(&self.layout.parts, &names.lock)?;
        drop(lock);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GcOptions, Goal, cycle};
    use super::*;
    use crate::oci::Algorithm;
    use crate::store::{BlobStore, Claim};

    #[test]
    fn a_part_that_was_asked_for_since_the_leases_were_read_is_not_removed_for_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::init(dir.path().join("store")).unwrap();
        let digest = Algorithm::Sha256.digest(b"two bytes");
        let lease = store.lease("gone").unwrap();
        let Claim::Held(mut part) = store.claim(&lease.pin_one(digest, 9).unwrap()).unwrap() else {
            panic!("not held")
        };
        part.write(b"two").unwrap();
        drop((part, lease));
        let options = GcOptions::default();
        let mut cycle = cycle(&store, &options, &Goal::default()).unwrap();
        let parts = cycle.abandoned_parts().unwrap();
        assert_eq!(parts.len(), 1);
        let lease = store.lease("waits").unwrap();
        lease.pin_one(digest, 9).unwrap();
        assert_eq!(cycle.remove_parts(&parts, u64::MAX).unwrap(), 0);
        assert!(store.layout().parts.meta(&PartNames::of(&digest).part).unwrap().is_some());
    }
}
