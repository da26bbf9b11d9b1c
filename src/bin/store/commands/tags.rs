//! `store tags`.

use layerstore::Reference;
use layerstore::fetch::{RegistryPull, RetryBudget, retry};
use serde::Serialize;

use super::{Outcome, pull};
use crate::args::{Connection, Tags};
use crate::credentials;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Report};
use crate::registries;
use crate::runtime;

/// The tags of a repository.
#[derive(Serialize)]
struct List {
    /// The full name of the repository.
    repository: String,
    tags: Vec<String>,
}

pub(super) fn run(args: &Tags, out: &mut Output) -> Outcome {
    let Tags { repository, connection } = args;
    let Connection { plain_http, ca_file, auth_file } = connection;
    let settings = registries::settings(ca_file.as_deref())?;
    let repository = Reference::of_repository(&settings.expand(repository))?;
    let files = credentials::auth_files(auth_file);
    let registry = pull::registry(settings, files, std::slice::from_ref(&repository), *plain_http)?;
    let budget = RetryBudget::default();
    let tags = retry(&budget, |_| registry.tags(&repository), |_| {});
    let tags = runtime::start()?.block_on(tags)?;
    let repository = format!("{}/{}", repository.registry(), repository.repository());
    out.report(&List { repository, tags })?;
    Ok(Exit::Ok)
}

impl Report for List {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        self.tags.iter().try_for_each(|tag| out.line(tag))
    }
}
