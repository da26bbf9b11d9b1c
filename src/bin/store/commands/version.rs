//! `store version`.

use serde::Serialize;

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Report};

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

impl Report for Version {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(format!("{} {}", self.name, self.version))
    }
}

pub(super) fn run(out: &mut Output) -> Outcome {
    out.report(&Version { name: "store", version: env!("CARGO_PKG_VERSION") })?;
    Ok(Exit::Ok)
}
