//! The steps of one pull, from the name to the ref.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::local::{self, Whole};
use super::plan::{Fetched, Plan, plan};
use super::progress::Event;
use super::pull::{Pull, PullPolicy, Referrers};
use super::pulled::Pulled;
use super::task::blocking;
use super::transfer::fetch;
use super::{RawManifest, retry};
use crate::error::{Error, Result};
use crate::gc;
use crate::oci::{Descriptor, Digest};
use crate::store::Pinned;

/// A blob of the image, with what pins it.
pub(super) type Wanted = (Descriptor, Pinned);

impl Pull<'_> {
    pub(super) async fn run(&self) -> Result<Pulled> {
        let mut local = self.local().await?;
        if self.policy() != PullPolicy::Always
            && let Some(Local { root, wanted }) = &mut local
            && let Some(whole) = wanted.take()
            && let Some(pulled) = self.nothing_to_do(root, &whole).await?
        {
            return Ok(pulled);
        }
        if self.policy() == PullPolicy::Never {
            return Err(Error::RefNotFound { name: self.reference().to_string() });
        }
        let (root, brought) = self.resolve(local.is_some()).await?;
        self.tell(Event::Resolved { digest: root.digest });
        if let Some(Local { root: known, wanted: Some(wanted) }) = &local
            && known.digest == root.digest
            && *self.referrers() == Referrers::None
        {
            self.keep_origins(&wanted.blobs).await?;
            if let Some(pulled) = self.nothing_to_do(known, wanted).await? {
                return Ok(pulled);
            }
        }
        let plan = plan(self, &root, brought).await?;
        self.carry_out(&root, plan).await
    }

    /// What the store has under this name, pinned with all that it is made of.
    async fn local(&self) -> Result<Option<Local>> {
        let (store, lease) = (self.store().clone(), self.lease().clone());
        let (name, platform) = (self.reference().to_string(), self.platform().clone());
        let foreign = self.includes_foreign();
        blocking(move || match store.pin_ref(&lease, &name) {
            Err(Error::RefNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(root) => {
                let wanted = local::wanted(&store, &lease, &root, &platform, foreign)?;
                Ok(Some(Local { root, wanted }))
            }
        })
        .await
    }

    /// What the name stands for. Where the store has nothing of that name, the document itself is
    /// asked for at once, which saves a request.
    async fn resolve(&self, ask_first: bool) -> Result<(Descriptor, Option<RawManifest>)> {
        let (registry, reference) = (self.registry(), self.reference());
        let notify = |retry: &super::Retry<'_>| {
            let (delay, reason) = (retry.delay, retry.error.to_string());
            self.tell(Event::Retrying { what: reference.to_string(), delay, reason });
        };
        if ask_first {
            let root = retry(self.budget(), |_| registry.resolve(reference), notify).await?;
            return Ok((root, None));
        }
        let raw = retry(self.budget(), |_| registry.manifest(reference, None), notify).await?;
        Ok((raw.descriptor(), Some(raw)))
    }

    async fn carry_out(&self, root: &Descriptor, plan: Plan) -> Result<Pulled> {
        let Plan { documents, mut blobs, only_config, foreign, referrers } = plan;
        let mut report = Pulled::new(self.reference(), root);
        report.referrers = referrers;
        self.leave_out(&foreign, &mut report);
        let origins = origins_of(&documents, &blobs);
        for document in &documents {
            report.size += document.pinned.size();
            report.count(document.pinned.digest(), document.pinned.size(), document.fetched);
        }
        // Sizes are what a document declares, and may be absurd.
        let add = |sum: u64, (blob, _): &(Descriptor, Pinned)| sum.saturating_add(blob.size);
        report.size = blobs.iter().fold(report.size, add);
        let count = (documents.len() + blobs.len()) as u64;
        self.tell(Event::Planned { blobs: count, bytes: report.size });

        // Small ones first, so that a config never waits behind a layer.
        blobs.sort_by_key(|(blob, _)| blob.size);
        let closure: Vec<Pinned> = documents
            .into_iter()
            .map(|document| document.pinned)
            .chain(blobs.iter().map(|(_, pinned)| pinned.clone()))
            .collect();
        let is_config = |blob: &Descriptor| {
            only_config.as_ref().is_some_and(|config| config.digest == blob.digest)
        };
        let all: Vec<Descriptor> = blobs.iter().map(|(blob, _)| blob.clone()).collect();
        let (config, rest): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|(blob, _)| is_config(blob));
        self.find_room(&config, &rest).await?;
        self.bring(config, &mut report).await?;
        if let Some(config) = only_config {
            self.check_platform_or_heal(config, &mut report).await?;
        }
        self.bring(rest, &mut report).await?;

        // Before the ref, which is then never without.
        self.record_origins(origins).await?;
        self.publish_or_heal(root, closure, &all, &mut report).await?;
        Ok(report)
    }

    /// Has room for what is missing, before its first byte.
    pub(super) async fn find_room(&self, config: &[Wanted], rest: &[Wanted]) -> Result<()> {
        let missing = config.iter().chain(rest).filter(|(_, pinned)| !pinned.is_present());
        let missing: Vec<_> = missing.map(|(blob, _)| (blob.digest, blob.size)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => self.make_room(missing).await,
        }
    }

    /// Has room for blobs of these sizes, which the lease pins.
    pub(super) async fn make_room(&self, missing: Vec<(Digest, u64)>) -> Result<()> {
        let (store, lease) = (self.store().clone(), self.lease().clone());
        let admit = move || Ok(gc::admit(&store, &lease, &missing));
        let (dropped, outcome) = blocking(admit).await?;
        for gc::DroppedImage { digest, names, freed, .. } in dropped {
            self.tell(Event::Dropped { digest, names, freed });
        }
        outcome
    }

    /// Writes down, for their repair, that blobs are to be had from here. The registry has just said
    /// that it has the image.
    async fn keep_origins(&self, blobs: &[Descriptor]) -> Result<()> {
        let blobs = blobs.iter().filter(|blob| !blob.is_foreign());
        self.record_origins(blobs.map(|blob| (blob.digest, false)).collect()).await
    }

    async fn record_origins(&self, origins: Vec<(Digest, bool)>) -> Result<()> {
        let (store, image) = (self.store().clone(), self.reference().clone());
        blocking(move || {
            store.record_origins(&image, &origins);
            Ok(())
        })
        .await
    }

    /// Downloads those of the blobs that are missing, several at a time.
    pub(super) async fn bring(&self, blobs: Vec<Wanted>, report: &mut Pulled) -> Result<()> {
        let (present, missing): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|(_, pinned)| pinned.is_present());
        for (blob, _) in present {
            self.tell(Event::Reused { digest: blob.digest, size: blob.size });
            report.count(&blob.digest, blob.size, false);
        }
        let mut arrivals = stream::iter(missing)
            .map(|(blob, pinned)| async move {
                fetch(self, &blob, pinned).await.map(|arrival| (blob, arrival))
            })
            .buffer_unordered(self.concurrency());
        while let Some((blob, arrival)) = arrivals.try_next().await? {
            report.arrived(&blob.digest, blob.size, arrival);
        }
        Ok(())
    }

    /// An image without an index says only in its config what it is for. Who asked for a platform
    /// by name is not given another.
    pub(super) async fn check_platform(&self, config: Descriptor) -> Result<()> {
        let store = self.store().clone();
        let Some(platform) = blocking(move || local::platform(&store, &config)).await? else {
            return Ok(());
        };
        if self.platform().accepts(&platform) {
            return Ok(());
        }
        Err(Error::NoPlatform {
            reference: self.reference().to_string(),
            wanted: self.platform().to_string(),
            available: platform.to_string(),
        })
    }

    pub(super) fn leave_out(&self, foreign: &[Descriptor], report: &mut Pulled) {
        for Descriptor { digest, size, urls, .. } in foreign {
            report.foreign_blobs += 1;
            report.foreign_bytes = report.foreign_bytes.saturating_add(*size);
            self.tell(Event::Foreign { digest: *digest, size: *size, urls: urls.clone() });
        }
    }

    /// All is there. Whoever brought it may not have come to making it durable yet, or a power cut
    /// could still take it away from the one who is told so now; and the name may have been removed
    /// since it was read. `None` if there is something to do after all: one of the blobs was found to be
    /// damaged by that.
    async fn nothing_to_do(&self, root: &Descriptor, wanted: &Whole) -> Result<Option<Pulled>> {
        if let Err(error) = self.publish(root, &wanted.pinned).await {
            if self.policy() == PullPolicy::Never {
                return Err(error);
            }
            self.lost(&wanted.blobs, error).await?;
            return Ok(None);
        }
        let mut report = Pulled::new(self.reference(), root);
        self.leave_out(&wanted.foreign, &mut report);
        for blob in &wanted.blobs {
            report.size += blob.size;
            report.count(&blob.digest, blob.size, false);
            self.tell(Event::Reused { digest: blob.digest, size: blob.size });
        }
        Ok(Some(report))
    }
}

/// What a pull has from its registry, and whether it has just brought it. A foreign layer need not be
/// there.
fn origins_of(documents: &[Fetched], blobs: &[(Descriptor, Pinned)]) -> Vec<(Digest, bool)> {
    let documents = documents.iter().map(|it| (*it.pinned.digest(), it.fetched));
    let blobs = blobs.iter().filter(|(blob, _)| !blob.is_foreign());
    documents.chain(blobs.map(|(blob, pinned)| (blob.digest, !pinned.is_present()))).collect()
}

/// What the store has under the name that is pulled.
struct Local {
    root: Descriptor,
    /// All that is wanted of it, if all of that is there.
    wanted: Option<Whole>,
}
