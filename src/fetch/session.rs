//! Being let in: credentials and tokens, by origin and repository.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::Mutex as AsyncMutex;

use super::answer::Answer;
use super::challenge::{Bearer, Challenge, is_known_realm};
use super::origin::{Origin, shown};
use super::redirect::is_redirect;
use super::token::Token;
use super::transport::{Authorization, Errand, Transport};
use super::{AuthProvider, Credentials, Secret};
use crate::error::{Error, RegistryMessage, Result};
use crate::oci::Reference;

/// The longest answer of a token server that is read, in bytes.
const MAX_TOKEN_BODY: u64 = 64 * 1024;

/// How this program names itself to token servers.
const CLIENT_ID: &str = "layerstore";

/// What has been granted so far.
pub(super) struct Sessions {
    provider: Arc<dyn AuthProvider>,
    /// By origin and repository, since a token is for one repository, and a password may be.
    slots: Mutex<HashMap<(Origin, String), Arc<Slot>>>,
}

/// Locked while a grant is being asked for: whoever needs the same one waits and shares it.
type Slot = AsyncMutex<Option<Grant>>;

#[derive(Clone)]
struct Grant {
    authorization: Authorization,
    /// When to renew it; a password has no such time.
    until: Option<Instant>,
    /// What it was the answer to, to have the next one without being refused first.
    challenge: Challenge,
}

impl Grant {
    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// What a grant is for.
pub(super) struct Door<'a> {
    pub(super) transport: &'a Transport,
    pub(super) origin: &'a Origin,
    pub(super) image: &'a Reference,
    /// What to ask a token for; nothing where only the proof itself is wanted.
    pub(super) repository: Option<&'a str>,
}

/// The same credentials wherever they are asked for, to see whether they are right.
struct Given {
    credentials: Credentials,
    trust: Arc<dyn AuthProvider>,
}

impl AuthProvider for Given {
    fn credentials<'a>(
        &'a self,
        _: &'a Origin,
        _: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        ready(Ok(Some(self.credentials.clone()))).boxed()
    }

    fn trusts_realm(&self, registry: &Origin, realm: &Origin) -> bool {
        self.trust.trusts_realm(registry, realm)
    }
}

impl Sessions {
    pub(super) fn new(provider: Arc<dyn AuthProvider>) -> Sessions {
        Sessions { provider, slots: Mutex::default() }
    }

    /// Sessions of somebody else, who trusts the same token servers.
    pub(super) fn of(&self, credentials: Credentials) -> Sessions {
        Sessions::new(Arc::new(Given { credentials, trust: Arc::clone(&self.provider) }))
    }

    /// What to send with a request from the start: nothing where nothing was ever asked for.
    pub(super) async fn current(&self, door: &Door<'_>) -> Result<Option<Authorization>> {
        let slot = self.slot(door);
        let mut slot = slot.lock().await;
        let grant = match &*slot {
            Some(grant) if !grant.is_fresh() => self.grant(door, grant.challenge.clone()).await?,
            kept => return Ok(kept.as_ref().map(|grant| grant.authorization.clone())),
        };
        Ok(Some(slot.insert(grant).authorization.clone()))
    }

    /// What to send after a `401` that came with `challenge`, in place of `refused`.
    pub(super) async fn answer(
        &self,
        door: &Door<'_>,
        challenge: Challenge,
        refused: Option<&Authorization>,
    ) -> Result<Authorization> {
        let slot = self.slot(door);
        let mut slot = slot.lock().await;
        if let Some(grant) = slot.take() {
            // Somebody else may have been granted it since that request was sent.
            if grant.is_fresh() && Some(&grant.authorization) != refused {
                return Ok(slot.insert(grant).authorization.clone());
            }
        }
        let grant = self.grant(door, challenge).await?;
        if Some(&grant.authorization) == refused {
            return Err(door.refused(refused, &[]));
        }
        Ok(slot.insert(grant).authorization.clone())
    }

    fn slot(&self, door: &Door<'_>) -> Arc<Slot> {
        let key = (door.origin.clone(), door.repository.unwrap_or_default().to_owned());
        // Nothing that holds this lock can leave the map half changed.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    }

    async fn grant(&self, door: &Door<'_>, challenge: Challenge) -> Result<Grant> {
        let credentials = self.provider.credentials(door.origin, door.image).await?;
        let (authorization, until) = match (&challenge, credentials) {
            (Challenge::Basic, Some(Credentials::Password { username, password })) => {
                (Authorization::Basic { username, password }, None)
            }
            (Challenge::Basic, Some(_)) => {
                return Err(door.closed("it asks for a user and a password, and there is a token"));
            }
            (Challenge::Basic, None) => {
                return Err(door.closed("it asks for a user and a password: give it some"));
            }
            (Challenge::Bearer(_), Some(Credentials::RegistryToken(token))) => {
                (Authorization::Bearer(token), None)
            }
            (Challenge::Bearer(bearer), credentials) => {
                let token = self.token(door, bearer, credentials).await?;
                (Authorization::Bearer(token.secret), Some(Instant::now() + token.usable))
            }
        };
        Ok(Grant { authorization, until, challenge })
    }

    /// A token from a token server (distribution: "Token Authentication Specification", and with an
    /// identity token "OAuth2 Token Authentication").
    async fn token(
        &self,
        door: &Door<'_>,
        bearer: &Bearer,
        credentials: Option<Credentials>,
    ) -> Result<Token> {
        if credentials.is_some() {
            self.check_trust(door, &bearer.realm)?;
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let errand = Errand::new(headers);
        let transport = door.transport;
        let (answer, proof) = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let (url, form) = (realm(bearer), refresh_form(bearer, door.repository, &token));
                (transport.post(&url, form, &token, &errand).await?, "the identity token")
            }
            Some(Credentials::Password { username, password }) => {
                let url = token_url(bearer, door.repository, Some(&username));
                let basic = Authorization::Basic { username, password };
                let answer = transport.send(&Method::GET, &url, &errand, Some(&basic)).await?;
                (answer, "the user or the password")
            }
            // A registry's own token is not for its token server.
            Some(Credentials::RegistryToken(_)) | None => {
                let url = token_url(bearer, door.repository, None);
                (transport.send(&Method::GET, &url, &errand, None).await?, "")
            }
        };
        match answer.status().as_u16() {
            200 => {
                let (now, url) = (answer.date(), shown(&answer.url));
                let body = answer.document(MAX_TOKEN_BODY).await?;
                let refuse = |reason: &str| Error::BadResponse { url, reason: reason.to_owned() };
                Token::parse(&body, now).map_err(refuse)
            }
            400 | 401 | 403 => Err(door.no_token(answer, proof).await),
            404 | 405 if proof == "the identity token" => Err(door.no_token(answer, proof).await),
            _ if is_redirect(answer.status()) => {
                Err(answer.unusable("it redirects, which a token server may not"))
            }
            _ => Err(answer.into_error().await),
        }
    }

    /// Whether credentials for the registry may be shown to the token server that it names.
    fn check_trust(&self, door: &Door<'_>, realm: &Url) -> Result<()> {
        let trusted = Origin::of(realm).is_some_and(|realm| {
            is_known_realm(door.origin, &realm) || self.provider.trusts_realm(door.origin, &realm)
        });
        match trusted {
            true => Ok(()),
            false => Err(door.closed(format!(
                "it sends us to {} for a token, and its credentials are not known to belong \
                 there; allow that, or pull without credentials",
                shown(realm)
            ))),
        }
    }
}

impl Door<'_> {
    pub(super) fn closed(&self, reason: impl Into<String>) -> Error {
        Error::Unauthorized { registry: self.image.registry().to_owned(), reason: reason.into() }
    }

    /// The error of a request that was refused in spite of `authorization`.
    pub(super) fn refused(
        &self,
        authorization: Option<&Authorization>,
        messages: &[RegistryMessage],
    ) -> Error {
        let reason = match (authorization, self.repository) {
            (Some(Authorization::Basic { .. }), _) => {
                "the user or the password is wrong, or may not pull this".to_owned()
            }
            (_, Some(repository)) => {
                format!("{repository} does not exist, or needs other credentials")
            }
            (_, None) => "it refused what it had asked for".to_owned(),
        };
        self.closed(reason + &said(messages))
    }

    /// The error of a token server that refused `proof`; nothing where none was shown.
    async fn no_token(&self, answer: Answer, proof: &str) -> Error {
        let realm = shown(&answer.url);
        let reason = match proof {
            "" => format!("{realm} gives no token without a user and a password"),
            proof => format!("{realm} refused {proof}"),
        };
        self.closed(reason + &said(&answer.into_messages().await))
    }
}

fn realm(bearer: &Bearer) -> Url {
    let mut url = bearer.realm.clone();
    url.set_fragment(None);
    url
}

/// What to ask for: what the registry said, else to pull from the repository.
fn scope(bearer: &Bearer, repository: Option<&str>) -> Option<String> {
    let pull = || repository.map(|repository| format!("repository:{repository}:pull"));
    bearer.scope.clone().or_else(pull)
}

/// The request for a token, as an address.
fn token_url(bearer: &Bearer, repository: Option<&str>, username: Option<&str>) -> Url {
    let mut url = realm(bearer);
    let mut query = url.query_pairs_mut();
    if let Some(service) = &bearer.service {
        query.append_pair("service", service);
    }
    for token in scope(bearer, repository).iter().flat_map(|scope| scope.split(' ')) {
        query.append_pair("scope", token);
    }
    if let Some(username) = username {
        query.append_pair("account", username);
    }
    drop(query);
    url
}

/// The request for a token by an identity token, as the fields of a form.
fn refresh_form(bearer: &Bearer, repository: Option<&str>, token: &Secret) -> String {
    let mut form = realm(bearer);
    form.set_query(None);
    let mut fields = form.query_pairs_mut();
    fields.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
    if let Some(service) = &bearer.service {
        fields.append_pair("service", service);
    }
    if let Some(scope) = scope(bearer, repository) {
        fields.append_pair("scope", &scope);
    }
    fields.append_pair("refresh_token", token.expose());
    drop(fields);
    form.query().unwrap_or_default().to_owned()
}

fn said(messages: &[RegistryMessage]) -> String {
    let texts: Vec<_> = messages
        .iter()
        .map(|it| if it.message.is_empty() { &it.code } else { &it.message }.as_str())
        .collect();
    match texts.is_empty() {
        true => String::new(),
        false => format!(" ({})", texts.join("; ")),
    }
}

#[cfg(test)]
mod schedules;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_tokens() {
        let bearer = |realm: &str, scope: Option<&str>| Bearer {
            realm: realm.parse().unwrap(),
            service: Some("s&s".to_owned()),
            scope: scope.map(str::to_owned),
        };
        let url = |bearer, user| String::from(token_url(&bearer, Some("a/b"), user));
        assert_eq!(
            url(bearer("https://r.example/t#x", None), None),
            "https://r.example/t?service=s%26s&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(
            url(bearer("https://r.example/t?k=v", Some("x y")), Some("robot")),
            "https://r.example/t?k=v&service=s%26s&scope=x&scope=y&account=robot"
        );
        let bare = bearer("https://r.example/t", None);
        assert_eq!(String::from(token_url(&bare, None, None)), "https://r.example/t?service=s%26s");
        assert_eq!(
            refresh_form(&bearer("https://r.example/t?k=v", None), Some("a"), &Secret::new("r&t")),
            "grant_type=refresh_token&client_id=layerstore&service=s%26s\
             &scope=repository%3Aa%3Apull&refresh_token=r%26t"
        );
    }
}
