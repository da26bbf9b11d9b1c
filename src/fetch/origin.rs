use std::fmt;

use reqwest::Url;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Without encryption.
    Http,
    /// Over TLS.
    Https,
}

/// Where credentials belong: a scheme, a host and a port (RFC 6454, section 4).
///
/// Two origins are the same only when all three are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Origin {
    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, in lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether images of this registry come from here: `registry` is the name that people know,
    /// as `docker.io` or `localhost:5000`. A mirror serves no registry but its own.
    pub fn serves(&self, registry: &str) -> bool {
        registry_url(self.scheme, registry)
            .is_some_and(|url| Origin::of(&url).as_ref() == Some(self))
    }

    /// The host, and the port where it is not the scheme's own: as image names spell a registry.
    pub(super) fn authority(&self) -> String {
        let text = self.to_string();
        text.split_once("://").map(|(_, authority)| authority.to_owned()).unwrap_or(text)
    }

    /// The origin of an address, where it is one of `http` or `https`.
    pub(super) fn of(url: &Url) -> Option<Origin> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let host = url.host_str().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Origin { scheme, host, port: url.port_or_known_default()? })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { scheme, host, port } = self;
        match (scheme, port) {
            (Scheme::Http, 80) => write!(f, "http://{host}"),
            (Scheme::Https, 443) => write!(f, "https://{host}"),
            (Scheme::Http, _) => write!(f, "http://{host}:{port}"),
            (Scheme::Https, _) => write!(f, "https://{host}:{port}"),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The root of a registry, by the name that people know.
///
/// Docker Hub's is an alias of long standing; nothing else is guessed.
pub(super) fn registry_url(scheme: Scheme, registry: &str) -> Option<Url> {
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let url = Url::parse(&format!("{scheme}://{host}/")).ok()?;
    // Nothing in the name may have become anything but a host and a port.
    let plain = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    plain.then_some(url)
}

/// An address as it may be shown: without user and password, and without the query, which in a
/// presigned address is a secret.
pub(super) fn shown(url: &Url) -> String {
    match Origin::of(url) {
        Some(origin) => format!("{origin}{}", url.path()),
        None => format!("an address of scheme {:?}", url.scheme()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Option<Origin> {
        Origin::of(&text.parse().unwrap())
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let base = origin("https://r.example/v2/");
        assert_eq!(base, origin("https://R.EXAMPLE:443/else?q"));
        assert_ne!(base, origin("http://r.example:443/"));
        assert_ne!(base, origin("https://r.example:444/"));
        assert_ne!(base, origin("https://s.r.example/"));
        assert_eq!(origin("file:///etc/passwd"), None);
        assert_eq!(origin("http://[::1]:5000/").unwrap().to_string(), "http://[::1]:5000");
    }

    #[test]
    fn registries_by_name() {
        let url = |name| registry_url(Scheme::Https, name).map(String::from);
        assert_eq!(url("docker.io").as_deref(), Some("https://registry-1.docker.io/"));
        assert_eq!(url("localhost:5000").as_deref(), Some("https://localhost:5000/"));
        for hostile in ["", "a/b", "a?b", "a#b", "u@a", "u:p@a", "a:99999", "a b"] {
            assert_eq!(url(hostile), None, "{hostile:?}");
        }
        let hub = origin("https://registry-1.docker.io").unwrap();
        assert!(hub.serves("docker.io") && !hub.serves("quay.io"));
        assert!(!origin("https://mirror.example").unwrap().serves("docker.io"));
    }

    #[test]
    fn secrets_in_addresses_are_not_shown() {
        let url = "https://user:hunter2@cdn.example:8443/blob/x?sig=hunter2#hunter2";
        assert_eq!(shown(&url.parse().unwrap()), "https://cdn.example:8443/blob/x");
        assert!(!shown(&"data:hunter2".parse().unwrap()).contains("hunter2"));
    }
}
