//! `store gc`.

use std::iter;

use layerstore::gc::{self, DroppedImage, Reason, Why};
use layerstore::{BlobStore, Digest, GcOptions, GcReport};

use super::Outcome;
use super::config::warn_of_unknown;
use crate::args::Gc;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::names;
use crate::output::{Output, Report};

pub(super) fn run(store: &BlobStore, args: &Gc, out: &mut Output) -> Outcome {
    let config = store.config()?;
    warn_of_unknown(&config, out);
    let mut limits = config.space;
    limits.max_used = args.max_used_space.or(limits.max_used);
    limits.min_free = args.min_free_space.or(limits.min_free);
    limits.reserved = args.reserved_space.or(limits.reserved);
    limits.keep = args.keep_duration.or(limits.keep);
    let defaults = GcOptions::default();
    let grace = args.grace.unwrap_or(defaults.grace);
    if let Some(asked) = &args.why {
        let digest = match asked.parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => names::find(store, asked)?.descriptor.digest,
        };
        out.report(&gc::why(store, &digest, &GcOptions { grace, limits, ..defaults })?)?;
        return Ok(Exit::Ok);
    }
    let options = GcOptions { dry_run: args.dry_run, grace, limits, ..defaults };
    let (report, outcome) = gc::collect_and_report(store, &options);
    if let Err(error) = outcome {
        tell_what_went(&report, out);
        return Err(error.into());
    }
    out.report(&report)?;
    Ok(match report.room {
        Some(room) if room.over > 0 => {
            let kept = room.kept.unwrap_or_default();
            out.error(format!(
                "the store takes {} bytes more than it may, and nothing more may go: {kept}; {} bytes are \
                 its own, with the reserve, folders and what is being downloaded",
                room.over,
                room.used.saturating_sub(kept.bytes())
            ));
            Exit::OverCap
        }
        _ => Exit::Ok,
    })
}

/// Says which images went so that others, or something new, have room.
pub(super) fn warn_of_dropped(images: &[DroppedImage], out: &mut Output) {
    for image in images {
        let (size, names) = (human::size(image.freed), image.names.join(" "));
        out.warn(format!("{} was dropped to make room, {size}: {names}", image.digest));
    }
}

/// What a collection did before it failed.
fn tell_what_went(report: &GcReport, out: &mut Output) {
    if report.dry_run {
        return;
    }
    if let Some(room) = &report.room {
        warn_of_dropped(&room.dropped, out);
    }
    if report.removed > 0 {
        let (blobs, size) =
            (human::count(report.removed, "blob"), human::size(report.removed_bytes));
        out.warn(format!("{blobs}, {size}, had been removed before the collection failed"));
    }
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
        let room = self.room.iter();
        let dropped = room.clone().flat_map(|room| &room.dropped).map(|image| {
            let (names, freed) = (image.names.join(" "), human::size(image.freed));
            format!("{names}, used {} ago, {freed}", human::age(image.last_used))
        });
        out.items(0, if self.dry_run { "would drop" } else { "dropped" }, dropped)?;
        out.items(0, "in use", room.map(|room| format!("{} on disk", human::size(room.used))))?;
        out.items(0, "kept", iter::once(blobs(self.live, self.live_bytes)).chain(kept))
    }
}

impl Report for Why {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let verdict = match (self.would_be_dropped, self.would_go, self.young) {
            (true, _, _) => "its names would be dropped to make room",
            (false, true, _) if self.reasons.is_empty() => "would go: nothing leads to it",
            (false, true, _) => "would go: what leads to it would be dropped to make room",
            (false, false, true) => "stays for being young",
            (false, false, false) => "stays",
        };
        out.field(0, "digest", self.digest)?;
        out.field(0, "verdict", verdict)?;
        out.items(0, "kept by", self.reasons.iter().map(shown))
    }
}

fn shown(reason: &Reason) -> String {
    let by_way = |path: &[Digest]| match path {
        [] | [_] => String::new(),
        [way @ .., _] => {
            let way: Vec<_> = way.iter().map(human::short).collect();
            format!(", by way of {}", way.join(" > "))
        }
    };
    match reason {
        Reason::Ref { name, pinned, path } => {
            let name = name.as_deref().unwrap_or("<none>");
            let pin = if *pinned { ", pinned" } else { "" };
            format!("the ref {name}{pin}{}", by_way(path))
        }
        Reason::Lease { id, holder, path } => {
            format!("the lease {id} ({holder}){}", by_way(path))
        }
        Reason::Subject { digest } => format!("{digest}, which it is about"),
        _ => "something that this command does not know".to_owned(),
    }
}
