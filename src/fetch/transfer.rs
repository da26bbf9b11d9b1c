//! One blob's way from the registry into the store, whoever else wants it too.

use std::time::{Duration, Instant, SystemTime};

use super::download;
use super::progress::Event;
use super::pull::Pull;
use super::task::blocking;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest};
use crate::store::{Claim, Part, PartWatch, Pinned};

/// How often the part of another process is looked at.
const POLL: Duration = Duration::from_millis(25);
/// How often waiting is told.
const TELL: Duration = Duration::from_millis(200);
/// How long a part may stand still before it is no longer waited for.
const STALLED: Duration = Duration::from_secs(60);
/// How a blob came to be in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// This process downloaded it, all but the first `resumed` bytes.
    Fetched { resumed: u64 },
    /// Another process downloaded it while this one waited.
    Waited,
}

/// Brings one missing blob into the store.
pub(super) async fn fetch(pull: &Pull<'_>, blob: &Descriptor, pinned: Pinned) -> Result<Arrival> {
    let arrival = match hold(pull, &pinned).await? {
        None => Arrival::Waited,
        Some(part) => Transfer { pull, blob, pinned }.run(part).await?,
    };
    pull.tell(Event::Finished { digest: blob.digest, size: blob.size });
    Ok(arrival)
}

/// Waits until the blob is this task's to download, or is there.
async fn hold(pull: &Pull<'_>, pinned: &Pinned) -> Result<Option<Part>> {
    let mut growth = Growth::default();
    loop {
        match claim(pull, pinned).await? {
            Claim::Held(part) => return Ok(Some(part)),
            Claim::Committed => return Ok(None),
            Claim::Busy(watch) => {
                if growth.has_stopped(&watch)? {
                    let (store, pinned) = (pull.store().clone(), pinned.clone());
                    return blocking(move || store.private_part(&pinned)).await.map(Some);
                }
                if growth.is_worth_telling() {
                    pull.tell(Event::Waiting {
                        digest: *pinned.digest(),
                        size: pinned.size(),
                        done: watch.len()?.unwrap_or(0),
                        holder: watch.holder(),
                    });
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

async fn claim(pull: &Pull<'_>, pinned: &Pinned) -> Result<Claim> {
    let (store, pinned) = (pull.store().clone(), pinned.clone());
    blocking(move || store.claim(&pinned)).await
}

/// Whether the part of another process still grows.
struct Growth {
    written: Option<SystemTime>,
    since: Instant,
    told: Option<Instant>,
}

impl Default for Growth {
    fn default() -> Growth {
        Growth { written: None, since: Instant::now(), told: None }
    }
}

impl Growth {
    fn has_stopped(&mut self, watch: &PartWatch) -> Result<bool> {
        let written = watch.modified()?;
        if written != self.written {
            (self.written, self.since) = (written, Instant::now());
        }
        Ok(self.since.elapsed() >= STALLED)
    }

    fn is_worth_telling(&mut self) -> bool {
        let due = self.told.is_none_or(|told| told.elapsed() >= TELL);
        if due {
            self.told = Some(Instant::now());
        }
        due
    }
}

struct Transfer<'a> {
    pull: &'a Pull<'a>,
    blob: &'a Descriptor,
    pinned: Pinned,
}

impl Transfer<'_> {
    async fn run(&self, part: Part) -> Result<Arrival> {
        let resumed = part.len();
        let (digest, size) = (self.blob.digest, self.blob.size);
        self.pull.tell(Event::Started { digest, size, resumed });
        let mut error = match self.complete(part).await {
            Ok(()) => return Ok(self.arrived(resumed)),
            Err(error) => error,
        };
        // What an earlier download left may not be what it should be, after a power cut for
        // example: the blob itself has not been refuted. The bytes are gone now.
        let mut worth_it = resumed > 0;
        while matches!(error, Error::DigestMismatch { .. })
            && (worth_it || self.pull.registry().distrust(self.pull.reference(), self.blob))
        {
            worth_it = false;
            self.pull.tell_retry(digest, Duration::ZERO, &error);
            let Some(part) = hold(self.pull, &self.pinned).await? else {
                return Ok(Arrival::Waited);
            };
            error = match (self.complete(part).await, error) {
                (Ok(()), _) => return Ok(self.arrived(0)),
                (Err(again @ Error::DigestMismatch { .. }), _) => again,
                (Err(other), error) if resumed == 0 => {
                    Error::Endpoints { errors: vec![error, other] }
                }
                (Err(other), _) => other,
            };
        }
        Err(error)
    }

    fn arrived(&self, resumed: u64) -> Arrival {
        let origins = self.pull.registry().origins(self.pull.reference(), self.blob);
        self.pull.tell(Event::Served { digest: self.blob.digest, origins });
        Arrival::Fetched { resumed }
    }

    /// Downloads what is missing and commits.
    async fn complete(&self, mut part: Part) -> Result<()> {
        if !part.missing().is_empty() {
            let (returned, result) = download::complete(self.pull, self.blob, part).await?;
            part = returned;
            match result {
                // What the kernel lost it does not tell twice: nobody may go on from it.
                Err(error @ Error::NotDurable { .. }) => {
                    blocking(move || part.discard()).await?;
                    return Err(error);
                }
                result => result?,
            }
        }
        blocking(move || part.commit_unsynced()).await
    }
}

impl Pull<'_> {
    pub(super) fn tell_retry(&self, digest: Digest, delay: Duration, error: &Error) {
        let what = digest.to_string();
        self.tell(Event::Retrying { what, delay, reason: error.to_string() });
    }
}
