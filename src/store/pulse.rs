use std::sync::Arc;
use std::time::{Duration, Instant};

use super::layout::Layout;
use crate::error::Result;

/// How often a holder that copies or hashes what is there shows that it is alive. Tests do not wait.
const EVERY: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(10) };

/// The time of a part's lock, by which its holder shows that it waits for something and has not
/// stopped.
#[derive(Clone, Debug)]
pub struct Pulse {
    layout: Arc<Layout>,
    lock: String,
}

impl Pulse {
    pub(super) fn new(layout: &Arc<Layout>, lock: &str) -> Pulse {
        Pulse { layout: layout.clone(), lock: lock.to_owned() }
    }

    /// Shows it now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub fn beat(&self) -> Result<()> {
        self.layout.parts.touch(&self.lock).map(drop)
    }
}

/// Shows now and then that a part's holder is alive, while the part does not grow.
#[derive(Debug)]
pub(super) struct Beats {
    pulse: Option<Pulse>,
    last: Instant,
}

impl Beats {
    pub(super) fn new(pulse: Option<Pulse>) -> Beats {
        Beats { pulse, last: Instant::now() }
    }

    /// To be called after each piece of the work: who is stuck in one is not alive.
    pub(super) fn tick(&mut self) {
        let Some(pulse) = self.pulse.as_ref().filter(|_| self.last.elapsed() >= EVERY) else {
            return;
        };
        self.last = Instant::now();
        // Who waits may give up, and bring the blob for itself.
        if let Err(error) = pulse.beat() {
            tracing::debug!(%error, "no sign of life is given");
        }
    }
}
