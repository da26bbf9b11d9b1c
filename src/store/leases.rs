use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use serde::Serialize;

use super::layout::Layout;
use super::lease::unix_now;
use super::lease_record::{self, Record};
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sys::{Aside, Lock, LockMode};

/// The largest lease that is read: 10,000 descriptors of 150 bytes many times over.
const MAX_LEASE: u64 = 256 * 1024 * 1024;

/// A lease as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LeaseInfo {
    /// The id.
    pub id: String,
    /// Who made it and what for.
    pub holder: String,
    /// Whether it keeps anything.
    pub state: LeaseState,
    /// When a lasting lease ends, in seconds of Unix time; none where it never does.
    pub until: Option<u64>,
    /// The blobs that it keeps.
    pub blobs: Vec<Digest>,
    /// The blobs that it keeps with all that they are made of.
    pub trees: Vec<Digest>,
}

/// Whether a lease keeps anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseState {
    /// A process holds it.
    Live,
    /// It outlives its process, and its time has not come.
    Lasting,
    /// Its process or its time has ended; the next collection removes it.
    Ended,
}

/// A digest that a lease keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// One blob.
    Blob(Digest),
    /// A blob and all that it is made of.
    Tree(Digest),
}

/// Reads what leases pin, each line once however often it is asked.
#[derive(Debug, Default)]
pub(crate) struct LeaseReader {
    offsets: HashMap<String, u64>,
    /// Read to their end: nobody adds to them any more.
    ownerless: HashSet<String>,
    found: usize,
}

impl LeaseReader {
    /// The pins that came since the last call: of new leases, and of lines added to known ones.
    ///
    /// Every file counts, whether it is locked or not: one whose owner ended a moment ago may be
    /// all that keeps the blobs of a ref that was not there when the refs were read.
    pub(crate) fn new_pins(&mut self, layout: &Layout) -> Result<Vec<Pin>> {
        let (mut pins, mut offsets) = (Vec::new(), Vec::new());
        self.found = 0;
        for name in names(layout)? {
            let name = name?;
            self.found += 1;
            if self.ownerless.contains(&name) || self.knows_all_of(layout, &name)? {
                continue;
            }
            let offset = self.offsets.get(&name).copied().unwrap_or(0);
            let Some(file) = layout.leases.open_file(&name)? else {
                continue;
            };
            let (records, taken) = read(layout, &name, file, offset)?;
            pins.extend(records.iter().filter_map(|record| match record {
                Record::Blob(digest) => Some(Pin::Blob(*digest)),
                Record::Tree(digest) => Some(Pin::Tree(*digest)),
                Record::Holder(_) | Record::Want(..) | Record::Room(_) | Record::Until(_) => None,
            }));
            offsets.push((name, offset + taken));
        }
        // Only now: what an error keeps from the caller was not read.
        self.offsets.extend(offsets);
        Ok(pins)
    }

    /// Looks for those whose owner has ended, so that [`new_pins`](Self::new_pins) need not: beside a
    /// long collection there are hundreds, as it keeps owners from removing them, and the gate is not
    /// to be shut for so long.
    pub(crate) fn find_ownerless(&mut self, layout: &Layout) -> Result<()> {
        for name in names(layout)? {
            let name = name?;
            if self.ownerless.contains(&name) {
                continue;
            }
            let Some(file) = layout.leases.open_file(&name)? else {
                continue;
            };
            let path = layout.leases.path_of(&name);
            // In this order: its owner may write until it lets go of it.
            if Lock::try_on(file, LockMode::Shared, &path)?.is_some()
                && self.knows_all_of(layout, &name)?
            {
                self.ownerless.insert(name);
            }
        }
        Ok(())
    }

    /// Whether a lease was read to its end. Nothing is ever taken back from one.
    fn knows_all_of(&self, layout: &Layout, name: &str) -> Result<bool> {
        let Some(offset) = self.offsets.get(name) else {
            return Ok(false);
        };
        Ok(layout.leases.meta(name)?.is_some_and(|meta| meta.len == *offset))
    }

    /// Whether there was a lease the last time, be it one that has ended.
    pub(crate) fn found_any(&self) -> bool {
        self.found > 0
    }
}

/// Removes the leases whose process and whose time have ended; how many. For the collector alone,
/// which holds the `gc` lock.
pub(crate) fn reap(layout: &Layout) -> Result<u64> {
    let mut reaped = 0;
    for name in names(layout)? {
        let name = name?;
        let Some(file) = layout.leases.open_writable(&name)? else {
            continue;
        };
        let handle = file.try_clone().context("read", layout.leases.path_of(&name))?;
        let path = layout.leases.path_of(&name);
        let Some(_ended) = Lock::try_on(file, LockMode::Exclusive, &path)? else {
            continue;
        };
        let (records, _) = read(layout, &name, handle, 0)?;
        if state_unlocked(&records) == LeaseState::Ended && layout.leases.unlink(&name)? {
            reaped += 1;
        }
    }
    Ok(reaped)
}

/// The names of the leases. A hidden one, of a file system without nameless files, is not a lease
/// yet, and may not be locked yet either.
fn names(layout: &Layout) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let names = layout.leases.names()?;
    Ok(names.filter(|name| !name.as_ref().is_ok_and(|name| Aside::is_leftover(name))))
}

/// All leases, ended ones too.
pub(crate) fn list(layout: &Layout) -> Result<Vec<LeaseInfo>> {
    let mut leases = Vec::new();
    for name in names(layout)? {
        leases.extend(get(layout, name?)?);
    }
    leases.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(leases)
}

/// One lease; `None` if there is none of that id.
pub(crate) fn get(layout: &Layout, id: String) -> Result<Option<LeaseInfo>> {
    layout.leases.open_file(&id)?.map(|file| info(layout, id, file)).transpose()
}

/// What the process of a lease is going to write.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub(crate) id: String,
    /// Blobs and their sizes.
    pub(crate) blobs: Vec<(Digest, u64)>,
    /// What blobs are going to take on disk whose digests were not known.
    pub(crate) room: u64,
    /// What was pinned since that was said, and so may have come of it.
    pub(crate) pinned: HashSet<Digest>,
}

/// What the processes of live leases are going to write. A process that has died wants nothing any
/// more.
pub(crate) fn wants(layout: &Layout) -> Result<Vec<Wants>> {
    let mut wants = Vec::new();
    for name in names(layout)? {
        let name = name?;
        let Some(file) = layout.leases.open_file(&name)? else {
            continue;
        };
        let handle = file.try_clone().context("read", layout.leases.path_of(&name))?;
        let path = layout.leases.path_of(&name);
        if Lock::try_on(file, LockMode::Shared, &path)?.is_some() {
            continue;
        }
        // A lease that is damaged is the collector's to complain of: it says nothing of room.
        let Ok((records, _)) = read(layout, &name, handle, 0) else {
            continue;
        };
        wants.push(Wants::of(name, records));
    }
    Ok(wants)
}

impl Wants {
    fn of(id: String, records: Vec<Record>) -> Wants {
        let mut wants = Wants { id, ..Wants::default() };
        for record in records {
            match record {
                Record::Want(digest, size) => wants.blobs.push((digest, size)),
                Record::Room(bytes) => wants.room = wants.room.saturating_add(bytes),
                Record::Blob(digest) if wants.room > 0 => {
                    wants.pinned.insert(digest);
                }
                _ => {}
            }
        }
        wants
    }
}

/// Removes a lease that no process holds.
pub(crate) fn remove(layout: &Layout, id: &str) -> Result<()> {
    let not_found = || Error::LeaseNotFound { id: id.to_owned() };
    // Only what can be a lease's name is looked for: never a path that somebody typed.
    if !is_id(id) {
        return Err(not_found());
    }
    let locked = |what, name: &str, dir: &crate::sys::Dir| Error::Locked {
        what,
        path: dir.path_of(name),
        holder: Lock::holder(dir, name),
        waited: std::time::Duration::ZERO,
    };
    // As for an owner's own release: never under a running collection.
    let Some(_no_collection) = Lock::try_acquire(&layout.locks, "gc", LockMode::Shared)? else {
        return Err(locked("the running collection", "gc", &layout.locks));
    };
    let file = layout.leases.open_writable(id)?.ok_or_else(not_found)?;
    match Lock::try_on(file, LockMode::Exclusive, &layout.leases.path_of(id))? {
        None => Err(locked("the lease's process", id, &layout.leases)),
        Some(_ended) => match layout.leases.unlink(id)? {
            true => layout.leases.sync(),
            false => Err(not_found()),
        },
    }
}

/// Reads a lease to its end; whether it is there.
pub(crate) fn is_readable(layout: &Layout, id: &str) -> Result<bool> {
    let Some(file) = layout.leases.open_file(id)? else {
        return Ok(false);
    };
    read(layout, id, file, 0).map(|_| true)
}

/// Whether a name is one that a lease may have.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn info(layout: &Layout, id: String, file: File) -> Result<LeaseInfo> {
    let handle = file.try_clone().context("read", layout.leases.path_of(&id))?;
    let (records, _) = read(layout, &id, handle, 0)?;
    // A shared try does not disturb the owner, who locked it before it had a name.
    let lock = Lock::try_on(file, LockMode::Shared, &layout.leases.path_of(&id))?;
    let state = if lock.is_none() { LeaseState::Live } else { state_unlocked(&records) };
    let mut info = LeaseInfo {
        id,
        holder: String::new(),
        state,
        until: None,
        blobs: Vec::new(),
        trees: Vec::new(),
    };
    for record in records {
        match record {
            Record::Holder(holder) => info.holder = holder,
            Record::Blob(digest) => info.blobs.push(digest),
            Record::Tree(digest) => info.trees.push(digest),
            Record::Want(..) | Record::Room(_) => {}
            Record::Until(until) => info.until = until,
        }
    }
    Ok(info)
}

fn state_unlocked(records: &[Record]) -> LeaseState {
    let until = records.iter().rev().find_map(|record| match record {
        Record::Until(until) => Some(*until),
        _ => None,
    });
    match until {
        Some(None) => LeaseState::Lasting,
        Some(Some(until)) if until > unix_now() => LeaseState::Lasting,
        Some(Some(_)) | None => LeaseState::Ended,
    }
}

/// The whole lines of a lease from `offset` on, and how many bytes they took.
fn read(layout: &Layout, name: &str, mut file: File, offset: u64) -> Result<(Vec<Record>, u64)> {
    let path = layout.leases.path_of(name);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset)).context("read", &path)?;
    file.take(MAX_LEASE + 1).read_to_end(&mut bytes).context("read", &path)?;
    if bytes.len() as u64 > MAX_LEASE {
        return Err(Error::TooLarge { what: path.display().to_string(), limit: MAX_LEASE });
    }
    match lease_record::parse(&bytes) {
        Ok((records, taken)) => Ok((records, taken as u64)),
        Err(line) => Err(Error::Damaged {
            path,
            reason: format!("line {line} after byte {offset} is not a lease record"),
        }),
    }
}
