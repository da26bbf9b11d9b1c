//! How the command ends: a number for scripts, a sentence for people.

use std::fmt;
use std::io;
use std::process::ExitCode;

use layerstore::{Error, ErrorKind};

/// The exit codes. They are an interface: none changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Ok = 0,
    /// Anything that has no code of its own.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Damage was found, or only part of what was asked for was done.
    Partial = 3,
    /// An image, a blob or a lease does not exist.
    NotFound = 4,
    /// Credentials are missing, or were refused.
    Unauthorized = 5,
    /// The network or the registry failed, after every retry.
    Network = 6,
    /// Bytes did not match their digest or length.
    Mismatch = 7,
    /// The disk, or the user's quota on it, is full.
    NoSpace = 8,
    /// What must not be dropped takes all the room that the store may take.
    OverCap = 9,
    /// There is no store there.
    NoStore = 10,
    /// Somebody else holds a lock.
    Locked = 11,
    /// `SIGINT` ended it.
    Interrupted = 130,
    /// `SIGTERM` ended it.
    Terminated = 143,
}

impl Exit {
    /// The code of an error of the library.
    pub(crate) fn of(error: &Error) -> Exit {
        match error.kind() {
            ErrorKind::InvalidInput => Exit::Usage,
            ErrorKind::Damage => Exit::Partial,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Unauthorized => Exit::Unauthorized,
            ErrorKind::Network => Exit::Network,
            ErrorKind::Mismatch => Exit::Mismatch,
            ErrorKind::NoSpace => Exit::NoSpace,
            ErrorKind::OverCap => Exit::OverCap,
            ErrorKind::NoStore => Exit::NoStore,
            ErrorKind::Locked => Exit::Locked,
            _ => Exit::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library could not do it.
    Store(Error),
    /// The command line asks for what makes no sense.
    Usage(String),
    /// A file that the command was given cannot be read.
    Input { path: String, source: io::Error },
    /// The standard output takes no more, and not because its reader has gone.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Store(error) => Exit::of(error),
            Failure::Usage(_) => Exit::Usage,
            Failure::Input { .. } | Failure::Output(_) => Exit::Other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Store(error) => error.fmt(f),
            Failure::Usage(message) => f.write_str(message),
            Failure::Input { path, source } => write!(f, "cannot read {path}: {source}"),
            Failure::Output(source) => write!(f, "cannot write the result: {source}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_code() {
        let digest = layerstore::oci::Algorithm::Sha256.digest(b"");
        let url = || "http://r/v2/".to_owned();
        let cases = [
            (Error::InvalidPlatform { text: "x".into() }, 2),
            (Error::Damaged { path: "/x".into(), reason: "x".into() }, 3),
            (Error::BlobNotFound { digest }, 4),
            (Error::Registry { url: url(), status: 404, errors: Vec::new(), retry_after: None }, 4),
            (Error::Unauthorized { registry: "r".into(), reason: "x".into() }, 5),
            (Error::BadResponse { url: url(), reason: "x".into() }, 6),
            (Error::Registry { url: url(), status: 503, errors: Vec::new(), retry_after: None }, 6),
            (Error::SizeMismatch { origin: "x".into(), expected: 1, actual: 2, more: false }, 7),
            (Error::DirectoryFull { path: "/x".into() }, 8),
            (Error::NoStore { path: "/x".into(), reason: "x" }, 10),
            (
                Error::Locked {
                    what: "x",
                    path: "/x".into(),
                    holder: "x".into(),
                    waited: std::time::Duration::ZERO,
                },
                11,
            ),
            (Error::Schema1, 1),
        ];
        for (error, code) in cases {
            assert_eq!(Exit::of(&error) as u8, code, "{error}");
        }
    }
}
