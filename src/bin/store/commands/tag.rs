//! `store tag`.

use layerstore::{Digest, Error, Reference};
use serde::Serialize;

use super::{Outcome, Place};
use crate::exit::{Exit, Failure};
use crate::names;
use crate::output::{Output, Report};

#[derive(Serialize)]
struct Tag {
    name: String,
    digest: Digest,
    source: String,
}

impl Report for Tag {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(format!("{}@{}", self.name, self.digest))
    }
}

pub(super) fn run(place: &Place, source: &str, name: &Reference, out: &mut Output) -> Outcome {
    if let Some(digest) = name.digest() {
        return Err(Failure::Usage(format!(
            "the new name must not demand a digest: leave out @{digest}"
        )));
    }
    let store = place.open()?;
    let name = name.to_string();
    let lease = store.lease("store tag")?;
    if let Ok(digest) = source.parse::<Digest>() {
        store.tag_digest(&lease, &digest, &name)?;
        out.report(&Tag { name, digest, source: source.to_owned() })?;
        return Ok(Exit::Ok);
    }
    let source = names::find(&store, source)?
        .name
        .ok_or_else(|| Error::RefNotFound { name: source.to_owned() })?;
    let digest = store.tag(&lease, &source, &name)?.digest;
    out.report(&Tag { name, digest, source })?;
    Ok(Exit::Ok)
}
