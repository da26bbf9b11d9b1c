use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use super::adopt;
use super::layout::Layout;
use super::lease::Pinned;
use super::part::{PIECE, Part, Storage};
use super::part_names::PartNames;
use super::part_state;
use super::pulse::{Beats, Pulse};
use super::ranges::Ranges;
use super::seed;
use crate::error::{Error, IoContext, Result};
use crate::sys::{self, Aside, Lock, LockMode, Meta};

/// What came of asking for a blob to be downloaded.
#[derive(Debug)]
#[must_use]
pub enum Claim {
    /// It is there.
    Committed,
    /// It is this caller's to download: what of it is [missing](Part::missing).
    Held(Part),
    /// Somebody else downloads it; this shows how far they are.
    Busy(PartWatch),
}

/// The growth of a part that somebody else holds.
#[derive(Clone, Debug)]
pub struct PartWatch {
    layout: Arc<Layout>,
    names: PartNames,
}

impl PartWatch {
    /// How many bytes the part has; `None` where there is none, before its first byte or after its
    /// end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub fn len(&self) -> Result<Option<u64>> {
        let Some(meta) = self.layout.parts.meta(&self.names.part)? else {
            return Ok(None);
        };
        let state = part_state::read(&self.layout.parts, &self.names.state)?;
        Ok(Some(state.ranges.map_or(meta.len, |ranges| ranges.total())))
    }

    /// When the holder last said that it is alive and waits for something; `None` where there is no
    /// part.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub fn beat(&self) -> Result<Option<SystemTime>> {
        Ok(self.layout.parts.meta(&self.names.lock)?.map(|meta| meta.modified))
    }

    /// Who downloads it, as far as can be told.
    pub fn holder(&self) -> String {
        Lock::holder(&self.layout.parts, &self.names.lock)
    }
}

/// Takes the part of a blob unless somebody has it. What it holds already is hashed here; if that is
/// nothing, what is good of a damaged blob in its place is taken over.
pub(crate) fn claim(layout: &Arc<Layout>, pinned: &Pinned) -> Result<Claim> {
    let names = PartNames::of(pinned.digest());
    loop {
        let file = layout.parts.open_or_create(&names.lock)?;
        let path = layout.parts.path_of(&names.lock);
        let Some(lock) = Lock::try_on(file, LockMode::Exclusive, &path)? else {
            return Ok(Claim::Busy(PartWatch { layout: layout.clone(), names }));
        };
        // The holder before may have finished and removed the file that was waited for.
        if !lock.is_current(&layout.parts, &names.lock)? {
            continue;
        }
        if pinned.look()? {
            names.unlink(layout)?;
            return Ok(Claim::Committed);
        }
        // Some manifest gives the digest a smaller size. Whichever is wrong, another download's
        // bytes are not this one's to throw away.
        if layout.parts.meta(&names.part)?.is_some_and(|meta| meta.len > pinned.size()) {
            return Part::private(layout, pinned).map(Claim::Held);
        }
        let file = open_part(layout, &names)?;
        let storage = Storage::Named { file, names: Box::new(names), _lock: lock };
        let mut part = Part::adopt(layout, pinned, storage)?;
        if part.is_empty() {
            seed::seed(layout, &mut part, pinned.digest(), pinned.size())?;
        }
        return Ok(Claim::Held(part));
    }
}

fn open_part(layout: &Arc<Layout>, names: &PartNames) -> Result<File> {
    match layout.parts.meta(&names.part)? {
        // Where a rename cannot refuse to replace, a crash between the link and the unlink that
        // stand for it leaves a second name of a blob: never to be written to. And one that may
        // not be read was made under such a umask, and its maker died before it gave it its mode.
        Some(meta) if meta.links > 1 || meta.mode & 0o400 == 0 => {
            begin_anew(layout, names)?;
        }
        // In a shared store a part is its maker's, who alone may give it the mode of a blob.
        Some(meta) if meta.mode & 0o200 == 0 || meta.owner != sys::current_user() => {
            match renew(layout, names) {
                // The download may well have room: what is there is given up for it.
                Err(Error::NoSpace { .. }) => begin_anew(layout, names)?,
                renewed => renewed?,
            }
        }
        Some(_) => {}
        // The account of one that has gone says nothing about the one that is made now.
        None => {
            layout.parts.unlink(&names.state)?;
        }
    }
    layout.parts.open_or_create(&names.part)
}

fn begin_anew(layout: &Layout, names: &PartNames) -> Result<()> {
    layout.parts.unlink(&names.state)?;
    layout.parts.unlink(&names.part).map(drop)
}

/// Puts the bytes of a part into a new file.
///
/// Where it may not be written to, its mode says that its holder died when it was being synced, or
/// thereafter. If that sync failed, the holder alone was told, and another sync of this file would
/// succeed with bytes that are in memory only. Bytes that are written anew to another file are synced
/// for the first time. They are read and written, not cloned: a clone would share what may not be
/// there.
fn renew(layout: &Arc<Layout>, names: &PartNames) -> Result<()> {
    let (parts, path) = (&layout.parts, layout.parts.path_of(&names.part));
    let Some(old) = parts.open_file(&names.part)? else {
        return Ok(());
    };
    let len = Meta::of(&old).context("look at", &path)?.len;
    let noted = part_state::read(parts, &names.state)?;
    let there = noted.ranges.map_or_else(|| Ranges::prefix(len), |noted| noted.within(len));
    adopt::require_room(layout, there.total(), &path)?;
    let mut beats = Beats::new(Some(Pulse::new(layout, &names.lock)));
    let new = Aside::new(parts)?;
    let mut buffer = vec![0; len.min(PIECE) as usize];
    for &Range { mut start, end } in there.iter() {
        while start < end {
            let piece = &mut buffer[..(end - start).min(PIECE) as usize];
            sys::read_at(&old, piece, start).context("read", &path)?;
            sys::write_at(new.file(), piece, start, &path)?;
            start += piece.len() as u64;
            beats.tick();
        }
    }
    new.set_mode(parts.file_mode())?;
    new.name_over(parts, &names.part).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::store::BlobStore;
    use crate::sys::set_mode;

    /// Who waits for a part sees it grow, or the time of its lock; while it is copied or hashed it does
    /// not grow.
    #[test]
    fn a_holder_that_copies_or_hashes_gives_signs_of_life() {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        let layout = store.layout();
        let bytes = vec![7; 3 * 1024 * 1024];
        let lease = store.lease("test").unwrap();
        let digest = Algorithm::Sha256.digest(&bytes);
        let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
        let names = PartNames::of(&digest);
        let old = SystemTime::UNIX_EPOCH;
        let make = |mode| {
            let path = layout.parts.path_of(&names.part);
            let file = layout.parts.open_or_create(&names.part).unwrap();
            sys::write_at(&file, &bytes, 0, &path).unwrap();
            set_mode(&file, mode, &path).unwrap();
            let lock = layout.parts.open_or_create(&names.lock).unwrap();
            lock.set_modified(old).unwrap();
        };
        let beat = || layout.parts.meta(&names.lock).unwrap().unwrap().modified;

        make(crate::store::present::BLOB_MODE);
        renew(layout, &names).unwrap();
        assert_ne!(beat(), old, "the copy");
        make(0o600);
        let Claim::Held(part) = claim(layout, &pinned).unwrap() else { panic!("not held") };
        assert!(part.missing().is_empty());
        assert_ne!(beat(), old, "the hashing");
    }
}
