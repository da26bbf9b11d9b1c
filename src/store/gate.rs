//! The gate between those who pin blobs and the collector that removes them.
//!
//! Whoever pins passes `turn` and holds `gate` shared; the collector takes `turn` and `gate` alone.
//! `turn` is a turnstile: without it, a stream of shared holders keeps the collector out for good.

use std::time::Duration;

use crate::error::Result;
use crate::sys::{Dir, Lock, LockMode};

/// How long anybody waits at the gate. It is held for milliseconds, so this is only ever reached
/// when a holder was stopped in its middle.
const LIMIT: Duration = Duration::from_secs(120);

/// Lets a pinning process in; the gate stays open to others like it.
pub(crate) fn enter(locks: &Dir) -> Result<Lock> {
    let turn = Lock::acquire(locks, "turn", LockMode::Exclusive, "its turn at the gate", LIMIT)?;
    let gate = Lock::acquire(locks, "gate", LockMode::Shared, "the gate", LIMIT)?;
    drop(turn);
    Ok(gate)
}

/// Shuts the gate: nobody pins while this is held.
pub(crate) fn shut(locks: &Dir) -> Result<(Lock, Lock)> {
    let turn = Lock::acquire(locks, "turn", LockMode::Exclusive, "its turn at the gate", LIMIT)?;
    let gate = Lock::acquire(locks, "gate", LockMode::Exclusive, "the gate", LIMIT)?;
    Ok((gate, turn))
}
