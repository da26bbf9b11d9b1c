//! Requests as they go out: one at a time, or along redirects.

use std::error::Error as StdError;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Url, redirect};

use super::Secret;
use super::answer::Answer;
use super::origin::{Origin, shown};
use super::redirect::{MAX_REDIRECTS, is_redirect, target};
use crate::error::{Error, Result};

/// How long an idle connection is kept: less than common servers keep theirs, so that few
/// requests are sent into one that is being closed.
const IDLE: Duration = Duration::from_secs(50);

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    Basic { username: String, password: Secret },
    Bearer(Secret),
}

/// The settings of the connections.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) user_agent: String,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
}

/// HTTP/1.1 connections, pooled by origin.
///
/// HTTP/1.1 alone, since its connections are independent: large blobs that share one HTTP/2
/// connection share one TCP window, and the packet that one loses stops them all.
pub(super) struct Transport {
    settings: Settings,
    plain: Client,
    /// Made when it is needed, since making it reads all certificates of the system, and fails
    /// where there are none.
    tls: OnceLock<Client>,
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Result<Transport> {
        let plain = settings.client(|client| client.tls_certs_only([]))?;
        Ok(Transport { settings, plain, tls: OnceLock::new() })
    }

    /// Sends one request and returns the answer, whatever it is.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&Authorization>,
    ) -> Result<Answer> {
        let mut request = self
            .client(url)?
            .request(method.clone(), url.clone())
            .headers(headers.clone())
            // Blobs are named by the bytes as they are stored: nothing may repack them.
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request = match authorization {
            Some(Authorization::Basic { username, password }) => {
                request.basic_auth(username, Some(password.expose()))
            }
            Some(Authorization::Bearer(token)) => request.bearer_auth(token.expose()),
            None => request,
        };
        dispatch(request, method, url).await
    }

    /// Sends a form, which may have secrets in it, and returns the answer, whatever it is.
    pub(super) async fn post(
        &self,
        url: &Url,
        form: String,
        headers: &HeaderMap,
    ) -> Result<Answer> {
        let request = self
            .client(url)?
            .post(url.clone())
            .headers(headers.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(form);
        dispatch(request, &Method::POST, url).await
    }

    /// Sends a request to `url` and on to wherever redirects lead. `authorization` is for the
    /// origin of `url`: it is left behind at the first step to another one, for good.
    pub(super) async fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        mut authorization: Option<&Authorization>,
    ) -> Result<Answer> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(method, &url, headers, authorization).await?;
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

    fn client(&self, url: &Url) -> Result<&Client> {
        if url.scheme() != "https" {
            return Ok(&self.plain);
        }
        if let Some(client) = self.tls.get() {
            return Ok(client);
        }
        let client = self.settings.client(|client| client.https_only(true))?;
        Ok(self.tls.get_or_init(|| client))
    }
}

impl Settings {
    fn client(&self, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client> {
        let builder = Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .pool_idle_timeout(IDLE)
            .http1_only()
            .retry(reqwest::retry::never())
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy();
        change(builder).build().map_err(|error| Error::Network {
            action: "set up",
            url: "the HTTP client".to_owned(),
            // The settings of the program, or the certificates of the system: not transient.
            source: io::Error::new(io::ErrorKind::InvalidData, error).into(),
        })
    }
}

async fn dispatch(request: RequestBuilder, method: &Method, url: &Url) -> Result<Answer> {
    let response = request.send().await.map_err(|error| failed(url, error))?;
    tracing::debug!(%method, url = shown(url), status = response.status().as_u16(), "answer");
    Answer::new(url.clone(), response)
}

/// The error of a request that got no answer.
fn failed(url: &Url, error: reqwest::Error) -> Error {
    let action = match (error.is_connect(), error.is_timeout()) {
        (true, _) => "connect to",
        (false, true) => "get an answer in time from",
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
