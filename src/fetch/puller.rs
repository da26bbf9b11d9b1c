use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::local::{self, Whole};
use super::pace::RateLimit;
use super::plan::{Plan, plan};
use super::progress::{Event, Observer};
use super::pulled::Pulled;
use super::transfer::fetch;
use super::{RawManifest, RegistryPull, RetryBudget, RetryPolicy, retry};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, MediaType, PlatformChoice, Reference};
use crate::store::{BlobStore, Lease, Pinned};

/// When the registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always: the name may stand for another image by now.
    #[default]
    Always,
    /// If the image is not there whole.
    Missing,
    /// Never: an image that is not there whole is an error.
    Never,
}

/// What is brought beside an image: manifests that are about it and that nothing in it names, as
/// signatures, attestations and SBOMs (distribution specification, "Listing Referrers").
///
/// They are kept for as long as what they are about is, and collected with it. Those about them are
/// brought too, as the signature of an SBOM, to a depth of [`MAX_DEPTH`](crate::oci::MAX_DEPTH)
/// with the image as 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Referrers {
    /// Nothing.
    #[default]
    None,
    /// Whatever the registry lists.
    All,
    /// What it lists of one artifact type.
    OfType(MediaType),
}

/// Brings images from a registry into a store.
///
/// Dropping the future of a pull ends it: what was downloaded stays as parts, and the next pull,
/// of this process or another, goes on from there.
///
/// ```no_run
/// use std::sync::Arc;
/// use layerstore::fetch::{HttpRegistry, Puller};
/// use layerstore::{BlobStore, Reference};
///
/// # async fn example() -> layerstore::Result<()> {
/// let store = BlobStore::init("/srv/images")?;
/// let registry = Arc::new(HttpRegistry::builder().build()?);
/// let reference: Reference = "docker.io/library/alpine:3.20".parse()?;
/// let pulled = Puller::new(store, registry).pull(&reference).await?;
/// println!("{} is {}, {} bytes of it fetched", pulled.name, pulled.digest, pulled.fetched_bytes);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Puller {
    store: BlobStore,
    registry: Arc<dyn RegistryPull>,
    platform: PlatformChoice,
    policy: PullPolicy,
    referrers: Referrers,
    include_foreign: bool,
    retry: RetryPolicy,
    concurrency: usize,
    connections: usize,
    rate: Option<u64>,
    observer: Observer,
}

impl Puller {
    /// A puller with the defaults: this machine's platform, always asking the registry, six blobs
    /// at a time over at most eight connections.
    pub fn new(store: BlobStore, registry: Arc<dyn RegistryPull>) -> Puller {
        Puller {
            store,
            registry,
            platform: PlatformChoice::default(),
            policy: PullPolicy::default(),
            referrers: Referrers::default(),
            include_foreign: false,
            retry: RetryPolicy::default(),
            concurrency: 6,
            connections: 8,
            rate: None,
            observer: Observer::default(),
        }
    }

    /// Which platforms of an index are wanted.
    #[must_use]
    pub fn platform(mut self, platform: PlatformChoice) -> Puller {
        self.platform = platform;
        self
    }

    /// When the registry is asked.
    #[must_use]
    pub fn policy(mut self, policy: PullPolicy) -> Puller {
        self.policy = policy;
        self
    }

    /// What is brought beside the image. Asked for only where the registry is asked at all: what
    /// [`PullPolicy::Missing`] finds whole has what it has.
    #[must_use]
    pub fn referrers(mut self, referrers: Referrers) -> Puller {
        self.referrers = referrers;
        self
    }

    /// Whether foreign layers are fetched too, from the addresses that the manifest gives. They are
    /// layers that their registry need not have, as those of Windows; an image is whole without.
    #[must_use]
    pub fn include_foreign(mut self, include: bool) -> Puller {
        self.include_foreign = include;
        self
    }

    /// How patient a pull is.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Puller {
        self.retry = retry;
        self
    }

    /// How many blobs are downloaded at a time; at least one.
    #[must_use]
    pub fn concurrency(mut self, blobs: usize) -> Puller {
        self.concurrency = blobs.max(1);
        self
    }

    /// How many connections one pull has at a time for blobs; at least one. A large blob takes
    /// several where one is slower than the line.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Puller {
        self.connections = connections.max(1);
        self
    }

    /// How many bytes of blobs one pull takes in a second; no limit by default.
    #[must_use]
    pub fn limit_rate(mut self, bytes_per_second: u64) -> Puller {
        self.rate = Some(bytes_per_second);
        self
    }

    /// Who is told what happens.
    #[must_use]
    pub fn observer(mut self, observer: Observer) -> Puller {
        self.observer = observer;
        self
    }

    /// Pulls one image. When this returns, the image's blobs and its ref are durable.
    ///
    /// # Errors
    ///
    /// Those of [`RegistryPull`] and of [`BlobStore`]; [`Error::NoPlatform`] if the image is for
    /// other machines; [`Error::RefNotFound`] under [`PullPolicy::Never`].
    pub async fn pull(&self, reference: &Reference) -> Result<Pulled> {
        let started = Instant::now();
        let (store, holder) = (self.store.clone(), format!("pull {reference}"));
        let lease = blocking(move || store.lease(&holder)).await?;
        let budget = RetryBudget::new(self.retry.clone());
        let pull = Pull {
            puller: self,
            reference,
            lease,
            budget,
            connections: Semaphore::new(self.connections),
            rate: self.rate.map(RateLimit::new),
        };
        let mut pulled = pull.run().await?;
        pulled.retries = pull.budget.used().into();
        pulled.seconds = started.elapsed().as_secs_f64();
        Ok(pulled)
    }
}

/// One pull under way.
pub(super) struct Pull<'a> {
    puller: &'a Puller,
    reference: &'a Reference,
    lease: Lease,
    budget: RetryBudget,
    connections: Semaphore,
    rate: Option<RateLimit>,
}

impl Pull<'_> {
    pub(super) fn store(&self) -> &BlobStore {
        &self.puller.store
    }

    pub(super) fn registry(&self) -> &dyn RegistryPull {
        &*self.puller.registry
    }

    pub(super) fn reference(&self) -> &Reference {
        self.reference
    }

    pub(super) fn platform(&self) -> &PlatformChoice {
        &self.puller.platform
    }

    pub(super) fn referrers(&self) -> &Referrers {
        &self.puller.referrers
    }

    pub(super) fn includes_foreign(&self) -> bool {
        self.puller.include_foreign
    }

    pub(super) fn concurrency(&self) -> usize {
        self.puller.concurrency
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// Waits for one of the pull's connections.
    pub(super) async fn connection(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed, so this never fails.
        self.connections.acquire().await.ok()
    }

    /// One of the pull's connections, if one is free.
    pub(super) fn spare_connection(&self) -> Option<SemaphorePermit<'_>> {
        self.connections.try_acquire().ok()
    }

    /// Whether bytes are made to wait, so that their rate says nothing about the server.
    pub(super) fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Waits until so many bytes more may have come.
    pub(super) async fn pay(&self, bytes: u64) {
        if let Some(rate) = &self.rate {
            rate.pay(bytes).await;
        }
    }

    pub(super) fn tell(&self, event: Event) {
        self.puller.observer.tell(event);
    }

    async fn run(&self) -> Result<Pulled> {
        let local = self.local().await?;
        if self.puller.policy != PullPolicy::Always
            && let Some(Local { root, wanted: Some(wanted) }) = &local
        {
            return self.nothing_to_do(root, wanted).await;
        }
        if self.puller.policy == PullPolicy::Never {
            return Err(Error::RefNotFound { name: self.reference.to_string() });
        }
        let (root, brought) = self.resolve(local.is_some()).await?;
        self.tell(Event::Resolved { digest: root.digest });
        if let Some(Local { root: known, wanted: Some(wanted) }) = &local
            && known.digest == root.digest
            && *self.referrers() == Referrers::None
        {
            return self.nothing_to_do(known, wanted).await;
        }
        let plan = plan(self, &root, brought).await?;
        self.carry_out(&root, plan).await
    }

    /// What the store has under this name, pinned with all that it is made of.
    async fn local(&self) -> Result<Option<Local>> {
        let (store, lease) = (self.store().clone(), self.lease.clone());
        let (name, platform) = (self.reference.to_string(), self.platform().clone());
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
        let (registry, reference) = (self.registry(), self.reference);
        let notify = |retry: &super::Retry<'_>| {
            let (delay, reason) = (retry.delay, retry.error.to_string());
            self.tell(Event::Retrying { what: reference.to_string(), delay, reason });
        };
        if ask_first {
            let root = retry(&self.budget, |_| registry.resolve(reference), notify).await?;
            return Ok((root, None));
        }
        let raw = retry(&self.budget, |_| registry.manifest(reference, None), notify).await?;
        Ok((raw.descriptor(), Some(raw)))
    }

    async fn carry_out(&self, root: &Descriptor, plan: Plan) -> Result<Pulled> {
        let Plan { documents, mut blobs, only_config, foreign, referrers } = plan;
        let mut report = Pulled::new(self.reference, root);
        report.referrers = referrers;
        self.leave_out(&foreign, &mut report);
        for document in &documents {
            report.size += document.pinned.size();
            report.count(document.pinned.size(), document.fetched);
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
        let (config, rest) = blobs.into_iter().partition(|(blob, _)| is_config(blob));
        self.bring(config, &mut report).await?;
        if let Some(config) = only_config {
            self.check_platform(config).await?;
        }
        self.bring(rest, &mut report).await?;

        let (store, name, root) = (self.store().clone(), report.name.clone(), root.clone());
        blocking(move || store.publish(&name, &root, &closure)).await?;
        Ok(report)
    }

    /// Downloads those of the blobs that are missing, several at a time.
    async fn bring(&self, blobs: Vec<(Descriptor, Pinned)>, report: &mut Pulled) -> Result<()> {
        let (present, missing): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|(_, pinned)| pinned.is_present());
        for (blob, _) in present {
            self.tell(Event::Reused { digest: blob.digest, size: blob.size });
            report.count(blob.size, false);
        }
        let mut arrivals = stream::iter(missing)
            .map(|(blob, pinned)| async move {
                fetch(self, &blob, pinned).await.map(|arrival| (blob.size, arrival))
            })
            .buffer_unordered(self.puller.concurrency);
        while let Some((size, arrival)) = arrivals.try_next().await? {
            report.arrived(size, arrival);
        }
        Ok(())
    }

    /// An image without an index says only in its config what it is for. Who asked for a platform
    /// by name is not given another.
    async fn check_platform(&self, config: Descriptor) -> Result<()> {
        let store = self.store().clone();
        let Some(platform) = blocking(move || local::platform(&store, &config)).await? else {
            return Ok(());
        };
        if self.platform().accepts(&platform) {
            return Ok(());
        }
        Err(Error::NoPlatform {
            reference: self.reference.to_string(),
            wanted: self.platform().to_string(),
            available: platform.to_string(),
        })
    }

    fn leave_out(&self, foreign: &[Descriptor], report: &mut Pulled) {
        for Descriptor { digest, size, urls, .. } in foreign {
            report.foreign_blobs += 1;
            report.foreign_bytes = report.foreign_bytes.saturating_add(*size);
            self.tell(Event::Foreign { digest: *digest, size: *size, urls: urls.clone() });
        }
    }

    /// All is there. Whoever brought it may not have come to making it durable yet, or a power cut
    /// could still take it away from the one who is told so now; and the name may have been removed
    /// since it was read.
    async fn nothing_to_do(&self, root: &Descriptor, wanted: &Whole) -> Result<Pulled> {
        let (store, target, pinned) = (self.store().clone(), root.clone(), wanted.pinned.clone());
        let name = self.reference.to_string();
        blocking(move || store.publish(&name, &target, &pinned)).await?;
        let mut report = Pulled::new(self.reference, root);
        self.leave_out(&wanted.foreign, &mut report);
        for blob in &wanted.blobs {
            report.size += blob.size;
            report.count(blob.size, false);
            self.tell(Event::Reused { digest: blob.digest, size: blob.size });
        }
        Ok(report)
    }
}

/// What the store has under the name that is pulled.
struct Local {
    root: Descriptor,
    /// All that is wanted of it, if all of that is there.
    wanted: Option<Whole>,
}

/// Runs what blocks on a thread for such work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(broken_task)?
}

/// A panic goes on in the task that waited for it; the only other cause is a runtime that ends.
pub(super) fn broken_task(error: tokio::task::JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Error::Io {
            action: "go on with",
            path: "the pull".into(),
            source: std::io::Error::other(error),
        },
    }
}
