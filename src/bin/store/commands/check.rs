//! `store check`.

use layerstore::{BlobStore, CheckOptions, CheckReport, Damage};

use super::{Outcome, repair};
use crate::args::{Check, Progress};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Output, Report};
use crate::progress::CheckProgress;

pub(super) fn run(store: &BlobStore, args: Check, progress: Progress, out: &mut Output) -> Outcome {
    let Check { quick, read_data, since, subset, limit_rate, .. } = args;
    let threads = None;
    let options = CheckOptions { quick, read_data, since, subset, limit_rate, threads };
    let mut bar = CheckProgress::new(progress, out.messages());
    let report = store.check(&options, |step| bar.show(&step));
    bar.end();
    let report = report?;
    if args.repair {
        return repair::run(store, &args, report, progress, out);
    }
    out.report(&report)?;
    Ok(if report.is_sound() { Exit::Ok } else { Exit::Partial })
}

impl Report for CheckReport {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        for damage in &self.damage {
            finding("damage", damage, out)?;
        }
        for note in &self.notes {
            finding("note", note, out)?;
        }
        let looked = format!(
            "{} and {} ({})",
            human::count(self.refs, "image name"),
            human::count(self.blobs, "blob"),
            human::size(self.blob_bytes)
        );
        let read = match self.read_blobs {
            0 => String::new(),
            blobs => {
                let bytes = human::size(self.read_bytes);
                format!(", {} read to the end ({bytes})", human::count(blobs, "blob"))
            }
        };
        let verdict = match self.damage.len() as u64 {
            0 => "no damage".to_owned(),
            count => format!("{} damaged", human::count(count, "thing")),
        };
        out.line(format!("{verdict}: looked at {looked}{read}"))?;
        match self.lost_parts {
            0 => Ok(()),
            count => out.line(format!(
                "{} that nobody goes on with ({})",
                human::count(count, "broken download"),
                human::size(self.lost_part_bytes)
            )),
        }
    }
}

pub(super) fn finding(kind: &str, damage: &Damage, out: &mut Output) -> Result<(), Failure> {
    out.line(format!("{kind}: {}: {}", damage.path, damage.message))?;
    for name in &damage.refs {
        out.line(format!("  needed by {name}"))?;
    }
    Ok(())
}
