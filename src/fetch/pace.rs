//! How many connections a blob is worth, and how fast they may be.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A connection this fast, in bytes per second, is as fast as most lines: a second one would gain
/// nothing, and cost the server something.
const LINE_SPEED: f64 = 100e6;
/// By how much more must come in for further connections to be worth having.
const GAIN: f64 = 1.2;

/// Decides from the bytes that came in how many connections to add.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    received: u64,
    /// The rate before connections were last added.
    before: Option<f64>,
    settled: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { since: now, received: 0, before: None, settled: false }
    }

    /// How many connections to add to the `active` ones, now that `received` bytes have come in
    /// all. Doubled as long as that brings more; once it does not, never again.
    pub(super) fn more(&mut self, now: Instant, received: u64, active: usize) -> usize {
        let seconds = (now - self.since).as_secs_f64().max(1e-6);
        let rate = (received - self.received) as f64 / seconds;
        // Nothing is known before the first byte.
        if received == 0 || self.settled {
            return 0;
        }
        (self.since, self.received) = (now, received);
        if rate >= LINE_SPEED {
            return 0;
        }
        if self.before.is_some_and(|before| rate < before * GAIN) {
            self.settled = true;
            return 0;
        }
        self.before = Some(rate);
        active
    }
}

/// A limit on bytes per second that all downloads of a pull share.
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

    const TICK: Duration = Duration::from_millis(100);

    /// The connections after each tick, given what comes in a second with so many of them.
    fn grow(rate: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let (mut received, mut active, mut counts) = (0.0, 1, Vec::new());
        for _ in 0..6 {
            now += TICK;
            received += rate(active) * TICK.as_secs_f64();
            active += pace.more(now, received as u64, active);
            counts.push(active);
        }
        counts
    }

    #[test]
    fn connections_are_added_while_they_bring_more() {
        assert_eq!(grow(|n| 20e6 * n as f64)[..3], [2, 4, 8]);
        assert_eq!(grow(|_| 20e6), [2, 2, 2, 2, 2, 2], "one is as fast as two");
        assert_eq!(grow(|n| 20e6 * n.min(4) as f64), [2, 4, 8, 8, 8, 8]);
        assert_eq!(grow(|_| 200e6), [1, 1, 1, 1, 1, 1], "one is at line speed");
        assert_eq!(grow(|_| 0.0), [1, 1, 1, 1, 1, 1], "nothing has come yet");
    }

    #[test]
    fn a_rate_limit_holds_over_time() {
        let limit = RateLimit::new(1000);
        let now = Instant::now();
        let waits: Vec<u64> =
            (0..4).map(|_| limit.due(now, 500).as_millis() as u64 / 100).collect();
        assert_eq!(waits, [5, 10, 15, 20]);
    }
}
