//! The registry as tests see it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::auth::{Auth, Bearer, Issuer};
use super::content::{Content, sha256};
use super::faults::{Fault, FaultHandle, Faults};
use super::images::Image;
use super::record::{Log, Recorded};
use super::routes;
use super::server::Server;
use super::signals::Signals;

/// What the registry holds.
pub(super) struct State {
    pub address: SocketAddr,
    pub auth: Auth,
    /// Whether there is a referrers API.
    pub referrers: bool,
    /// How many entries a page of a list has at most.
    pub page: usize,
    /// Served at `/token`: for this registry, and for those that name it as token server.
    pub issuers: Mutex<Vec<Arc<Issuer>>>,
    /// Blobs are not kept by repository: any repository has them all.
    pub blobs: Mutex<HashMap<String, Content>>,
    pub repositories: Mutex<HashMap<String, Repository>>,
}

#[derive(Default)]
pub(super) struct Repository {
    pub manifests: HashMap<String, Manifest>,
    pub tags: BTreeMap<String, String>,
}

pub(super) struct Manifest {
    pub media_type: String,
    pub content: Content,
}

/// A registry on loopback; it stops, with all its threads, when dropped.
pub struct Registry {
    server: Server,
    state: Arc<State>,
    log: Arc<Log>,
    signals: Arc<Signals>,
    faults: Arc<Faults>,
}

/// Settings of a registry to be started.
pub struct Builder {
    host: IpAddr,
    port: u16,
    auth: Login,
    token_server: Option<Arc<State>>,
    throttle: Option<u64>,
    referrers: bool,
    page: Option<usize>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            auth: Login::None,
            token_server: None,
            throttle: None,
            referrers: false,
            page: None,
        }
    }
}

enum Login {
    None,
    Basic(String, String),
    Bearer(Bearer),
}

impl Builder {
    /// Asks for Basic authentication with these credentials.
    #[must_use]
    pub fn basic(mut self, user: &str, password: &str) -> Self {
        self.auth = Login::Basic(user.to_owned(), password.to_owned());
        self
    }

    /// Asks for Bearer tokens, which are had at `/token`.
    #[must_use]
    pub fn bearer(mut self, bearer: Bearer) -> Self {
        self.auth = Login::Bearer(bearer);
        self
    }

    /// Has the tokens of this registry served by another one's `/token`, on its own origin.
    #[must_use]
    pub fn token_server(mut self, other: &Registry) -> Self {
        self.token_server = Some(Arc::clone(&other.state));
        self
    }

    /// Sends every body at this many bytes per second and connection.
    #[must_use]
    pub fn throttle(mut self, bytes_per_second: u64) -> Self {
        self.throttle = Some(bytes_per_second);
        self
    }

    /// Has the referrers API, which it lacks otherwise, as many registries do.
    #[must_use]
    pub fn referrers(mut self) -> Self {
        self.referrers = true;
        self
    }

    /// Gives tags and referrers in pages of so many.
    #[must_use]
    pub fn page(mut self, entries: usize) -> Self {
        self.page = Some(entries);
        self
    }

    /// Listens on this address, to be another host than others.
    #[must_use]
    pub fn host(mut self, host: impl Into<IpAddr>) -> Self {
        self.host = host.into();
        self
    }

    /// Listens on this port, to take the place of a registry that was dropped.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts it.
    pub fn start(self) -> Registry {
        let (log, signals, faults) = (Arc::default(), Arc::default(), Arc::<Faults>::default());
        let mut started = None;
        let bound = SocketAddr::new(self.host, self.port);
        let server = Server::start(bound, Arc::clone(&log), Arc::clone(&signals), |address| {
            let state = Arc::new(self.state(address));
            started = Some(Arc::clone(&state));
            let (faults, throttle) = (Arc::clone(&faults), self.throttle);
            Box::new(move |request| {
                faults.answer(request, &|request| {
                    let mut response = routes::answer(&state, request);
                    response.delivery.throttle = throttle;
                    response
                })
            })
        });
        let state = started.expect("the server asks for its handler before it starts");
        Registry { server, state, log, signals, faults }
    }

    fn state(&self, address: SocketAddr) -> State {
        let mut own_issuers = Vec::new();
        let auth = match &self.auth {
            Login::None => Auth::None,
            Login::Basic(user, password) => {
                Auth::Basic { user: user.clone(), password: password.clone() }
            }
            Login::Bearer(bearer) => {
                let elsewhere = self.token_server.as_ref();
                let realm = elsewhere.map_or(address, |other| other.address);
                let issuer =
                    Arc::new(Issuer::new(bearer.clone(), &format!("http://{realm}/token")));
                match elsewhere {
                    Some(other) => other.issuers.lock().unwrap().push(Arc::clone(&issuer)),
                    None => own_issuers.push(Arc::clone(&issuer)),
                }
                Auth::Bearer(issuer)
            }
        };
        State {
            address,
            auth,
            referrers: self.referrers,
            page: self.page.unwrap_or(usize::MAX),
            issuers: Mutex::new(own_issuers),
            blobs: Mutex::default(),
            repositories: Mutex::default(),
        }
    }
}

impl Registry {
    /// A registry that asks nobody for credentials.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A registry with settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `127.0.0.1:PORT`, or with the address that it was told to have.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// The full name of `rest`, which is `repository:tag` or `repository@digest`.
    pub fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address())
    }

    /// The URL of a path on this registry.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Adds a blob, to every repository; returns its digest.
    pub fn put_blob(&self, content: impl Into<Content>) -> String {
        let content = content.into();
        let digest = content.digest();
        self.put_blob_as(&digest, content);
        digest
    }

    /// Adds a blob under a digest that need not be its own.
    pub fn put_blob_as(&self, digest: &str, content: impl Into<Content>) {
        self.state.blobs.lock().unwrap().insert(digest.to_owned(), content.into());
    }

    /// Forgets a blob.
    pub fn remove_blob(&self, digest: &str) {
        self.state.blobs.lock().unwrap().remove(digest);
    }

    /// Adds a manifest or index, and a tag for it; returns its digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> String {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        let mut repositories = self.state.repositories.lock().unwrap();
        let known = repositories.entry(repository.to_owned()).or_default();
        let manifest = Manifest { media_type: media_type.to_owned(), content: bytes.into() };
        known.manifests.insert(digest.clone(), manifest);
        if let Some(tag) = tag {
            known.tags.insert(tag.to_owned(), digest.clone());
        }
        digest
    }

    /// Adds an image with all it consists of, and a tag for it; returns its digest.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> String {
        self.push_parts(repository, image);
        self.put_manifest(repository, Some(tag), &image.media_type, &*image.manifest)
    }

    fn push_parts(&self, repository: &str, image: &Image) {
        for blob in image.config.iter().chain(&image.layers) {
            self.put_blob_as(&blob.digest, blob.content.clone());
        }
        for child in &image.children {
            self.push_parts(repository, child);
            self.put_manifest(repository, None, &child.media_type, &*child.manifest);
        }
    }

    /// Takes a tag away; its manifest stays.
    pub fn remove_tag(&self, repository: &str, tag: &str) {
        if let Some(known) = self.state.repositories.lock().unwrap().get_mut(repository) {
            known.tags.remove(tag);
        }
    }

    /// Forgets a manifest.
    pub fn remove_manifest(&self, repository: &str, digest: &str) {
        if let Some(known) = self.state.repositories.lock().unwrap().get_mut(repository) {
            known.manifests.remove(digest);
        }
    }

    /// Puts a fault in place.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        self.faults.add(fault)
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }

    /// Lets the requests go on that [`Action::Hold`](super::Action::Hold) holds now.
    pub fn release(&self) {
        self.signals.release();
    }

    /// Requests held now.
    pub fn held(&self) -> usize {
        self.signals.held()
    }

    /// Waits until at least `count` requests are held; false when a minute was not enough.
    #[must_use]
    pub fn wait_held(&self, count: usize) -> bool {
        self.signals.wait_held(count, Duration::from_secs(60))
    }

    /// Forgets every token, so that each client must ask for a new one.
    pub fn revoke_tokens(&self) {
        if let Auth::Bearer(issuer) = &self.state.auth {
            issuer.revoke();
        }
    }

    /// How many tokens were issued for this registry.
    pub fn tokens_issued(&self) -> u64 {
        match &self.state.auth {
            Auth::Bearer(issuer) => issuer.issued(),
            _ => 0,
        }
    }

    /// Everything asked since the start or the last clear, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.log.requests()
    }

    /// Forgets the requests and the peak.
    pub fn clear_requests(&self) {
        self.log.clear(self.server.connections());
    }

    /// How many GETs were sent bytes of this blob.
    pub fn blob_sends(&self, digest: &str) -> usize {
        self.log.blob_sends(digest)
    }

    /// How many bytes of this blob were sent, all GETs together.
    pub fn bytes_sent(&self, digest: &str) -> u64 {
        self.log.bytes_sent(digest)
    }

    /// The most connections open at once.
    pub fn peak_connections(&self) -> usize {
        self.log.peak()
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Closes every connection at once, as a restart would.
    pub fn cut_connections(&self) {
        self.server.cut();
    }
}
