//! Which addresses are connected to at all: judged when a name has been resolved, since the name
//! says nothing.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Who may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anybody that may be a registry: what users name themselves.
    Any,
    /// Anybody on the public network: what a registry on the public network names.
    Public,
}

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) address: IpAddr,
    pub(super) reason: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, self.reason)
    }
}

impl StdError for Refused {}

impl Refused {
    /// What stands in the sources of an error.
    pub(super) fn within(error: &(dyn StdError + 'static)) -> Option<Refused> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                return Some(*refused);
            }
            next = error.source();
        }
        None
    }
}

impl Reach {
    /// Whether an address may be connected to.
    pub(super) fn check(self, address: IpAddr) -> Result<(), Refused> {
        let plain = unmapped(address);
        if is_metadata(plain) {
            let reason = "is where clouds and links talk to their machines, and no registry";
            return Err(Refused { address, reason });
        }
        if self == Reach::Public && is_private(plain) {
            let reason = "is private, and a registry on the public network sends us there";
            return Err(Refused { address, reason });
        }
        Ok(())
    }

    /// Whether an address in a URL may be connected to: names are judged once they are resolved.
    pub(super) fn check_url(self, url: &Url) -> Result<(), Refused> {
        literal(url).map_or(Ok(()), |address| self.check(address))
    }
}

/// The address that a URL has in the place of a name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    // The parser has turned every way to write an address into the usual one.
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The IPv4 address within an IPv6 address that carries one: mapped, compatible, or of NAT64
/// (RFC 4291, section 2.5.5; RFC 6052).
fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let low = || {
        let [.., a, b] = v6.segments();
        Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] if !v6.is_loopback() && !v6.is_unspecified() => {
            low().into()
        }
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => low().into(),
        _ => address,
    }
}

/// Link-local addresses, and those where clouds keep the secrets of their machines.
fn is_metadata(address: IpAddr) -> bool {
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4 == ALIBABA,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == AWS,
    }
}

/// Addresses that mean another machine to everybody.
pub(super) fn is_private(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && second & 0xc0 == 64; // RFC 6598
            v4.is_private() || v4.is_loopback() || first == 0 || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local(),
    }
}

/// Turns names into addresses.
pub(super) trait Lookup: Send + Sync {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// As the system does.
pub(super) struct System;

impl Lookup for System {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        }
        .boxed()
    }
}

/// Resolves names, and refuses those that lead where nobody is connected to.
pub(super) struct Guard {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) reach: Reach,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, reach) = (self.lookup.lookup(name.as_str().to_owned()), self.reach);
        Box::pin(async move {
            let found = found.await?;
            // One bad address among good ones is what an attack on names looks like.
            for address in &found {
                reach.check(*address)?;
            }
            let all = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(all) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reach: Reach, address: &str) -> bool {
        reach.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn where_no_registry_is() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:100.100.100.200",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
        ] {
            assert!(!check(Reach::Any, address), "{address}");
            assert!(!check(Reach::Public, address), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_for_those_who_name_them() {
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "0.0.0.0",
            "100.64.0.1",
            "::1",
            "::",
            "fd00::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(check(Reach::Any, address), "{address}");
            assert!(!check(Reach::Public, address), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "169.253.1.1"] {
            assert!(check(Reach::Any, address) && check(Reach::Public, address), "{address}");
        }
    }

    #[test]
    fn addresses_are_seen_however_they_are_written() {
        let refused = |url: &str| Reach::Any.check_url(&url.parse().unwrap()).is_err();
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "[::ffff:a9fe:a9fe]",
            "[fe80::1]:5000",
            "169.254.169.254.",
        ] {
            assert!(refused(&format!("http://{host}/")), "{host}");
        }
        assert!(!refused("http://localhost:5000/") && !refused("https://[::1]:5000/"));
    }

    struct Fake(Vec<IpAddr>);

    impl Lookup for Fake {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            futures_util::future::ready(Ok(self.0.clone())).boxed()
        }
    }

    #[tokio::test]
    async fn names_are_judged_by_all_that_they_lead_to() {
        let resolve = |reach, all: &[&str]| {
            let all = all.iter().map(|it| it.parse().unwrap()).collect();
            Guard { lookup: Arc::new(Fake(all)), reach }.resolve("r.example".parse().unwrap())
        };
        assert_eq!(resolve(Reach::Any, &["1.1.1.1", "10.0.0.1"]).await.unwrap().count(), 2);
        let error = resolve(Reach::Any, &["1.1.1.1", "169.254.169.254"]).await.err().unwrap();
        assert!(Refused::within(&*error).is_some(), "{error}");
        let error = resolve(Reach::Public, &["1.1.1.1", "10.0.0.1"]).await.err().unwrap();
        assert_eq!(Refused::within(&*error).unwrap().address.to_string(), "10.0.0.1");
    }
}
