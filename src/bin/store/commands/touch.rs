//! `store touch`.

use layerstore::{BlobStore, Digest, Error};
use serde::Serialize;

use super::Outcome;
use crate::exit::Exit;
use crate::names;
use crate::output::Output;

#[derive(Serialize)]
struct Touched {
    name: String,
    digest: Digest,
}

pub(super) fn run(store: &BlobStore, asked: &[String], out: &mut Output) -> Outcome {
    let mut touched = Vec::new();
    let mut missing = Vec::new();
    for asked in asked {
        let name = match names::find(store, asked) {
            Err(error @ Error::RefNotFound { .. }) => {
                missing.push(error);
                continue;
            }
            found => found?.name,
        };
        let name = name.ok_or_else(|| Error::RefNotFound { name: asked.clone() })?;
        let digest = store.touch(&name)?.digest;
        touched.push(Touched { name, digest });
    }
    match out.is_json() {
        true => out.array(touched.iter().map(Ok))?,
        false => {
            touched.iter().try_for_each(|it| out.line(format!("{}@{}", it.name, it.digest)))?;
        }
    }
    missing.iter().for_each(|error| out.error(error));
    Ok(match (touched.is_empty(), missing.is_empty()) {
        (_, true) => Exit::Ok,
        (true, false) => Exit::NotFound,
        (false, false) => Exit::Partial,
    })
}
