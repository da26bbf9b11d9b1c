//! `store init`.

use serde::Serialize;

use super::{Outcome, Place};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Report};

#[derive(Serialize)]
struct Init {
    root: String,
}

impl Report for Init {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(&self.root)
    }
}

pub(super) fn run(place: &Place, out: &mut Output) -> Outcome {
    let store = place.open_or_init()?;
    if let Some(filesystem) = store.network_filesystem()? {
        out.warn(format!(
            "the store lies on {filesystem}, where locks do not hold between machines: use it from \
             one machine only; `store gc` does not run there"
        ));
    }
    out.report(&Init { root: store.root().display().to_string() })?;
    Ok(Exit::Ok)
}
