use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How much may be read at once after nothing was read for a while: what is allowed in so long.
const BURST: Duration = Duration::from_secs(1);

/// Holds all threads of a check together to so many bytes in a second.
pub(super) struct Pace {
    rate: NonZeroU64,
    started: Instant,
    /// Since the start: when everything that was read so far may have been read.
    due: Mutex<Duration>,
}

impl Pace {
    pub(super) fn new(rate: NonZeroU64) -> Pace {
        Pace { rate, started: Instant::now(), due: Mutex::default() }
    }

    /// Takes note of bytes that were read, and waits until more may be.
    pub(super) fn read(&self, bytes: u64) {
        let due = {
            // A time is whole whatever became of the thread that set it.
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            *due = after(*due, self.started.elapsed(), bytes, self.rate);
            *due
        };
        thread::sleep(due.saturating_sub(self.started.elapsed()));
    }
}

/// When more may be read, after these bytes. What a disk that stalled did not give is not made up for
/// later, but for a second's worth: whoever sets a limit wants it kept in every second.
fn after(due: Duration, now: Duration, bytes: u64, rate: NonZeroU64) -> Duration {
    let from = due.max(now.saturating_sub(BURST));
    from.saturating_add(Duration::from_secs_f64(bytes as f64 / rate.get() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: NonZeroU64 = NonZeroU64::new(1000).unwrap();

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn what_is_read_takes_as_long_as_it_may() {
        let mut due = Duration::ZERO;
        for n in 1..=20 {
            // As fast as is allowed, from the first byte on.
            due = after(due, due, 500, RATE);
            assert_eq!(due, seconds(0.5) * n);
        }
        // Threads that read at the same moment wait one after the other.
        assert_eq!(after(after(due, due, 500, RATE), due, 500, RATE), due + seconds(1.0));
    }

    #[test]
    fn after_a_stall_no_more_than_a_second_is_made_up_for() {
        for stall in [1.0, 2.0, 60.0, 86_400.0] {
            let now = seconds(10.0 + stall);
            let (mut due, mut at_once) = (seconds(10.0), 0);
            while due <= now {
                due = after(due, now, 100, RATE);
                at_once += 100;
            }
            assert_eq!(at_once, 1100, "after {stall} s: a second's worth, and what is waited for");
        }
        let due = after(seconds(10.0), seconds(10.5), 100, RATE);
        assert_eq!(due, seconds(10.1), "a short one is made up for whole");
    }
}
