//! What the processes of a store agree on about the hosts that they fetch from: how many
//! connections there are, that somebody waits for one, and until when a host is to be left alone.
//!
//! Nothing here is synced or needed after a restart. The kernel lets a dead process's locks go.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layout::{Layout, read_small};
use super::line;
use crate::error::{IoContext, Result};
use crate::oci::Algorithm;
use crate::sys::{Aside, Dir, Lock, LockMode};

/// The largest file about a host that is read.
const MAX_FILE: u64 = 1024;
/// No host is left alone for longer, whatever a file says.
const ABSURD: Duration = Duration::from_secs(60 * 60);

/// What processes agree on about hosts.
///
/// A host is any text that names it, `https://registry.example` for one: on disk it is a hash.
#[derive(Clone, Debug)]
pub struct Hosts {
    layout: Arc<Layout>,
}

/// One of a host's connections. It is anybody's again when this is dropped, or when the process
/// dies.
#[derive(Debug)]
#[must_use = "the connection is anybody's again when this is dropped"]
pub struct Slot {
    _lock: Lock,
    number: usize,
}

impl Slot {
    /// Which of them it is, from 0.
    pub fn number(&self) -> usize {
        self.number
    }
}

/// Shows that somebody waits for one of a host's connections, until it is dropped.
#[derive(Debug)]
#[must_use = "nobody is seen to wait once this is dropped"]
pub struct Queued {
    _lock: Lock,
}

impl Hosts {
    pub(crate) fn new(layout: &Arc<Layout>) -> Result<Hosts> {
        layout.hosts()?;
        Ok(Hosts { layout: layout.clone() })
    }

    /// Takes the first of these connections that nobody has. None is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io), [`Error::Damaged`](crate::Error::Damaged).
    pub fn slot(
        &self,
        host: &str,
        numbers: impl IntoIterator<Item = usize>,
    ) -> Result<Option<Slot>> {
        let dir = self.layout.hosts()?;
        for number in numbers {
            if let Some(lock) = lock(dir, &slot_name(host, number), LockMode::Exclusive)? {
                return Ok(Some(Slot { _lock: lock, number }));
            }
        }
        Ok(None)
    }

    /// Who has these connections, as far as can be told.
    pub fn holders(&self, host: &str, numbers: impl IntoIterator<Item = usize>) -> String {
        let Ok(dir) = self.layout.hosts() else {
            return "an unknown process".to_owned();
        };
        let mut holders: Vec<String> = Vec::new();
        for number in numbers {
            let holder = Lock::holder(dir, &slot_name(host, number));
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
        holders.join(", ")
    }

    /// Shows those who have a connection that one is waited for; nothing where that is shown
    /// already, or was just being looked at.
    ///
    /// # Errors
    ///
    /// As of [`slot`](Hosts::slot).
    pub fn queue(&self, host: &str) -> Result<Option<Queued>> {
        let lock = lock(self.layout.hosts()?, &queue_name(host), LockMode::Exclusive)?;
        Ok(lock.map(|lock| Queued { _lock: lock }))
    }

    /// Whether somebody waits for one of the host's connections.
    ///
    /// # Errors
    ///
    /// As of [`slot`](Hosts::slot).
    pub fn is_queued(&self, host: &str) -> Result<bool> {
        let dir = self.layout.hosts()?;
        let Some(file) = dir.open_writable(&queue_name(host))? else {
            return Ok(false);
        };
        // Shared, so that those who look do not take each other for somebody who waits.
        let path = dir.path_of(&queue_name(host));
        Ok(Lock::try_on(file, LockMode::Shared, &path)?.is_none())
    }

    /// Tells everybody to leave a host alone for a while, beginning now.
    ///
    /// # Errors
    ///
    /// As of [`slot`](Hosts::slot), and [`Error::NoSpace`](crate::Error::NoSpace).
    pub fn close(&self, host: &str, time: Duration) -> Result<()> {
        let (dir, name) = (self.layout.hosts()?, closed_name(host));
        // Not less than what somebody else was told. Two at once may lose one of the two.
        if self.closed(host, ABSURD)? >= time {
            return Ok(());
        }
        let from = millis(SystemTime::now());
        let closed = Closed { from, until: from.saturating_add(whole_millis(time)) };
        let aside = Aside::new(dir)?;
        aside.file().write_all(closed.to_line().as_bytes()).context("write", dir.path_of(&name))?;
        aside.set_mode(dir.file_mode())?;
        aside.name_over(dir, &name)?;
        Ok(())
    }

    /// For how long a host is to be left alone from now on: no time if nobody was told so. Of what
    /// was said no more counts than `ceiling`; and nothing of what is absurd, or is from a time
    /// that has not come, after the clock was set back.
    ///
    /// # Errors
    ///
    /// As of [`slot`](Hosts::slot).
    pub fn closed(&self, host: &str, ceiling: Duration) -> Result<Duration> {
        let closed = self.read(host)?;
        Ok(closed.map_or(Duration::ZERO, |closed| closed.left(SystemTime::now(), ceiling)))
    }

    fn read(&self, host: &str) -> Result<Option<Closed>> {
        let dir = self.layout.hosts()?;
        let bytes = match read_small(dir, &closed_name(host), MAX_FILE) {
            // Whatever has grown there is no moment in time.
            Err(crate::error::Error::TooLarge { .. }) => None,
            bytes => bytes?,
        };
        Ok(bytes.and_then(|bytes| Closed::parse(&bytes)))
    }
}

/// When a host said that it wants to be left alone, and until when; in milliseconds of Unix time.
#[derive(Debug, PartialEq)]
pub(super) struct Closed {
    pub(super) from: u64,
    until: u64,
}

impl Closed {
    pub(super) fn to_line(&self) -> String {
        line::seal(&format!("closed {} {}", self.from, self.until))
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Closed> {
        let text = line::open(bytes.strip_suffix(b"\n")?)?;
        let (from, until) = text.strip_prefix("closed ")?.split_once(' ')?;
        Some(Closed { from: from.parse().ok()?, until: until.parse().ok()? })
    }

    pub(super) fn left(&self, now: SystemTime, ceiling: Duration) -> Duration {
        let now = millis(now);
        let said = self.until.saturating_sub(self.from);
        if now < self.from || said > whole_millis(ABSURD) {
            return Duration::ZERO;
        }
        let until = self.until.min(self.from.saturating_add(whole_millis(ceiling)));
        Duration::from_millis(until.saturating_sub(now))
    }
}

fn millis(time: SystemTime) -> u64 {
    whole_millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Takes the lock on a file that is made if it is not there, and that the collector may remove.
fn lock(dir: &Dir, name: &str, mode: LockMode) -> Result<Option<Lock>> {
    loop {
        let file: File = dir.open_or_create(name)?;
        match Lock::try_on(file, mode, &dir.path_of(name))? {
            Some(lock) if !lock.is_current(dir, name)? => {}
            locked => return Ok(locked),
        }
    }
}

/// Takes the lock on a file that is there, so that it can be removed; nothing if somebody has it.
pub(crate) fn lock_idle(dir: &Dir, name: &str) -> Result<Option<Lock>> {
    let Some(file) = dir.open_writable(name)? else {
        return Ok(None);
    };
    let path: &Path = &dir.path_of(name);
    match Lock::try_on(file, LockMode::Exclusive, path)? {
        Some(lock) if lock.is_current(dir, name)? => Ok(Some(lock)),
        Some(_) | None => Ok(None),
    }
}

/// Who a host is, in names: what comes from the network never becomes one.
fn stem(host: &str) -> String {
    let mut hex = Algorithm::Sha256.digest(host.as_bytes()).hex();
    hex.truncate(32);
    hex
}

fn slot_name(host: &str, number: usize) -> String {
    format!("{}.{number}", stem(host))
}

fn queue_name(host: &str) -> String {
    format!("{}.queue", stem(host))
}

fn closed_name(host: &str) -> String {
    format!("{}.closed", stem(host))
}

/// Whether a name is one of these.
pub(crate) fn is_name(name: &str) -> bool {
    let Some((stem, kind)) = name.split_once('.') else {
        return false;
    };
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let number = !kind.is_empty() && kind.len() <= 6 && kind.bytes().all(|b| b.is_ascii_digit());
    stem.len() == 32 && stem.bytes().all(hex) && (number || matches!(kind, "queue" | "closed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BlobStore;

    const HOST: &str = "https://registry.example";

    fn hosts() -> (tempfile::TempDir, Hosts) {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path()).unwrap();
        (temp, store.hosts().unwrap())
    }

    #[test]
    fn each_slot_has_one_holder() {
        let (_temp, hosts) = hosts();
        let first = hosts.slot(HOST, 0..2).unwrap().unwrap();
        let second = hosts.slot(HOST, 0..2).unwrap().unwrap();
        assert_eq!((first.number(), second.number()), (0, 1));
        assert!(hosts.slot(HOST, 0..2).unwrap().is_none());
        assert!(hosts.holders(HOST, 0..2).contains(&format!("{}", std::process::id())));
        let _other = hosts.slot("https://other.example", 0..2).unwrap().unwrap();
        drop(first);
        assert_eq!(hosts.slot(HOST, (0..2).rev()).unwrap().unwrap().number(), 0);
    }

    #[test]
    fn who_waits_is_seen_and_who_looks_is_not() {
        let (_temp, hosts) = hosts();
        assert!(!hosts.is_queued(HOST).unwrap());
        let queued = hosts.queue(HOST).unwrap().unwrap();
        assert!(hosts.is_queued(HOST).unwrap());
        assert!(hosts.queue(HOST).unwrap().is_none(), "it is shown already");
        drop(queued);
        assert!(!hosts.is_queued(HOST).unwrap());
    }

    #[test]
    fn a_host_is_left_alone_for_as_long_as_it_said() {
        let (_temp, hosts) = hosts();
        let minute = Duration::from_secs(60);
        assert_eq!(hosts.closed(HOST, minute).unwrap(), Duration::ZERO);
        hosts.close(HOST, minute).unwrap();
        hosts.close(HOST, Duration::from_secs(1)).unwrap();
        let left = hosts.closed(HOST, minute).unwrap();
        assert!(left > minute / 2 && left <= minute, "{left:?}");
        let left = hosts.closed(HOST, minute / 4).unwrap();
        assert!(left <= minute / 4, "no longer than the ceiling: {left:?}");
        hosts.close(HOST, 2 * minute).unwrap();
        assert!(hosts.closed(HOST, 2 * minute).unwrap() > minute);
    }

    #[test]
    fn what_makes_no_sense_closes_nothing() {
        let (temp, hosts) = hosts();
        let now = millis(SystemTime::now());
        let hour = whole_millis(ABSURD);
        let path = temp.path().join(".layerstore/hosts").join(closed_name(HOST));
        let day = 24 * hour;
        for text in [
            String::new(),
            "x".repeat(5000),
            format!("closed {now} {}\n", now + 5000),
            line::seal("closed 1"),
            line::seal(&format!("closed -{now} {}", now + 5000)),
            line::seal(&format!("closed {now} {}", u64::MAX)),
            line::seal(&format!("closed {} {}", now - 5000, now - 5000 + day)),
            line::seal(&format!("closed {} {}", now + day, now + day + 5000)),
            line::seal(&format!("closed {} {}", now - day, now - day + 5000)),
        ] {
            std::fs::write(&path, &text).unwrap();
            let left = hosts.closed(HOST, ABSURD).unwrap();
            assert_eq!(left, Duration::ZERO, "{:?}", &text[..text.len().min(80)]);
            // It is no obstacle to what is true.
            hosts.close(HOST, Duration::from_secs(50)).unwrap();
            assert!(hosts.closed(HOST, ABSURD).unwrap() > Duration::ZERO, "{text:?}");
        }
    }

    #[test]
    fn names() {
        for name in [slot_name(HOST, 0), slot_name(HOST, 99), queue_name(HOST), closed_name(HOST)] {
            assert!(is_name(&name), "{name}");
        }
        for name in ["", "x", "x.0", &format!("{}.x", stem(HOST)), &format!("{}.", stem(HOST))] {
            assert!(!is_name(name), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, text in "closed [0-9 -]{0,60}", now: u32) {
            let _ = Closed::parse(&bytes);
            if let Some(closed) = Closed::parse(line::seal(&text).as_bytes()) {
                let now = UNIX_EPOCH + Duration::from_secs(now.into());
                proptest::prop_assert!(closed.left(now, ABSURD) <= ABSURD);
            }
        }
    }
}
