//! What fuzz targets may reach of the settings' parsers.

use std::path::Path;

use super::hosts_toml::HostsToml;
use super::registries_conf::RegistriesConf;
use crate::error::Error;

/// A `hosts.toml`: only servers that may be asked come out of it, and no header that is shown.
pub(crate) fn hosts_toml(text: &str) {
    let path = Path::new("/certs.d/registry.example/hosts.toml");
    let parsed = match HostsToml::parse(path, text) {
        Ok(parsed) => parsed,
        Err(error) => return is_of_the_file(&error, path),
    };
    for host in parsed.hosts.iter().chain([&parsed.server]) {
        if let Some(url) = &host.url {
            assert!(matches!(url.scheme(), "https" | "http"), "{url}");
            assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{url}");
            assert!(url.username().is_empty() && url.password().is_none(), "{url}");
            assert!(url.query().is_none() && url.fragment().is_none(), "{url}");
        }
        assert!(host.headers.values().all(|value| value.is_sensitive()));
        let files = host.client.iter().flat_map(|(cert, key)| [Some(cert), key.as_ref()]);
        assert!(host.ca.iter().chain(files.flatten()).all(|file| file.is_absolute()));
    }
    assert!(parsed.hosts.iter().all(|host| host.url.is_some() || text.contains("\"\"")));
}

/// A `registries.conf`: what fits a name is a part of it, and a file that is read twice says the
/// same as once.
pub(crate) fn registries_conf(text: &str) {
    let path = Path::new("/etc/containers/registries.conf");
    let mut settings = RegistriesConf::default();
    if let Err(error) = settings.add(path, text) {
        return is_of_the_file(&error, path);
    }
    let names = text.split(|c: char| c.is_whitespace() || "\"'=".contains(c));
    let names = names.filter(|name| !name.is_empty()).take(64);
    let found = |settings: &RegistriesConf| -> Vec<_> {
        let find = |name| {
            let found = settings.find(name).map(|(registry, fits)| {
                assert!(name.is_char_boundary(fits) && fits > 0, "{fits} of {name:?}");
                assert!(!registry.prefix.is_empty());
                assert!(registry.mirrors.iter().all(|mirror| !mirror.location.is_empty()));
                (registry.prefix.clone(), registry.location.clone(), fits)
            });
            let alias = settings.alias(name);
            assert!(alias.is_none_or(|alias| !alias.is_empty()));
            (found, alias.map(str::to_owned))
        };
        names.clone().map(find).collect()
    };
    let once = found(&settings);
    assert!(settings.add(path, text).is_ok(), "the second time");
    assert_eq!(found(&settings), once);
}

/// What is wrong with a file is said with its name.
fn is_of_the_file(error: &Error, path: &Path) {
    assert!(matches!(error, Error::Configuration { path: named, .. } if named == path), "{error}");
}
