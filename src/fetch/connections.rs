//! The HTTP clients, one for each way to connect.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Client, redirect};

use super::origin::Origin;
use super::peer::{Guard, Lookup, Reach};
use super::way::Way;
use super::{Proxies, RegistrySettings};
use crate::error::{Error, Result};

/// How long an idle connection is kept: less than common servers keep theirs, so that few
/// requests are sent into one that is being closed.
const IDLE: Duration = Duration::from_secs(50);

/// The settings of the connections.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) user_agent: String,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) proxies: Proxies,
}

/// HTTP/1.1 connections, pooled by origin.
///
/// HTTP/1.1 alone, since its connections are independent: large blobs that share one HTTP/2
/// connection share one TCP window, and the packet that one loses stops them all.
pub(super) struct Connections {
    pub(super) settings: Settings,
    pub(super) registries: Arc<RegistrySettings>,
    pub(super) lookup: Arc<dyn Lookup>,
    /// A client for each way to connect. Those with TLS are made when they are needed, since
    /// making one reads all certificates of the system, and fails where there are none.
    clients: Mutex<Vec<(Way, Client)>>,
    /// Servers that have answered from an address of the public network.
    public: Mutex<HashSet<Origin>>,
}

impl Connections {
    pub(super) fn new(
        settings: Settings,
        registries: Arc<RegistrySettings>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Connections> {
        let (clients, public) = (Mutex::default(), Mutex::default());
        let connections = Connections { settings, registries, lookup, clients, public };
        // Made at once to find settings that are unusable.
        connections.client(Way { tls: None, reach: Reach::Any })?;
        Ok(connections)
    }

    pub(super) fn client(&self, way: Way) -> Result<Client> {
        // Nothing that holds this lock can leave the list half changed.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == way) {
            return Ok(client.clone());
        }
        let client = self.make(&way)?;
        clients.push((way, client.clone()));
        Ok(client)
    }

    pub(super) fn public_origins(&self) -> MutexGuard<'_, HashSet<Origin>> {
        // Nothing that holds this lock can leave the set half changed.
        self.public.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn make(&self, way: &Way) -> Result<Client> {
        let Settings { user_agent, connect_timeout, read_timeout, proxies } = self.settings.clone();
        let guard = Guard { lookup: Arc::clone(&self.lookup), reach: way.reach };
        let builder = Client::builder()
            .user_agent(user_agent)
            // Shorter than the wait for an answer: that one ending says that there is a connection.
            .connect_timeout(connect_timeout.min(read_timeout.mul_f64(0.9)))
            .pool_idle_timeout(IDLE)
            .http1_only()
            .retry(reqwest::retry::never())
            .redirect(redirect::Policy::none())
            .referer(false)
            .dns_resolver(guard)
            // Nothing of the environment but what the caller read there.
            .no_proxy()
            .proxy(reqwest::Proxy::custom(move |url| proxies.of(url)));
        let builder = match &way.tls {
            Some(tls) => tls.apply(builder)?,
            None => builder.tls_certs_only([]),
        };
        builder.build().map_err(|error| Error::Network {
            action: "set up",
            url: "the HTTP client".to_owned(),
            // The settings of the program, or the certificates of the system: not transient.
            source: io::Error::new(io::ErrorKind::InvalidData, error).into(),
        })
    }
}
