//! `store gc`.

use std::iter;
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
            |number, bytes| format!("{}, {}", human::count(number, "blob"), human::size(bytes));
        // What there is none of is not worth a line.
        let some = |list: &[(u64, &str, &str)]| {
            let some = list.iter().filter(|(number, ..)| *number > 0);
            let lines = some.map(|(number, thing, why)| human::count(*number, thing) + why);
            lines.collect::<Vec<_>>()
        };
        let removed = some(&[
            (self.parts_removed, "unfinished download", ""),
            (self.leases_removed, "ended lease", ""),
            (self.trash_removed, "leftover blob", " of an interrupted collection"),
            (self.temporaries_removed, "temporary file", ""),
        ]);
        let kept = some(&[
            (self.kept_leased, "blob", " by a lease"),
            (self.kept_young, "blob", " too young to remove"),
        ]);
        let title = if self.dry_run { "would remove" } else { "removed" };
        out.items(0, title, iter::once(blobs(self.removed, self.removed_bytes)).chain(removed))?;
        out.items(0, "kept", iter::once(blobs(self.live, self.live_bytes)).chain(kept))
    }
}
