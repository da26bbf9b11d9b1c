//! Challenges and token servers that are after more than they should have.

use std::time::Duration;

use crate::case::{Case, refused, well};
use crate::scene::PASSWORD;
use crate::support::{Action, Bearer, Content, Fault, Registry, Request, Response};

fn token(body: impl Into<Content>) -> Action {
    Action::status(200, &[("Content-Type", "application/json")], body)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = challenges();
    cases.extend(answers());
    cases
}

fn challenges() -> Vec<Case> {
    vec![
        refused("a token server on another host", 5, "not known to belong there", |scene| {
            let realm = scene.another().url("/token").replace("127.0.0.1", "localhost");
            scene.challenge(&format!("Bearer realm=\"{realm}\",service=\"registry.test\""));
        }),
        refused("a token server without TLS", 5, "without encryption", |scene| {
            scene.behind_tls();
            let realm = scene.registry.url("/token");
            scene.challenge(&format!("Bearer realm=\"{realm}\",service=\"registry.test\""));
        }),
        refused("a token server with a user in its address", 5, "a user in its address", |scene| {
            scene.challenge("Bearer realm=\"http://u:canary@127.0.0.1:1/token\",service=\"s\"");
        }),
        refused("a token server that is a file", 5, "neither http nor https", |scene| {
            scene.challenge("Bearer realm=\"file:///etc/passwd\",service=\"s\"");
        }),
        refused("a token server that is no address", 5, "not an address", |scene| {
            scene.challenge("Bearer realm=\"/token\",service=\"s\"");
        }),
        refused("no token server", 5, "does not say from where", |scene| {
            scene.challenge("Bearer service=\"s\"");
        }),
        refused("a challenge that cannot be read", 5, "cannot be parsed", |scene| {
            scene.challenge("Bearer realm=\"http://127.0.0.1:1/to");
        }),
        refused("ways of proof that nobody knows", 5, "Negotiate", |scene| {
            scene.challenge("Negotiate, NTLM");
        }),
        well("a scope with more rights than a pull needs", |scene| {
            let realm = scene.registry.url("/token");
            let scope = "repository:demo:pull,push,delete repository:other:*";
            scene.challenge(&format!(
                "Bearer realm=\"{realm}\",service=\"registry.test\",scope=\"{scope}\""
            ));
            // Whoever asks for such a token gets none.
            let greedy = |it: &Request| it.query("scope").iter().any(|it| !it.ends_with(":pull"));
            let refusal = Action::error(400, "DENIED", "too much");
            scene.registry.fault(Fault::on("", "/token").when(greedy).then(refusal));
        }),
        refused("a scope with a line break and a header", 6, "cannot", |scene| {
            let realm = scene.registry.url("/token");
            scene.challenge(&format!(
                "Bearer realm=\"{realm}\",service=\"s\",scope=\"x\r\nX-A: b\nX\u{7}: y\""
            ));
        })
        .impatient(),
    ]
}

fn answers() -> Vec<Case> {
    vec![
        refused("a token server that redirects", 6, "may not", |scene| {
            let away = scene.another().url("/token");
            scene.on(Fault::on("", "/token").then(Action::redirect(307, away)));
        }),
        refused("a token that is never enough", 5, "did not let us in", |scene| {
            let realm = scene.registry.url("/token");
            let challenge = format!("Bearer realm=\"{realm}\",service=\"registry.test\"");
            let refusal = Action::status(401, &[("WWW-Authenticate", &challenge)], "");
            scene.on(Fault::on("", "/v2/").then(refusal));
        }),
        refused("a token of 10 MiB", 1, "larger than the limit of 65536 bytes", |scene| {
            let body = format!(r#"{{"token":"{}"}}"#, "canary".repeat(10 << 20 >> 2));
            scene.on(Fault::on("", "/token").then(token(body)));
        }),
        refused("a token with a line break and a header", 6, "token", |scene| {
            scene.on(Fault::on("", "/token").then(token(r#"{"token":"canary\r\nX-Canary: 1"}"#)));
        }),
        refused("a token that is no text", 6, "token", |scene| {
            scene.on(Fault::on("", "/token").then(token(r#"{"token":{"canary":1}}"#)));
        }),
        refused("no token", 6, "token", |scene| {
            scene.on(Fault::on("", "/token").then(token("{}")));
        }),
        well("a token that lasts longer than the sun", |scene| {
            let forever = Bearer::user("user", PASSWORD).expires_in(u64::MAX);
            scene
                .ask_another(Registry::builder().bearer(forever.lifetime(Duration::from_secs(60))));
        }),
        refused("a token server that repeats what it was told", 5, "refused the user", |scene| {
            let echo = |request: &Request| {
                let told = request.header("authorization").unwrap_or_default();
                Response::error(401, "UNAUTHORIZED", &format!("not {told}"))
            };
            scene.on(Fault::on("", "/token").then(Action::run(echo)));
        }),
    ]
}
