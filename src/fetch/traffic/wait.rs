//! When to give up waiting for a connection.

use std::time::{Duration, Instant};

/// How long a connection is waited for by a pull that has none.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long one has waited for a connection to a host.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    begun: Instant,
    /// Since when its pull has none at all there.
    without: Instant,
}

impl Wait {
    pub(super) fn new(now: Instant) -> Wait {
        Wait { begun: now, without: now }
    }

    pub(super) fn waited(&self, now: Instant) -> Duration {
        now - self.begun
    }

    /// Another connection of the same pull is in use: it comes to an end, and serves here next.
    pub(super) fn has_another(&mut self, now: Instant) {
        self.without = now;
    }

    /// After so long a host may be asked once, whatever was said of it, and waiting is given up.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now - self.without >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_given_up_only_by_who_has_no_connection() {
        let begun = Instant::now();
        let after = |minutes: u64| begun + Duration::from_secs(60 * minutes);
        let mut wait = Wait::new(begun);
        assert!(!wait.is_over(after(14)) && wait.is_over(after(15)));
        wait.has_another(after(14));
        assert!(!wait.is_over(after(28)) && wait.is_over(after(29)));
        assert_eq!(wait.waited(after(28)), Duration::from_secs(60 * 28));
    }
}
