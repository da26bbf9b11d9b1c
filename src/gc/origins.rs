use super::Cycle;
use super::sweep::TEMPORARY;
use crate::error::Result;
use crate::store::origins;

impl Cycle<'_> {
    /// Forgets where blobs came from that are gone. One that is missing although something leads to
    /// it is to be had again from there.
    pub(super) fn tidy_origins(&mut self) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        origins::tidy(
            self.layout,
            |digest| {
                let is_kept = self.marker.keeper(digest).is_some();
                Ok(is_kept || self.layout.blob_meta(digest)?.is_some())
            },
            |modified| self.is_older(modified, TEMPORARY),
        )
    }
}
