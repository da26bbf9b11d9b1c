//! Tokens that docker-registry itself checks: signed, for one repository, for a time.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, SigningKey as _};
use serde_json::{Value, json};

use super::data::{LARGE, large};
use super::support::{Action, Fault, Registry, Request, Response};
use super::{User, peers};

const PASSWORD: &str = "canary-password";
/// How long after its end docker-registry still takes a token, in seconds.
const LEEWAY: u64 = 60;

/// Gives tokens to one user, and notes the scopes that were asked for.
struct TokenServer {
    server: Registry,
    asked: Arc<Mutex<Vec<String>>>,
    cert: String,
}

impl TokenServer {
    /// One whose tokens are taken for so many seconds, although it says that they last an hour.
    fn start(seconds: u64) -> TokenServer {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let cert = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let (pem, der) = (cert.pem(), STANDARD.encode(cert.der()));
        let (server, asked) = (Registry::start(), Arc::new(Mutex::new(Vec::new())));
        let scopes = Arc::clone(&asked);
        let known = format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}")));
        let answer = move |request: &Request| {
            if request.header("authorization") != Some(&known) {
                return Response::error(401, "UNAUTHORIZED", "who are you?");
            }
            assert_eq!(request.query("service"), ["registry.test"]);
            scopes.lock().unwrap().extend(request.query("scope"));
            let token = signed(&key, &der, &claims(request, seconds));
            Response::json(200, &json!({"token": token, "expires_in": 3600}))
        };
        server.fault(Fault::on("GET", "/token").then(Action::run(answer)));
        TokenServer { server, asked, cert: pem }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// What a token says (distribution: "Token Authentication Implementation").
fn claims(request: &Request, seconds: u64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let access = |scope: String| {
        let (rest, actions) = scope.rsplit_once(':').unwrap();
        let name = rest.strip_prefix("repository:").unwrap();
        let actions: Vec<_> = actions.split(',').collect();
        json!({"type": "repository", "name": name, "actions": actions})
    };
    let access: Vec<_> = request.query("scope").into_iter().map(access).collect();
    json!({
        "iss": "tests", "sub": "me", "aud": "registry.test", "jti": now.to_string(),
        "iat": now - 600, "nbf": now - 600, "exp": now + seconds - LEEWAY, "access": access,
    })
}

/// A JSON Web Token (RFC 7519) with the certificate of its key in it.
fn signed(key: &KeyPair, certificate: &str, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(&header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// Options of a registry that asks for the tokens of this server.
fn asking_for(user: &User, tokens: &TokenServer) -> [String; 3] {
    let cert = user.write("server/token.crt", &tokens.cert).display().to_string();
    ["--token".to_owned(), tokens.server.url("/token"), cert]
}

fn login(user: &User, registry: &peers::Registry, password: &str) -> String {
    let auth = STANDARD.encode(format!("me:{password}"));
    let auths = json!({"auths": {&registry.address: {"auth": auth}}});
    user.write("auth.json", auths.to_string()).display().to_string()
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn a_token_opens_the_repository_that_it_is_for() {
    let (user, tokens) = (User::new(), TokenServer::start(600));
    let options = asking_for(&user, &tokens);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let registry = super::start(&user.path("server"), &options);
    let name = format!("{}/real/debian:v1", registry.address);
    user.is_refused(&["--plain-http", &name], 5, "gives no token without");
    let wrong = login(&user, &registry, "canary-wrong");
    user.is_refused(&["--plain-http", "--authfile", &wrong, &name], 5, "refused the user");
    assert!(tokens.asked().is_empty());

    let auth_file = login(&user, &registry, PASSWORD);
    let other = format!("{}/real/python:v1", registry.address);
    for name in [&name, &other] {
        user.pulls(&["--plain-http", "--authfile", &auth_file, name]);
        user.store.assert_complete(name);
    }
    let scope = |of: &str| format!("repository:real/{of}:pull");
    assert_eq!(tokens.asked(), [scope("debian"), scope("python")], "one for each repository");
}

#[test]
#[ignore = "needs Debian's docker-registry and nginx: run ./tests/all"]
fn a_token_that_ends_in_the_middle_of_a_layer_is_renewed() {
    let user = User::new();
    let data = user.path("data");
    let image = large(&data);
    let tokens = TokenServer::start(2);
    let options = asking_for(&user, &tokens);
    // Slow enough for the layer to outlive its token, on all connections that a pull has.
    let mut options: Vec<_> = options.iter().map(String::as_str).collect();
    options.extend(["--nginx", "--rate", "12m"]);
    let registry = peers::Registry::start_on(&user.path("server"), &data, &options);
    let auth_file = login(&user, &registry, PASSWORD);
    let name = format!("{}/large:1", registry.address);
    user.pulls(&["--plain-http", "--authfile", &auth_file, &name]);
    user.store.assert_complete(&name);
    user.store.assert_sound();

    let sent = registry.sent_after(LARGE)[&image.layers[0].digest];
    let log = std::fs::read_to_string(user.path("server/access.log")).unwrap();
    let refused = |line: &&str| line.contains("/blobs/") && line.contains("\t401\t");
    let refused = log.lines().filter(refused).count();
    println!("{} tokens, {refused} refusals, {} answers", tokens.asked().len(), sent.responses);
    assert!(tokens.asked().len() > 1, "one token was enough");
    assert!(refused > 0, "none was refused: {log}");
    assert!(sent.bytes >= LARGE && sent.bytes < LARGE + (32 << 20), "{sent:?}");
}
