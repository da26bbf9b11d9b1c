//! What turns out to be damaged while an image is pulled is brought anew by the same pull.

use super::pull::Pull;
use super::pulled::Pulled;
use super::steps::Wanted;
use super::task::blocking;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest};
use crate::store::Pinned;
use crate::store::suspect::is_of_bad_bytes;

/// How often blobs are brought anew that were found to be damaged when the image was to be named.
const HEALINGS: usize = 3;

impl Pull<'_> {
    /// Names the image. What turns out to be damaged by that, since it is another program's or since
    /// somebody has just read it, is brought anew before.
    pub(super) async fn publish_or_heal(
        &self,
        root: &Descriptor,
        mut closure: Vec<Pinned>,
        blobs: &[Descriptor],
        report: &mut Pulled,
    ) -> Result<()> {
        for _ in 0..HEALINGS {
            let Err(error) = self.publish(root, &closure).await else {
                return Ok(());
            };
            let left_out = self.heal(blobs, error, report).await?;
            closure.retain(|pinned| !left_out.contains(pinned.digest()));
        }
        self.publish(root, &closure).await
    }

    /// Looks for which platform an image without an index is. Another program may have written the
    /// config.
    pub(super) async fn check_platform_or_heal(
        &self,
        config: Descriptor,
        report: &mut Pulled,
    ) -> Result<()> {
        match self.check_platform(config.clone()).await {
            Err(error) if is_of_bad_bytes(&error) => {
                self.heal(std::slice::from_ref(&config), error, report).await?;
                self.check_platform(config).await
            }
            checked => checked,
        }
    }

    pub(super) async fn publish(&self, root: &Descriptor, closure: &[Pinned]) -> Result<()> {
        let (store, root, closure) = (self.store().clone(), root.clone(), closure.to_vec());
        let name = self.reference().to_string();
        blocking(move || store.publish(&name, &root, &closure)).await
    }

    /// Brings those of the blobs that an error was about; the foreign ones, which an image is whole
    /// without, only if they are wanted: those that are left out.
    async fn heal(
        &self,
        blobs: &[Descriptor],
        error: Error,
        report: &mut Pulled,
    ) -> Result<Vec<Digest>> {
        let lost = self.lost(blobs, error).await?;
        lost.iter().for_each(|(blob, _)| report.take_back(&blob.digest, blob.size));
        let is_wanted = |(blob, _): &Wanted| self.includes_foreign() || !blob.is_foreign();
        let (lost, foreign): (Vec<_>, Vec<_>) = lost.into_iter().partition(is_wanted);
        let foreign: Vec<Descriptor> = foreign.into_iter().map(|(blob, _)| blob).collect();
        report.size = foreign.iter().fold(report.size, |sum, blob| sum.saturating_sub(blob.size));
        self.leave_out(&foreign, report);
        self.find_room(&[], &lost).await?;
        self.bring(lost, report).await?;
        Ok(foreign.iter().map(|blob| blob.digest).collect())
    }

    /// Those of the blobs that are not there, or not any more. The error is returned if it is about
    /// something else: a sync that failed above all, which nobody may try again.
    pub(super) async fn lost(&self, blobs: &[Descriptor], error: Error) -> Result<Vec<Wanted>> {
        let is_of_blob = matches!(error, Error::Damaged { .. } | Error::Incomplete { .. });
        if !is_of_blob && !is_of_bad_bytes(&error) {
            return Err(error);
        }
        let Ok(pinned) = self.pin(&blobs.iter().collect::<Vec<_>>()).await else {
            return Err(error);
        };
        let all = blobs.iter().cloned().zip(pinned);
        let lost: Vec<Wanted> = all.filter(|(_, pinned)| !pinned.is_present()).collect();
        if lost.is_empty() {
            return Err(error);
        }
        tracing::warn!(%error, "fetching it anew");
        Ok(lost)
    }
}
