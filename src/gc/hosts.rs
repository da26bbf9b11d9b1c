use std::time::Duration;

use super::Cycle;
use crate::error::Result;
use crate::store::hosts;
use crate::sys::Aside;

/// How old a file about a host must be to be removed: older than any wait that it may speak of.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl Cycle<'_> {
    /// Removes what was agreed on about hosts that nobody has asked for a day. A registry may send
    /// its clients to a new host each time.
    pub(super) fn expire_hosts(&mut self) -> Result<()> {
        let Some(dir) = self.layout.private.open_dir("hosts")? else {
            return Ok(());
        };
        for name in dir.names()? {
            let name = name?;
            let known = hosts::is_name(&name) || Aside::is_leftover(&name);
            let old = |modified| self.is_older(modified, AGE);
            if !known || !dir.meta(&name)?.is_some_and(|meta| meta.is_file && old(meta.modified)) {
                continue;
            }
            // A lock that somebody has is in use, however old its file; who waits for it looks
            // whether it still has its name.
            if let Some(lock) = hosts::lock_idle(&dir, &name)? {
                self.unlink(&dir, &name)?;
                drop(lock);
            }
        }
        Ok(())
    }
}
