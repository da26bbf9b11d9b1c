//! One blob's way from the registry into the store, whoever else wants it too.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::progress::Event;
use super::puller::{Pull, blocking};
use super::{BlobBody, ByteRange, retry};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest};
use crate::store::{Claim, Part, PartWatch, Pinned};

/// How often the part of another process is looked at.
const POLL: Duration = Duration::from_millis(25);
/// How often waiting is told.
const TELL: Duration = Duration::from_millis(200);
/// How long a part may stand still before it is no longer waited for.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes are handed to the writing thread in batches of about this size.
const BATCH: usize = 256 * 1024;
/// How many batches may be under way to the writing thread: what bounds the memory of a download.
const BATCHES: usize = 4;
/// A connection that broke after this many bytes was good for something: it does not count against
/// the retries of its blob.
const WORTHWHILE: u64 = 1024 * 1024;

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
                        done: growth.len,
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
    len: u64,
    since: Instant,
    told: Option<Instant>,
}

impl Default for Growth {
    fn default() -> Growth {
        Growth { len: 0, since: Instant::now(), told: None }
    }
}

impl Growth {
    fn has_stopped(&mut self, watch: &PartWatch) -> Result<bool> {
        let len = watch.len()?.unwrap_or(0);
        if len != self.len {
            (self.len, self.since) = (len, Instant::now());
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
    async fn complete(&self, part: Part) -> Result<()> {
        let mut slot = Some(part);
        while slot.as_ref().is_some_and(|part| part.missing() > 0) {
            // One attempt at a time has the part; the mutex is never waited for.
            let shared = tokio::sync::Mutex::new(slot.take());
            let attempt = |_| async { self.attempt(&mut *shared.lock().await).await };
            retry(self.pull.budget(), attempt, |retry| {
                self.pull.tell_retry(self.blob.digest, retry.delay, retry.error);
            })
            .await?;
            slot = shared.into_inner();
        }
        match slot {
            Some(part) => blocking(move || part.commit_unsynced()).await,
            // Only a cancelled writer keeps the part, and then nobody comes here.
            None => Err(Error::BlobNotFound { digest: self.blob.digest }),
        }
    }

    /// One request for what is missing. That the connection broke is no error if it brought much.
    async fn attempt(&self, slot: &mut Option<Part>) -> Result<()> {
        let Some(before) = slot.as_ref().map(Part::len) else {
            return Err(Error::BlobNotFound { digest: self.blob.digest });
        };
        let body = self.request(before).await?;
        let Some(part) = slot.take() else {
            return Err(Error::BlobNotFound { digest: self.blob.digest });
        };
        let (part, result) = self.receive(part, body).await?;
        let gained = part.len().saturating_sub(before);
        *slot = Some(part);
        match result {
            Err(error) if retry::is_transient(&error) && gained >= WORTHWHILE => Ok(()),
            result => result,
        }
    }

    /// Asks for the blob from `start` on, or for all of it where the registry does ranges wrongly.
    async fn request(&self, start: u64) -> Result<BlobBody> {
        let registry = self.pull.registry();
        if start > 0 {
            let range = ByteRange { start, end: None };
            match registry.blob(self.pull.reference(), self.blob, Some(range)).await {
                Err(Error::UnusableRange { url, range, reason }) => {
                    tracing::debug!(url, range, reason, "asking for the whole blob instead");
                }
                answer => return answer,
            }
        }
        registry.blob(self.pull.reference(), self.blob, None).await
    }

    /// Reads a body into the part. The part comes back whatever happens on the way, so that the
    /// next attempt goes on from it.
    async fn receive(&self, mut part: Part, body: BlobBody) -> Result<(Part, Result<()>)> {
        let mut done = body.start;
        let whole = body.start == 0 && !part.is_empty();
        let (batches, queue) = mpsc::channel::<Vec<Bytes>>(BATCHES);
        // Should this future be dropped, the thread writes what it was given and lets the part go.
        let writer = tokio::task::spawn_blocking(move || {
            let written = if whole { part.restart() } else { Ok(()) };
            let written = written.and_then(|()| write_batches(&mut part, queue));
            (part, written)
        });
        let mut stream = body.stream;
        let mut batch = Batch::default();
        let mut read = Ok(());
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => batch.push(chunk),
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
            if batch.len >= BATCH {
                done += batch.len as u64;
                if batches.send(batch.take()).await.is_err() {
                    break; // the writer has failed, and says why
                }
                self.pull.tell(Event::Advanced { digest: self.blob.digest, done });
            }
        }
        // A closed channel here is the writer's failure as well.
        let _ = batches.send(batch.take()).await;
        drop(batches);
        let (part, written) = writer.await.map_err(super::puller::broken_task)?;
        Ok((part, written.and(read)))
    }
}

#[derive(Default)]
struct Batch {
    chunks: Vec<Bytes>,
    len: usize,
}

impl Batch {
    fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        self.chunks.push(chunk);
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.len = 0;
        std::mem::take(&mut self.chunks)
    }
}

fn write_batches(part: &mut Part, mut queue: mpsc::Receiver<Vec<Bytes>>) -> Result<()> {
    while let Some(batch) = queue.blocking_recv() {
        for chunk in batch {
            part.write(&chunk)?;
        }
    }
    Ok(())
}

impl Pull<'_> {
    pub(super) fn tell_retry(&self, digest: Digest, delay: Duration, error: &Error) {
        let what = digest.to_string();
        self.tell(Event::Retrying { what, delay, reason: error.to_string() });
    }
}
