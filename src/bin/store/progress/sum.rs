use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use layerstore::Digest;
use layerstore::fetch::Event;

use crate::human;

/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(5);
/// Sooner than this it is only a guess.
const LEAST: Duration = Duration::from_secs(1);

/// How far a pull has come in all, and how fast it goes on.
///
/// What was there counts as done, and not for the rate.
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) done: u64,
    /// What came while we looked.
    came: u64,
    blobs: HashMap<Digest, u64>,
    /// When how much had come, the oldest first.
    samples: VecDeque<(Instant, u64)>,
}

impl Sum {
    pub(super) fn new() -> Sum {
        Sum { bytes: 0, done: 0, came: 0, blobs: HashMap::new(), samples: VecDeque::new() }
    }

    pub(super) fn hear(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Planned { bytes, .. } => self.bytes = *bytes,
            Event::Reused { digest, size } => self.set(digest, *size, false),
            Event::Started { digest, resumed, .. } => self.set(digest, *resumed, false),
            Event::Advanced { digest, done } => self.set(digest, *done, true),
            Event::Waiting { digest, done, .. } => {
                let known = self.blobs.contains_key(digest);
                self.set(digest, *done, known);
            }
            Event::Finished { digest, size } => self.set(digest, *size, true),
            _ => return,
        }
        if self.samples.back().is_none_or(|(last, _)| now - *last >= WINDOW / 50) {
            self.samples.push_back((now, self.came));
        }
        while self.samples.len() > 2 && now - self.samples[1].0 >= WINDOW {
            self.samples.pop_front();
        }
    }

    fn set(&mut self, digest: &Digest, done: u64, came: bool) {
        let before = self.blobs.insert(*digest, done).unwrap_or(0);
        // A download that began anew has less than before.
        self.done = self.done.saturating_sub(before).saturating_add(done);
        if came {
            self.came += done.saturating_sub(before);
        }
    }

    /// Bytes in a second; nothing as long as that is only a guess.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let (since, before) = self.samples.front()?;
        let seconds = now - *since;
        (seconds >= LEAST).then(|| (self.came - before) as f64 / seconds.as_secs_f64())
    }

    /// How long the rest takes at this rate.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let rate = self.rate(now).filter(|rate| *rate > 0.0)?;
        let seconds = self.bytes.saturating_sub(self.done) as f64 / rate;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Rate and time left, as people read them.
    pub(super) fn speed(&self, now: Instant) -> String {
        let Some(rate) = self.rate(now) else {
            return String::new();
        };
        // A float becomes the nearest that there is.
        let rate = human::size(rate as u64);
        match self.left(now) {
            Some(left) => format!("{rate}/s, {} left", human::span(left)),
            None => format!("{rate}/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn what_was_there_is_done_and_does_not_count_for_the_rate() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|x| layerstore::oci::Algorithm::Sha256.digest(x));
        let (begun, mut sum) = (Instant::now(), Sum::new());
        let waiting = |done| Event::Waiting { digest: b, size: 9, done, holder: String::new() };
        sum.hear(&Event::Planned { blobs: 3, bytes: 100 * MIB }, begun);
        sum.hear(&Event::Reused { digest: c, size: 20 * MIB }, begun);
        sum.hear(&Event::Started { digest: a, size: 60 * MIB, resumed: 30 * MIB }, begun);
        sum.hear(&waiting(10 * MIB), begun);
        assert_eq!((sum.done, sum.rate(begun), sum.speed(begun)), (60 * MIB, None, String::new()));
        let later = begun + Duration::from_secs(2);
        sum.hear(&Event::Advanced { digest: a, done: 34 * MIB }, later);
        sum.hear(&waiting(14 * MIB), later);
        assert_eq!(sum.done, 68 * MIB);
        assert_eq!(sum.speed(later), "4.0 MiB/s, 8 s left");
        let end = later + Duration::from_secs(2);
        sum.hear(&Event::Started { digest: a, size: 60 * MIB, resumed: 0 }, end);
        assert_eq!(sum.done, 34 * MIB, "it began anew");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let digest = layerstore::oci::Algorithm::Sha256.digest(b"a");
        let (begun, mut sum) = (Instant::now(), Sum::new());
        let mut done = 0;
        for tenth in 0..300 {
            done += if tenth < 150 { 10 * MIB } else { MIB / 10 };
            let now = begun + Duration::from_millis(100 * tenth);
            sum.hear(&Event::Advanced { digest, done }, now);
        }
        let rate = sum.rate(begun + Duration::from_secs(30)).unwrap();
        assert!((0.9..1.1).contains(&(rate / MIB as f64)), "{rate}");
    }
}
