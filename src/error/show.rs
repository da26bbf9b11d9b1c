//! How the parts of an error's message are written.

use std::fmt;

use super::RegistryMessage;
use crate::oci::Digest;

pub(super) struct Space {
    pub(super) needed: Option<u64>,
    pub(super) available: Option<u64>,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.needed, self.available) {
            (Some(needed), Some(available)) => write!(
                f,
                " ({needed} bytes are needed, {available} are free: {} are missing)",
                needed.saturating_sub(available)
            ),
            (Some(needed), None) => write!(f, " ({needed} bytes are needed)"),
            (None, Some(available)) => write!(f, " ({available} bytes are free)"),
            (None, None) => Ok(()),
        }
    }
}

pub(super) struct Subject<'a>(pub(super) &'a Option<Digest>);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(digest) => fmt::Display::fmt(digest, f),
            None => f.write_str("the document"),
        }
    }
}

pub(super) struct Messages<'a>(pub(super) &'a [RegistryMessage]);

impl fmt::Display for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, RegistryMessage { code, message }) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { ": " } else { "; " })?;
            match message.is_empty() {
                true => f.write_str(code)?,
                false => write!(f, "{code} ({message})")?,
            }
        }
        Ok(())
    }
}

/// An error with everything that caused it: HTTP libraries say "error sending request" and keep
/// "connection refused" for whoever asks.
pub(super) struct Chain<'a>(pub(super) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

pub(super) struct Each<'a>(pub(super) &'a [super::Error]);

impl fmt::Display for Each<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if n == 0 { "" } else { "; then " })?;
        }
        Ok(())
    }
}

pub(super) struct Line(pub(super) Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::*;

    #[test]
    fn messages_say_what_where_and_why() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied))
            .context("open", "/srv/x")
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot open /srv/x: permission denied");

        let error = Error::NoSpace {
            action: "write to",
            path: "/srv/x".into(),
            needed: Some(100),
            available: Some(40),
        };
        assert!(error.to_string().contains("60 are missing"), "{error}");

        let errors = vec![
            RegistryMessage { code: "DENIED".into(), message: String::new() },
            RegistryMessage { code: "UNKNOWN".into(), message: "no".into() },
        ];
        let error =
            Error::Registry { url: "http://r/v2/".into(), status: 403, errors, retry_after: None };
        assert_eq!(error.to_string(), "http://r/v2/ answered 403: DENIED; UNKNOWN (no)");
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full().context("write", "/x").unwrap_err().kind(), ErrorKind::NoSpace);
    }
}
