use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::local;
use super::plan::{Plan, plan};
use super::progress::{Event, Observer};
use super::transfer::{Arrival, fetch};
use super::{RawManifest, RegistryPull, RetryBudget, RetryPolicy, retry};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, MediaType, PlatformChoice, Reference};
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
    retry: RetryPolicy,
    concurrency: usize,
    observer: Observer,
}

/// What a pull did. All sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pulled {
    /// The ref that names the image now.
    #[serde(rename = "ref")]
    pub name: String,
    /// The digest of the image's index or manifest.
    pub digest: Digest,
    /// What of the two it is.
    pub media_type: MediaType,
    /// The size of everything the image is made of, as far as it was wanted.
    pub size: u64,
    /// How many blobs this pull downloaded, manifests and indexes among them.
    pub fetched_blobs: u64,
    /// How many bytes it downloaded.
    pub fetched_bytes: u64,
    /// How many blobs were there, or were brought by another process meanwhile.
    pub reused_blobs: u64,
    /// Their sizes.
    pub reused_bytes: u64,
    /// How many bytes earlier, broken downloads had left.
    pub resumed_bytes: u64,
    /// How many of the reused blobs another process brought while this one waited.
    pub waited_blobs: u64,
    /// How many requests were repeated.
    pub retries: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Puller {
    /// A puller with the defaults: this machine's platform, always asking the registry, six blobs
    /// at a time.
    pub fn new(store: BlobStore, registry: Arc<dyn RegistryPull>) -> Puller {
        Puller {
            store,
            registry,
            platform: PlatformChoice::default(),
            policy: PullPolicy::default(),
            retry: RetryPolicy::default(),
            concurrency: 6,
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
        let pull = Pull { puller: self, reference, lease, budget };
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

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    pub(super) fn tell(&self, event: Event) {
        self.puller.observer.tell(event);
    }

    async fn run(&self) -> Result<Pulled> {
        let local = self.local().await?;
        if self.puller.policy != PullPolicy::Always
            && let Some(Local { root, wanted: Some(wanted) }) = &local
        {
            return Ok(self.nothing_to_do(root, wanted));
        }
        if self.puller.policy == PullPolicy::Never {
            return Err(Error::RefNotFound { name: self.reference.to_string() });
        }
        let (root, brought) = self.resolve(local.is_some()).await?;
        self.tell(Event::Resolved { digest: root.digest });
        if let Some(Local { root: known, wanted: Some(wanted) }) = &local
            && known.digest == root.digest
        {
            return Ok(self.nothing_to_do(known, wanted));
        }
        let plan = plan(self, &root, brought).await?;
        self.carry_out(&root, plan).await
    }

    /// What the store has under this name, pinned with all that it is made of.
    async fn local(&self) -> Result<Option<Local>> {
        let (store, lease) = (self.store().clone(), self.lease.clone());
        let (name, platform) = (self.reference.to_string(), self.platform().clone());
        blocking(move || match store.pin_ref(&lease, &name) {
            Err(Error::RefNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(root) => {
                // What is damaged does not count as there: the pull brings it anew.
                let wanted = local::wanted(&store, &root, &platform).unwrap_or(None);
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
        let Plan { documents, mut blobs, only_config } = plan;
        let mut report = Pulled::new(self.reference, root);
        for document in &documents {
            report.size += document.pinned.size();
            report.count(document.pinned.size(), document.fetched);
        }
        report.size += blobs.iter().map(|(blob, _)| blob.size).sum::<u64>();
        let count = (documents.len() + blobs.len()) as u64;
        self.tell(Event::Planned { blobs: count, bytes: report.size });

        // Small ones first, so that a config never waits behind a layer.
        blobs.sort_by_key(|(blob, _)| blob.size);
        let closure: Vec<Pinned> = documents
            .into_iter()
            .map(|document| document.pinned)
            .chain(blobs.iter().map(|(_, pinned)| pinned.clone()))
            .collect();
        let is_config = |blob: &Descriptor| Some(blob.digest) == only_config;
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
    async fn check_platform(&self, config: Digest) -> Result<()> {
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

    fn nothing_to_do(&self, root: &Descriptor, wanted: &[Descriptor]) -> Pulled {
        let mut report = Pulled::new(self.reference, root);
        for blob in wanted {
            report.size += blob.size;
            report.count(blob.size, false);
            self.tell(Event::Reused { digest: blob.digest, size: blob.size });
        }
        report
    }
}

/// What the store has under the name that is pulled.
struct Local {
    root: Descriptor,
    /// All that is wanted of it, if all of that is there.
    wanted: Option<Vec<Descriptor>>,
}

impl Pulled {
    fn new(reference: &Reference, root: &Descriptor) -> Pulled {
        Pulled {
            name: reference.to_string(),
            digest: root.digest,
            media_type: root.media_type.clone(),
            size: 0,
            fetched_blobs: 0,
            fetched_bytes: 0,
            reused_blobs: 0,
            reused_bytes: 0,
            resumed_bytes: 0,
            waited_blobs: 0,
            retries: 0,
            seconds: 0.0,
        }
    }

    fn count(&mut self, size: u64, fetched: bool) {
        let (blobs, bytes) = match fetched {
            true => (&mut self.fetched_blobs, &mut self.fetched_bytes),
            false => (&mut self.reused_blobs, &mut self.reused_bytes),
        };
        *blobs += 1;
        *bytes += size;
    }

    fn arrived(&mut self, size: u64, arrival: Arrival) {
        match arrival {
            Arrival::Fetched { resumed } => {
                self.count(size - resumed, true);
                self.resumed_bytes += resumed;
            }
            Arrival::Waited => {
                self.count(size, false);
                self.waited_blobs += 1;
            }
        }
    }
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
