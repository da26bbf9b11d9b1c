use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::connections::{Connections, Settings};
use super::http::Registries;
use super::peer::{Lookup, System};
use super::session::Sessions;
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

    /// How long connecting may take, TLS included; never longer than nine tenths of what an answer
    /// may. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long a server may take to begin its answer, and to send the next bytes of a body.
    /// How long we take to read them does not count. Default: 30 s.
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{IpAddr, TcpListener};
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use futures_util::future::{BoxFuture, ready};

    use super::*;
    use crate::error::Error;
    use crate::fetch::RegistryPull as _;

    /// Says the same of every name, and notes which it was asked for.
    struct Fake(Vec<IpAddr>, Arc<Mutex<Vec<String>>>);

    impl Lookup for Fake {
        fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            self.1.lock().unwrap().push(name);
            ready(Ok(self.0.clone())).boxed()
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_metadata_is_not_connected_to() {
        // Connected to, this would be noticed: the good address is there.
        let trap = TcpListener::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        let host = format!("registry.test:{}", trap.local_addr().unwrap().port());
        let asked = Arc::default();
        for (bad, refused) in [("169.254.169.254", true), ("fe80::1", true), ("127.0.0.1", false)] {
            let found = vec!["127.0.0.1".parse().unwrap(), bad.parse().unwrap()];
            let lookup = Arc::new(Fake(found, Arc::clone(&asked)));
            let builder = HttpRegistryBuilder::new().plain_http(&host);
            let client =
                builder.read_timeout(Duration::from_millis(100)).build_with(lookup).unwrap();
            let image = format!("{host}/a:1").parse().unwrap();
            let error = client.manifest(&image, None).await.unwrap_err();
            assert_eq!(matches!(error, Error::RefusedAddress { .. }), refused, "{error}");
            assert_eq!(trap.accept().is_err(), refused, "{error}");
        }
        assert_eq!(*asked.lock().unwrap(), ["registry.test"; 3]);
    }
}
