//! `store pin` and `store unpin`.

use layerstore::{BlobStore, Error};
use serde::Serialize;

use super::Outcome;
use crate::exit::Exit;
use crate::names;
use crate::output::Output;

#[derive(Serialize)]
struct Pinned {
    name: String,
    pinned: bool,
    /// Whether it was otherwise before.
    changed: bool,
}

pub(super) fn run(store: &BlobStore, asked: &[String], pinned: bool, out: &mut Output) -> Outcome {
    let refs = store.refs()?;
    let (mut done, mut missing) = (Vec::new(), Vec::new());
    for asked in asked {
        let set = match names::resolve(&refs, asked)? {
            Some(name) => store.set_pinned(&name, pinned).map(|changed| (name, changed)),
            None => Err(Error::RefNotFound { name: asked.clone() }),
        };
        match set {
            Ok((name, changed)) => done.push(Pinned { name, pinned, changed }),
            Err(error @ Error::RefNotFound { .. }) => missing.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    let what = if pinned { "pinned" } else { "unpinned" };
    match out.is_json() {
        true => out.array(done.iter().map(Ok))?,
        false => done.iter().try_for_each(|it| out.line(format!("{what} {}", it.name)))?,
    }
    missing.iter().for_each(|error| out.error(error));
    Ok(match (done.is_empty(), missing.is_empty()) {
        (_, true) => Exit::Ok,
        (true, false) => Exit::NotFound,
        (false, false) => Exit::Partial,
    })
}
