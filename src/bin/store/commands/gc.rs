//! `store gc`.

use std::time::Duration;

use layerstore::gc::collect;
use layerstore::{BlobStore, GcOptions, GcReport};

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Output, Report};

pub(super) fn run(
    store: &BlobStore,
    dry_run: bool,
    grace: Option<Duration>,
    out: &mut Output,
) -> Outcome {
    let defaults = GcOptions::default();
    let grace = grace.unwrap_or(defaults.grace);
    out.report(&collect(store, &GcOptions { dry_run, grace, ..defaults })?)?;
    Ok(Exit::Ok)
}

impl Report for GcReport {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let blobs =
            |count, bytes| format!("{}, {}", human::count(count, "blob"), human::size(bytes));
        let removed = if self.dry_run { "would remove" } else { "removed" };
        out.field(0, removed, blobs(self.removed, self.removed_bytes))?;
        let left = [
            (self.parts_removed, "unfinished download"),
            (self.leases_removed, "ended lease"),
            (self.trash_removed, "blob of an interrupted collection"),
            (self.temporaries_removed, "temporary file"),
        ];
        let left = left.into_iter().filter(|(count, _)| *count > 0);
        for (count, thing) in left {
            out.field(0, "", human::count(count, thing))?;
        }
        out.field(0, "kept", blobs(self.live, self.live_bytes))?;
        let kept = [(self.kept_leased, "by a lease"), (self.kept_young, "too young to remove")];
        for (count, why) in kept.into_iter().filter(|(count, _)| *count > 0) {
            out.field(0, "", format!("{} {why}", human::count(count, "blob")))?;
        }
        Ok(())
    }
}
