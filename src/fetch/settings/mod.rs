//! Where to ask for an image, and how: what users have told other tools already.
//!
//! Two formats say so: `registries.conf` (containers-registries.conf(5)), which puts one name in
//! the place of another, and the directories of `certs.d`, which say how a host is spoken to, by
//! certificates or by a `hosts.toml`.

mod endpoint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hosts_toml;
mod registries_conf;
mod tls;
mod toml_file;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hosts_toml::HostsToml;
use registries_conf::RegistriesConf;
use tls::MAX_FILES;
use toml_file::{read_text, wrong};

pub(super) use endpoint::{Endpoint, Step};
pub(super) use tls::Tls;

use super::origin::{Origin, Scheme, registry_url, shown};
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::sys::list_config;

/// Where registries' images are to be had, and how their servers are spoken to.
///
/// Nothing is read that is not named here. Files that do not exist say nothing.
///
/// ```
/// use layerstore::fetch::{HttpRegistry, RegistrySettings};
///
/// # fn main() -> layerstore::Result<()> {
/// let settings = RegistrySettings::new()
///     .registries_conf("/etc/containers/registries.conf")?
///     .registries_conf_dir("/etc/containers/registries.conf.d")?
///     .certs_dir("/etc/containers/certs.d");
/// let registry = HttpRegistry::builder().settings(settings).build()?;
/// # let _ = registry; Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    conf: RegistriesConf,
    certs_dirs: Vec<PathBuf>,
    everywhere: Tls,
}

impl RegistrySettings {
    /// Settings that say nothing.
    pub fn new() -> RegistrySettings {
        RegistrySettings::default()
    }

    /// Reads a `registries.conf`, in version 2 of the format. Its registries replace those of the
    /// same prefix in files read before.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] where it cannot be read, is larger than 1 MiB, or makes no sense.
    pub fn registries_conf(mut self, path: impl AsRef<Path>) -> Result<RegistrySettings> {
        if let Some(text) = read_text(path.as_ref())? {
            self.conf.add(path.as_ref(), &text)?;
        }
        Ok(self)
    }

    /// Reads the files `*.conf` of a directory, in the order of their names.
    ///
    /// # Errors
    ///
    /// As for [`registries_conf`](Self::registries_conf).
    pub fn registries_conf_dir(mut self, path: impl AsRef<Path>) -> Result<RegistrySettings> {
        let path = path.as_ref();
        let names = list_config(path, MAX_FILES).map_err(|error| wrong(path, error.to_string()))?;
        for name in names.unwrap_or_default().iter().filter(|name| name.ends_with(".conf")) {
            self = self.registries_conf(path.join(name))?;
        }
        Ok(self)
    }

    /// A directory that has a directory for each host: `HOST`, `HOST:PORT`, `HOST_PORT_`, and
    /// `_default` for all that have none. There, a `hosts.toml` says which servers to ask and how;
    /// without one, `*.crt` are authorities to trust and `*.cert` with `*.key` is a client
    /// certificate. Of several directories the first that knows a host counts.
    ///
    /// It is read when the host is asked for the first time.
    pub fn certs_dir(mut self, path: impl Into<PathBuf>) -> RegistrySettings {
        self.certs_dirs.push(path.into());
        self
    }

    /// Trusts the certificate authorities in a PEM file everywhere, beside those of the system.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] where there are none in it.
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Result<RegistrySettings> {
        self.everywhere.add_root(path.as_ref())?;
        Ok(self)
    }

    /// A name with its alias written out: what `[aliases]` of `registries.conf` says of a name
    /// without a registry. All others stay as they are.
    pub fn expand<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let end = name.find('@').unwrap_or(name.len());
        let last = name[..end].rfind('/').map_or(0, |at| at + 1);
        let end = name[last..end].find(':').map_or(end, |at| last + at);
        let (short, rest) = name.split_at(end);
        match self.conf.alias(short) {
            Some(full) if !has_registry(short) => Cow::Owned(format!("{full}{rest}")),
            _ => Cow::Borrowed(name),
        }
    }

    /// Where to ask for an image, in order; `plain` says whether its own registry is spoken to
    /// without TLS.
    pub(super) fn steps(&self, image: &Reference, plain: bool) -> Result<Vec<Step>> {
        let name = format!("{}/{}", image.registry(), image.repository());
        let mut steps = Vec::new();
        let (mut origin, mut insecure) = (image.clone(), false);
        if let Some((registry, end)) = self.conf.find(&name) {
            if registry.blocked {
                return Err(Error::Blocked {
                    name: image.to_string(),
                    path: registry.path.clone(),
                });
            }
            let moved = |location: &str| {
                let moved = format!("{location}{}", &name[end..]);
                let parts = moved.split_once('/').filter(|(host, rest)| {
                    !host.is_empty()
                        && !rest.is_empty()
                        && registry_url(Scheme::Https, host).is_some()
                });
                parts.map(|(host, rest)| image.elsewhere(host.into(), rest.into())).ok_or_else(
                    || {
                        wrong(
                            &registry.path,
                            format!("the location {location:?} makes no image name"),
                        )
                    },
                )
            };
            for mirror in registry.mirrors.iter().filter(|it| it.serves.includes(image)) {
                self.add_host(&mut steps, &moved(&mirror.location)?, mirror.insecure, false)?;
            }
            insecure = registry.insecure;
            if let Some(location) = &registry.location {
                origin = moved(location)?;
            }
        }
        let hosts = self.hosts_toml(origin.registry())?;
        for host in hosts.iter().flat_map(|hosts| &hosts.hosts) {
            let Some(url) = &host.url else { continue };
            let at = url.host_str().unwrap_or_default();
            let at = url.port().map_or(at.to_owned(), |port| format!("{at}:{port}"));
            let own = Tls::of_host(host)?.map(|tls| tls.trusting(&self.everywhere));
            let tls = own.map_or_else(|| self.tls(&at), Ok)?;
            let known = origin.elsewhere(at, origin.repository().to_owned());
            let mut endpoint = Endpoint::new(url.clone(), known, tls)?;
            endpoint.speak_for(origin.registry(), host.headers.clone());
            steps.push(Step {
                endpoint,
                resolves: host.resolves,
                pulls: host.pulls,
                last_resort: false,
            });
        }
        match hosts.map(|hosts| hosts.server) {
            Some(server) if !plain => self.add_server(&mut steps, &origin, insecure, &server)?,
            _ => self.add_host(&mut steps, &origin, insecure, plain)?,
        }
        Ok(steps)
    }

    /// A host as its name says. One that is insecure is spoken to by TLS without a look at its
    /// certificate, and where it does not speak TLS, without that.
    fn add_host(
        &self,
        steps: &mut Vec<Step>,
        image: &Reference,
        insecure: bool,
        plain: bool,
    ) -> Result<()> {
        let mut tls = self.tls(image.registry())?;
        if insecure {
            tls = tls.unverified();
        }
        let schemes = match (plain, insecure) {
            (true, _) => &[Scheme::Http][..],
            (false, true) => &[Scheme::Https, Scheme::Http],
            (false, false) => &[Scheme::Https],
        };
        for scheme in schemes {
            let endpoint = Endpoint::of_registry(*scheme, image, tls.clone())?;
            let last_resort = insecure && *scheme == Scheme::Http && !plain;
            steps.push(Step { endpoint, resolves: true, pulls: true, last_resort });
        }
        Ok(())
    }

    /// The registry itself, as a `hosts.toml` has it.
    fn add_server(
        &self,
        steps: &mut Vec<Step>,
        image: &Reference,
        insecure: bool,
        server: &hosts_toml::Host,
    ) -> Result<()> {
        let own = Tls::of_host(server)?.map(|tls| tls.trusting(&self.everywhere));
        let before = steps.len();
        match &server.url {
            None => self.add_host(steps, image, insecure, false)?,
            Some(url) => {
                let tls = own.clone().unwrap_or_else(|| self.everywhere.clone());
                let endpoint = Endpoint::new(url.clone(), image.clone(), tls)?;
                steps.push(Step { endpoint, resolves: true, pulls: true, last_resort: false });
            }
        }
        for step in &mut steps[before..] {
            (step.resolves, step.pulls) = (server.resolves, server.pulls);
            step.endpoint.speak_for(image.registry(), server.headers.clone());
            if let Some(own) = &own {
                step.endpoint.tls = Arc::new(match insecure {
                    true => own.unverified(),
                    false => own.clone(),
                });
            }
        }
        Ok(())
    }

    /// The certificates for a host.
    pub(super) fn tls(&self, host: &str) -> Result<Tls> {
        for directory in self.directories(host, false) {
            // Certificates beside a `hosts.toml` are for that to name.
            if read_text(&directory.join("hosts.toml"))?.is_none()
                && let Some(tls) = Tls::of_directory(&directory)?
            {
                return Ok(tls.trusting(&self.everywhere));
            }
        }
        Ok(self.everywhere.clone())
    }

    /// Whether somebody wrote down how to speak to a host.
    pub(super) fn knows(&self, host: &str) -> bool {
        let named = |path: &PathBuf| matches!(list_config(path, MAX_FILES), Ok(Some(_)));
        self.directories(host, false).any(|path| named(&path))
    }

    fn hosts_toml(&self, host: &str) -> Result<Option<HostsToml>> {
        for directory in self.directories(host, true) {
            let path = directory.join("hosts.toml");
            if let Some(text) = read_text(&path)? {
                return HostsToml::parse(&path, &text).map(Some);
            }
        }
        Ok(None)
    }

    fn directories(&self, host: &str, default: bool) -> impl Iterator<Item = PathBuf> {
        let mut names = Vec::new();
        // What is no plain name would lead elsewhere.
        if !host.contains('/') && !matches!(host, "" | "." | "..") {
            if let Some((name, port)) =
                host.rsplit_once(':').filter(|(_, port)| !port.contains(']'))
            {
                names.push(format!("{name}_{port}_"));
            }
            names.push(host.to_owned());
        }
        let own: Vec<_> =
            self.certs_dirs.iter().flat_map(|dir| names.iter().map(|it| dir.join(it))).collect();
        let defaults = self.certs_dirs.iter().filter(|_| default).map(|dir| dir.join("_default"));
        own.into_iter().chain(defaults.collect::<Vec<_>>())
    }
}

/// Whether the first part of a name is a host.
fn has_registry(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

#[cfg(test)]
mod tests;
