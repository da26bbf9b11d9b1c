//! Requests as they go out: one at a time, or along redirects.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, IF_RANGE, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Url};

use super::answer::{Answer, silence};
use super::connections::Connections;
use super::fallback::Ledger;
use super::origin::{Origin, shown};
use super::peer::{Reach, Refused, is_private};
use super::redirect::{MAX_REDIRECTS, is_redirect, target};
use super::settings::{Endpoint, Tls};
use super::traffic::Permit;
use super::way::Way;
use super::{Secret, Traffic};
use crate::error::{Error, Result};

/// What was tried when there is no connection.
pub(super) const CONNECT: &str = "connect to";
/// What was tried when no answer began.
const LATE: &str = "get an answer in time from";

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    Basic { username: String, password: Secret },
    Bearer(Secret),
}

/// What a request is, beside its method and address.
pub(super) struct Errand {
    pub(super) headers: HeaderMap,
    /// The `If-Range` for each origin that a version of what is wanted is known of.
    pub(super) if_range: Vec<(Origin, HeaderValue)>,
    /// Whether the answer may take long.
    pub(super) large: bool,
}

impl Errand {
    /// A small one, with these headers.
    pub(super) fn new(headers: HeaderMap) -> Errand {
        Errand { headers, if_range: Vec::new(), large: false }
    }
}

impl Authorization {
    /// What of it must not come back in anybody's words.
    fn secrets(&self) -> Vec<Secret> {
        match self {
            Authorization::Basic { username, password } => {
                let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
                vec![password.clone(), Secret::new(pair)]
            }
            Authorization::Bearer(token) => vec![token.clone()],
        }
    }
}

/// The way to one server, and to where it sends us.
pub(super) struct Transport {
    connections: Arc<Connections>,
    ledger: Arc<Ledger>,
    traffic: Option<Traffic>,
    /// Whether to wait for a host that wants to be left alone: not while there is another to ask.
    patient: bool,
    home: Origin,
    tls: Arc<Tls>,
    /// Sent to this server alone.
    headers: HeaderMap,
}

impl Transport {
    pub(super) fn to(
        connections: &Arc<Connections>,
        ledger: &Arc<Ledger>,
        traffic: Option<&Traffic>,
        endpoint: &Endpoint,
    ) -> Transport {
        Transport {
            connections: Arc::clone(connections),
            ledger: Arc::clone(ledger),
            traffic: traffic.cloned(),
            patient: !endpoint.has_stand_in,
            home: endpoint.origin.clone(),
            tls: Arc::clone(&endpoint.tls),
            headers: endpoint.headers.clone(),
        }
    }

    /// The same without what only this server is to see.
    pub(super) fn anonymous(mut self) -> Transport {
        self.headers = HeaderMap::new();
        self.tls = Arc::new(self.tls.for_others());
        self
    }

    /// Sends one request and returns the answer, whatever it is.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        errand: &Errand,
        authorization: Option<&Authorization>,
    ) -> Result<Answer> {
        let permit = self.enter(url, errand).await?;
        let mut request = self.request(method, url, &errand.headers, permit.as_ref()).await?;
        for (_, etag) in
            errand.if_range.iter().filter(|(of, _)| Origin::of(url).as_ref() == Some(of))
        {
            request = request.header(IF_RANGE, etag);
        }
        request = match authorization {
            Some(Authorization::Basic { username, password }) => {
                request.basic_auth(username, Some(password.expose()))
            }
            Some(Authorization::Bearer(token)) => request.bearer_auth(token.expose()),
            None => request,
        };
        let mut secrets = authorization.map(Authorization::secrets).unwrap_or_default();
        if Origin::of(url).as_ref() == Some(&self.home) {
            let values = self.headers.values().filter_map(|value| value.to_str().ok());
            // Shorter words are no secrets, and may well stand in any text.
            let words = values.flat_map(str::split_whitespace).filter(|word| word.len() >= 8);
            secrets.extend(words.map(Secret::new));
        }
        Ok(self.dispatch(request, method, url, permit).await?.keeping(secrets))
    }

    /// Sends a form with a secret in it, and returns the answer, whatever it is.
    pub(super) async fn post(
        &self,
        url: &Url,
        form: String,
        secret: &Secret,
        errand: &Errand,
    ) -> Result<Answer> {
        let permit = self.enter(url, errand).await?;
        let request = self
            .request(&Method::POST, url, &errand.headers, permit.as_ref())
            .await?
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(form);
        let answer = self.dispatch(request, &Method::POST, url, permit).await?;
        Ok(answer.keeping(vec![secret.clone()]))
    }

    /// Waits for leave to have a connection, where that is to be had.
    async fn enter(&self, url: &Url, errand: &Errand) -> Result<Option<Permit>> {
        match (&self.traffic, Origin::of(url)) {
            (Some(traffic), Some(to)) => {
                traffic.enter(&to, errand.large, self.patient).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn request(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        permit: Option<&Permit>,
    ) -> Result<RequestBuilder> {
        let home = Origin::of(url).as_ref() == Some(&self.home);
        let client = match home {
            true => self.client(url, Reach::Any, Arc::clone(&self.tls), permit)?,
            false => {
                let reach = self.reach_of(url).await;
                self.client(url, reach, Arc::new(self.tls_of(url)?), permit)?
            }
        };
        let own = if home { self.headers.clone() } else { HeaderMap::new() };
        Ok(client
            .request(method.clone(), url.clone())
            .headers(own)
            .headers(headers.clone())
            // Blobs are named by the bytes as they are stored: nothing may repack them.
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
    }

    /// Sends a request to `url` and on to wherever redirects lead. `authorization` is for the
    /// origin of `url`: it is left behind at the first step to another one, for good.
    pub(super) async fn follow(
        &self,
        method: &Method,
        url: &Url,
        errand: &Errand,
        mut authorization: Option<&Authorization>,
    ) -> Result<Answer> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(method, &url, errand, authorization).await?;
            if !is_redirect(answer.status()) {
                return Ok(answer);
            }
            let next = target(&url, answer.header(LOCATION))
                .map_err(|reason| answer.unusable(format!("it redirects {reason}")))?;
            if Origin::of(&next) != Origin::of(&url) {
                authorization = None;
            }
            answer.discard().await;
            url = next;
        }
        let reason = format!("it is the end of more than {MAX_REDIRECTS} redirects");
        Err(Error::BadResponse { url: shown(&url), reason })
    }

    async fn dispatch(
        &self,
        request: RequestBuilder,
        method: &Method,
        url: &Url,
        permit: Option<Permit>,
    ) -> Result<Answer> {
        let patience = self.connections.settings.read_timeout;
        let response = match tokio::time::timeout(patience, request.send()).await {
            Ok(response) => response.map_err(|error| failed(url, error))?,
            Err(_) => {
                let (url, source) = (shown(url), silence(patience).into());
                return Err(Error::Network { action: LATE, url, source });
            }
        };
        if let Some(origin) = Origin::of(url) {
            self.ledger.answered(&origin);
            let direct = self.connections.settings.proxies.of(url).is_none();
            if direct && response.remote_addr().is_some_and(|from| !is_private(from.ip())) {
                self.connections.public_origins().insert(origin);
            }
        }
        tracing::debug!(%method, url = shown(url), status = response.status().as_u16(), "answer");
        Answer::new(url.clone(), response, permit, patience)
    }

    fn client(
        &self,
        url: &Url,
        reach: Reach,
        tls: Arc<Tls>,
        permit: Option<&Permit>,
    ) -> Result<Client> {
        reach.check_url(url).map_err(|refused| refuse(url, refused))?;
        // By way of a proxy, it is the proxy's address that is connected to, which is the user's
        // to choose, and the proxy that resolves the name.
        let proxy = self.connections.settings.proxies.of(url);
        let reach = if proxy.is_some() { Reach::Any } else { reach };
        let tls = (url.scheme() == "https").then_some(tls);
        // The library has one kind of TLS for a client, and would speak it with the proxy too.
        if proxy.is_some_and(|proxy| proxy.scheme() == "https")
            && tls.as_ref().is_some_and(|tls| tls.is_for_one())
        {
            let reason = "one that TLS is spoken with, by the settings of this registry: it would get \
                          its client certificate, or not have to show one; use an http:// proxy, or \
                          NO_PROXY for this registry";
            return Err(Error::InvalidProxy { reason });
        }
        let (way, connections) = (Way { tls, reach }, &self.connections);
        match permit {
            Some(permit) => permit.client(way, |way| connections.make(way)),
            None => connections.client(way),
        }
    }

    /// How TLS is spoken with a server that this one sent us to.
    fn tls_of(&self, url: &Url) -> Result<Tls> {
        let own = self.connections.registries.tls(&host_and_port(url))?;
        Ok(own.trusting(&self.tls.for_others()))
    }

    /// Where this server may send us: from the public network to the private one only if users
    /// wrote something down about that host. Whose name has addresses in both, or has them by turns, is
    /// of the public one.
    async fn reach_of(&self, url: &Url) -> Reach {
        let same_host = url.host_str() == Some(self.home.host());
        if same_host || self.connections.registries.knows(&host_and_port(url)) {
            return Reach::Any;
        }
        if self.connections.public_origins().contains(&self.home) {
            return Reach::Public;
        }
        let host = self.home.host().trim_start_matches('[').trim_end_matches(']');
        let private = match host.parse() {
            Ok(address) => is_private(address),
            Err(_) => {
                let found = self.connections.lookup.lookup(host.to_owned()).await;
                found.is_ok_and(|all| !all.is_empty() && all.into_iter().all(is_private))
            }
        };
        if private { Reach::Any } else { Reach::Public }
    }
}

/// The host of an address as the names of images have it.
fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn refuse(url: &Url, refused: Refused) -> Error {
    let Refused { address, reason } = refused;
    Error::RefusedAddress { url: shown(url), address, reason }
}

/// The error of a request that got no answer.
fn failed(url: &Url, error: reqwest::Error) -> Error {
    if let Some(refused) = Refused::within(&error) {
        return refuse(url, refused);
    }
    let action = match (error.is_connect(), error.is_timeout()) {
        (true, _) => CONNECT,
        (false, true) => LATE,
        (false, false) => "get an answer from",
    };
    let source = match is_plain_http(&error) {
        true => io::Error::new(
            io::ErrorKind::InvalidData,
            "it does not speak TLS; if that is as it should be, allow plain HTTP for this registry",
        )
        .into(),
        // The library's own text would show the address with its query.
        false => error.without_url().into(),
    };
    Error::Network { action, url: shown(url), source }
}

/// Whether a server answered the first message of TLS with something else, most likely HTTP.
/// The TLS library says so in words only.
fn is_plain_http(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.to_string().contains("InvalidContentType") {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::{BoxFuture, ready};

    use super::super::Proxies;
    use super::super::connections::Settings;
    use super::super::peer::Lookup;
    use super::*;

    /// Says the same of every name.
    struct Fake(Vec<IpAddr>);

    impl Lookup for Fake {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            ready(Ok(self.0.clone())).boxed()
        }
    }

    fn transport(addresses: &[&str]) -> Transport {
        transport_by(addresses, Proxies::default(), Tls::default())
    }

    fn transport_by(addresses: &[&str], proxies: Proxies, tls: Tls) -> Transport {
        let settings = Settings {
            user_agent: "test".to_owned(),
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            proxies,
        };
        let found = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let connections = Connections::new(settings, Arc::default(), Arc::new(Fake(found)));
        Transport {
            connections: Arc::new(connections.unwrap()),
            ledger: Arc::default(),
            traffic: None,
            patient: true,
            home: Origin::of(&"https://registry.test/".parse().unwrap()).unwrap(),
            tls: Arc::new(tls),
            headers: HeaderMap::new(),
        }
    }

    #[test]
    fn a_proxy_gets_nothing_that_is_for_its_registry_alone() {
        let url: Url = "https://registry.test/v2/".parse().unwrap();
        for (proxy, unverified, usable) in [
            ("https://proxy.test", true, false),
            ("https://proxy.test", false, true),
            ("http://proxy.test", true, true),
        ] {
            let proxies = Proxies::new().proxy(super::super::Scheme::Https, proxy).unwrap();
            let tls = if unverified { Tls::default().unverified() } else { Tls::default() };
            let transport = transport_by(&[], proxies, tls);
            let client = transport.client(&url, Reach::Any, Arc::clone(&transport.tls), None);
            assert_eq!(client.is_ok(), usable, "{proxy}, {unverified}");
        }
    }

    #[tokio::test]
    async fn only_who_is_of_the_private_network_alone_may_send_us_there() {
        let elsewhere: Url = "https://intranet.test/".parse().unwrap();
        for (addresses, reach) in [
            (&["10.0.0.1", "fd00::1"][..], Reach::Any),
            (&["203.0.113.1"], Reach::Public),
            (&["203.0.113.1", "127.0.0.1"], Reach::Public),
            (&[], Reach::Public),
        ] {
            assert_eq!(transport(addresses).reach_of(&elsewhere).await, reach, "{addresses:?}");
        }
        // Whose name leads here today has answered from there before.
        let by_turns = transport(&["10.0.0.1"]);
        by_turns.connections.public_origins().insert(by_turns.home.clone());
        assert_eq!(by_turns.reach_of(&elsewhere).await, Reach::Public);
        let itself: Url = "https://registry.test/x".parse().unwrap();
        assert_eq!(by_turns.reach_of(&itself).await, Reach::Any);
    }
}
