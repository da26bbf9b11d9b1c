//! `store check --repair`.

use std::sync::Arc;

use layerstore::fetch::{Mended, Puller, RepairReport, Unmended};
use layerstore::{BlobStore, CheckReport, Reference, RefsRepair};
use serde::Serialize;

use super::Outcome;
use super::check::finding;
use crate::args::{Check, Progress};
use crate::credentials;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Output, Report};
use crate::progress::PullProgress;
use crate::registries;
use crate::runtime::{self, LAST_WRITES, Signals};

/// What was found, and what became of it.
#[derive(Serialize)]
struct Repaired {
    #[serde(flatten)]
    found: CheckReport,
    repair: RepairReport,
}

pub(super) fn run(
    store: &BlobStore,
    args: &Check,
    found: CheckReport,
    progress: Progress,
    out: &mut Output,
) -> Outcome {
    let settings = registries::settings(args.ca_file.as_deref())?;
    let builder = registries::client(settings)?.auth(credentials::auth_files(&args.auth_file));
    let plain = args.plain_http.iter();
    let registry = plain.fold(builder, |builder, host| builder.plain_http(host)).build()?;
    let progress = PullProgress::start(progress, out.messages());
    let puller =
        Puller::new(store.clone(), Arc::new(registry)).observer(progress.observer("repair"));
    let puller = match args.limit_rate {
        Some(rate) => puller.limit_rate(rate.get()),
        None => puller,
    };
    let runtime = runtime::start()?;
    let repaired = runtime.block_on(async {
        let mut signals = Signals::new()?;
        Ok::<_, Failure>(tokio::select! {
            exit = signals.next() => Err(exit),
            repaired = puller.repair(&found) => Ok(repaired),
        })
    });
    progress.settle();
    runtime.shutdown_timeout(LAST_WRITES);
    let repair = match repaired? {
        Ok(repair) => repair?,
        Err(exit) => {
            out.error("interrupted; a repeated repair goes on where this one stopped");
            return Ok(exit);
        }
    };
    let exit = if repair.is_sound() { Exit::Ok } else { Exit::Partial };
    out.report(&Repaired { found, repair })?;
    Ok(exit)
}

impl Report for Repaired {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        self.found.text(out)?;
        let RepairReport { refs, mended, fetched_bytes, failed, damage, .. } = &self.repair;
        refs_text(refs, out)?;
        for it in mended {
            mended_text(it, out)?;
        }
        for it in failed {
            failed_text(it, out)?;
        }
        for it in damage {
            finding("still damaged", it, out)?;
        }
        let left = match self.repair.is_sound() {
            true => "nothing is left",
            false => "damage is left",
        };
        let mended = human::count(mended.len() as u64, "blob");
        out.line(format!("{mended} mended, {} fetched; {left}", human::size(*fetched_bytes)))
    }
}

fn refs_text(refs: &RefsRepair, out: &mut Output) -> Result<(), Failure> {
    let RefsRepair { rebuilt, from_copy, restored, unnamed, missing, .. } = refs;
    match (rebuilt, from_copy) {
        (false, _) => {}
        (true, true) => out.line(format!(
            "index.json: rebuilt from its copy, with {}",
            human::count(restored.len() as u64, "image name")
        ))?,
        (true, false) => {
            out.line("index.json: rebuilt, and the names are lost, for there is no copy")?
        }
    }
    if !unnamed.is_empty() {
        out.line("these images have no name, and can be given one:")?;
    }
    for it in unnamed {
        let name = match it.origins.first() {
            Some(origin) => format!("{origin}:TAG"),
            None => "NAME:TAG".to_owned(),
        };
        let lacks = if it.whole { "" } else { "  # of which blobs are missing" };
        out.line(format!("  store tag {} {name}{lacks}", it.digest))?;
    }
    for it in missing {
        let (name, digest) = (&it.name, &it.digest);
        // Another tool's name may be anything, and is no part of a line to be copied to a shell.
        let again = match name.parse::<Reference>() {
            Ok(parsed) if parsed.to_string() == *name => {
                format!("; to have it again: store tag {digest} {name}")
            }
            _ => String::new(),
        };
        out.line(format!("note: the name {name} of {digest} was there once{again}"))?;
    }
    Ok(())
}

fn mended_text(it: &Mended, out: &mut Output) -> Result<(), Failure> {
    let how = match &it.from {
        Some(from) => {
            format!("{} of {} from {from}", human::size(it.fetched_bytes), human::size(it.size))
        }
        None => "another process brought it".to_owned(),
    };
    out.line(format!("mended: {}: {how}", it.digest))
}

fn failed_text(it: &Unmended, out: &mut Output) -> Result<(), Failure> {
    let quarantined = if it.quarantined { "; it is in quarantine" } else { "" };
    out.line(format!("not mended: {}: {}{quarantined}", it.digest, it.reason))?;
    for name in &it.refs {
        out.line(format!("  needed by {name}"))?;
    }
    Ok(())
}
