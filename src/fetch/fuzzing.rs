//! What fuzz targets may reach of the client's parsers.

use super::auth_files;
use super::challenge::Challenge;
use super::origin::{Origin, Scheme};
use super::range::ContentRange;
use super::{link, listing, settings};

/// A `WWW-Authenticate` value, of a registry with TLS and of one without.
pub(crate) fn challenge(text: &str) {
    for registry in ["https://registry.example", "http://localhost:5000"] {
        let Some(registry) = registry.parse().ok().and_then(|url| Origin::of(&url)) else {
            unreachable!("both are addresses of registries");
        };
        if let Ok(Challenge::Bearer(bearer)) = Challenge::choose([text], &registry) {
            let realm = bearer.realm;
            assert!(matches!(realm.scheme(), "https" | "http"), "{realm}");
            assert!(registry.scheme() == Scheme::Http || realm.scheme() == "https", "{realm}");
            assert!(realm.username().is_empty() && realm.password().is_none(), "{realm}");
            if let Some(scope) = bearer.scope {
                let sound = |b: u8| b == b' ' || b.is_ascii_graphic();
                assert!(!scope.is_empty() && scope.bytes().all(sound), "{scope:?}");
            }
        }
    }
}

/// A `Content-Range` value.
pub(crate) fn content_range(text: &str) {
    if let Some(parsed) = ContentRange::parse(text) {
        let ContentRange { range, total } = parsed.clone();
        assert!(range.start < range.end && range.end <= total);
        let canonical = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        assert_eq!(ContentRange::parse(&canonical), Some(parsed));
    }
}

/// A file with credentials: what is read from it, and what a login and a logout make of it.
pub(crate) fn auth_file(bytes: &[u8]) {
    auth_files::check(bytes);
}

/// A `Link` value.
pub(crate) fn link(text: &str) {
    let Ok(Some(target)) = link::next(&[text]) else {
        return;
    };
    assert!(!target.contains('>') && text.contains(target), "{target:?}");
    let alone = format!("<{target}>; rel=\"next\"");
    assert_eq!(link::next(&[&alone]), Ok(Some(target)), "{alone:?}");
    listing::next_page(target);
}

/// A `hosts.toml`.
pub(crate) fn hosts_toml(text: &str) {
    settings::fuzzing::hosts_toml(text);
}

/// A `registries.conf`, and a name that is looked up in it.
pub(crate) fn registries_conf(text: &str) {
    settings::fuzzing::registries_conf(text);
}
