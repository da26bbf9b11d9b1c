//! The command line: every command, option and help text.

mod check;
mod config;
mod df;
mod gc;
mod global;
mod login;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use layerstore::oci::{Algorithm, MediaType, Platform};
use layerstore::{Digest, Reference};

pub(crate) use check::Check;
pub(crate) use config::Config;
pub(crate) use df::Df;
pub(crate) use gc::Gc;
pub(crate) use global::{Global, Progress, Switch};
pub(crate) use login::{AuthFile, Identity, Login, Logout};

use crate::values::{self, ByteRange};

const EXAMPLES: &str = "\
Examples:
  store pull alpine:3.20           bring an image from its registry
  store images                     what is there
  store rm alpine:3.20             take its name away
  store gc                         free what no name keeps
  skopeo inspect oci:ROOT:NAME     other tools read the store as it is

Exit codes:
  0 done                               7 bytes do not match their digest
  1 anything else                      8 no space left
  2 the command line is wrong          9 what is kept takes more than it may
  3 damage found, or only part done   10 no store there
  4 not found                         11 locked by another process
  5 credentials missing or refused   130, 143 interrupted, terminated
  6 network or registry failed, after retries

Results go to the standard output, everything else to the standard error.";

/// Keeps container images on this machine: a store of blobs and names that any number of processes
/// share without a daemon.
///
/// The store is a directory, and that directory is an OCI image layout, which other tools read as
/// it is.
#[derive(Debug, Parser)]
#[command(name = "store", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring images from their registries
    ///
    /// What is in the store already is not fetched again, and what another process is fetching is
    /// waited for. A pull that was interrupted goes on where it stopped. When NAME@DIGEST is
    /// printed, the image is on disk for good. Makes the store if there is none.
    #[command(after_help = PULL_HELP)]
    Pull(Pull),

    /// Let a registry know who you are
    ///
    /// The user and the password are shown to the registry first, and kept if it takes them: by the
    /// credential helper that the auth file names for it, else in that file, readable by you alone.
    /// Asks on the terminal for what is not said.
    #[command(after_help = login::LOGIN_HELP)]
    Login(Login),

    /// Forget the credentials for a registry
    ///
    /// In the file, and with the helper, that `store login` would use. The files of other tools are
    /// left as they are. If there was nothing to forget the exit code is 4.
    Logout(Logout),

    /// Show what a name stands for at its registry, without bringing it
    ///
    /// Prints the digest of the image: of its index, where it has one. With --platform, of that
    /// platform's manifest in the index; an image that has no index is the same for every platform.
    #[command(after_help = DIGEST_HELP)]
    Digest(RemoteDigest),

    /// List the tags of a repository at its registry
    ///
    /// One a line, in the registry's order, which need not be of any use.
    #[command(after_help = TAGS_HELP)]
    Tags(Tags),

    /// List the images
    ///
    /// One line an image: its name, the first 12 digits of its digest, the platforms that are there
    /// and the size of what is there of it. An image of which blobs are missing is marked.
    Images,

    /// Show an image: its platforms, their configs and layers
    #[command(after_help = REF_HELP)]
    Inspect {
        /// The image
        #[arg(value_name = "REF")]
        name: String,
    },

    /// Give an image a second name
    ///
    /// A name that is in use is moved to the image. An image that has no name is named by its digest.
    /// Prints the name and the digest.
    #[command(after_help = REF_HELP)]
    Tag {
        /// The image, or its digest
        #[arg(value_name = "SRC")]
        source: String,
        /// The new name; short forms are written out: base:1 becomes docker.io/library/base:1
        #[arg(value_name = "DST")]
        name: Reference,
    },

    /// Take names away
    ///
    /// What the images are made of stays on disk until it is collected. If some of the names do
    /// not exist, or are pinned, the others are removed all the same, and the exit code is 3.
    #[command(after_help = REF_HELP)]
    Rm {
        /// The names
        #[arg(value_name = "REF", required = true)]
        names: Vec<String>,
        /// Pinned names too
        #[arg(long)]
        force: bool,
    },

    /// Keep images from being dropped to make room
    ///
    /// The pin is on the name: when the name comes to stand for another image, it keeps that one. A
    /// pinned name is not removed by `store rm` without --force. To keep an image for a time only, or
    /// under no name, see `store lease add`.
    #[command(after_help = REF_HELP)]
    Pin {
        /// The images
        #[arg(value_name = "REF", required = true)]
        names: Vec<String>,
    },

    /// Take pins away
    #[command(after_help = REF_HELP)]
    Unpin {
        /// The images
        #[arg(value_name = "REF", required = true)]
        names: Vec<String>,
    },

    /// Say that images are in use
    ///
    /// The images that were used the longest ago are the first to go when space is made. A pull, and
    /// whatever asks the store by name for an image in order to use it, says so by itself.
    #[command(after_help = REF_HELP)]
    Touch {
        /// The images
        #[arg(value_name = "REF", required = true)]
        names: Vec<String>,
    },

    /// Work with single blobs
    #[command(subcommand)]
    Blob(BlobCommand),

    /// Keep blobs that no image name keeps
    #[command(subcommand)]
    Lease(LeaseCommand),

    /// Free what neither image names nor leases keep
    ///
    /// Pulls may run meanwhile. If anything that keeps blobs cannot be read, nothing is removed.
    #[command(after_help = gc::GC_HELP)]
    Gc(Gc),

    /// Show what the store takes on disk, by kind and by image
    ///
    /// An image shares what another image has too; the rest is freed when its last name is removed
    /// and a collection has run. With -v, every blob too.
    #[command(after_help = df::DF_HELP)]
    Df(Df),

    /// Look for damage
    ///
    /// Whether everything that makes a store is there, and every blob that the images need, with its
    /// size; and whether the blobs are still what was stored, by the hashes of their 16 KiB groups.
    /// Runs beside pulls and collections. A blob that is damaged is marked, so that the next pull brings it
    /// anew; without --repair nothing else changes but the hashes that are kept of blobs. Damage is listed,
    /// and the exit code is 3 if any is left.
    #[command(after_help = check::CHECK_HELP)]
    Check(Check),

    /// Show or change the store's settings, which hold for all processes
    ///
    /// They are in the file .layerstore/config.toml, which may be changed by hand too: comments stay.
    #[command(after_help = config::CONFIG_HELP)]
    Config(Config),

    /// Make a store, or complete one whose making was interrupted
    ///
    /// An OCI image layout that another tool wrote becomes a store with its images. A store that is
    /// there is left as it is. Prints the store's directory.
    Init,

    /// Print the version
    Version,
}

const REF_HELP: &str = "\
A REF is a name as `store images` prints it, or a short form of it: alpine is
docker.io/library/alpine:latest. NAME@sha256:… is an image of that repository with that digest.";

const PULL_HELP: &str = "\
A REF is [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]: alpine is docker.io/library/alpine:latest. With
several, each is pulled although another fails; the exit code is 3 if only some of them failed.

Examples:
  store pull alpine:3.20
  store pull ghcr.io/o/app@sha256:…               exactly this one
  store pull --platform linux/arm64 alpine:3.20
  store pull --referrers ghcr.io/o/app:1          with its signatures and SBOMs
  store pull --plain-http localhost:5000/app:v1   a registry without TLS";

#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// The images
    #[arg(value_name = "REF", required = true)]
    pub(crate) images: Vec<String>,

    /// The platform, where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,

    /// Every platform, and what accompanies them
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,

    /// When to ask the registry
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) policy: Policy,

    /// What is about the images too: signatures, attestations, SBOMs
    #[arg(long)]
    pub(crate) referrers: bool,

    /// Of these only those of one artifact type
    #[arg(long, value_name = "TYPE", requires = "referrers", value_parser = values::media_type)]
    pub(crate) artifact_type: Option<MediaType>,

    /// Foreign layers too, which come from addresses that the image names and not from its registry
    #[arg(long)]
    pub(crate) include_foreign: bool,

    /// Speak HTTP without TLS with the registries of these images
    #[arg(long)]
    pub(crate) plain_http: bool,

    /// How many connections a pull has for blobs at a time
    #[arg(long, value_name = "N", default_value = "8")]
    pub(crate) max_connections: NonZeroUsize,

    /// How many blobs a pull downloads at a time
    #[arg(long, value_name = "N", default_value = "6")]
    pub(crate) max_concurrent_blobs: NonZeroUsize,

    /// How many bytes of blobs a pull takes in a second, as 500k or 20M
    #[arg(long, value_name = "RATE", value_parser = values::size)]
    pub(crate) limit_rate: Option<u64>,

    /// Trust the certificate authorities in this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) identity: Identity,

    #[command(flatten)]
    pub(crate) auth_file: AuthFile,
}

const DIGEST_HELP: &str = "\
Examples:
  store digest alpine:3.20
  store digest --platform linux/arm64 alpine:3.20";

const TAGS_HELP: &str = "\
A REPO is a REF without a tag: alpine, ghcr.io/o/app, localhost:5000/app.";

#[derive(Args, Debug)]
pub(crate) struct RemoteDigest {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) image: String,

    /// The platform, where there are several [default: the index of all of them]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args, Debug)]
pub(crate) struct Tags {
    /// The repository
    #[arg(value_name = "REPO")]
    pub(crate) repository: String,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// How a registry is spoken to by a command that only asks.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// Speak HTTP without TLS with the registry
    #[arg(long)]
    pub(crate) plain_http: bool,

    /// Trust the certificate authorities in this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) auth_file: AuthFile,
}

/// When the registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Always: the name may stand for another image by now
    #[default]
    Always,
    /// Only if the image is not there whole
    Missing,
    /// Never: it is an error if the image is not there whole
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// List the blobs, in no order
    Ls,

    /// Show a blob: its size, what it is, and which images use it
    Stat {
        /// The blob
        digest: Digest,
    },

    /// Write a blob to the standard output
    ///
    /// Bytes that the disk has changed are not written, and the exit code is 7. A whole blob is
    /// checked against its digest too: if that fails at its end, the exit code is 7, and what was
    /// written is not to be trusted. On a terminal, what would act upon it is shown escaped.
    #[command(after_help = "\
Examples:
  store blob cat sha256:… | tar -tz           the files of a layer
  store blob cat sha256:… --range 0-1023      the first KiB
  store blob cat sha256:… --range -512        the last 512 bytes")]
    Cat {
        /// The blob
        digest: Digest,
        /// Only these bytes: A-B (both included, counted from 0), A- (to the end), -N (the last N)
        #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
        range: Option<ByteRange>,
    },

    /// Store files as blobs, and print their digests
    ///
    /// The blobs are on disk for good when their digests are printed, but no image keeps them: pin
    /// them with `store lease add` if they are to outlive the next collection. Many files in one
    /// call are many times faster than a call for each. Makes the store if there is none.
    #[command(after_help = "\
Examples:
  store blob put layer.tar.gz
  tar -c dir | store blob put - --algorithm blake3")]
    Put {
        /// The files; - is the standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The hash function that names the blobs
        #[arg(long, value_name = "NAME", default_value = "sha256", value_parser = algorithms())]
        algorithm: Algorithm,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// List the leases, those too that have ended and await collection
    Ls,

    /// Keep blobs, and all that they are made of, and print the lease's id
    #[command(after_help = "\
Examples:
  store lease add sha256:…               until `store lease rm`
  store lease add sha256:… --ttl 7d      for a week")]
    Add {
        /// The blobs: of an index or a manifest, everything below it is kept too
        #[arg(value_name = "DIGEST", required = true)]
        digests: Vec<Digest>,
        /// For how long: 90s, 30m, 1h30m, 7d [default: until it is removed]
        #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
        ttl: Option<Duration>,
    },

    /// End a lease
    Rm {
        /// The lease
        id: String,
    },
}

fn algorithms() -> impl TypedValueParser<Value = Algorithm> {
    let names = Algorithm::ALL.map(Algorithm::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Algorithm>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
