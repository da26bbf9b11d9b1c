//! The collector, through the public API and on a real disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod images;
#[path = "../store_support/waiters.rs"]
mod waiters;

mod leases;
mod marking;
mod order;
mod parts;
mod races;
mod room;
mod roots;
mod stress;
mod sweeping;
