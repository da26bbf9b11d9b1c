//! Who may read: Basic, and Bearer with a token endpoint, as the distribution
//! specification and Docker's token specification describe them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::content::sha256;
use super::http::{Request, Response};

/// Lifetime of a token whose answer does not say (Docker's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// Settings of Bearer authentication.
#[derive(Debug, Clone)]
pub struct Bearer {
    user: Option<(String, String)>,
    refresh_token: Option<String>,
    fields: Vec<String>,
    expires_in: Option<u64>,
    issued_ago: Option<Duration>,
    lifetime: Option<Duration>,
    service: String,
    realm: Option<String>,
}

impl Bearer {
    /// Tokens for everybody.
    pub fn anonymous() -> Self {
        Self {
            user: None,
            refresh_token: None,
            fields: vec!["token".to_owned()],
            expires_in: None,
            issued_ago: None,
            lifetime: None,
            service: "registry.test".to_owned(),
            realm: None,
        }
    }

    /// Tokens for one user, who shows the password by Basic or in a `password` grant.
    pub fn user(user: &str, password: &str) -> Self {
        Self { user: Some((user.to_owned(), password.to_owned())), ..Self::anonymous() }
    }

    /// Accepts this token in a `refresh_token` grant too.
    #[must_use]
    pub fn refresh_token(mut self, token: &str) -> Self {
        self.refresh_token = Some(token.to_owned());
        self
    }

    /// Names the fields of the answer that hold the token; `token` alone unless called.
    #[must_use]
    pub fn fields(mut self, names: &[&str]) -> Self {
        self.fields = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Announces a lifetime in seconds, and keeps to it.
    #[must_use]
    pub fn expires_in(mut self, seconds: u64) -> Self {
        self.expires_in = Some(seconds);
        self
    }

    /// Announces `issued_at` as a time this long ago; the lifetime counts from there.
    #[must_use]
    pub fn issued_ago(mut self, ago: Duration) -> Self {
        self.issued_ago = Some(ago);
        self
    }

    /// Lets tokens expire after this time, whatever is announced.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// The service of the challenge, which a token request must repeat.
    #[must_use]
    pub fn service(mut self, service: &str) -> Self {
        self.service = service.to_owned();
        self
    }

    /// A realm for the challenge other than the registry's own `/token`.
    #[must_use]
    pub fn realm(mut self, realm: &str) -> Self {
        self.realm = Some(realm.to_owned());
        self
    }
}

/// Hands out tokens and knows those it handed out.
pub(super) struct Issuer {
    settings: Bearer,
    realm: String,
    granted: Mutex<HashMap<String, Grant>>,
    issued: AtomicU64,
}

struct Grant {
    scopes: Vec<String>,
    until: Instant,
}

impl Issuer {
    /// An issuer whose tokens are had at `realm`, unless the settings name another one.
    pub(super) fn new(settings: Bearer, realm: &str) -> Self {
        let realm = settings.realm.clone().unwrap_or_else(|| realm.to_owned());
        Self { settings, realm, granted: Mutex::default(), issued: AtomicU64::new(0) }
    }

    pub(super) fn service(&self) -> &str {
        &self.settings.service
    }

    pub(super) fn issued(&self) -> u64 {
        self.issued.load(Ordering::SeqCst)
    }

    pub(super) fn revoke(&self) {
        self.granted.lock().unwrap().clear();
    }

    /// Answers the token endpoint: GET as in Docker's token specification, POST as in its
    /// OAuth 2 one.
    pub(super) fn answer(&self, request: &Request) -> Response {
        let parameters = |name| match request.method.as_str() {
            "POST" => request.form(name),
            _ => request.query(name),
        };
        if parameters("service") != [self.settings.service.as_str()] {
            return Response::error(400, "UNSUPPORTED", "service missing or not served here");
        }
        let known = match request.method.as_str() {
            "GET" => self.known_by_header(request),
            "POST" => self.known_by_form(request),
            _ => return Response::error(405, "UNSUPPORTED", "GET or POST"),
        };
        if !known {
            return Response::error(401, "UNAUTHORIZED", "incorrect username or password");
        }
        let scopes = parameters("scope");
        let scopes = scopes.iter().flat_map(|list| list.split(' ')).map(str::to_owned).collect();
        let mut answer = self.issue(scopes);
        if request.method == "POST"
            && let Some(token) = &self.settings.refresh_token
        {
            answer["refresh_token"] = json!(token);
        }
        Response::json(200, &answer).header("Cache-Control", "no-store")
    }

    fn known_by_header(&self, request: &Request) -> bool {
        match &self.settings.user {
            Some((user, password)) => {
                request.header("authorization") == Some(&basic(user, password))
            }
            // Wrong credentials are no better than none, but no worse either.
            None => true,
        }
    }

    fn known_by_form(&self, request: &Request) -> bool {
        let one = |name| request.form(name).into_iter().next().unwrap_or_default();
        match one("grant_type").as_str() {
            "password" => self.settings.user.as_ref().is_none_or(|(user, password)| {
                one("username") == *user && one("password") == *password
            }),
            "refresh_token" => self.settings.refresh_token == Some(one("refresh_token")),
            _ => false,
        }
    }

    fn issue(&self, scopes: Vec<String>) -> Value {
        let number = self.issued.fetch_add(1, Ordering::SeqCst);
        // Long and odd enough that no log has it by chance.
        let seed = format!("{number} {}", Timestamp::now());
        let token = format!("tok{}", &sha256(seed.as_bytes())["sha256:".len()..]);
        let announced = self.settings.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
        let ago = self.settings.issued_ago.unwrap_or_default();
        let lifetime = self.settings.lifetime.unwrap_or(announced.saturating_sub(ago));
        let grant = Grant { scopes, until: Instant::now() + lifetime };
        self.granted.lock().unwrap().insert(token.clone(), grant);
        let mut answer = json!({});
        for field in &self.settings.fields {
            answer[field] = json!(token);
        }
        if let Some(seconds) = self.settings.expires_in {
            answer["expires_in"] = json!(seconds);
        }
        if let Some(ago) = self.settings.issued_ago {
            answer["issued_at"] = json!((Timestamp::now() - ago).to_string());
        }
        answer
    }

    fn challenge(&self, request: &Request, scope: Option<&str>) -> Option<String> {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let granted = self.granted.lock().unwrap();
        let grant =
            token.and_then(|token| granted.get(token)).filter(|grant| grant.until > Instant::now());
        let allowed = grant.is_some_and(|grant| {
            scope.is_none_or(|scope| grant.scopes.iter().any(|one| covers(one, scope)))
        });
        if allowed {
            return None;
        }
        let mut challenge =
            format!("Bearer realm=\"{}\",service=\"{}\"", self.realm, self.settings.service);
        if let Some(scope) = scope {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        match (token, grant) {
            (Some(_), Some(_)) => challenge.push_str(",error=\"insufficient_scope\""),
            (Some(_), None) => challenge.push_str(",error=\"invalid_token\""),
            _ => {}
        }
        Some(challenge)
    }
}

/// Whether a granted scope such as `repository:a/b:pull,push` includes `wanted`, which has
/// one action.
fn covers(granted: &str, wanted: &str) -> bool {
    match (granted.rsplit_once(':'), wanted.rsplit_once(':')) {
        (Some((resource, actions)), Some((wanted_resource, wanted_action))) => {
            resource == wanted_resource && actions.split(',').any(|one| one == wanted_action)
        }
        _ => false,
    }
}

pub(super) enum Auth {
    None,
    Basic { user: String, password: String },
    Bearer(Arc<Issuer>),
}

impl Auth {
    /// The challenge to answer with, unless the request may have `scope`.
    pub(super) fn challenge(&self, request: &Request, scope: Option<&str>) -> Option<String> {
        match self {
            Self::None => None,
            Self::Basic { user, password } => {
                let known = request.header("authorization") == Some(&basic(user, password));
                (!known).then(|| "Basic realm=\"registry.test\"".to_owned())
            }
            Self::Bearer(issuer) => issuer.challenge(request, scope),
        }
    }
}

/// The value of an `Authorization` header field with these credentials (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (bits >> (18 - 6 * place)) & 63;
                text.push(ALPHABET[index as usize].into());
            } else {
                text.push('=');
            }
        }
    }
    text
}
