use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fs2::FileExt;

use super::{Dir, Meta};
use crate::error::{Error, IoContext, Result};

/// After how long a wait the log says who is waited for.
pub(crate) const SAY_AFTER: Duration = Duration::from_secs(10);

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held flock. It is let go when this is dropped, or by the kernel when the process dies.
///
/// The lock belongs to the open file, so each holder opens the file anew: two tasks of one process
/// keep each other out as two processes do. It is never converted between modes, which is not
/// atomic.
#[derive(Debug)]
#[must_use = "the lock is let go when this is dropped"]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits at most `limit` for the lock on a file that exists.
    #[cfg_attr(planted_faults, track_caller)]
    pub(crate) fn acquire(
        dir: &Dir,
        name: &str,
        mode: LockMode,
        what: &'static str,
        limit: Duration,
    ) -> Result<Lock> {
        let file = open(dir, name)?;
        let path = dir.path_of(name);
        #[cfg(planted_faults)]
        if super::planted::omits_lock(name, &path) {
            return Ok(Lock { _file: file });
        }
        if try_lock(&file, mode).context("lock", &path)? {
            return Ok(Lock { _file: file });
        }
        let id = Meta::of(&file).context("look at", &path)?.id;
        let started = Instant::now();
        // flock has no time limit. The wait is left to a thread: one that is given up ends by
        // itself as soon as it gets the lock, and lets it go again.
        let (sender, receiver) = mpsc::channel();
        let wait = move || {
            let locked = lock(&file, mode);
            let _ = sender.send(locked.map(|()| file));
        };
        std::thread::Builder::new().spawn(wait).context("wait for the lock on", &path)?;
        let mut said = false;
        loop {
            let next = if said { limit } else { SAY_AFTER.min(limit) };
            match receiver.recv_timeout(next.saturating_sub(started.elapsed())) {
                Ok(locked) => return Ok(Lock { _file: locked.context("lock", &path)? }),
                Err(_) if !said && started.elapsed() < limit => {
                    tracing::warn!(path = %path.display(), holder = holder(id), "waiting for {what}");
                    said = true;
                }
                Err(_) => {
                    let (holder, waited) = (holder(id), started.elapsed());
                    return Err(Error::Locked { what, path, holder, waited });
                }
            }
        }
    }

    /// Takes the lock on a file that exists if nobody is in the way.
    pub(crate) fn try_acquire(dir: &Dir, name: &str, mode: LockMode) -> Result<Option<Lock>> {
        Lock::try_on(open(dir, name)?, mode, &dir.path_of(name))
    }

    /// Takes the lock on an open file if nobody is in the way.
    pub(crate) fn try_on(file: File, mode: LockMode, path: &Path) -> Result<Option<Lock>> {
        let locked = try_lock(&file, mode).context("lock", path)?;
        Ok(locked.then_some(Lock { _file: file }))
    }

    /// Whether the locked file is still the one under its name: whoever unlinks a lock file does
    /// so while holding it, and the next to lock it must notice.
    pub(crate) fn is_current(&self, dir: &Dir, name: &str) -> Result<bool> {
        let own = Meta::of(&self._file).context("look at", dir.path_of(name))?;
        Ok(own.links > 0 && dir.meta(name)?.is_some_and(|meta| meta.id == own.id))
    }

    /// Who seems to hold the lock on this file, for messages.
    pub(crate) fn holder(dir: &Dir, name: &str) -> String {
        match dir.meta(name) {
            Ok(Some(meta)) => holder(meta.id),
            _ => "nobody".to_owned(),
        }
    }
}

fn open(dir: &Dir, name: &str) -> Result<File> {
    dir.open_writable(name)?.ok_or_else(|| Error::Damaged {
        path: dir.path_of(name),
        reason: "the lock file is missing; `store init` makes it again".to_owned(),
    })
}

// The standard library has methods of the same names as fs2's, hence the calls by path.
fn lock(file: &File, mode: LockMode) -> io::Result<()> {
    uninterrupted(|| match mode {
        LockMode::Shared => FileExt::lock_shared(file),
        LockMode::Exclusive => FileExt::lock_exclusive(file),
    })
}

fn try_lock(file: &File, mode: LockMode) -> io::Result<bool> {
    match lock_now(file, mode) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes the lock, or fails where others have it.
pub(super) fn lock_now(file: &File, mode: LockMode) -> io::Result<()> {
    uninterrupted(|| match mode {
        LockMode::Shared => FileExt::try_lock_shared(file),
        LockMode::Exclusive => FileExt::try_lock_exclusive(file),
    })
}

/// A signal that comes meanwhile is no answer.
fn uninterrupted(call: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// How often the kernel's list of locks is read to find one.
const LOOKS: usize = 20;

/// The processes that hold a lock on an inode. Only for messages: some file systems show another device
/// number in the list.
fn holder(id: (u64, u64)) -> String {
    // The list is given out in pieces, by numbers of lines: where others lock and unlock meanwhile, a line
    // may move from one piece to another, and be in none.
    let found = (0..LOOKS).map(|_| holders(id)).find(|holders| !holders.is_empty());
    match found {
        None => "an unknown process".to_owned(),
        Some(holders) => holders.join(", "),
    }
}

/// The same, in one reading of `/proc/locks`.
fn holders((device, inode): (u64, u64)) -> Vec<String> {
    let locks = read_proc("/proc/locks");
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    locks
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(1) == Some(&"FLOCK") && words.contains(&wanted.as_str()))
        .filter_map(|words| words.get(4).map(|pid| (*pid).to_owned()))
        .map(|pid| match read_proc(&format!("/proc/{pid}/comm")).trim() {
            "" => format!("process {pid}"),
            command => format!("process {pid} ({command})"),
        })
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "this is src/sys")]
fn read_proc(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        drop(dir.open_or_create("lock").unwrap());
        (temp, dir)
    }

    #[test]
    fn a_holder_is_found_while_others_lock_and_unlock() {
        let (_temp, dir) = dir();
        let _held = Lock::try_acquire(&dir, "lock", LockMode::Exclusive).unwrap().unwrap();
        // More than one piece of the list has.
        let more: Vec<String> = (0..200).map(|n| format!("other-{n}")).collect();
        more.iter().for_each(|name| drop(dir.open_or_create(name).unwrap()));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let all: Vec<_> = more
                        .iter()
                        .map(|name| Lock::try_acquire(&dir, name, LockMode::Exclusive).unwrap())
                        .collect();
                    drop(all);
                }
            });
            let own = format!("process {} ", std::process::id());
            for n in 0..300 {
                let found = Lock::holder(&dir, "lock");
                assert!(found.starts_with(&own), "{n}: {found}");
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }

    #[test]
    fn each_pair_of_modes() {
        use LockMode::{Exclusive, Shared};
        let (_temp, dir) = dir();
        for (held, wanted, granted) in [
            (Shared, Shared, true),
            (Shared, Exclusive, false),
            (Exclusive, Shared, false),
            (Exclusive, Exclusive, false),
        ] {
            let first = Lock::try_acquire(&dir, "lock", held).unwrap().unwrap();
            let second = Lock::try_acquire(&dir, "lock", wanted).unwrap();
            assert_eq!(second.is_some(), granted, "{held:?} then {wanted:?}");
            drop(second);
            drop(first);
            assert!(Lock::try_acquire(&dir, "lock", Exclusive).unwrap().is_some());
        }
    }

    #[test]
    fn waiting_is_bounded_and_names_the_holder() {
        let (_temp, dir) = dir();
        let held = Lock::try_acquire(&dir, "lock", LockMode::Exclusive).unwrap();
        let limit = Duration::from_millis(50);
        let error =
            Lock::acquire(&dir, "lock", LockMode::Shared, "the test lock", limit).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error:?}");
        let own = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&own), "{error} does not name {own}");
        drop(held);
        let limit = Duration::from_secs(10);
        let _lock = Lock::acquire(&dir, "lock", LockMode::Exclusive, "it", limit).unwrap();
    }

    #[test]
    fn an_unlinked_lock_is_not_current() {
        let (_temp, dir) = dir();
        let lock = Lock::try_acquire(&dir, "lock", LockMode::Exclusive).unwrap().unwrap();
        assert!(lock.is_current(&dir, "lock").unwrap());
        dir.unlink("lock").unwrap();
        assert!(!lock.is_current(&dir, "lock").unwrap());
        drop(dir.open_or_create("lock").unwrap());
        assert!(!lock.is_current(&dir, "lock").unwrap());
    }
}
