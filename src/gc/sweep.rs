use std::time::Duration;

use super::Cycle;
use super::mark::Keeper;
use crate::error::Result;
use crate::oci::{Algorithm, Digest};
use crate::store::collector;
use crate::store::gate;
use crate::sys::Dir;

/// How many blobs are removed while the gate is shut: it stays so for some ten milliseconds.
const BATCH: usize = 256;
/// From this length on, in bytes, unlinking a blob takes long enough to be done outside the gate.
const LARGE: u64 = 1024 * 1024;
/// After this time nobody is still writing to a temporary file.
pub(super) const TEMPORARY: Duration = Duration::from_secs(24 * 60 * 60);

/// A blob that nothing kept when it was listed.
struct Candidate {
    digest: Digest,
    size: u64,
}

impl Cycle<'_> {
    /// Lists every directory of blobs, and removes what is not kept, batch by batch.
    ///
    /// Names that are no digest's are none of the collector's business, except the store's own
    /// temporary ones. Removing names from a directory while it is listed may make the listing miss
    /// others; they are garbage for the next collection.
    pub(super) fn sweep(&mut self) -> Result<()> {
        self.remove_temporaries()?;
        for algorithm in Algorithm::ALL {
            let layout = self.layout;
            let Some(dir) = layout.algorithm(algorithm)? else {
                continue;
            };
            let mut batch = Vec::with_capacity(BATCH);
            for name in dir.names()? {
                let name = name?;
                let Some(meta) = dir.meta(&name)?.filter(|meta| meta.is_file) else {
                    continue;
                };
                let Ok(digest) = Digest::from_hex(algorithm, &name) else {
                    if collector::is_temporary(&name) && self.is_older(meta.modified, TEMPORARY) {
                        self.report.temporaries_removed += 1;
                        self.unlink(dir, &name)?;
                    }
                    continue;
                };
                match self.marker.keeper(&digest) {
                    Some(Keeper::Ref) => {
                        self.report.live += 1;
                        self.report.live_bytes += meta.len;
                    }
                    Some(Keeper::Lease) => self.report.kept_leased += 1,
                    None if self.is_older(meta.modified, self.options.grace) => {
                        batch.push(Candidate { digest, size: meta.len });
                    }
                    None => self.report.kept_young += 1,
                }
                if batch.len() == BATCH {
                    self.remove(&mut batch)?;
                }
            }
            self.remove(&mut batch)?;
        }
        Ok(())
    }

    /// Removes those candidates that nobody has pinned meanwhile.
    ///
    /// No sync follows: if a power cut brings a name back, it is that of a whole blob, which was
    /// synced before it got the name and is never truncated, and the next collection removes it.
    fn remove(&mut self, batch: &mut Vec<Candidate>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.options.dry_run {
            batch.drain(..).for_each(|candidate| self.count_removed(&candidate));
            return Ok(());
        }
        let mut moved = Vec::new();
        let gate = gate::shut(&self.layout.locks)?;
        self.mark_new_pins()?;
        for candidate in batch.drain(..) {
            if self.marker.keeper(&candidate.digest).is_some() {
                self.report.kept_leased += 1;
            } else if self.remove_one(&candidate, &mut moved)? {
                self.count_removed(&candidate);
            }
        }
        drop(gate);
        for name in moved {
            self.layout.trash.unlink(&name)?;
        }
        Ok(())
    }

    /// Removes a blob under the shut gate; whether it was there. What was only moved to the trash
    /// is added to `moved`.
    fn remove_one(&self, candidate: &Candidate, moved: &mut Vec<String>) -> Result<bool> {
        let Candidate { digest, size } = candidate;
        let Some(dir) = self.layout.algorithm(digest.algorithm())? else {
            return Ok(false);
        };
        let name = digest.hex();
        if *size >= LARGE {
            let trashed = format!("{}-{name}", digest.algorithm());
            match dir.rename(&name, &self.layout.trash, &trashed) {
                Ok(()) => {
                    moved.push(trashed);
                    return Ok(true);
                }
                // A full disk has no room for a name in the trash; then the gate stays shut longer.
                Err(error) => tracing::debug!(%digest, %error, "a blob is not moved to the trash"),
            }
        }
        dir.unlink(&name)
    }

    fn count_removed(&mut self, candidate: &Candidate) {
        self.report.removed += 1;
        self.report.removed_bytes += candidate.size;
        tracing::debug!(digest = %candidate.digest, dry_run = self.options.dry_run, "removed");
    }

    /// Empties the trash, in which a collection that was killed may have left what it took out of
    /// the blobs' directories already.
    pub(super) fn empty_trash(&mut self) -> Result<()> {
        for name in self.layout.trash.names()? {
            self.report.trash_removed += 1;
            self.unlink(&self.layout.trash, &name?)?;
        }
        Ok(())
    }

    /// Unlinks a file unless this is a dry run.
    pub(super) fn unlink(&self, dir: &Dir, name: &str) -> Result<()> {
        if !self.options.dry_run {
            dir.unlink(name)?;
        }
        Ok(())
    }

    /// Removes what writers that were killed left beside `index.json` and among the parts.
    fn remove_temporaries(&mut self) -> Result<()> {
        for dir in [&self.layout.root, &self.layout.parts, &self.layout.leases] {
            for name in dir.names()? {
                let name = name?;
                if collector::is_temporary(&name)
                    && let Some(meta) = dir.meta(&name)?
                    && meta.is_file
                    && self.is_older(meta.modified, TEMPORARY)
                {
                    self.report.temporaries_removed += 1;
                    self.unlink(dir, &name)?;
                }
            }
        }
        Ok(())
    }
}
