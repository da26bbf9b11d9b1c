//! Faults that tests plant, one at a time, to see that their harness catches each. Only in a build
//! with `--cfg planted_faults`, which tests/reliability makes for itself.
//!
//! A *site* is the line of the program that makes something durable, or does something before
//! another thing. `LAYERSTORE_PLANTED_FAULT` says which site goes wrong, and how: `omit FILE:LINE`
//! leaves the operation out, `delay FILE:LINE` does it after the step that it should come before.
//! Every site that is come by is told to whoever traces the process, by a look at a path that does
//! not exist, so that a fault which did not come about is not taken for one that was missed.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::Location;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

/// How a site goes wrong.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Omit,
    Delay,
}

/// What a delayed operation waits for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// A file gets its name.
    Name,
    /// A name is looked at.
    Look,
}

enum Delayed {
    Sync(OwnedFd),
    Lock(OwnedFd),
    Append(OwnedFd, Vec<u8>),
}

static FAULT: LazyLock<Option<(How, String)>> = LazyLock::new(|| {
    let fault = std::env::var("LAYERSTORE_PLANTED_FAULT").ok()?;
    let (how, site) = fault.split_once(' ')?;
    match how {
        "omit" => Some((How::Omit, site.to_owned())),
        "delay" => Some((How::Delay, site.to_owned())),
        _ => None,
    }
});
static DELAYED: Mutex<Vec<(Next, Delayed)>> = Mutex::new(Vec::new());

/// Whether a sync is left out, or put off.
#[track_caller]
pub(super) fn takes_sync(file: impl AsFd, path: &Path) -> bool {
    takes("sync", path, Next::Name, || Some(Delayed::Sync(dup(file)?)))
}

/// Whether the locking of a file that has no name yet is left out, or put off.
#[track_caller]
pub(super) fn takes_lock(file: &File, path: &Path) -> bool {
    takes("lock", path, Next::Name, || Some(Delayed::Lock(dup(file)?)))
}

/// Whether lines are not written, or later.
#[track_caller]
pub(super) fn takes_append(file: &File, bytes: &[u8], path: &Path) -> bool {
    takes("append", path, Next::Look, || Some(Delayed::Append(dup(file)?, bytes.to_vec())))
}

/// To be called when a step was made: does what was put off until then.
pub(super) fn after(step: Next) {
    let mut delayed = DELAYED.lock().unwrap_or_else(PoisonError::into_inner);
    let (now, later) = delayed.drain(..).partition(|(next, _)| *next == step);
    *delayed = later;
    let now: Vec<(Next, Delayed)> = now;
    for (_, operation) in now {
        // What fails here is missing, as it was meant to be.
        match operation {
            Delayed::Sync(fd) => {
                let _ = rustix::fs::fsync(fd);
            }
            Delayed::Lock(fd) => {
                let _ = rustix::fs::flock(fd, rustix::fs::FlockOperation::LockExclusive);
            }
            Delayed::Append(fd, bytes) => {
                let _ = File::from(fd).write_all(&bytes);
            }
        }
    }
}

#[track_caller]
fn takes(kind: &str, path: &Path, next: Next, delayed: impl FnOnce() -> Option<Delayed>) -> bool {
    let site = Location::caller().to_string();
    // Without the column.
    let site = site.rsplit_once(':').map_or(site.as_str(), |(site, _)| site);
    let how = FAULT.as_ref().filter(|(_, fault)| fault == site).map(|(how, _)| *how);
    let said = match how {
        None => "passed",
        Some(How::Omit) => "omitted",
        Some(How::Delay) => "delayed",
    };
    let told = format!("planted {said} {kind} {site} {}", path.display());
    let _ = rustix::fs::access(told, rustix::fs::Access::EXISTS);
    match how {
        None => false,
        Some(How::Omit) => true,
        Some(How::Delay) => match delayed() {
            Some(operation) => {
                DELAYED.lock().unwrap_or_else(PoisonError::into_inner).push((next, operation));
                true
            }
            None => false,
        },
    }
}

fn dup(file: impl AsFd) -> Option<OwnedFd> {
    file.as_fd().try_clone_to_owned().ok()
}
