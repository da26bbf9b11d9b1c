//! Removes the blobs that no image and no lease needs, beside any number of running pulls.
//!
//! A collection marks what refs and leases lead to, lists what is left, and removes that in small
//! batches, each under the gate and after a last look at the leases. `docs/protocol.md` has the
//! proof that a finished pull keeps its blobs; the order of the steps below is part of it.
//!
//! This module knows the store, and nothing of how blobs come into it.

mod admit;
mod hosts;
mod live;
mod mark;
mod origins;
mod orphans;
mod parts;
mod referrers;
mod room;
mod stock;
mod sweep;
mod threads;
mod why;

use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::store::leases::{self, LeaseReader, Pin};
use crate::store::{BlobStore, Layout, LeaseState, SpaceLimits, collector, refs};
pub(crate) use admit::admit;
pub use admit::make_room_for;
use mark::Marker;
pub(crate) use room::Goal;
pub use room::{DroppedImage, RoomReport};
pub use why::{Reason, Why, why};

/// What a collection may remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Only find out what would be removed.
    pub dry_run: bool,
    /// How old a blob must be to be removed. For the sake of other tools, which write blobs first
    /// and refer to them later, and take no lease meanwhile; pulls of this crate need none.
    /// One hour by default.
    pub grace: Duration,
    /// How long after its last byte a download that nobody continues is given up. One day by
    /// default.
    pub part_ttl: Duration,
    /// How much room the store may take. Where it takes more, images are dropped, the longest unused
    /// first, that are neither pinned nor leased nor used within the time to keep them. No limits by
    /// default: the store's own are in its [`config`](BlobStore::config).
    pub limits: SpaceLimits,
}

impl Default for GcOptions {
    fn default() -> GcOptions {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        GcOptions {
            dry_run: false,
            grace: HOUR,
            part_ttl: 24 * HOUR,
            limits: SpaceLimits::default(),
        }
    }
}

/// What a collection found and did. In a dry run, what it would have done.
///
/// Each blob is counted once: `live`, `kept_leased`, `kept_young` and `removed` add up to what was
/// listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GcReport {
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// How many blobs refs lead to, those included that refer to such a blob.
    pub live: u64,
    /// Their length in bytes.
    pub live_bytes: u64,
    /// How many blobs were removed.
    pub removed: u64,
    /// Their length in bytes.
    pub removed_bytes: u64,
    /// How many blobs were kept only because they are younger than the grace time.
    pub kept_young: u64,
    /// How many blobs were kept only because a lease pins them.
    pub kept_leased: u64,
    /// How many parts of downloads were removed.
    pub parts_removed: u64,
    /// Their length in bytes.
    pub parts_removed_bytes: u64,
    /// How many leases had ended, and were removed.
    pub leases_removed: u64,
    /// How many blobs were still in the trash of a collection that was interrupted.
    pub trash_removed: u64,
    /// How many temporary files were removed whose writer did not come to an end.
    pub temporaries_removed: u64,
    /// What room the store takes, if there are limits to it.
    pub room: Option<RoomReport>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Removes what nobody needs. Blocks for as long as that takes; pulls may run meanwhile.
///
/// Nothing is removed if a root cannot be followed to its end, since what it leads to is unknown.
/// Should a pin that arrives while blobs are removed turn out to be such a root, no more are.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = layerstore::BlobStore::init(dir.path()).unwrap();
/// use layerstore::gc::{self, GcOptions};
///
/// let report = gc::collect(&store, &GcOptions { dry_run: true, ..GcOptions::default() })?;
/// assert_eq!(report.removed, 0);
/// # Ok::<(), layerstore::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Locked`] if another collection runs, which is not waited for;
/// [`Error::NetworkFilesystem`]; [`Error::UnreadableRoot`], which names the ref or the lease;
/// [`Error::Io`].
pub fn collect(store: &BlobStore, options: &GcOptions) -> Result<GcReport> {
    let (report, outcome) = collect_and_report(store, options);
    outcome.map(|()| report)
}

/// As [`collect`], and says what was done also if it failed on its way: what was removed, and which
/// images were dropped.
pub fn collect_and_report(store: &BlobStore, options: &GcOptions) -> (GcReport, Result<()>) {
    let goal = Goal { limits: options.limits, ..Goal::default() };
    match attempt(store, options, &goal) {
        Ok((cycle, outcome)) => (cycle.report, outcome),
        Err(error) => (GcReport::default(), Err(error)),
    }
}

/// Collects, and makes room to reach a goal: what was done for it, and how it ended.
fn collect_for(
    store: &BlobStore,
    options: &GcOptions,
    goal: &Goal,
) -> Result<(RoomReport, Result<()>)> {
    let (cycle, outcome) = attempt(store, options, goal)?;
    Ok((cycle.report.room.unwrap_or_default(), outcome))
}

/// A collection that has ended, with what it knows.
fn cycle<'a>(store: &'a BlobStore, options: &'a GcOptions, goal: &Goal) -> Result<Cycle<'a>> {
    attempt(store, options, goal).and_then(|(cycle, outcome)| outcome.map(|()| cycle))
}

/// The same, also if it failed on its way.
fn attempt<'a>(
    store: &'a BlobStore,
    options: &'a GcOptions,
    goal: &Goal,
) -> Result<(Cycle<'a>, Result<()>)> {
    let started = Instant::now();
    let layout = store.layout();
    let lock = collector::lock(layout)?;
    let mut cycle = Cycle {
        store,
        layout,
        options,
        now: SystemTime::now(),
        marker: Marker::new(store),
        leases: LeaseReader::default(),
        report: GcReport { dry_run: options.dry_run, ..GcReport::default() },
        dropped: HashSet::new(),
        would_go: HashSet::new(),
        measures_room: goal.limits.is_limited(),
        would_free: Cell::new(0),
        young_disk: Cell::new(0),
    };
    let mut outcome = cycle.run();
    if goal.limits.is_limited() {
        outcome = outcome.and_then(|()| cycle.make_room(goal));
    }
    if !options.dry_run {
        let refilled = cycle.refill_reserve(goal);
        outcome = outcome.and(refilled);
    }
    drop(lock);
    cycle.report.seconds = started.elapsed().as_secs_f64();
    tracing::debug!(report = ?cycle.report, "collected");
    Ok((cycle, outcome))
}

/// One collection, under the `gc` lock.
struct Cycle<'a> {
    store: &'a BlobStore,
    layout: &'a Layout,
    options: &'a GcOptions,
    /// When it began: what is written later is young, however short the grace time.
    now: SystemTime,
    marker: Marker<'a>,
    leases: LeaseReader,
    report: GcReport,
    /// What the images are made of that were dropped to make room.
    dropped: HashSet<Digest>,
    /// In a dry run, what of that would go.
    would_go: HashSet<Digest>,
    /// Whether it matters how much room the store takes.
    measures_room: bool,
    /// In a dry run that measures room, what would be free by now, in bytes on disk.
    would_free: Cell<u64>,
    /// What the blobs take that are only kept for being young.
    young_disk: Cell<u64>,
}

impl Cycle<'_> {
    fn run(&mut self) -> Result<()> {
        self.begin()?;
        self.pass()
    }

    /// The collection itself. Once more, it begins anew: what it found before may not be so any more.
    fn pass(&mut self) -> Result<()> {
        (self.marker, self.leases) = (Marker::new(self.store), LeaseReader::default());
        let report = &mut self.report;
        (report.live, report.live_bytes, report.kept_young, report.kept_leased) = (0, 0, 0, 0);
        self.young_disk.set(0);
        // Leases before refs: the owner of one that has ended published its ref before.
        self.reap_leases()?;
        self.mark_refs()?;
        self.mark_new_pins()?;
        referrers::find(self.store, &mut self.marker)?;
        self.sweep()?;
        self.empty_quarantine()?;
        self.remove_orphans()?;
        self.tidy_origins()?;
        self.expire_parts()?;
        self.expire_hosts()
    }

    /// A disk may be so full that a file cannot even be renamed or removed.
    fn begin(&mut self) -> Result<()> {
        if !self.options.dry_run && collector::is_low_on_space(self.layout) {
            self.layout.spend_reserve()?;
        }
        self.empty_trash()
    }

    fn reap_leases(&mut self) -> Result<()> {
        if !self.options.dry_run {
            self.report.leases_removed += leases::reap(self.layout).map_err(unreadable_lease)?;
        }
        Ok(())
    }

    fn mark_refs(&mut self) -> Result<()> {
        let (refs, heading) = refs::read_durable(self.layout).map_err(|source| {
            Error::UnreadableRoot { root: "index.json".to_owned(), source: Box::new(source) }
        })?;
        if !self.options.dry_run {
            refs::renew_copy(self.layout, &heading)?;
        }
        self.marker.mark_refs(&refs)
    }

    /// Marks what was pinned since this was called last.
    fn mark_new_pins(&mut self) -> Result<()> {
        let pins = match self.options.dry_run {
            false => self.leases.new_pins(self.layout),
            true => self.pins_after_reaping(),
        };
        pins.map_err(unreadable_lease)?.into_iter().try_for_each(|pin| self.marker.mark_pin(pin))
    }

    /// What a dry run takes for pinned: it leaves the leases that have ended, and passes them over.
    fn pins_after_reaping(&mut self) -> Result<Vec<Pin>> {
        let mut leases = leases::list(self.layout)?;
        let all = leases.len();
        leases.retain(|lease| lease.state != LeaseState::Ended);
        self.report.leases_removed = (all - leases.len()) as u64;
        let pins = leases.into_iter().flat_map(|lease| {
            let trees = lease.trees.into_iter().map(Pin::Tree);
            lease.blobs.into_iter().map(Pin::Blob).chain(trees)
        });
        Ok(pins.collect())
    }

    /// Whether something is older than `age`. What was changed in the future is young.
    fn is_older(&self, modified: SystemTime, age: Duration) -> bool {
        self.now.duration_since(modified).is_ok_and(|since| since >= age)
    }
}

fn unreadable_lease(source: Error) -> Error {
    let path = match &source {
        Error::Io { path, .. } | Error::Damaged { path, .. } => path.file_name(),
        Error::TooLarge { what, .. } => Path::new(what).file_name(),
        _ => None,
    };
    let root = match path {
        Some(id) => format!("the lease {}", id.to_string_lossy()),
        None => "a lease".to_owned(),
    };
    Error::UnreadableRoot { root, source: Box::new(source) }
}
