use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::http::Registries;
use super::peer::{Lookup, System};
use super::session::Sessions;
use super::transport::{Connections, Settings};
use super::{Anonymous, AuthProvider, HttpRegistry, Proxies, RegistrySettings};
use crate::error::Result;

/// The settings of an [`HttpRegistry`]; what [`HttpRegistry::builder`] makes.
#[must_use]
pub struct HttpRegistryBuilder {
    plain_http: BTreeSet<String>,
    auth: Arc<dyn AuthProvider>,
    registries: RegistrySettings,
    settings: Settings,
}

impl HttpRegistryBuilder {
    pub(super) fn new() -> HttpRegistryBuilder {
        HttpRegistryBuilder {
            plain_http: BTreeSet::new(),
            auth: Arc::new(Anonymous),
            registries: RegistrySettings::new(),
            settings: Settings {
                user_agent: concat!("layerstore/", env!("CARGO_PKG_VERSION")).to_owned(),
                connect_timeout: Duration::from_secs(10),
                read_timeout: Duration::from_secs(30),
                proxies: Proxies::new(),
            },
        }
    }

    /// Speaks HTTP without TLS with this registry, named as in [`Reference::registry`](crate::Reference::registry). All others
    /// are spoken to by TLS, those on this machine too: nothing falls back to less by itself.
    pub fn plain_http(mut self, registry: impl Into<String>) -> Self {
        self.plain_http.insert(registry.into());
        self
    }

    /// Who to be at which registry. Default: [`Anonymous`].
    pub fn auth(mut self, provider: impl AuthProvider + 'static) -> Self {
        self.auth = Arc::new(provider);
        self
    }

    /// Where images are to be had, and how servers are spoken to. Default: every registry under
    /// its own name, by TLS, trusting whom the system trusts.
    pub fn settings(mut self, settings: RegistrySettings) -> Self {
        self.registries = settings;
        self
    }

    /// By way of which proxies servers are reached. Default: none, whatever the environment says.
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.settings.proxies = proxies;
        self
    }

    /// The `User-Agent`. Default: `layerstore/VERSION`.
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.settings.user_agent = text.into();
        self
    }

    /// How long connecting may take, TLS included. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long a server may take to begin its answer, and to send the next bytes of a body.
    /// Default: 30 s.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read_timeout = timeout;
        self
    }

    /// Makes the client; it connects when it is asked for something.
    ///
    /// # Errors
    ///
    /// [`Error::Network`](crate::Error::Network) where a setting is unusable, as a user agent with a line break in it.
    pub fn build(self) -> Result<HttpRegistry> {
        self.build_with(Arc::new(System))
    }

    pub(super) fn build_with(self, lookup: Arc<dyn Lookup>) -> Result<HttpRegistry> {
        let settings = Arc::new(self.registries);
        let connections = Connections::new(self.settings, Arc::clone(&settings), lookup)?;
        let sessions = Sessions::new(self.auth);
        Ok(Registries::client(self.plain_http, settings, connections, sessions))
    }
}
