//! Faults that tests plant, one at a time, to see that their harness catches each. Only in a build
//! with `--cfg planted_faults`, which tests/reliability makes for itself.
//!
//! A *site* is the line of the program that makes something durable, keeps others out, or does something
//! before another thing. `LAYERSTORE_PLANTED_FAULT` says which site goes wrong, and how: `omit FILE:LINE`
//! leaves the operation out, `delay FILE:LINE` does it after the step that it should come before.
//! Every site that is come by is told to whoever traces the process, by a look at a path that does
//! not exist, so that a fault which did not come about is not taken for one that was missed.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::Location;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::fs::FileType;

/// How a site goes wrong.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Omit,
    Delay,
}

/// What a delayed operation waits for.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// A file gets its name.
    Name,
    /// A file gets the name by which a store, or a ref, is there: what the names in a directory are
    /// made durable for.
    Promise,
    /// A name is looked at.
    Look,
    /// The refs are read.
    Refs,
}

enum Delayed {
    Sync(OwnedFd),
    Lock(OwnedFd),
    Append(OwnedFd, Vec<u8>),
    Unlink(OwnedFd, String),
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
    let is_dir = rustix::fs::fstat(&file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let next = if is_dir { Next::Promise } else { Next::Name };
    takes("sync", path, next, || Some(Delayed::Sync(dup(file)?)))
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

/// Whether a lock that is waited for is left out: one that keeps others from what they must not do
/// meanwhile.
#[track_caller]
pub(super) fn omits_lock(name: &str, path: &Path) -> bool {
    ["gate", "index"].contains(&name) && takes("hold", path, Next::Name, || None)
}

/// Whether a last look at something is left out.
#[track_caller]
pub(crate) fn omits_look(path: &Path) -> bool {
    takes("look", path, Next::Name, || None)
}

/// Whether a lease is removed later.
#[track_caller]
pub(super) fn takes_unlink(dir: impl AsFd, name: &str, path: &Path) -> bool {
    let delayed = || Some(Delayed::Unlink(dup(dir)?, name.to_owned()));
    path.ends_with("leases") && takes("removal", path, Next::Refs, delayed)
}

/// To be called when a file is open to be read.
pub(super) fn after_open(name: &str) {
    if name == "index.json" {
        after(Next::Refs);
    }
}

/// To be called when a file got its name, which was free, or another's.
pub(super) fn after_name(name: &str, was_free: bool) {
    after(Next::Name);
    if (name, was_free) == ("version", true) || (name, was_free) == ("index.json", false) {
        after(Next::Promise);
    }
}

/// To be called when a name was looked at.
pub(super) fn after_look() {
    after(Next::Look);
}

/// Does what was put off until now.
fn after(step: Next) {
    let mut delayed = DELAYED.lock().unwrap_or_else(PoisonError::into_inner);
    let (now, later) = delayed.drain(..).partition(|(next, _)| *next == step);
    *delayed = later;
    let now: Vec<(Next, Delayed)> = now;
    for (_, operation) in now {
        // What fails here is missing, as it was meant to be.
        match operation {
            Delayed::Sync(fd) => {
                let _ = rustix::fs::fsync(&fd).and_then(|()| rustix::fs::fstat(&fd));
            }
            Delayed::Lock(fd) => {
                let _ = rustix::fs::flock(fd, rustix::fs::FlockOperation::LockExclusive);
            }
            Delayed::Append(fd, bytes) => {
                let _ = File::from(fd).write_all(&bytes);
            }
            Delayed::Unlink(dir, name) => {
                let _ = rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty());
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
