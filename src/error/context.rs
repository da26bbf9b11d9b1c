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

    /// Of a document that is no JSON, or not that which it should be.
    pub(crate) fn json(error: serde_json::Error) -> Error {
        Error::document(json_fault(&error))
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

/// What is wrong with JSON that somebody else wrote, and where: without any of its text, which may be
/// megabytes, or what we sent there to prove who we are.
pub(crate) fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The rest of them quotes a value.
    let names_a_field = ["missing field `", "duplicate field `"];
    if !error.is_data() || names_a_field.iter().any(|start| text.starts_with(start)) {
        return text;
    }
    let what = match text.to_ascii_lowercase().contains("digest") {
        true => "what should be a digest is none",
        false => "it has something else than it should",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_json_is_told_without_its_text() {
        #[derive(Debug, serde::Deserialize)]
        struct Page {
            #[allow(dead_code, reason = "only its absence is told")]
            tags: Vec<String>,
        }
        let fault = |text| json_fault(&serde_json::from_str::<Page>(text).unwrap_err());
        assert_eq!(fault("{}"), "missing field `tags` at line 1 column 2");
        assert_eq!(fault("{"), "EOF while parsing an object at line 1 column 1");
        for text in [r#""hunter2""#, r#"{"tags":"hunter2"}"#, r#"{"tags":{"hunter2":1}}"#] {
            let said = fault(text);
            assert!(said.starts_with("it has something else than it should at line 1"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
