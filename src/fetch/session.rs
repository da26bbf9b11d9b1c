//! Being let in: credentials and tokens, by origin and repository.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::Mutex as AsyncMutex;

use super::answer::Answer;
use super::challenge::{Bearer, Challenge, is_known_realm};
use super::origin::{Origin, shown};
use super::redirect::is_redirect;
use super::token::Token;
use super::transport::{Authorization, Transport};
use super::{AuthProvider, Credentials};
use crate::error::{Error, RegistryMessage, Result};
use crate::oci::Reference;

/// The longest answer of a token server that is read, in bytes.
const MAX_TOKEN_BODY: u64 = 64 * 1024;

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
}

impl Sessions {
    pub(super) fn new(provider: Arc<dyn AuthProvider>) -> Sessions {
        Sessions { provider, slots: Mutex::default() }
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
        let key = (door.origin.clone(), door.image.repository().to_owned());
        // Nothing that holds this lock can leave the map half changed.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    }

    async fn grant(&self, door: &Door<'_>, challenge: Challenge) -> Result<Grant> {
        let credentials = self.provider.credentials(door.origin, door.image).await?;
        match &challenge {
            Challenge::Basic => {
                let missing = || door.closed("it asks for a user and a password: give it some");
                let authorization = Authorization::Basic(credentials.ok_or_else(missing)?);
                Ok(Grant { authorization, until: None, challenge })
            }
            Challenge::Bearer(bearer) => {
                let token = self.token(door, bearer, credentials).await?;
                let authorization = Authorization::Bearer(token.secret);
                let until = Some(Instant::now() + token.usable);
                Ok(Grant { authorization, until, challenge })
            }
        }
    }

    /// A token from a token server (distribution: "Token Authentication Specification").
    async fn token(
        &self,
        door: &Door<'_>,
        bearer: &Bearer,
        credentials: Option<Credentials>,
    ) -> Result<Token> {
        if credentials.is_some() {
            self.check_trust(door, &bearer.realm)?;
        }
        let url = token_url(bearer, door.image, credentials.as_ref());
        let known = credentials.is_some();
        let authorization = credentials.map(Authorization::Basic);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer =
            door.transport.send(&Method::GET, &url, &headers, authorization.as_ref()).await?;
        match answer.status().as_u16() {
            200 => {
                let now = answer.date();
                let body = answer.document(MAX_TOKEN_BODY).await?;
                let refuse = |reason: &str| Error::BadResponse {
                    url: shown(&url),
                    reason: reason.to_owned(),
                };
                Token::parse(&body, now).map_err(refuse)
            }
            400 | 401 | 403 => Err(door.no_token(answer, known).await),
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
        let repository = self.image.repository();
        let reason = match authorization {
            Some(Authorization::Basic(_)) => {
                "the user or the password is wrong, or may not pull this".to_owned()
            }
            _ => format!("{repository} does not exist, or needs other credentials"),
        };
        self.closed(reason + &said(messages))
    }

    async fn no_token(&self, answer: Answer, known: bool) -> Error {
        let realm = shown(&answer.url);
        let reason = match known {
            true => format!("{realm} refused the user or the password"),
            false => format!("{realm} gives no token without a user and a password"),
        };
        self.closed(reason + &said(&answer.into_messages().await))
    }
}

/// The request for a token, as an address.
fn token_url(bearer: &Bearer, image: &Reference, credentials: Option<&Credentials>) -> Url {
    let default = format!("repository:{}:pull", image.repository());
    let scope = bearer.scope.as_deref().unwrap_or(&default);
    let mut url = bearer.realm.clone();
    url.set_fragment(None);
    let mut query = url.query_pairs_mut();
    if let Some(service) = &bearer.service {
        query.append_pair("service", service);
    }
    for token in scope.split(' ') {
        query.append_pair("scope", token);
    }
    if let Some(Credentials { username, .. }) = credentials {
        query.append_pair("account", username);
    }
    drop(query);
    url
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
mod tests {
    use super::*;

    #[test]
    fn requests_for_tokens() {
        let image: Reference = "r.example/a/b:1".parse().unwrap();
        let bearer = |realm: &str, scope: Option<&str>| Bearer {
            realm: realm.parse().unwrap(),
            service: Some("s&s".to_owned()),
            scope: scope.map(str::to_owned),
        };
        let url = |bearer, credentials| String::from(token_url(&bearer, &image, credentials));
        assert_eq!(
            url(bearer("https://r.example/t#x", None), None),
            "https://r.example/t?service=s%26s&scope=repository%3Aa%2Fb%3Apull"
        );
        let robot = Credentials::new("robot", "secret");
        assert_eq!(
            url(bearer("https://r.example/t?k=v", Some("x y")), Some(&robot)),
            "https://r.example/t?k=v&service=s%26s&scope=x&scope=y&account=robot"
        );
    }
}
