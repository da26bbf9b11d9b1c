//! Where a redirect may lead: judged without any I/O.

use reqwest::{StatusCode, Url};

use super::origin::{Origin, Scheme};

/// How many redirects are followed for one request.
pub(super) const MAX_REDIRECTS: usize = 10;

/// Whether an answer of this status sends the same request elsewhere. For `GET` and `HEAD`, the
/// only methods used here, all five mean the same (RFC 9110, section 15.4).
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The address that a `Location` leads to from `from`; the error reads after "it redirects".
pub(super) fn target(from: &Url, location: Option<&str>) -> Result<Url, &'static str> {
    let location = location.ok_or("without saying where to")?;
    let mut to = from.join(location).map_err(|_| "to something that is not an address")?;
    to.set_fragment(None);
    let Some(origin) = Origin::of(&to) else {
        return Err("to an address that is neither http nor https");
    };
    if from.scheme() == "https" && origin.scheme() == Scheme::Http {
        return Err("from https to http, which would give up encryption");
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err("to an address with a user in it");
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(from: &str, location: &str) -> Result<String, &'static str> {
        target(&from.parse().unwrap(), Some(location)).map(String::from)
    }

    #[test]
    fn ordinary_redirects() {
        let from = "https://r.example/v2/a/blobs/x?q=1";
        let cases = [
            ("https://cdn.example/x?sig=y#frag", "https://cdn.example/x?sig=y"),
            ("/elsewhere", "https://r.example/elsewhere"),
            ("y", "https://r.example/v2/a/blobs/y"),
            ("//cdn.example/x", "https://cdn.example/x"),
        ];
        for (location, to) in cases {
            assert_eq!(go(from, location).as_deref(), Ok(to), "{location}");
        }
        assert!(go("http://r.example/", "https://r.example/").is_ok());
        assert!(go("http://r.example/", "http://cdn.example/").is_ok());
    }

    #[test]
    fn redirects_that_are_not_followed() {
        let from = "https://r.example/v2/";
        for location in [
            "http://r.example/v2/",
            "file:///etc/passwd",
            "ftp://r.example/",
            "data:text/plain,x",
            "https://user@r.example/",
            "https://:pass@r.example/",
            "https://",
            "https://[::1",
        ] {
            assert!(go(from, location).is_err(), "{location}");
        }
        assert!(target(&from.parse().unwrap(), None).is_err());
    }
}
