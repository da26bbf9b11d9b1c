//! One blob's way from the registry into the store, whoever else wants it too.

use std::time::{Duration, Instant, SystemTime};

use super::download;
use super::progress::Event;
use super::pull::Pull;
use super::task::blocking;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest};
use crate::store::{Claim, Part, PartWatch, Pinned};

/// How often the part of another process is looked at, at most and at least: the more often, the
/// sooner it should be whole.
const POLL: Duration = Duration::from_millis(25);
const LONG_POLL: Duration = Duration::from_millis(250);
/// How often waiting is told.
const TELL: Duration = Duration::from_millis(200);
/// A part that grows by less than this in this time is no longer waited for: whoever holds it may
/// have stopped, or have a server that gives it just enough not to be cut off.
const STALLED: Duration = Duration::from_secs(60);
const LEAST_GROWTH: u64 = 1024 * 1024;
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
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
    let mut growth = Growth::new(Instant::now());
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
                let done = watch.len()?.unwrap_or(0);
                tokio::time::sleep(growth.pause(Instant::now(), done, pinned.size())).await;
            }
        }
    }
}

async fn claim(pull: &Pull<'_>, pinned: &Pinned) -> Result<Claim> {
    let (store, pinned) = (pull.store().clone(), pinned.clone());
    blocking(move || store.claim(&pinned)).await
}

/// Whether the part of another process grows fast enough to be waited for.
struct Growth {
    /// When it was first looked at, and its length then.
    first: Option<(Instant, u64)>,
    since: Instant,
    len: u64,
    beat: Option<SystemTime>,
    looked: Option<Instant>,
    told: Option<Instant>,
}

impl Growth {
    fn new(now: Instant) -> Growth {
        Growth { first: None, since: now, len: 0, beat: None, looked: None, told: None }
    }

    fn has_stopped(&mut self, watch: &PartWatch) -> Result<bool> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(false);
        }
        self.looked = Some(Instant::now());
        Ok(self.is_slow(Instant::now(), watch.len()?.unwrap_or(0), watch.beat()?))
    }

    /// Whether too little has come for too long, and the holder has not said that it waits.
    fn is_slow(&mut self, now: Instant, len: u64, beat: Option<SystemTime>) -> bool {
        let grown = len.checked_sub(self.len).is_none_or(|grown| grown >= LEAST_GROWTH);
        if grown || beat != self.beat {
            (self.since, self.len, self.beat) = (now, len, beat);
        }
        now - self.since >= STALLED
    }

    /// How long to leave it alone: half of what it will take at its rate so far.
    fn pause(&mut self, now: Instant, len: u64, size: u64) -> Duration {
        let (begun, before) = *self.first.get_or_insert((now, len));
        let (grown, left) = (len.saturating_sub(before), size.saturating_sub(len));
        if grown == 0 {
            return POLL;
        }
        let rest = (now - begun).as_secs_f64() * left as f64 / grown as f64;
        Duration::from_secs_f64((rest / 2.0).min(LONG_POLL.as_secs_f64())).max(POLL)
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
        self.pull.registry().begin(self.pull.reference(), self.blob);
        for version in part.versions() {
            self.pull.registry().recall(self.pull.reference(), self.blob, version);
        }
        let mut error = match self.complete(part).await {
            Ok(bytes) => return Ok(self.arrived(bytes.kept(resumed))),
            Err(error) => error,
        };
        // What an earlier download left may not be what it should be, after a power cut for
        // example: the blob itself has not been refuted. The bytes are gone now.
        let mut worth_it = resumed > 0;
        while matches!(error, Error::DigestMismatch { .. })
            && (worth_it || self.pull.registry().distrust(self.pull.reference(), self.blob))
        {
            let was_resumed = std::mem::take(&mut worth_it);
            self.pull.tell_retry(digest, Duration::ZERO, &error);
            let Some(part) = hold(self.pull, &self.pinned).await? else {
                return Ok(Arrival::Waited);
            };
            // What is good of a damaged blob is there again.
            let resumed = part.len();
            error = match (self.complete(part).await, error) {
                (Ok(bytes), _) => return Ok(self.arrived(bytes.kept(resumed))),
                (Err(again @ Error::DigestMismatch { .. }), _) => again,
                // It may have been for the bytes that were there: that says nothing of any server.
                (Err(other), _) if was_resumed => other,
                (Err(other), error) => Error::Endpoints { errors: vec![error, other] },
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
    async fn complete(&self, mut part: Part) -> Result<Bytes> {
        let mut bytes = Bytes::Kept;
        if !part.missing().is_empty() {
            let (returned, mut result) =
                download::complete(self.pull, self.blob, part, false).await?;
            part = returned;
            if let Err(error @ Error::BlobChanged { .. }) = &result {
                // Some servers give each of their machines' copies another tag. Nothing is put
                // together of several answers any more, so this cannot happen again.
                self.pull.tell_retry(self.blob.digest, Duration::ZERO, error);
                part = restarted(part).await?;
                bytes = Bytes::Anew;
                (part, result) = download::complete(self.pull, self.blob, part, true).await?;
            }
            match result {
                // What the kernel lost it does not tell twice: nobody may go on from it.
                Err(error @ Error::NotDurable { .. }) => {
                    blocking(move || part.discard()).await?;
                    return Err(error);
                }
                result => result?,
            }
        }
        blocking(move || part.commit_unsynced()).await.map(|()| bytes)
    }
}

async fn restarted(mut part: Part) -> Result<Part> {
    blocking(move || part.restart().map(|()| part)).await
}

/// What became of the bytes that were there.
enum Bytes {
    Kept,
    /// They were thrown away.
    Anew,
}

impl Bytes {
    /// How many of so many were kept.
    fn kept(self, there: u64) -> u64 {
        match self {
            Bytes::Kept => there,
            Bytes::Anew => 0,
        }
    }
}

impl Pull<'_> {
    pub(super) fn tell_retry(&self, digest: Digest, delay: Duration, error: &Error) {
        let what = digest.to_string();
        self.tell(Event::Retrying { what, delay, reason: error.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds a part is given up that grows by so much in each, with a sign of life
    /// of its holder every `beat` seconds.
    fn given_up(rate: u64, beat: Option<u64>) -> Option<u64> {
        let begun = Instant::now();
        let mut growth = Growth::new(begun);
        let beat = |second: u64| {
            let last = beat.map_or(0, |every| second - second % every);
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(last))
        };
        (0..1000).find(|second| {
            let now = begun + Duration::from_secs(*second);
            growth.is_slow(now, rate * second, beat(*second))
        })
    }

    #[test]
    fn a_part_is_looked_at_more_often_towards_its_end() {
        let begun = Instant::now();
        let mut growth = Growth::new(begun);
        let mut pause =
            |millis, len| growth.pause(begun + Duration::from_millis(millis), len, 1000);
        assert_eq!(pause(0, 100), POLL, "nothing is known of its rate");
        assert_eq!(pause(100, 100), POLL);
        assert_eq!(pause(200, 300), LONG_POLL);
        assert_eq!(pause(600, 700), Duration::from_millis(150));
        assert_eq!(pause(890, 990), POLL);
        assert_eq!(pause(1000, 1000), POLL);
        assert_eq!(pause(1100, 50), POLL, "somebody began anew");
    }

    #[test]
    fn a_part_is_waited_for_while_it_grows_or_its_holder_waits() {
        assert_eq!(given_up(1024 * 1024, None), None);
        assert_eq!(given_up(18 * 1024, None), None);
        assert_eq!(given_up(0, Some(10)), None);
        assert_eq!(given_up(0, None), Some(60));
        assert_eq!(given_up(4 * 1024, None), Some(60), "a trickle");
        assert_eq!(given_up(0, Some(100)), Some(60));
    }
}
