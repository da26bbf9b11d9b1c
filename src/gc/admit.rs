//! Finding room for a pull or a put before its first byte.

use std::time::{Duration, Instant};

use super::{DroppedImage, GcOptions, Goal, RoomReport, collect_for};
use crate::error::{Cap, Error, Kept, Result, Room};
use crate::oci::Digest;
use crate::store::space::{self, Needs};
use crate::store::{BlobStore, Lease, SpaceLimits, config};
use crate::sys::SAY_AFTER;

/// How long the end of another collection is waited for, where one is needed here.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often room that a collection has found is looked for before others have taken it.
const LOOKS: usize = 3;

/// Lets a pull begin that lacks these blobs, which its lease pins: there is room for them beside what
/// others have still to write, and it is its own until the lease ends. In a store with limits
/// room is made where there is none. The images that were dropped for it, also if that was in vain.
///
/// Without limits, this costs a look at the file system and at the leases of others.
pub(crate) fn admit(
    store: &BlobStore,
    lease: &Lease,
    wanted: &[(Digest, u64)],
) -> (Vec<DroppedImage>, Result<()>) {
    let mut dropped = Vec::new();
    let outcome = ask(store, lease, wanted, 0, &mut dropped);
    (dropped, outcome)
}

/// Makes room for blobs of these sizes that the lease's owner is going to put into the store, and whose
/// digests it does not know yet: as for a pull, images are dropped where the store's limits ask for it.
/// The images that were, also if that was in vain. The room is the lease's until it ends, less what the
/// lease has pinned since and is there.
///
/// # Errors
///
/// [`Error::NoRoom`], before anything was dropped, if the limits or the disk do not have it;
/// [`Error::Configuration`], [`Error::Locked`], and as of [`collect`](super::collect).
pub fn make_room_for(
    store: &BlobStore,
    lease: &Lease,
    sizes: &[u64],
) -> (Vec<DroppedImage>, Result<()>) {
    let nameless = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(space::cost(*size)));
    let mut dropped = Vec::new();
    let outcome = ask(store, lease, &[], nameless, &mut dropped);
    (dropped, outcome)
}

fn ask(
    store: &BlobStore,
    lease: &Lease,
    wanted: &[(Digest, u64)],
    nameless: u64,
    dropped: &mut Vec<DroppedImage>,
) -> Result<()> {
    let layout = store.layout();
    let limits = config::read(layout)?.space;
    // One after the other, or two would take the same room, or refuse it to each other.
    let lock = space::lock(layout)?;
    let needs = Needs::default();
    let mut asked = Asked { store, lease, wanted, nameless, limits, needs, used: None };
    asked.look()?;
    if !asked.fits()? {
        asked.make_room(dropped)?;
    }
    if !wanted.is_empty() {
        lease.want(wanted)?;
    }
    if nameless > 0 {
        lease.want_room(nameless)?;
    }
    asked.note()?;
    drop(lock);
    Ok(())
}

/// What is asked for, under the lock of room.
struct Asked<'a> {
    store: &'a BlobStore,
    lease: &'a Lease,
    wanted: &'a [(Digest, u64)],
    /// What is needed beside that, on disk.
    nameless: u64,
    limits: SpaceLimits,
    needs: Needs,
    /// The most that the store takes, with what others have still to write, and whether it was
    /// measured now. Known where it is limited.
    used: Option<(u64, bool)>,
}

impl Asked<'_> {
    /// Looks what has still to be written.
    fn look(&mut self) -> Result<()> {
        self.needs = space::needs(self.store.layout(), self.lease, self.wanted)?;
        self.needs.own = self.needs.own.saturating_add(self.nameless);
        Ok(())
    }

    /// Whether there is room for it. What is noted of the store's size is too large, if anything: only
    /// where that is too much the store is measured.
    fn fits(&mut self) -> Result<bool> {
        let layout = self.store.layout();
        if self.limits.max_used.is_some() {
            let noted = space::noted(layout)?.map(|bytes| (bytes, false));
            self.used = noted.filter(|(bytes, _)| self.is_within(*bytes));
            if self.used.is_none() {
                self.measure()?;
            }
        }
        let used = self.used.map_or(0, |(bytes, _)| bytes);
        Ok(self.is_within(used) && self.is_free()?)
    }

    fn measure(&mut self) -> Result<u64> {
        // What others lack first: what they write meanwhile is counted twice rather than not at all.
        let used = space::used(self.store.layout())?;
        self.used = Some((used.saturating_add(self.reserved()), true));
        Ok(used)
    }

    fn is_within(&self, used: u64) -> bool {
        let max = self.limits.max_used.unwrap_or(u64::MAX);
        used.saturating_add(self.needs.own) <= max
    }

    /// Whether the disk has it, and what is to stay free beside it, unless that is reserved.
    fn is_free(&self) -> Result<bool> {
        let (layout, all) = (self.store.layout(), self.all());
        let left = space::free(layout)?.checked_sub(all);
        match (left, self.limits.reserved) {
            (None, _) => Ok(false),
            (Some(left), _) if left >= self.limits.min_free.unwrap_or(0) => Ok(true),
            (Some(_), None) => Ok(false),
            // What is noted would be too large.
            (Some(_), Some(reserved)) => Ok(space::used(layout)?.saturating_add(all) <= reserved),
        }
    }

    /// What is going to be written to the disk beside what is there. Of a room nobody can tell how much
    /// of it is there.
    fn all(&self) -> u64 {
        self.needs.own.saturating_add(self.needs.others)
    }

    /// What others are going to add to the store.
    fn reserved(&self) -> u64 {
        self.needs.others.saturating_add(self.needs.rooms)
    }

    fn make_room(&mut self, dropped: &mut Vec<DroppedImage>) -> Result<()> {
        if !self.limits.is_limited() {
            return Err(self.no_room(None)?);
        }
        let (needed, rooms) = (self.all(), self.needs.rooms);
        let goal = Goal { limits: self.limits, needed, rooms, or_nothing: true };
        let room = collect_in_turn(self.store, &goal, dropped)?;
        // What others write between two looks is counted twice. Where room was found, look again.
        let looks = if room.over > 0 { 1 } else { LOOKS };
        let mut fits = false;
        for _ in 0..looks {
            self.look()?;
            fits = self.fits()?;
            if fits {
                break;
            }
        }
        if !fits {
            return Err(self.no_room(Some((room.used, room.kept.unwrap_or_default())))?);
        }
        self.measure().map(drop)
    }

    fn no_room(&self, kept: Option<(u64, Kept)>) -> Result<Error> {
        let layout = self.store.layout();
        let free = space::free(layout)?;
        let path = layout.root.path().to_path_buf();
        let reserved = match self.limits.max_used {
            Some(_) => self.reserved(),
            None => self.needs.others,
        };
        let mut room = Room::new(path, self.needs.own, free, reserved);
        let SpaceLimits { max_used, min_free, .. } = self.limits;
        room.cap = kept.map(|(used, kept)| Cap::new(max_used, min_free, used, kept));
        Ok(Error::NoRoom(Box::new(room)))
    }

    /// Notes what the store is going to take at most, for those who come next.
    fn note(&self) -> Result<()> {
        match self.used {
            Some((bytes, measured)) => {
                let bytes = bytes.saturating_add(self.needs.own);
                space::note(self.store.layout(), bytes, measured)
            }
            None => Ok(()),
        }
    }
}

/// Collects for a goal, as soon as no other collection is in the way.
fn collect_in_turn(
    store: &BlobStore,
    goal: &Goal,
    dropped: &mut Vec<DroppedImage>,
) -> Result<RoomReport> {
    let begun = Instant::now();
    let mut said = false;
    loop {
        let collected = collect_for(store, &GcOptions::default(), goal);
        let collected = collected.and_then(|(mut room, outcome)| {
            dropped.append(&mut room.dropped);
            outcome.map(|()| room)
        });
        let (what, path, holder) = match collected {
            // Whatever else was waited for was so for long enough.
            Err(Error::Locked { what, path, holder, .. }) if path.ends_with("gc") => {
                (what, path, holder)
            }
            collected => return collected,
        };
        let waited = begun.elapsed();
        if waited >= PATIENCE {
            return Err(Error::Locked { what, path, holder, waited });
        }
        if !said && waited >= SAY_AFTER {
            tracing::warn!(path = %path.display(), holder, "waiting for {what}");
            said = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
