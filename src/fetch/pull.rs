//! One pull under way: what it is to do, and what its steps share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::pace::RateLimit;
use super::progress::{Event, Observer};
use super::writer::Writers;
use super::{RegistryPull, RetryBudget, RetryPolicy};
use crate::oci::{MediaType, PlatformChoice, Reference};
use crate::store::{BlobStore, Lease};

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

/// What a pull is to do, and how.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) store: BlobStore,
    pub(super) registry: Arc<dyn RegistryPull>,
    pub(super) platform: PlatformChoice,
    pub(super) policy: PullPolicy,
    pub(super) referrers: Referrers,
    pub(super) include_foreign: bool,
    pub(super) retry: RetryPolicy,
    pub(super) concurrency: usize,
    pub(super) connections: usize,
    /// One for all that the puller and its clones bring.
    pub(super) rate: Option<Arc<RateLimit>>,
    /// Whether the limit on connections holds over all processes.
    pub(super) shared: bool,
    pub(super) observer: Observer,
}

/// One pull under way.
pub(super) struct Pull<'a> {
    options: &'a Options,
    registry: Arc<dyn RegistryPull>,
    reference: &'a Reference,
    lease: Lease,
    budget: RetryBudget,
    connections: Semaphore,
    rate: Option<Arc<RateLimit>>,
    writers: Writers,
    /// How many bytes of blobs came so far.
    received: AtomicU64,
}

impl Pull<'_> {
    pub(super) fn new<'a>(
        options: &'a Options,
        registry: Arc<dyn RegistryPull>,
        reference: &'a Reference,
        lease: Lease,
    ) -> Pull<'a> {
        Pull {
            options,
            registry,
            reference,
            lease,
            budget: RetryBudget::new(options.retry.clone()),
            connections: Semaphore::new(options.connections),
            rate: options.rate.clone(),
            writers: Writers::default(),
            received: AtomicU64::new(0),
        }
    }

    pub(super) fn store(&self) -> &BlobStore {
        &self.options.store
    }

    pub(super) fn registry(&self) -> &dyn RegistryPull {
        &*self.registry
    }

    pub(super) fn reference(&self) -> &Reference {
        self.reference
    }

    pub(super) fn policy(&self) -> PullPolicy {
        self.options.policy
    }

    pub(super) fn platform(&self) -> &PlatformChoice {
        &self.options.platform
    }

    pub(super) fn referrers(&self) -> &Referrers {
        &self.options.referrers
    }

    pub(super) fn includes_foreign(&self) -> bool {
        self.options.include_foreign
    }

    pub(super) fn concurrency(&self) -> usize {
        self.options.concurrency
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    pub(super) fn writers(&self) -> &Writers {
        &self.writers
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

    /// How many bytes came so far, of all blobs.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn has_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until so many bytes more may have come.
    pub(super) async fn pay(&self, bytes: u64) {
        if let Some(rate) = &self.rate {
            rate.pay(bytes).await;
        }
    }

    pub(super) fn tell(&self, event: Event) {
        self.options.observer.tell(event);
    }
}
