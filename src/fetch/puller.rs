use std::sync::Arc;
use std::time::Instant;

use super::pace::RateLimit;
use super::progress::Observer;
use super::pull::{Options, Pull, PullPolicy, Referrers};
use super::pulled::Pulled;
use super::task::blocking;
use super::{RegistryPull, RetryPolicy, Traffic};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::oci::{PlatformChoice, Reference};
use crate::store::{BlobStore, Hosts};

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
    options: Options,
}

impl Puller {
    /// A puller with the defaults: this machine's platform, always asking the registry, six blobs
    /// at a time over at most eight connections.
    pub fn new(store: BlobStore, registry: Arc<dyn RegistryPull>) -> Puller {
        let options = Options {
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
            shared: true,
            observer: Observer::default(),
        };
        Puller { options }
    }

    /// Which platforms of an index are wanted.
    #[must_use]
    pub fn platform(mut self, platform: PlatformChoice) -> Puller {
        self.options.platform = platform;
        self
    }

    /// When the registry is asked.
    #[must_use]
    pub fn policy(mut self, policy: PullPolicy) -> Puller {
        self.options.policy = policy;
        self
    }

    /// What is brought beside the image. Asked for only where the registry is asked at all: what
    /// [`PullPolicy::Missing`] finds whole has what it has.
    #[must_use]
    pub fn referrers(mut self, referrers: Referrers) -> Puller {
        self.options.referrers = referrers;
        self
    }

    /// Whether foreign layers are fetched too, from the addresses that the manifest gives. They are
    /// layers that their registry need not have, as those of Windows; an image is whole without.
    #[must_use]
    pub fn include_foreign(mut self, include: bool) -> Puller {
        self.options.include_foreign = include;
        self
    }

    /// How patient a pull is.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Puller {
        self.options.retry = retry;
        self
    }

    /// How many blobs are downloaded at a time; at least one.
    #[must_use]
    pub fn concurrency(mut self, blobs: usize) -> Puller {
        self.options.concurrency = blobs.max(1);
        self
    }

    /// How many connections one pull has at a time for blobs; at least one. A large blob takes
    /// several where one is slower than the line.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Puller {
        self.options.connections = connections.max(1);
        self
    }

    /// How many bytes of blobs are taken in a second, by all pulls and repairs of this puller and of those
    /// that are cloned from it together; no limit by default.
    #[must_use]
    pub fn limit_rate(mut self, bytes_per_second: u64) -> Puller {
        self.options.rate = Some(Arc::new(RateLimit::new(bytes_per_second)));
        self
    }

    /// Whether [`connections`](Puller::connections) holds for each host over all processes that pull
    /// into the store, and a host that asked one of them with `Retry-After` to be left alone is
    /// left alone by all. It is so by default; otherwise both are this pull's alone.
    ///
    /// A connection that serves nobody is kept for the next request, until another process waits for one.
    #[must_use]
    pub fn share_connections(mut self, share: bool) -> Puller {
        self.options.shared = share;
        self
    }

    /// Who is told what happens.
    #[must_use]
    pub fn observer(mut self, observer: Observer) -> Puller {
        self.options.observer = observer;
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
        let pull = self.begin(reference, "pull").await?;
        let mut pulled = pull.run().await?;
        pulled.retries = pull.budget().used().into();
        pulled.seconds = started.elapsed().as_secs_f64();
        Ok(pulled)
    }

    /// Begins to bring something from a repository: with a lease, and with connections.
    pub(super) async fn begin<'a>(
        &'a self,
        reference: &'a Reference,
        what: &str,
    ) -> Result<Pull<'a>> {
        let (store, holder) = (self.options.store.clone(), format!("{what} {reference}"));
        let shared = self.options.shared;
        let start = move || Ok((store.lease(&holder)?, shared.then(|| store.hosts()).transpose()?));
        let (lease, hosts) = blocking(start).await?;
        Ok(Pull::new(&self.options, self.registry(hosts), reference, lease))
    }

    pub(super) fn store(&self) -> &BlobStore {
        &self.options.store
    }

    pub(super) fn platform_choice(&self) -> &PlatformChoice {
        &self.options.platform
    }

    pub(super) fn blobs_at_once(&self) -> usize {
        self.options.concurrency
    }

    /// The registry, limited where that is wished for and there is something to limit.
    fn registry(&self, hosts: Option<Hosts>) -> Arc<dyn RegistryPull> {
        let Options { registry, connections, retry, observer, .. } = &self.options;
        let limited = |hosts| {
            registry.limited(&Traffic::new(
                hosts,
                *connections,
                retry.max_retry_after,
                observer.clone(),
            ))
        };
        hosts.and_then(limited).unwrap_or_else(|| Arc::clone(registry))
    }
}
