//! The commands, a file each: call the library, print the report.

mod blob;
mod check;
mod config;
mod df;
mod digest;
mod gc;
mod images;
mod init;
mod inspect;
mod lease;
mod login;
mod pin;
mod pull;
mod repair;
mod rm;
mod tag;
mod tags;
mod touch;
mod version;

use std::path::PathBuf;

use layerstore::BlobStore;

use crate::args::{Cli, Command, Switch};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::root;

/// How a command ended.
type Outcome = Result<Exit, Failure>;

/// Runs a command.
pub(crate) fn run(cli: Cli, out: &mut Output) -> Outcome {
    let group_hashes = cli.global.group_hashes.map(|it| it == Switch::On);
    let place = Place { root: cli.global.root, shared: cli.global.shared, group_hashes };
    let progress = cli.global.progress;
    match cli.command {
        Command::Pull(pull) => pull::run(&place, pull, progress, out),
        Command::Login(args) => login::login(args, out),
        Command::Logout(args) => login::logout(&args, out),
        Command::Digest(args) => digest::run(&args, out),
        Command::Tags(args) => tags::run(&args, out),
        Command::Images => images::run(&place.open()?, out),
        Command::Inspect { name } => inspect::run(&place.open()?, &name, out),
        Command::Tag { source, name } => tag::run(&place, &source, &name, out),
        Command::Rm { names, force } => rm::run(&place.open()?, &names, force, out),
        Command::Pin { names } => pin::run(&place.open()?, &names, true, out),
        Command::Unpin { names } => pin::run(&place.open()?, &names, false, out),
        Command::Touch { names } => touch::run(&place.open()?, &names, out),
        Command::Blob(command) => blob::run(&place, command, out),
        Command::Lease(command) => lease::run(&place.open()?, command, out),
        Command::Gc(args) => gc::run(&place.open()?, &args, out),
        Command::Df(args) => df::run(&place.open()?, &args, cli.global.verbose > 0, out),
        Command::Check(args) => check::run(&place.open()?, args, progress, out),
        Command::Config(args) => config::run(&place.open()?, &args, out),
        Command::Init => init::run(&place, out),
        Command::Version => version::run(out),
    }
}

/// Where the store is, and how it is opened.
struct Place {
    /// What was said, else the default.
    root: Option<PathBuf>,
    /// Whether others may write to it.
    shared: bool,
    /// What was said; else the store's settings count.
    group_hashes: Option<bool>,
}

impl Place {
    fn root(&self) -> Result<PathBuf, Failure> {
        self.root.clone().map_or_else(root::default, Ok)
    }

    /// The store, which must be there.
    fn open(&self) -> Result<BlobStore, Failure> {
        Ok(self.set(match self.shared {
            false => BlobStore::open(self.root()?)?,
            true => BlobStore::open_shared(self.root()?)?,
        }))
    }

    /// The store, which is made if there is nothing.
    fn open_or_init(&self) -> Result<BlobStore, Failure> {
        Ok(self.set(match self.shared {
            false => BlobStore::init(self.root()?)?,
            true => BlobStore::init_shared(self.root()?)?,
        }))
    }

    fn set(&self, store: BlobStore) -> BlobStore {
        if let Some(on) = self.group_hashes {
            store.set_group_hashes(on);
        }
        store
    }
}
