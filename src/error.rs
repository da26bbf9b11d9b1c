//! The one error type of the crate.

mod context;
mod kind;
mod registry;
mod room;
mod show;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use context::IoContext;
#[cfg(feature = "fetch")]
pub(crate) use context::json_fault;
pub use kind::ErrorKind;
pub use registry::RegistryMessage;
pub use room::{Cap, Kept, Room};
use show::{Chain, Each, Line, Messages, Space, Subject};

use crate::oci::Digest;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a source of an error may be, where the crate that raised it is nobody's business.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why something could not be done.
///
/// Each message says what was tried, on what, and why it failed; where there is something to do
/// about it, it says that too. [`Error::kind`] sorts errors by what a caller would do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as it reads after "cannot".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The file system, or the user's quota on it, is full. Parts are kept.
    #[error(
        "cannot {action} {}: no space left{}; `store gc` frees what no image uses, and a repeated \
         pull continues where this one stopped",
        path.display(), Space { needed: *needed, available: *available }
    )]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How many bytes were wanted, where known.
        needed: Option<u64>,
        /// How many bytes the file system had left for this user, where known.
        available: Option<u64>,
    },

    /// What an image lacks has no room in the store. Nothing of it was begun.
    #[error("{0}")]
    NoRoom(Box<Room>),

    /// A directory takes no further name although the file system has space.
    #[error(
        "{} takes no further name although there is space: ext4 without the `large_dir` feature \
         stops at about 5.4 million names; set it with `tune2fs -O large_dir`", path.display()
    )]
    DirectoryFull {
        /// The directory.
        path: PathBuf,
    },

    /// A sync failed: what was written may or may not be on disk, and no second sync can tell.
    #[error(
        "cannot make {} durable: {source}; what was written to it was given up, since the kernel \
         forgets the error after reporting it once", path.display()
    )]
    NotDurable {
        /// The file or directory.
        path: PathBuf,
        /// What the sync reported.
        source: io::Error,
    },

    /// There is no store at this path.
    #[error("there is no store at {}: {reason}; `store init` makes one", path.display())]
    NoStore {
        /// The root that was opened.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },

    /// The store was written by a newer version of this crate, or by something else.
    #[error("{} is version {found:?}, and this program knows {supported}; use a newer one", path.display())]
    UnsupportedVersion {
        /// The file that names the version.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What is understood.
        supported: &'static str,
    },

    /// Somebody else owns the store, or may write to it.
    #[error("the store at {} is not safe to use: {reason}", path.display())]
    Unsafe {
        /// The root, or what is wrong below it.
        path: PathBuf,
        /// Who may do what.
        reason: String,
    },

    /// The store lies on a file system whose locks cannot be trusted between machines.
    #[error(
        "the store at {} lies on {filesystem}, where locks do not hold between machines: nothing \
         is collected there; move the store to a local disk", path.display()
    )]
    NetworkFilesystem {
        /// The root.
        path: PathBuf,
        /// The kind of file system.
        filesystem: &'static str,
    },

    /// A file that the store itself writes does not make sense.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A lock was held by others for too long.
    #[error("waited {} s for {} {}, held by {holder}", waited.as_secs(), what, path.display())]
    Locked {
        /// Which lock, in words.
        what: &'static str,
        /// Its file.
        path: PathBuf,
        /// Who holds it, as far as can be told.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },

    /// A text is no digest.
    #[error("{text:?} is not a digest: {reason}")]
    InvalidDigest {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A text is no image name.
    #[error("{text:?} is not an image name: {reason}")]
    InvalidReference {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A text is no platform.
    #[error("{text:?} is not a platform: it must be OS/ARCH or OS/ARCH/VARIANT, as linux/arm/v7")]
    InvalidPlatform {
        /// The text.
        text: String,
    },

    /// A manifest or an index is not what it should be.
    #[error("{} is not a usable manifest: {reason}", Subject(digest))]
    InvalidDocument {
        /// Which one, where known.
        digest: Option<Digest>,
        /// What is wrong with it.
        reason: String,
    },

    /// A manifest is of a type that this crate does not know.
    #[error("the media type {media_type:?} is neither an image index nor an image manifest")]
    UnsupportedMediaType {
        /// The type.
        media_type: String,
    },

    /// A manifest is of Docker's schema 1.
    #[error(
        "the image has a Docker schema 1 manifest, a format without digests of its layers that \
         registries gave up in 2019; push it again with a current tool, or convert it with `skopeo copy`"
    )]
    Schema1,

    /// An index has no image for the platform that is wanted.
    #[error("{reference} has no image for {wanted}; it has: {available}")]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform.
        wanted: String,
        /// What there is, separated by commas.
        available: String,
    },

    /// No ref has this name.
    #[error("there is no image {name:?} in the store")]
    RefNotFound {
        /// The name.
        name: String,
    },

    /// A ref is pinned.
    #[error(
        "{name} is pinned, and stays; `store unpin` takes the pin away, `store rm --force` removes it all the same"
    )]
    RefPinned {
        /// The name.
        name: String,
    },

    /// No blob has this digest.
    #[error("there is no blob {digest} in the store")]
    BlobNotFound {
        /// The digest.
        digest: Digest,
    },

    /// No lease has this id.
    #[error("there is no lease {id:?}")]
    LeaseNotFound {
        /// The id.
        id: String,
    },

    /// Bytes are not those of their digest.
    #[error("{origin} does not match its digest: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Where the bytes came from.
        origin: String,
        /// The digest that was demanded.
        expected: Digest,
        /// The digest that the bytes have.
        actual: Box<Digest>,
    },

    /// A stored blob is no longer what was stored: the disk, or something that wrote to it, has
    /// changed it. Its digest was asked before this was said.
    #[error(
        "the stored blob {digest} is damaged at byte {offset}, or in the 4 KiB from there on; \
         a pull of an image that has it brings it anew"
    )]
    CorruptBlob {
        /// The blob.
        digest: Digest,
        /// Where the first page of 4 KiB that is wrong begins, among those that were asked for.
        offset: u64,
    },

    /// A blob is not as long as its descriptor says.
    #[error("{origin} has the wrong length: its descriptor says {expected} bytes, got {actual}{}", if *more { " or more" } else { "" })]
    SizeMismatch {
        /// Where the bytes came from.
        origin: String,
        /// The length that the descriptor declares.
        expected: u64,
        /// How many bytes there were.
        actual: u64,
        /// Whether reading stopped there.
        more: bool,
    },

    /// Blobs of a batch could not be put in place, which was told then.
    #[error("some blobs of the batch could not be put in place; put all of them again")]
    BrokenBatch,

    /// Something is larger than may be.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The thing.
        what: String,
        /// The limit.
        limit: u64,
    },

    /// A blob that was there has gone while it was needed, or was found to be damaged, or was never
    /// fetched.
    #[error(
        "{name} was not saved: its blob {digest} has gone since it was seen, or was found to be damaged, as \
         by a check; pull it again"
    )]
    Incomplete {
        /// The ref that was to be written.
        name: String,
        /// The blob that is missing.
        digest: Digest,
    },

    /// The collector could not read what keeps blobs alive, and so deleted nothing.
    #[error("nothing was collected, since {root} cannot be followed: {source}")]
    UnreadableRoot {
        /// The ref, pin or lease.
        root: String,
        /// Why.
        source: Box<Error>,
    },

    /// A server could not be reached, or broke off, after every retry.
    #[error("cannot {action} {url}: {}", Chain(source.as_ref()))]
    Network {
        /// What was tried.
        action: &'static str,
        /// The address, without credentials.
        url: String,
        /// Why not.
        source: Source,
    },

    /// A registry answered with an error.
    #[error("{url} answered {status}{}", Messages(errors))]
    Registry {
        /// The address, without credentials.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said (distribution specification, "Error Codes").
        errors: Vec<RegistryMessage>,
        /// How long it wants to be left alone, where it said so.
        retry_after: Option<Duration>,
    },

    /// A server did something that its protocol does not allow.
    #[error("{url} gave an unusable answer: {reason}")]
    BadResponse {
        /// The address, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A server cannot send the part of a blob that was asked for; it may well send the whole.
    #[error("{url} did not send the range {range}: {reason}")]
    UnusableRange {
        /// The address, without credentials.
        url: String,
        /// What was asked for, as in a `Range` header.
        range: String,
        /// What is wrong with the answer.
        reason: String,
    },

    /// A server has another version of a blob than it had when it sent the bytes before.
    #[error("{url} has another version of the blob than before: its ETag has changed")]
    BlobChanged {
        /// The address, without credentials.
        url: String,
    },

    /// A file or a program that keeps credentials cannot be used. What it says is not in here.
    #[error("cannot use the credentials of {of}: {reason}")]
    Credentials {
        /// The file, or the program of the helper.
        of: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Every server that has the image failed: its mirrors, and where it comes from.
    #[error("no server could be used: {}", Each(errors))]
    Endpoints {
        /// Why each failed, in the order they were asked: the last is where the image comes from.
        errors: Vec<Error>,
    },

    /// A name or an address leads to where no registry is: link-local, or a cloud's metadata.
    #[error("will not connect to {url}: {address} {reason}")]
    RefusedAddress {
        /// The address that was asked for, without credentials.
        url: String,
        /// What it leads to.
        address: std::net::IpAddr,
        /// Why not there.
        reason: &'static str,
    },

    /// The settings forbid to pull from a registry.
    #[error("{name} is blocked by {}", path.display())]
    Blocked {
        /// The image.
        name: String,
        /// The file that says so.
        path: PathBuf,
    },

    /// The address of a proxy makes no sense. It is not repeated, since it may have a password in it.
    #[error("the address of the proxy cannot be used: it is {reason}")]
    InvalidProxy {
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A settings file cannot be used.
    #[error("cannot use {}{}: {reason}", path.display(), Line(*line))]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The line in it, counted from 1, where it can be told.
        line: Option<usize>,
        /// What is wrong with it.
        reason: String,
    },

    /// A setting of the store cannot have this value, or there is none of this name.
    #[error("{key}: {reason}")]
    InvalidSetting {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },

    /// Credentials are missing, or were refused.
    #[error("{registry} did not let us in: {reason}")]
    Unauthorized {
        /// The registry's host.
        registry: String,
        /// Why, and what to do.
        reason: String,
    },
}
