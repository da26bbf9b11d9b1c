use std::fmt;
use std::io;
use std::path::Path;

use super::{Error, Result};
use crate::oci::Digest;

/// Gives an [`io::Error`] the path and the action that it lacks.
pub(crate) trait IoContext<T> {
    /// `action` reads after "cannot": "open", "write to".
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| {
            // One of ours, on its way through a trait of the standard library.
            let source = match error.into().downcast::<Error>() {
                Ok(own) => return own,
                Err(source) => source,
            };
            let path = path.as_ref().to_path_buf();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Error::NoSpace { action, path, needed: None, available: None }
                }
                _ => Error::Io { action, path, source },
            }
        })
    }
}

impl Error {
    pub(crate) fn document(reason: impl fmt::Display) -> Error {
        Error::InvalidDocument { digest: None, reason: reason.to_string() }
    }

    /// Names the document that this error is about, where that was not known when it arose.
    pub(crate) fn of_document(self, of: &Digest) -> Error {
        match self {
            Error::InvalidDocument { digest: None, reason } => {
                Error::InvalidDocument { digest: Some(*of), reason }
            }
            other => other,
        }
    }
}
