//! `store rm`.

use layerstore::{BlobStore, Error, Removal as Removed};
use serde::Serialize;

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::names;
use crate::output::Output;

/// What became of one name.
#[derive(Serialize)]
struct Removal {
    /// As it was asked for.
    asked: String,
    /// As the store had it; none if it did not.
    name: Option<String>,
    removed: bool,
    /// Whether it stays because it is pinned.
    pinned: bool,
}

pub(super) fn run(store: &BlobStore, asked: &[String], force: bool, out: &mut Output) -> Outcome {
    let refs = store.refs()?;
    let mut removals = Vec::new();
    for asked in asked {
        let name = names::resolve(&refs, asked)?;
        removals.push(Removal { asked: asked.clone(), name, removed: false, pinned: false });
    }
    let names: Vec<String> = removals.iter().filter_map(|one| one.name.clone()).collect();
    // Another process may have removed some of them since: what counts is what this call did.
    let done = match force {
        false => store.remove_unpinned_refs(&names)?,
        true => (store.remove_refs(&names)?.into_iter())
            .map(|done| if done { Removed::Removed } else { Removed::NotFound })
            .collect(),
    };
    let known = removals.iter_mut().filter(|one| one.name.is_some());
    known.zip(done).for_each(|(one, done)| {
        (one.removed, one.pinned) = (done == Removed::Removed, done == Removed::Pinned);
    });
    print(&removals, out)?;
    Ok(match removals.iter().filter(|one| one.removed).count() {
        0 if removals.iter().any(|one| one.pinned) => Exit::Other,
        0 => Exit::NotFound,
        some if some < removals.len() => Exit::Partial,
        _ => Exit::Ok,
    })
}

fn print(removals: &[Removal], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        out.array(removals.iter().map(Ok))?;
    }
    for one in removals {
        match &one.name {
            Some(name) if one.removed => {
                if !out.is_json() {
                    out.line(format!("removed {name}"))?;
                }
            }
            Some(name) if one.pinned => out.error(Error::RefPinned { name: name.clone() }),
            _ => out.error(Error::RefNotFound { name: one.asked.clone() }),
        }
    }
    Ok(())
}
