//! Whom to trust, and who to be: certificates from files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{Certificate, ClientBuilder, Identity, tls};

use super::hosts_toml::Host;
use super::toml_file::{MAX_FILE, wrong};
use crate::error::{Error, Result};
use crate::sys::{list_config, read_config};

/// How many files of one directory are looked at.
pub(super) const MAX_FILES: usize = 1024;

/// How TLS is spoken with a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub(in crate::fetch) struct Tls {
    /// Certificate authorities beside those of the system.
    roots: Vec<Arc<Pem>>,
    /// What proves who we are.
    identity: Option<Arc<Pem>>,
    /// Whether any certificate will do.
    skip_verify: bool,
}

/// The content of a PEM file, or of two.
#[derive(PartialEq, Eq)]
struct Pem {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// The bytes may be those of a key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tls { roots, identity, skip_verify } = self;
        let path = |pem: &Arc<Pem>| pem.path.clone();
        f.debug_struct("Tls")
            .field("roots", &roots.iter().map(path).collect::<Vec<_>>())
            .field("identity", &identity.as_ref().map(path))
            .field("skip_verify", skip_verify)
            .finish()
    }
}

impl Tls {
    /// What a directory has: `*.crt` are authorities, `*.cert` with `*.key` is a certificate of
    /// ours (containers-certs.d(5), and Docker's "Verify repository client with certificates").
    pub(super) fn of_directory(directory: &Path) -> Result<Option<Tls>> {
        let names = list_config(directory, MAX_FILES)
            .map_err(|error| wrong(directory, error.to_string()))?;
        let Some(names) = names else {
            return Ok(None);
        };
        let mut tls = Tls::default();
        for name in &names {
            let partner = |old: &str, new: &str| {
                let other = format!("{}{new}", name.trim_end_matches(old));
                let lonely = || {
                    wrong(&directory.join(name), format!("there is no {other} that belongs to it"))
                };
                names.contains(&other).then(|| directory.join(&other)).ok_or_else(lonely)
            };
            match Path::new(name).extension().and_then(|it| it.to_str()) {
                Some("crt") => tls.add_root(&directory.join(name))?,
                Some("cert") => {
                    let key = partner(".cert", ".key")?;
                    tls.add_identity(&directory.join(name), Some(&key))?;
                }
                Some("key") => drop(partner(".key", ".cert")?),
                _ => {}
            }
        }
        Ok(Some(tls))
    }

    /// What a `hosts.toml` says of a host; nothing where it says nothing.
    pub(super) fn of_host(host: &Host) -> Result<Option<Tls>> {
        if host.ca.is_empty() && host.client.is_empty() && !host.skip_verify {
            return Ok(None);
        }
        let mut tls = Tls { skip_verify: host.skip_verify, ..Tls::default() };
        for path in &host.ca {
            tls.add_root(path)?;
        }
        for (cert, key) in &host.client {
            tls.add_identity(cert, key.as_deref())?;
        }
        Ok(Some(tls))
    }

    /// The same, and no certificate is looked at.
    pub(in crate::fetch) fn unverified(&self) -> Tls {
        Tls { skip_verify: true, ..self.clone() }
    }

    /// Whether it says who we are, or trusts anybody: then it is for one server alone.
    pub(in crate::fetch) fn is_for_one(&self) -> bool {
        self.identity.is_some() || self.skip_verify
    }

    /// The same, for a server that this one sent us to: trust goes along, but neither who we are
    /// nor the will to trust anybody.
    pub(in crate::fetch) fn for_others(&self) -> Tls {
        Tls { roots: self.roots.clone(), ..Tls::default() }
    }

    /// Takes the authorities of `other` in as well.
    pub(in crate::fetch) fn trusting(mut self, other: &Tls) -> Tls {
        self.roots.extend(other.roots.iter().cloned());
        self
    }

    pub(super) fn add_root(&mut self, path: &Path) -> Result<()> {
        let bytes = read(path)?;
        let found = Certificate::from_pem_bundle(&bytes).ok().filter(|all| !all.is_empty());
        found.ok_or_else(|| wrong(path, "it has no certificate in PEM format"))?;
        self.roots.push(Arc::new(Pem { path: path.into(), bytes }));
        Ok(())
    }

    /// Of several, the first is used.
    fn add_identity(&mut self, cert: &Path, key: Option<&Path>) -> Result<()> {
        if self.identity.is_some() {
            tracing::warn!(path = %cert.display(), "only the first client certificate is used");
            return Ok(());
        }
        let mut bytes = read(cert)?;
        if let Some(key) = key {
            bytes.push(b'\n');
            bytes.extend(read(key)?);
        }
        let unusable = |_| wrong(key.unwrap_or(cert), "no certificate and key in PEM format");
        Identity::from_pem(&bytes).map_err(unusable)?;
        self.identity = Some(Arc::new(Pem { path: cert.into(), bytes }));
        Ok(())
    }

    pub(in crate::fetch) fn apply(&self, client: ClientBuilder) -> Result<ClientBuilder> {
        let failed = |pem: &Pem| wrong(&pem.path, "it has no certificate in PEM format");
        let mut client = client
            .https_only(true)
            .tls_version_min(tls::Version::TLS_1_2)
            .tls_danger_accept_invalid_certs(self.skip_verify);
        for pem in &self.roots {
            let all = Certificate::from_pem_bundle(&pem.bytes).map_err(|_| failed(pem))?;
            client = client.tls_certs_merge(all);
        }
        if let Some(pem) = &self.identity {
            client = client.identity(Identity::from_pem(&pem.bytes).map_err(|_| failed(pem))?);
        }
        Ok(client)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let absent = || io::Error::from(io::ErrorKind::NotFound);
    let bytes = read_config(path, MAX_FILE).and_then(|bytes| bytes.ok_or_else(absent));
    bytes.map_err(|error: io::Error| Error::Configuration {
        path: path.into(),
        line: None,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_and_keys_come_in_pairs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tls::of_directory(&dir.path().join("none")).unwrap().is_none());
        assert!(Tls::of_directory(dir.path()).unwrap() == Some(Tls::default()));
        for (name, missing) in [("a.cert", "a.key"), ("b.key", "b.cert")] {
            std::fs::write(dir.path().join(name), b"").unwrap();
            let error = Tls::of_directory(dir.path()).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("ca.crt"), b"no certificate").unwrap();
        let error = Tls::of_directory(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ca.crt") && error.contains("PEM"), "{error}");
    }

    #[test]
    fn keys_are_not_shown() {
        let pem = Arc::new(Pem { path: "/k".into(), bytes: b"hunter2".to_vec() });
        let tls = Tls { identity: Some(pem.clone()), roots: vec![pem], skip_verify: true };
        assert!(!format!("{tls:?}").contains("hunter2") && format!("{tls:?}").contains("/k"));
        assert!(tls.for_others().identity.is_none() && !tls.for_others().skip_verify);
    }
}
