//! Layers that their registry need not have, and which addresses they are fetched from.

use std::net::{Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use super::BlobBody;
use super::blob_request::BlobRequest;
use super::http::Registries;
use super::origin::{Origin, Scheme, shown};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Reference};

/// How many of the addresses of one layer are tried.
const MAX_URLS: usize = 8;

impl Registries {
    /// A foreign layer from one of its addresses, in their order, or why the last of them did not
    /// give it; nothing where there are none, as where the layer is not foreign.
    ///
    /// Whoever wrote the manifest chose the addresses. So nobody there is told who we are, and
    /// they are asked over TLS; without it only on this machine, and only for an image whose
    /// registry may be spoken to without it.
    pub(super) async fn get_foreign(
        &self,
        image: &Reference,
        blob: &Descriptor,
        wanted: &BlobRequest,
    ) -> Option<Result<BlobBody>> {
        let urls = blob.urls.iter().filter(|_| blob.is_foreign());
        let mut last = None;
        for url in urls.take(MAX_URLS) {
            let got = self.get_from(url, image, wanted).await;
            // A range that cannot be had is for the caller, who then asks for the whole.
            if matches!(got, Ok(_) | Err(Error::UnusableRange { .. })) {
                return Some(got);
            }
            last = Some(got);
        }
        last
    }

    async fn get_from(
        &self,
        url: &str,
        image: &Reference,
        wanted: &BlobRequest,
    ) -> Result<BlobBody> {
        let plain = self.is_plain(image);
        let refuse = |url: &Url, reason: &str| Error::BadResponse {
            url: shown(url),
            reason: reason.to_owned(),
        };
        let url: Url = url
            .parse()
            .map_err(|_| Error::document("an address of a foreign layer is none".to_owned()))?;
        check(&url, plain).map_err(|reason| refuse(&url, reason))?;
        let answer = self.ask_anybody(image, &url, &wanted.errand).await?;
        // A redirect may have led anywhere that has TLS, and nowhere else.
        check(&answer.url, plain).map_err(|reason| refuse(&answer.url, reason))?;
        wanted.body(answer).await
    }
}

/// Whether a foreign layer may come from this address.
fn check(url: &Url, plain: bool) -> Result<(), &'static str> {
    let origin = Origin::of(url).ok_or("a foreign layer is fetched by https only")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the address of a foreign layer has a user in it");
    }
    match origin.scheme() {
        Scheme::Https => Ok(()),
        Scheme::Http if plain && is_loopback(origin.host()) => Ok(()),
        Scheme::Http => Err("a foreign layer is fetched by https only"),
    }
}

fn is_loopback(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || inner.is_some_and(|it| it.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_foreign_layers_may_come_from() {
        let allowed = |url: &str, plain| check(&url.parse().unwrap(), plain).is_ok();
        for url in ["https://cdn.example/x?sig=y", "https://127.0.0.1:8443/x"] {
            assert!(allowed(url, false) && allowed(url, true), "{url}");
        }
        for url in ["http://127.0.0.1:5000/x", "http://localhost/x", "http://[::1]:1/x"] {
            assert!(allowed(url, true) && !allowed(url, false), "{url}");
        }
        for url in [
            "http://cdn.example/x",
            "http://10.0.0.1/x",
            "http://localhost.example/x",
            "http://169.254.169.254/latest/meta-data/",
            "https://user@cdn.example/x",
            "https://:password@cdn.example/x",
            "file:///etc/passwd",
            "ftp://cdn.example/x",
            "data:text/plain,x",
        ] {
            assert!(!allowed(url, true), "{url}");
        }
    }
}
