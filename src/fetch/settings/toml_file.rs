//! What the two TOML formats have in common.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::sys::read_config;

/// The largest settings file that is read, in bytes.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// The text of a settings file; nothing where there is no such file.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    let failed = |reason: String| Error::Configuration { path: path.into(), line: None, reason };
    let Some(bytes) = read_config(path, MAX_FILE).map_err(|error| failed(error.to_string()))?
    else {
        return Ok(None);
    };
    String::from_utf8(bytes).map(Some).map_err(|_| failed("it is not UTF-8 text".to_owned()))
}

/// Parses a whole file. Keys that are not known are passed over, as the tools do whose files
/// these are.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| Error::Configuration {
        path: path.into(),
        line: error.span().map(|span| line_of(text, span.start)),
        reason: without_values(error.message()),
    })
}

/// An error of a value that is well-formed TOML.
pub(super) fn wrong(path: &Path, reason: impl Into<String>) -> Error {
    Error::Configuration { path: path.into(), line: None, reason: reason.into() }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// A message without the values that it quotes: a header in such a file may be a secret.
fn without_values(message: &str) -> String {
    let mut kept = String::new();
    let mut quoted = None;
    for c in message.trim().chars() {
        match (quoted, c) {
            (Some(quote), c) if c == quote => quoted = None,
            (Some(_), _) => {}
            (None, '"') => {
                quoted = Some(c);
                kept.push('…');
            }
            (None, c) if c.is_control() => kept.push(' '),
            (None, c) => kept.push(c),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line_and_quote_nothing() {
        let parse = |text| parse::<std::collections::BTreeMap<String, u32>>(Path::new("/x"), text);
        let error = parse("a = 1\nb = \"hunter2\"\n").unwrap_err().to_string();
        assert!(error.starts_with("cannot use /x, line 2: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        let error = parse("a = 1\n\nb = hunter2 x\n").unwrap_err().to_string();
        assert!(error.starts_with("cannot use /x, line 3: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
