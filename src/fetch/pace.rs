//! How many connections a blob is worth, and how fast they may be.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Connections this fast in all, in bytes per second, are as fast as most lines: one more would gain
/// nothing, cost the server something, and bring what has to be read back to be hashed.
const LINE_SPEED: f64 = 100e6;
/// By how much more must come in for further connections to be worth having.
const GAIN: f64 = 1.2;

/// How often in a row more connections may seem to bring no more before that is believed.
const DOUBTS: u32 = 3;
/// How long after a connection was given up for somebody else it is tried again to have more.
const MODESTY: Duration = Duration::from_secs(1);
/// How long after one failed that others made up for.
const CAUTION: Duration = Duration::from_secs(10);

/// Decides from the bytes that came in how many connections to add.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the present number of connections had all begun to bring bytes; nothing before.
    since: Option<Instant>,
    received: u64,
    /// What had come then of all blobs of the pull.
    of_all: u64,
    /// The rate before connections were last added.
    before: Option<f64>,
    doubts: u32,
    settled: bool,
    /// Until when no more are wanted.
    modest: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            since: None,
            received: 0,
            of_all: 0,
            before: None,
            doubts: 0,
            settled: false,
            modest: None,
        }
    }

    /// How many connections to add to the `active` ones, of which `flowing` bring bytes, now that
    /// `received` bytes have come, and `of_all` of all blobs of the pull. Doubled as long as that brings more; once it does not,
    /// never again.
    pub(super) fn more(
        &mut self,
        now: Instant,
        received: u64,
        of_all: u64,
        active: usize,
        flowing: usize,
    ) -> usize {
        if self.settled || self.modest.is_some_and(|until| now < until) {
            return 0;
        }
        // What a connection can do is not known before its first byte.
        let since = match self.since {
            Some(since) if flowing >= active => since,
            _ => {
                self.since = (active > 0 && flowing >= active).then_some(now);
                (self.received, self.of_all) = (received, of_all);
                return 0;
            }
        };
        let time = (now - since).as_secs_f64().max(1e-6);
        let rate = (received - self.received) as f64 / time;
        let rate_of_all = (of_all - self.of_all) as f64 / time;
        (self.since, self.received, self.of_all) = (Some(now), received, of_all);
        if rate_of_all >= LINE_SPEED {
            return 0;
        }
        if self.before.is_some_and(|before| rate < before * GAIN) {
            self.doubts += 1;
            self.settled = self.doubts >= DOUBTS;
            return 0;
        }
        (self.before, self.doubts, self.since) = (Some(rate), 0, None);
        active
    }

    /// The bytes waited to be written: their rate says nothing about the server.
    pub(super) fn held_up(&mut self) {
        self.since = None;
    }

    /// One was given up for somebody else: what was learnt of more of them is no longer true.
    pub(super) fn gave_way(&mut self, now: Instant) {
        *self = Pace { modest: Some(now + MODESTY), ..Pace::new() };
    }

    /// One failed, most likely since the server bears no more: so many are enough for a while.
    pub(super) fn refused(&mut self, now: Instant) {
        *self = Pace { modest: Some(now + CAUTION), ..Pace::new() };
    }
}

/// A limit on bytes per second that all downloads of a puller share.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    /// When the bytes that have come are paid for.
    paid: Mutex<Instant>,
}

impl RateLimit {
    pub(super) fn new(bytes_per_second: u64) -> RateLimit {
        RateLimit { bytes_per_second: bytes_per_second.max(1), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until so many more bytes may have come.
    pub(super) async fn pay(&self, bytes: u64) {
        let wait = self.due(Instant::now(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn due(&self, now: Instant, bytes: u64) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = (*paid).max(now) + cost;
        *paid - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    /// The connections after each tick, given what comes in a second with so many of them; those
    /// that are added bring nothing for `setup` ticks.
    fn grow_after(setup: usize, rate: impl Fn(usize) -> f64) -> Vec<usize> {
        let (mut now, mut pace) = (Instant::now(), Pace::new());
        let (mut received, mut active, mut counts) = (0.0, 1, Vec::new());
        let (mut flowing, mut left) = (0, setup);
        for _ in 0..30 {
            now += TICK;
            left = left.saturating_sub(1);
            if left == 0 {
                flowing = active;
            }
            received += rate(flowing) * TICK.as_secs_f64();
            let more = pace.more(now, received as u64, received as u64, active, flowing);
            if more > 0 {
                (active, left) = (active + more, setup);
            }
            if counts.last() != Some(&active) {
                counts.push(active);
            }
            if active >= 8 {
                break;
            }
        }
        counts
    }

    #[test]
    fn connections_are_added_while_they_bring_more() {
        for setup in [1, 5] {
            let grow = |rate: &dyn Fn(usize) -> f64| grow_after(setup, rate);
            assert_eq!(grow(&|n| 20e6 * n as f64), [1, 2, 4, 8]);
            assert_eq!(grow(&|_| 20e6), [1, 2], "one is as fast as two");
            assert_eq!(grow(&|n| 20e6 * n.min(3) as f64), [1, 2, 4, 8]);
            assert_eq!(grow(&|n| 20e6 * n.min(2) as f64), [1, 2, 4]);
            assert_eq!(grow(&|_| 200e6), [1], "one is at line speed");
        }
        assert_eq!(grow_after(100, |_| 20e6), [1], "nothing has come yet");
    }

    #[test]
    fn after_giving_way_more_are_tried_later() {
        let mut now = Instant::now();
        let mut pace = Pace::new();
        pace.gave_way(now);
        let mut received = 0;
        let mut more = |now| {
            received += 1_000_000;
            pace.more(now, received, received, 3, 3)
        };
        now += TICK;
        assert_eq!((more(now), more(now + TICK)), (0, 0));
        now += MODESTY;
        assert_eq!((more(now), more(now + TICK)), (0, 3));
        pace.refused(now);
        let mut more = |now| pace.more(now, 9_000_000, 9_000_000, 3, 3);
        now += MODESTY;
        assert_eq!((more(now), more(now + TICK)), (0, 0));
        now += CAUTION;
        assert_eq!((more(now), more(now + TICK)), (0, 3));
    }

    #[test]
    fn a_rate_limit_holds_over_time() {
        let limit = RateLimit::new(1000);
        let now = Instant::now();
        let waits: Vec<u64> =
            (0..4).map(|_| limit.due(now, 500).as_millis() as u64 / 100).collect();
        assert_eq!(waits, [5, 10, 15, 20]);
    }

    #[test]
    fn a_line_that_is_full_needs_no_more_connections_however_many_blobs_share_it() {
        for (others, more) in [(0, 1), (9, 1), (29, 0)] {
            let (begun, mut pace) = (Instant::now(), Pace::new());
            assert_eq!(pace.more(begun, 0, 0, 1, 1), 0);
            // 4 MB/s of this blob.
            let (own, all) = (200_000, 200_000 * (1 + others));
            assert_eq!(pace.more(begun + TICK, own, all, 1, 1), more, "{others} others");
        }
    }
}
