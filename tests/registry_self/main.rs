//! The test registry itself, seen through raw sockets: other tests believe what it sends
//! and what it counts.

mod auth;
mod faults;
mod images;
mod recording;
mod serving;
#[path = "../support/mod.rs"]
mod support;
mod waits;

use std::time::{Duration, Instant};

/// Waits for what must come to pass; half a minute is never, below every limit of the
/// registry itself.
fn eventually(mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "it never came to pass");
        std::thread::sleep(Duration::from_millis(5));
    }
}
