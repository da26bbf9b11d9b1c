//! `store lease`.

use std::time::{Duration, SystemTime};

use layerstore::{BlobStore, Digest, LeaseInfo, LeaseState};
use serde::Serialize;

use super::Outcome;
use crate::args::LeaseCommand;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Output, Report};

pub(super) fn run(store: &BlobStore, command: LeaseCommand, out: &mut Output) -> Outcome {
    match command {
        LeaseCommand::Ls => list(&store.leases()?, out)?,
        LeaseCommand::Add { digests, ttl } => {
            let id = store.lasting_lease("store lease add", &digests, ttl)?;
            let until = ttl.map(|ttl| human::unix(SystemTime::now() + ttl));
            out.report(&Added { id, until, trees: digests })?;
        }
        LeaseCommand::Rm { id } => {
            store.remove_lease(&id)?;
            out.report(&Removed { id })?;
        }
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Added {
    id: String,
    until: Option<u64>,
    trees: Vec<Digest>,
}

impl Report for Added {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(&self.id)
    }
}

#[derive(Serialize)]
struct Removed {
    id: String,
}

impl Report for Removed {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(format!("removed {}", self.id))
    }
}

fn list(leases: &[LeaseInfo], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.array(leases.iter().map(Ok));
    }
    let titles = [
        Column::left("ID"),
        Column::left("STATE"),
        Column::left("ENDS"),
        Column::right("BLOBS"),
        Column::left("HOLDER"),
    ];
    let rows: Vec<_> = leases.iter().map(row).collect();
    out.table(titles, &rows)
}

fn row(lease: &LeaseInfo) -> [String; 5] {
    let (state, ends) = match (lease.state, lease.until) {
        (LeaseState::Live, _) => ("live", "with its process".to_owned()),
        (LeaseState::Lasting, None) => ("lasting", "never".to_owned()),
        (LeaseState::Lasting, Some(until)) => {
            let left = until.saturating_sub(human::unix(SystemTime::now()));
            ("lasting", format!("in {}", human::span(Duration::from_secs(left))))
        }
        (LeaseState::Ended, _) => ("ended", "-".to_owned()),
    };
    let pinned = lease.blobs.len() + lease.trees.len();
    [lease.id.clone(), state.to_owned(), ends, pinned.to_string(), lease.holder.clone()]
}
