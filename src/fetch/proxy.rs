use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::Scheme;
use super::peer::literal;
use crate::error::{Error, Result};

/// By way of which proxies servers are reached: what the variables `HTTP_PROXY`, `HTTPS_PROXY` and
/// `NO_PROXY` say.
///
/// This machine itself, by name or address, is never reached by way of a proxy.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    except: Vec<Except>,
}

/// Who is reached directly.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Except {
    All,
    /// A network: the bits of its address, and how many of them count.
    Network(IpAddr, u32, Option<u16>),
    /// A domain; whether it is one itself, or only what is below it.
    Domain(String, bool, Option<u16>),
}

/// A proxy's address may have a password in it.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<Url>| url.as_ref().map(super::origin::shown);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("except", &self.except)
            .finish()
    }
}

impl Proxies {
    /// No proxies.
    pub fn new() -> Proxies {
        Proxies::default()
    }

    /// The proxy for servers of this scheme: `http://PROXY:PORT`, with a user and a password
    /// before an `@` where it wants them. Without a scheme, `http` is meant; an empty text is no
    /// proxy.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidProxy`] where it is not an address of a proxy.
    pub fn proxy(mut self, scheme: Scheme, address: &str) -> Result<Proxies> {
        let proxy = match address.trim() {
            "" => None,
            text if text.contains("://") => Some(Url::parse(text)),
            text => Some(Url::parse(&format!("http://{text}"))),
        };
        // The text is not repeated: it may have a password in it.
        let proxy =
            proxy.transpose().map_err(|_| Error::InvalidProxy { reason: "not an address" })?;
        if proxy.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
            return Err(Error::InvalidProxy { reason: "neither http nor https" });
        }
        match scheme {
            Scheme::Http => self.http = proxy,
            Scheme::Https => self.https = proxy,
        }
        Ok(self)
    }

    /// Who is reached directly, as `NO_PROXY` lists them: `*` for all; a domain with all below it,
    /// or with a dot before it only those below; an address, or a network as `10.0.0.0/8`; each
    /// with a port if only that is meant.
    #[must_use]
    pub fn except(mut self, list: &str) -> Proxies {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        self.except.extend(entries.filter(|it| !it.is_empty()).filter_map(Except::parse));
        self
    }

    /// The proxy that leads to an address.
    pub(super) fn of(&self, url: &Url) -> Option<Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        }?;
        let host = url.host_str()?.trim_end_matches('.');
        let address = literal(url);
        let here = host == "localhost" || address.is_some_and(|it| it.is_loopback());
        let port = url.port_or_known_default();
        let direct = here || self.except.iter().any(|it| it.fits(host, address, port));
        (!direct).then(|| proxy.clone())
    }
}

impl Except {
    fn parse(text: &str) -> Option<Except> {
        if text == "*" {
            return Some(Except::All);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
            return Some(Except::Network(address, bits, None));
        }
        let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse().ok();
        if let Some(address) = bare(text) {
            return Some(Except::Network(address, width(address), None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        if let Some(address) = bare(host) {
            return Some(Except::Network(address, width(address), port));
        }
        let domain = host.trim_start_matches("*.").trim_start_matches('.');
        let below = domain.len() < host.len();
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        (!domain.is_empty()).then_some(Except::Domain(domain, below, port))
    }

    fn fits(&self, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        let same_port = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Except::All => true,
            Except::Network(network, bits, wanted) => {
                let inside = address.is_some_and(|it| shares(*network, it, *bits));
                inside && same_port(wanted)
            }
            Except::Domain(domain, only_below, wanted) => {
                let fits = match host.strip_suffix(domain.as_str()) {
                    Some("") => !only_below,
                    Some(rest) => rest.ends_with('.'),
                    None => false,
                };
                fits && same_port(wanted)
            }
        }
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether the first `bits` of two addresses are the same.
fn shares(a: IpAddr, b: IpAddr, bits: u32) -> bool {
    let (a, b, width) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let difference: u128 = a ^ b;
    difference.checked_shr(width - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(list: &str, url: &str) -> bool {
        let proxies = Proxies::new().proxy(Scheme::Https, "http://p.example:3128").unwrap();
        proxies.except(list).of(&url.parse().unwrap()).is_none()
    }

    #[test]
    fn exceptions() {
        let cases = [
            ("a.example", "https://a.example/", true),
            ("a.example", "https://A.example./", true),
            ("a.example", "https://b.a.example/", true),
            ("a.example", "https://ba.example/", false),
            (".a.example", "https://a.example/", false),
            (".a.example", "https://b.a.example/", true),
            ("*.a.example", "https://b.a.example/", true),
            ("a.example:8443", "https://a.example/", false),
            ("a.example:8443", "https://a.example:8443/", true),
            ("x,  a.example ,y", "https://a.example/", true),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("0.0.0.0/0", "https://11.1.2.3/", true),
            ("10.1.2.3", "https://10.1.2.3:5000/", true),
            ("10.1.2.3:443", "https://10.1.2.3:5000/", false),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("[fd12::1]:5000", "https://[fd12::1]:5000/", true),
            ("10.0.0.0/99", "https://10.1.2.3/", false),
            ("*", "https://a.example/", true),
            ("", "https://a.example/", false),
            ("", "https://localhost:5000/", true),
            ("", "https://127.0.0.1:5000/", true),
            ("", "https://[::1]:5000/", true),
            ("", "http://a.example/", true),
        ];
        for (list, url, expected) in cases {
            assert_eq!(direct(list, url), expected, "{list:?} {url}");
        }
    }

    #[test]
    fn addresses_of_proxies() {
        let proxy = |text| Proxies::new().proxy(Scheme::Https, text);
        for good in ["p:3128", "http://u:hunter2@p:3128", "https://p", ""] {
            let proxies = proxy(good).unwrap();
            assert!(!format!("{proxies:?}").contains("hunter2"));
        }
        for bad in ["socks5://u:hunter2@p", "http://", "http://u:hunter2@p:x"] {
            let error = proxy(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn lists_never_panic(list in "[0-9a-f.:/*\\[\\], ]{0,40}|\\PC{0,20}") {
            let _ = direct(&list, "https://10.1.2.3/");
            let _ = direct(&list, "https://[fd12::1]/");
        }
    }
}
