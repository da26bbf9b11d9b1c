//! The bytes of one blob, over one connection or several, into its part.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::gather::{Gather, Gathered};
use super::pace::Pace;
use super::progress::Event;
use super::pull::Pull;
use super::traffic::Permit;
use super::work::Work;
use super::writer::Inlet;
use super::{BlobBody, ByteRange, retry};
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::store::{Part, Pulse};

/// A connection that broke after this many bytes was good for something: it does not count against
/// the retries of its blob.
const WORTHWHILE: u64 = 1024 * 1024;
/// How often it is looked whether more connections would help.
const TICK: Duration = Duration::from_millis(50);
/// Of a blob of at least this size it is written down which version came: a smaller one is as soon
/// begun anew.
const NOTED: u64 = 1024 * 1024;
/// How often a holder that waits says so, and for how long at most: longer than a server may ask for.
const BEAT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// How long the only connection of a blob that was given up lets others go first.
const AFTER_YOU: Duration = Duration::from_millis(200);
/// A body that brings less than this in [`RetryPolicy::stall`](super::RetryPolicy::stall) is cut.
const LEAST_BYTES: u64 = 64 * 1024;

/// Downloads what is missing of a part; `whole`: over one connection, and without asking for ranges.
/// The part comes back whatever happens, unless its thread dies; so does the first error.
pub(super) async fn complete(
    pull: &Pull<'_>,
    blob: &Descriptor,
    part: Part,
    whole: bool,
) -> Result<(Part, Result<()>)> {
    let (pulse, before) = (part.pulse(), part.len());
    let work = Mutex::new(Work::new(blob.size, part.missing()));
    // Should this future be dropped, the thread writes what it was given and lets the part go.
    let (inlet, outlet) = pull.writers().begin(part)?;
    let download = Download {
        pull,
        pulse,
        blob,
        before,
        received: AtomicU64::new(0),
        work,
        flowing: AtomicUsize::new(0),
        gave_way: AtomicBool::new(false),
        refused: AtomicBool::new(false),
        company: Mutex::default(),
        inlet,
    };
    if whole {
        download.work().only_whole();
    }
    let fetched = download.run().await;
    drop(download);
    let (part, written) = outlet.part().await?;
    // If writing failed, the connections only stopped because of that.
    Ok((part, written.and(fetched)))
}

struct Download<'a> {
    pull: &'a Pull<'a>,
    pulse: Option<Pulse>,
    blob: &'a Descriptor,
    /// How many bytes there were at the beginning.
    before: u64,
    /// How many have come since.
    received: AtomicU64,
    work: Mutex<Work>,
    /// How many connections bring bytes.
    flowing: AtomicUsize,
    /// Whether a connection was given up for somebody who waits for one.
    gave_way: AtomicBool,
    /// Whether a connection failed that could be done without.
    refused: AtomicBool,
    /// A connection to whoever sends the bytes.
    company: Mutex<Option<Weak<Permit>>>,
    inlet: Inlet,
}

impl Download<'_> {
    /// One connection first; more as long as they bring more.
    async fn run(&self) -> Result<()> {
        let mut workers = FuturesUnordered::new();
        workers.push(self.worker(0, None));
        let (mut next, mut pace) = (1, Pace::new());
        let (mut said, mut begun) = (Instant::now(), Instant::now());
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        loop {
            tokio::select! {
                ended = workers.next() => match ended {
                    Some(ended) => ended?,
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    let flowing = self.flowing.load(Ordering::Relaxed);
                    // Others are told that a wait, for a connection or because the server said so,
                    // is no standstill; but not for ever, and not while bytes come, however few.
                    if flowing > 0 {
                        begun = Instant::now();
                    }
                    if flowing == 0 && said.elapsed() >= BEAT && begun.elapsed() < LONGEST_WAIT {
                        said = Instant::now();
                        self.pulse.iter().try_for_each(Pulse::beat)?;
                    }
                    let received = self.received.load(Ordering::Relaxed);
                    if self.gave_way.swap(false, Ordering::Relaxed) {
                        pace.gave_way(Instant::now());
                    }
                    if self.refused.swap(false, Ordering::Relaxed) {
                        pace.refused(Instant::now());
                    }
                    if self.inlet.is_full() {
                        pace.held_up();
                    }
                    let of_all = self.pull.received();
                    let more = pace.more(Instant::now(), received, of_all, workers.len(), flowing);
                    for _ in 0..more {
                        if !self.work().has_more() || !self.has_company()? {
                            break;
                        }
                        let Some(connection) = self.pull.spare_connection() else {
                            break;
                        };
                        workers.push(self.worker(next, Some(connection)));
                        next += 1;
                    }
                }
            }
        }
    }

    /// What one connection does: piece after piece, until none is left.
    async fn worker(&self, id: usize, connection: Option<SemaphorePermit<'_>>) -> Result<()> {
        let _connection = match connection {
            Some(connection) => Some(connection),
            None => self.pull.connection().await,
        };
        while self.take(id) {
            let done = retry(
                self.pull.budget(),
                |_| self.attempt_or_leave(id),
                |retry| self.pull.tell_retry(self.blob.digest, retry.delay, retry.error),
            )
            .await;
            match done {
                Ok(End::Done) => {}
                // Others take up what is left; where there are none, it is waited for the next
                // connection.
                Ok(End::GaveWay) => {
                    self.gave_way.store(true, Ordering::Relaxed);
                    self.work().give_back(id);
                    if self.work().is_under_way() {
                        return Ok(());
                    }
                    tokio::time::sleep(AFTER_YOU).await;
                }
                // Whoever brings bytes takes up what is left.
                Ok(End::Surplus) => {
                    self.refused.store(true, Ordering::Relaxed);
                    self.work().give_back(id);
                    return Ok(());
                }
                Err(error) => {
                    self.work().give_back(id);
                    // One more connection that is not to be had is no reason to give up the others.
                    let locked = matches!(error, Error::Locked { .. });
                    return match (locked && self.work().is_under_way())
                        || (retry::is_transient(&error) && self.is_surplus())
                    {
                        true => Ok(()),
                        false => Err(error),
                    };
                }
            }
        }
        Ok(())
    }

    /// Whether whoever sends the bytes may have one more connection.
    fn has_company(&self) -> Result<bool> {
        let company = self.company.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match company.and_then(|permit| permit.upgrade()) {
            Some(permit) => permit.has_company(),
            None => Ok(true),
        }
    }

    fn take(&self, id: usize) -> bool {
        self.inlet.is_open() && self.work().take(id).is_some()
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`attempt`](Self::attempt); but a server that bears no more connections than bring bytes
    /// already is not asked again and again for one more, at the cost of the retries of all.
    async fn attempt_or_leave(&self, id: usize) -> Result<End> {
        match self.attempt(id).await {
            Err(error) if id > 0 && self.is_surplus() && retry::is_transient(&error) => {
                tracing::debug!(%error, "going on with the other connections");
                Ok(End::Surplus)
            }
            result => result,
        }
    }

    /// Whether other connections bring bytes, so that one that failed can be done without.
    fn is_surplus(&self) -> bool {
        self.flowing.load(Ordering::Relaxed) > 0
    }

    /// One request for what is left of a worker's piece. That the connection broke is no error if
    /// it brought much: what is left is taken up again.
    async fn attempt(&self, id: usize) -> Result<End> {
        let before = self.work().left(id);
        if before.is_empty() {
            return Ok(End::Done);
        }
        let Some(body) = self.request(before.start, before.end).await? else {
            self.work().only_whole();
            return Ok(End::Done);
        };
        let result = self.receive(id, body).await;
        let gained = self.work().left(id).start - before.start;
        match result {
            Err(error) if retry::is_transient(&error) && gained >= WORTHWHILE => Ok(End::Done),
            result => result,
        }
    }

    /// Asks for a range, or for the whole blob where that is what is wanted, or all that can be had;
    /// `None` once it turns out that this server has no ranges.
    async fn request(&self, start: u64, end: u64) -> Result<Option<BlobBody>> {
        let size = self.blob.size;
        let range = match (start, end) {
            (0, end) if end == size => None,
            _ if self.work().is_only_whole() => None,
            (start, end) => Some(ByteRange { start, end: (end < size).then_some(end) }),
        };
        let answer = self.pull.registry().blob(self.pull.reference(), self.blob, range).await;
        match answer {
            Err(Error::UnusableRange { url, range, reason }) => {
                tracing::debug!(url, range, reason, "this server has no usable ranges");
                Ok(None)
            }
            // A whole blob instead of a range: as good, if nobody else is at it.
            Ok(body) if body.start != start && range.is_some() => {
                self.work().only_whole();
                Ok(Some(body))
            }
            answer => answer.map(Some),
        }
    }

    /// Reads a body up to the end of the worker's piece, which others may bring nearer meanwhile.
    async fn receive(&self, id: usize, body: BlobBody) -> Result<End> {
        let BlobBody { start, mut stream, version, connection, resumable, .. } = body;
        if let Some(version) = version.filter(|_| self.blob.size >= NOTED) {
            self.inlet.version(version);
        }
        let mut batch = Gather::at(start);
        let mut flow = Flow { flowing: &self.flowing, flows: false };
        let must_yield = || {
            // What has to be begun anew is not broken off for anybody.
            resumable
                && !self.work().is_only_whole()
                && connection.as_ref().and_then(Weak::upgrade).is_some_and(|it| it.must_yield())
        };
        self.company.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&connection);
        let mut rate = Window::new();
        let result = loop {
            let left = self.work().left(id);
            let at = batch.end();
            if at >= left.end {
                break Ok(End::Done);
            }
            let Ok(next) = timeout(batch.patience(), stream.next()).await else {
                // Nothing comes for a while: what came is not to be lost if this process is killed.
                if !self.hand_over(id, batch.take_all()).await {
                    return Ok(End::Done);
                }
                continue;
            };
            match next {
                None => break Ok(End::Done),
                Some(Err(error)) => break Err(error),
                Some(Ok(mut chunk)) => {
                    flow.begin();
                    rate.add(chunk.len() as u64);
                    // The end may be nearer than it was when the chunk was asked for.
                    let end = self.work().left(id).end;
                    chunk.truncate(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
                    batch.push(chunk);
                }
            }
            if !self.hand_over(id, batch.take_due()).await {
                return Ok(End::Done);
            }
            if must_yield() {
                break Ok(End::GaveWay);
            }
            if !self.pull.is_limited() && rate.is_too_slow(self.pull.budget().stall()) {
                self.pull.registry().lagged(self.pull.reference(), self.blob);
                break Err(self.too_slow());
            }
        };
        self.hand_over(id, batch.take_all()).await;
        // Read to its very end, a connection can serve the next request.
        if result.is_ok() && batch.end() == self.blob.size {
            let _ = stream.next().await;
        }
        result
    }

    /// Gives bytes to the writing thread; whether that still lives.
    async fn hand_over(&self, id: usize, Gathered { offset, chunks, len }: Gathered) -> bool {
        if len == 0 {
            return true;
        }
        let end = offset + len as u64;
        if !self.inlet.bytes(offset, chunks).await {
            return false;
        }
        self.work().advance(id, end);
        let received = self.received.fetch_add(len as u64, Ordering::Relaxed) + len as u64;
        self.pull.has_received(len as u64);
        let done = (self.before + received).min(self.blob.size);
        self.pull.tell(Event::Advanced { digest: self.blob.digest, done });
        self.pull.pay(len as u64).await;
        true
    }

    fn too_slow(&self) -> Error {
        let time = self.pull.budget().stall().as_secs_f64();
        let reason = format!("it brought less than {LEAST_BYTES} bytes in {time} seconds");
        Error::Network {
            action: "go on reading",
            url: format!("{} of {}", self.blob.digest, self.pull.reference()),
            source: std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into(),
        }
    }
}

/// How a request ended that was no failure.
enum End {
    /// It brought what it could.
    Done,
    /// Its connection was given up for somebody who waits for one.
    GaveWay,
    /// It failed, and others bring bytes.
    Surplus,
}

/// Counts a connection among those that bring bytes, from the first one to its end.
struct Flow<'a> {
    flowing: &'a AtomicUsize,
    flows: bool,
}

impl Flow<'_> {
    fn begin(&mut self) {
        if !self.flows {
            self.flows = true;
            self.flowing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Flow<'_> {
    fn drop(&mut self) {
        if self.flows {
            self.flowing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The bytes of the last while.
struct Window {
    since: Instant,
    bytes: u64,
}

impl Window {
    fn new() -> Window {
        Window { since: Instant::now(), bytes: 0 }
    }

    fn add(&mut self, bytes: u64) {
        if self.bytes >= LEAST_BYTES {
            *self = Window::new();
        }
        self.bytes += bytes;
    }

    fn is_too_slow(&self, stall: Duration) -> bool {
        self.bytes < LEAST_BYTES && self.since.elapsed() >= stall
    }
}
