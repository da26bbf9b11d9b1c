//! Holding a store within limits: the images that were used the longest ago go first.
//!
//! A dropped ref is a removed ref: durable before anything that it led to is, and what it led to is
//! then collected as ever, by a marking that begins anew. So nothing here is needed for the proof that
//! a finished pull keeps its blobs (`docs/protocol.md`).

use std::collections::HashSet;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::Cycle;
use super::stock::{Held, Image, Stock};
use crate::error::{Kept, Result};
use crate::oci::Digest;
use crate::store::{SpaceLimits, collector, refs, space};

/// How often images are chosen anew, where others use or bring some meanwhile.
const ROUNDS: usize = 16;

/// What a collection is to reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Goal {
    pub(crate) limits: SpaceLimits,
    /// What is going to be written beside what is there, in bytes on disk.
    pub(crate) needed: u64,
    /// What is going to be in the store beside that, but may be on disk without a name.
    pub(crate) rooms: u64,
    /// Drop nothing where that is not enough.
    pub(crate) or_nothing: bool,
}

impl Goal {
    /// How many bytes are too many.
    pub(super) fn excess(&self, used: u64, free: u64) -> u64 {
        let SpaceLimits { max_used, min_free, reserved, .. } = self.limits;
        let then = used.saturating_add(self.needed);
        let over = max_used.map_or(0, |max| then.saturating_add(self.rooms).saturating_sub(max));
        // No limit: bytes have to go somewhere.
        let lacking = self.needed.saturating_sub(free);
        let short = min_free.map_or(0, |min| min.saturating_add(self.needed).saturating_sub(free));
        over.max(lacking).max(short.min(then.saturating_sub(reserved.unwrap_or(0))))
    }
}

/// An image that was dropped to make room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DroppedImage {
    /// What the names stood for.
    pub digest: Digest,
    /// Its names, all of which are gone.
    pub names: Vec<String>,
    /// When it was used last.
    #[serde(serialize_with = "seconds")]
    pub last_used: SystemTime,
    /// What went with it, in bytes on disk: what no image has that was there still.
    pub freed: u64,
}

fn seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(since.as_secs())
}

/// How the room that a store takes came out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RoomReport {
    /// What the store takes on disk now, in bytes.
    pub used: u64,
    /// What its file system has free.
    pub free: u64,
    /// How much of that is too much by the limits; nothing, if they hold.
    pub over: u64,
    /// The images that were dropped.
    pub dropped: Vec<DroppedImage>,
    /// If the limits do not hold, what is not dropped.
    pub kept: Option<Kept>,
}

impl Cycle<'_> {
    /// Makes room, after a collection, until the goal is reached or nothing more may go.
    pub(super) fn make_room(&mut self, goal: &Goal) -> Result<()> {
        let mut room = RoomReport::default();
        let outcome = self.make_room_in_rounds(goal, &mut room);
        // What was dropped is told, however it ended.
        self.report.room = Some(room);
        outcome
    }

    fn make_room_in_rounds(&mut self, goal: &Goal, room: &mut RoomReport) -> Result<()> {
        for _ in 0..ROUNDS {
            let (used, free) = self.take_measure()?;
            let excess = goal.excess(used, free);
            (room.used, room.free, room.over) = (used, free, excess);
            if excess == 0 {
                break;
            }
            let mut stock = Stock::take(self, goal.limits.keep)?;
            let parts = self.abandoned_parts()?;
            let in_parts = parts.iter().map(|(_, disk)| *disk).sum::<u64>();
            let plan = stock.plan(excess.saturating_sub(in_parts));
            if goal.or_nothing && in_parts.saturating_add(plan.freed) < excess {
                room.kept = Some(self.kept(&stock));
                break;
            }
            // Parts before refs: all that they cost is to be fetched once more.
            let parts_freed = self.remove_parts(&parts, excess)?;
            let (before, nothing) = (room.dropped.len(), plan.victims.is_empty());
            if parts_freed < excess {
                for n in plan.victims {
                    self.drop_image(&mut stock, n, &mut room.dropped)?;
                }
            }
            if self.options.dry_run {
                let (used, free) = self.take_measure()?;
                (room.used, room.free, room.over) = (used, free, goal.excess(used, free));
                room.kept = (room.over > 0).then(|| self.kept(&stock));
                break;
            }
            if nothing && parts_freed == 0 {
                room.kept = Some(self.kept(&stock));
                break;
            }
            if room.dropped.len() > before {
                self.pass()?;
            }
        }
        Ok(())
    }

    /// What the store takes, and what is free; in a dry run, as if what would go had gone.
    fn take_measure(&self) -> Result<(u64, u64)> {
        let owed = self.owed_to_reserve()?;
        let (used, free) = (space::used(self.layout)?, space::free(self.layout)?);
        let gone = self.would_free.get();
        let used = used.saturating_add(owed).saturating_sub(gone);
        Ok((used, free.saturating_add(gone).saturating_sub(owed)))
    }

    /// What the reserve is going to take yet. On a full disk it is not set aside again before the end: a
    /// ref could not go, for that is written.
    fn owed_to_reserve(&self) -> Result<u64> {
        if self.options.dry_run {
            return Ok(0);
        }
        if collector::is_low_on_space(self.layout) {
            return self.layout.missing_reserve();
        }
        self.layout.fill_reserve();
        Ok(0)
    }

    /// Sets the reserve aside again, as far as there is room for it, and says what the store takes then.
    pub(super) fn refill_reserve(&mut self, goal: &Goal) -> Result<()> {
        let was_whole = self.layout.missing_reserve()? == 0;
        self.layout.fill_reserve();
        if let Some(room) = self.report.room.as_mut().filter(|_| !was_whole) {
            (room.used, room.free) = (space::used(self.layout)?, space::free(self.layout)?);
            room.over = goal.excess(room.used, room.free);
        }
        Ok(())
    }

    /// Drops an image, unless it was used, pinned, leased or given to others since it was chosen.
    fn drop_image(
        &mut self,
        stock: &mut Stock,
        n: usize,
        dropped: &mut Vec<DroppedImage>,
    ) -> Result<()> {
        let Image { digest, last_used, .. } = stock.images[n];
        let names = stock.images[n].names.clone();
        if !self.options.dry_run {
            let layout = self.layout;
            let is_leased = || {
                self.mark_new_pins()?;
                Ok(self.marker.is_leased(&digest))
            };
            if !refs::drop_image(layout, &digest, &names, last_used, is_leased)? {
                tracing::debug!(%digest, "an image was used meanwhile, and stays");
                return Ok(());
            }
        }
        // What it was made of was referred to: the grace time is for what is not yet.
        self.dropped.extend(stock.images[n].blobs.iter().copied());
        let (freed, gone) = stock.unshare(n);
        if self.options.dry_run {
            self.would_free.set(self.would_free.get().saturating_add(freed));
            self.would_go.extend(&gone);
            for size in gone.iter().filter_map(|digest| stock.sizes.get(digest)) {
                self.report.removed += 1;
                self.report.removed_bytes += size.len;
                self.report.live = self.report.live.saturating_sub(1);
                self.report.live_bytes = self.report.live_bytes.saturating_sub(size.len);
            }
        }
        tracing::info!(%digest, ?names, freed, dry_run = self.options.dry_run, "dropped");
        dropped.push(DroppedImage { digest, names, last_used, freed });
        Ok(())
    }

    /// What is not dropped, and why.
    fn kept(&self, stock: &Stock) -> Kept {
        let mut kept = Kept { young: self.young_disk.get(), ..Kept::default() };
        let mut images: Vec<&Image> = stock.images.iter().filter(|it| it.held.is_some()).collect();
        images.sort_by_key(|image| image.held);
        let mut counted = HashSet::new();
        for image in images {
            let new = image.blobs.iter().filter(|digest| counted.insert(**digest));
            let bytes: u64 = new.filter_map(|it| stock.sizes.get(it)).map(|size| size.disk).sum();
            match image.held {
                Some(Held::Pinned) => {
                    kept.pinned_names.extend(image.pinned_names.iter().cloned());
                    kept.pinned += bytes;
                }
                Some(Held::Leased) => kept.leased += bytes,
                Some(Held::Unnamed) => kept.unnamed += bytes,
                Some(Held::Recent) => kept.recent += bytes,
                None => {}
            }
        }
        kept.pinned_names.sort();
        kept
    }
}
