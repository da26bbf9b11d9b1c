//! How much room a store takes, and how much of what is free is spoken for by pulls and puts.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::layout::{Layout, read_small};
use super::lease::{Lease, unix_now};
use super::leases::{self, Wants};
use super::part_names::PartNames;
use super::{line, outboard};
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sys::{self, Dir, Filesystem, Lock, LockMode};

/// How deep directories are followed.
const MAX_DEPTH: usize = 16;
/// How long anybody waits until room was made for others, which may take a collection.
const LIMIT: Duration = Duration::from_secs(600);
/// For how long what is known of the store's size is believed: so long may puts of unknown length and
/// other tools add to it unseen.
const FRESH: u64 = 600;
/// What files take at least, and in multiples of, on nearly all file systems.
const BLOCK: u64 = 4096;
const NAME: &str = "usage";
/// The largest note that is read.
const MAX_NOTE: u64 = 1024;

/// The lock under which room is found for a pull.
pub(crate) fn lock(layout: &Layout) -> Result<Lock> {
    let what = "the room for another pull to be found";
    Lock::acquire(&layout.locks, "space", LockMode::Exclusive, what, LIMIT)
}

/// What is free for this user, in bytes.
pub(crate) fn free(layout: &Layout) -> Result<u64> {
    let path = layout.root.path();
    Filesystem::available(path).context("look at the file system of", path)
}

/// What everything in the store takes on disk, as `du` says: the blocks of each file once.
///
/// Parts first: one that becomes a blob meanwhile is counted twice rather than not at all.
pub(crate) fn used(layout: &Layout) -> Result<u64> {
    let mut walk = Walk { bytes: layout.root.meta_of_self()?.disk, linked: HashSet::new() };
    walk.tree(&layout.private, 0)?;
    walk.add(&layout.root, ".layerstore")?;
    for name in layout.root.names()? {
        let name = name?;
        if name != ".layerstore"
            && walk.add(&layout.root, &name)?
            && let Some(dir) = layout.root.open_dir(&name)?
        {
            walk.tree(&dir, 1)?;
        }
    }
    Ok(walk.bytes)
}

struct Walk {
    bytes: u64,
    /// Files of several names that were counted.
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    /// Counts an entry; whether it is a directory.
    fn add(&mut self, dir: &Dir, name: &str) -> Result<bool> {
        let Some(meta) = dir.meta(name)? else {
            return Ok(false);
        };
        if meta.is_dir || meta.links < 2 || self.linked.insert(meta.id) {
            self.bytes = self.bytes.saturating_add(meta.disk);
        }
        Ok(meta.is_dir)
    }

    fn tree(&mut self, dir: &Dir, depth: usize) -> Result<()> {
        for name in dir.names()? {
            let name = name?;
            if self.add(dir, &name)?
                && depth < MAX_DEPTH
                && let Some(inner) = dir.open_dir(&name)?
            {
                self.tree(&inner, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// What has still to be written, in bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// By the one that asks, beside what others are going to bring.
    pub(crate) own: u64,
    /// The blobs that all other pulls want that live.
    pub(crate) others: u64,
    /// By others, of blobs that get their names, and digests, only when they are whole. Some of it may
    /// be on disk: the limits do not see that yet, but what is free is less by as much.
    pub(crate) rooms: u64,
}

/// What a pull that wants these blobs has still to write, and what others have. A blob that several
/// want is written once.
pub(crate) fn needs(layout: &Layout, own: &Lease, wanted: &[(Digest, u64)]) -> Result<Needs> {
    let mut reserved: HashMap<Digest, u64> = HashMap::new();
    let mut needs = Needs::default();
    for wants in leases::wants(layout)? {
        let is_own = wants.id == own.id();
        let rooms = if is_own { &mut needs.own } else { &mut needs.rooms };
        *rooms = rooms.saturating_add(room_left(layout, &wants)?);
        for (digest, size) in wants.blobs.into_iter().filter(|_| !is_own) {
            let known = reserved.entry(digest).or_default();
            *known = size.max(*known);
        }
    }
    for (digest, size) in &reserved {
        needs.others = needs.others.saturating_add(missing(layout, digest, *size)?);
    }
    for (digest, size) in wanted.iter().filter(|(digest, _)| !reserved.contains_key(digest)) {
        needs.own = needs.own.saturating_add(missing(layout, digest, *size)?);
    }
    Ok(needs)
}

/// What is left of the room that a lease has for blobs without a digest. Those of which it knows the
/// digest by now, and that are there, take theirs in the store; one that was put twice counts once.
fn room_left(layout: &Layout, wants: &Wants) -> Result<u64> {
    let mut left = wants.room;
    for digest in &wants.pinned {
        if left == 0 {
            break;
        }
        if let Some(blob) = layout.blob_meta(digest)?.filter(|blob| blob.is_file) {
            left = left.saturating_sub(cost(blob.len));
        }
    }
    Ok(left)
}

/// What has still to be written of a blob.
fn missing(layout: &Layout, digest: &Digest, size: u64) -> Result<u64> {
    if layout.has_blob(digest, size)? {
        return Ok(0);
    }
    let part = layout.parts.meta(&PartNames::of(digest).part)?.map_or(0, |part| part.disk);
    Ok(cost(size).saturating_sub(part))
}

/// What a blob takes with what is derived from it, in whole blocks, and its name.
pub(crate) fn cost(size: u64) -> u64 {
    let blocks = |bytes: u64| bytes.div_ceil(BLOCK).saturating_mul(BLOCK);
    blocks(size).saturating_add(blocks(outboard::size_for(size))).saturating_add(BLOCK)
}

/// The most that the store takes, and is going to take by the pulls that were let in, if that was
/// measured a short while ago. To be asked, and changed, under the lock.
pub(crate) fn noted(layout: &Layout) -> Result<Option<u64>> {
    let noted = read_note(layout)?;
    let is_fresh = |since: u64| unix_now().checked_sub(since).is_some_and(|age| age < FRESH);
    Ok(noted.filter(|(_, since)| is_fresh(*since)).map(|(bytes, _)| bytes))
}

/// What is noted, and when the store was measured for it. What makes no sense says nothing.
fn read_note(layout: &Layout) -> Result<Option<(u64, u64)>> {
    let bytes = match read_small(&layout.private, NAME, MAX_NOTE) {
        Err(Error::TooLarge { .. }) => None,
        read => read?,
    };
    Ok(bytes.as_deref().and_then(parse_note))
}

/// A note of so many bytes, since so many seconds of Unix time.
pub(super) fn to_note(bytes: u64, since: u64) -> String {
    line::seal(&format!("usage {bytes} {since}"))
}

pub(super) fn parse_note(note: &[u8]) -> Option<(u64, u64)> {
    let text = line::open(note.strip_suffix(b"\n")?)?;
    let (bytes, since) = text.strip_prefix("usage ")?.split_once(' ')?;
    Some((bytes.parse().ok()?, since.parse().ok()?))
}

/// Notes it, as of now or, if nothing was measured, as of before.
pub(crate) fn note(layout: &Layout, bytes: u64, measured: bool) -> Result<()> {
    let path = layout.private.path_of(NAME);
    let file = layout.private.open_or_create(NAME)?;
    let since = match measured {
        true => unix_now(),
        false => read_note(layout)?.map_or(0, |(_, since)| since),
    };
    // Torn, it is not believed; and it is written under the lock, so nobody reads it in between.
    sys::empty(&file).context("write", &path)?;
    sys::write_at(&file, to_note(bytes, since).as_bytes(), 0, &path)
}
