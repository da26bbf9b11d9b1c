//! `store pull`.

use std::sync::Arc;

use layerstore::fetch::{
    AuthFiles, HttpRegistry, PullPolicy, Pulled, Puller, Referrers, RegistrySettings,
};
use layerstore::oci::PlatformChoice;
use layerstore::{BlobStore, Reference};
use serde::Serialize;

use super::{Outcome, Place};
use crate::args::{Policy, Progress, Pull};
use crate::credentials;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Report};
use crate::progress::PullProgress;
use crate::registries;
use crate::runtime::{self, LAST_WRITES, Signals};

pub(super) fn run(place: &Place, args: Pull, progress: Progress, out: &mut Output) -> Outcome {
    let settings = registries::settings(args.ca_file.as_deref())?;
    let images: Vec<Reference> =
        args.images.iter().map(|name| settings.expand(name).parse()).collect::<Result<_, _>>()?;
    let files = credentials::of_pull(&args.auth_file, &args.identity, &images)?;
    let store = match args.policy {
        Policy::Never => place.open()?,
        Policy::Always | Policy::Missing => place.open_or_init()?,
    };
    warn_of_network(&store, out)?;
    let progress = PullProgress::start(progress, out.messages());
    let puller = Puller::new(store, Arc::new(registry(settings, files, &images, args.plain_http)?))
        .platform(platform(&args))
        .policy(policy(args.policy))
        .referrers(referrers(&args))
        .include_foreign(args.include_foreign)
        .connections(args.max_connections.get())
        .concurrency(args.max_concurrent_blobs.get());
    let puller = match args.limit_rate {
        Some(rate) => puller.limit_rate(rate),
        None => puller,
    };
    let runtime = runtime::start()?;
    let outcome = runtime.block_on(pull_all(&puller, &images, &progress, out));
    runtime.shutdown_timeout(LAST_WRITES);
    outcome
}

fn warn_of_network(store: &BlobStore, out: &mut Output) -> Result<(), Failure> {
    if let Some(filesystem) = store.network_filesystem()? {
        out.warn(format!(
            "the store at {} lies on {filesystem}, where locks do not hold between machines: pull \
             to it from one machine only",
            store.root().display()
        ));
    }
    Ok(())
}

/// The client for the registries of these images.
pub(super) fn registry(
    settings: RegistrySettings,
    files: AuthFiles,
    images: &[Reference],
    plain_http: bool,
) -> Result<HttpRegistry, Failure> {
    let plain = images.iter().filter(|_| plain_http).map(Reference::registry);
    let builder = plain
        .fold(registries::client(settings)?.auth(files), |builder, host| builder.plain_http(host));
    Ok(builder.build()?)
}

fn platform(args: &Pull) -> PlatformChoice {
    match (&args.platform, args.all_platforms) {
        (Some(platform), _) => PlatformChoice::One(platform.clone()),
        (None, true) => PlatformChoice::All,
        (None, false) => PlatformChoice::Host,
    }
}

fn policy(policy: Policy) -> PullPolicy {
    match policy {
        Policy::Always => PullPolicy::Always,
        Policy::Missing => PullPolicy::Missing,
        Policy::Never => PullPolicy::Never,
    }
}

fn referrers(args: &Pull) -> Referrers {
    match (args.referrers, &args.artifact_type) {
        (false, _) => Referrers::None,
        (true, None) => Referrers::All,
        (true, Some(wanted)) => Referrers::OfType(wanted.clone()),
    }
}

/// One after the other: a pull by itself uses the network and the disk as they can be used.
async fn pull_all(
    puller: &Puller,
    images: &[Reference],
    progress: &PullProgress,
    out: &mut Output,
) -> Outcome {
    let mut signals = Signals::new()?;
    let mut failed = Vec::new();
    for image in images {
        let puller = puller.clone().observer(progress.observer(image));
        let pulled = tokio::select! {
            exit = signals.next() => {
                progress.settle();
                out.error("interrupted; a repeated pull goes on where this one stopped");
                return Ok(exit);
            }
            pulled = puller.pull(image) => pulled,
        };
        progress.settle();
        match pulled {
            Ok(pulled) => out.report(&pulled)?,
            Err(error) => {
                let exit = Exit::of(&error);
                out.error(&error);
                let (name, error) = (image.to_string(), error.to_string());
                out.report(&Failed { name, error, exit_code: exit as u8 })?;
                failed.push(exit);
            }
        }
        out.flush()?;
    }
    Ok(match failed.first() {
        None => Exit::Ok,
        Some(_) if failed.len() < images.len() => Exit::Partial,
        Some(first) => *first,
    })
}

impl Report for Pulled {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let digest = self.digest.to_string();
        match self.name.ends_with(&digest) {
            true => out.line(&self.name),
            false => out.line(format!("{}@{digest}", self.name)),
        }
    }
}

/// What stands in the place of the report of an image that could not be pulled.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed {
    #[serde(rename = "ref")]
    name: String,
    error: String,
    exit_code: u8,
}

impl Report for Failed {
    /// Nothing: the error went to the standard error.
    fn text(&self, _: &mut Output) -> Result<(), Failure> {
        Ok(())
    }
}
