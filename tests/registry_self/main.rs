//! The test registry itself, seen through raw sockets: other tests believe what it sends
//! and what it counts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy excuses the test functions themselves, not what they call"
)]

mod auth;
mod faults;
mod images;
mod recording;
mod serving;
#[path = "../support/mod.rs"]
mod support;
mod waits;
