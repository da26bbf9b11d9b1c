//! What the collector needs of the store beside what everybody does.

use std::time::{Duration, Instant};

use super::layout::Layout;
use super::part_names::PartNames;
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::sys::{Aside, Filesystem, Lock, LockMode};

/// How long the end of other processes' leases is waited for, each of which takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Below this much free space, in bytes, the disk counts as full.
const LOW: u64 = 64 * 1024 * 1024;

/// Becomes the one collector of a store. Another collector is not waited for.
pub(crate) fn lock(layout: &Layout) -> Result<Lock> {
    if let Some(filesystem) = layout.filesystem()?.network {
        let path = layout.root.path().to_path_buf();
        return Err(Error::NetworkFilesystem { path, filesystem });
    }
    let started = Instant::now();
    loop {
        if let Some(lock) = Lock::try_acquire(&layout.locks, "gc", LockMode::Exclusive)? {
            return Ok(lock);
        }
        // Shared holders are processes that end a lease. Where a shared lock can be had there is
        // no other collector, and a moment later there is no such process either.
        let collector = Lock::try_acquire(&layout.locks, "gc", LockMode::Shared)?.is_none();
        let waited = started.elapsed();
        if collector || waited > PATIENCE {
            return Err(Error::Locked {
                what: "another collection to end, by its lock",
                path: layout.locks.path_of("gc"),
                holder: Lock::holder(&layout.locks, "gc"),
                waited,
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether hardly any space is left, or this cannot be told.
pub(crate) fn is_low_on_space(layout: &Layout) -> bool {
    Filesystem::available(layout.root.path()).map_or(true, |available| available < LOW)
}

/// Whether a name is a temporary one of the store's own.
pub(crate) fn is_temporary(name: &str) -> bool {
    Aside::is_leftover(name)
}

/// Takes the lock of a part that nobody works on; `None` if somebody does, or if there is none and
/// none is to be made.
pub(crate) fn lock_idle_part(layout: &Layout, digest: &Digest, make: bool) -> Result<Option<Lock>> {
    let lock_name = PartNames::of(digest).lock;
    let file = match make {
        true => layout.parts.open_or_create(&lock_name)?,
        false => match layout.parts.open_writable(&lock_name)? {
            Some(file) => file,
            None => return Ok(None),
        },
    };
    let path = layout.parts.path_of(&lock_name);
    match Lock::try_on(file, LockMode::Exclusive, &path)? {
        Some(lock) if lock.is_current(&layout.parts, &lock_name)? => Ok(Some(lock)),
        Some(_) | None => Ok(None),
    }
}
