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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fetch::{HttpRegistry, Puller};
    use crate::oci::{Algorithm, MediaType, Reference};
    use crate::store::BlobStore;

    /// To publish again after a sync that failed would find the next sync well, and the names gone.
    #[test]
    fn only_what_is_damaged_is_a_reason_to_try_again() {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        let puller = Puller::new(store, Arc::new(HttpRegistry::builder().build().unwrap()));
        let reference: Reference = "localhost/demo:1".parse().unwrap();
        let digest = Algorithm::Sha256.digest(b"not there");
        let blobs = [Descriptor::new(MediaType::new("any"), digest, 9)];
        let path = std::path::PathBuf::from("blobs");
        let io = |code| std::io::Error::from_raw_os_error(code);
        let failed_sync = Error::NotDurable { path: path.clone(), source: io(5) };
        let full =
            Error::NoSpace { action: "write", path: path.clone(), needed: None, available: None };
        let denied = Error::Io { action: "open", path: path.clone(), source: io(13) };
        let damaged = Error::Damaged { path: path.clone(), reason: "it is".to_owned() };
        let incomplete = Error::Incomplete { name: "demo:1".to_owned(), digest };
        let bad_disk = Error::Io { action: "read", path, source: io(5) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let pull = puller.begin(&reference, "pull").await.unwrap();
            for error in [failed_sync, full, denied] {
                let said = error.to_string();
                let Err(error) = pull.lost(&blobs, error).await else { panic!("{said}") };
                assert_eq!(error.to_string(), said);
            }
            for error in [damaged, incomplete, bad_disk] {
                assert_eq!(pull.lost(&blobs, error).await.unwrap().len(), 1);
            }
        });
    }
}
