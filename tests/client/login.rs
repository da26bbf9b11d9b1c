//! Being let in.

use std::time::Duration;

use futures_util::future::{BoxFuture, try_join_all};
use layerstore::fetch::{
    AuthProvider, Credentials, HttpRegistry, Origin, RegistryPull as _, StaticCredentials,
    is_transient,
};
use layerstore::{Error, Reference, Result};

use super::support::{Action, Bearer, Content, Fault, Registry};
use super::{as_user, client, fetch, run, with_blob, with_image};

#[test]
fn basic_authentication() {
    let registry = Registry::builder().basic("user", "secret").start();
    let (image, _) = with_image(&registry);
    let right = as_user(&registry, "secret");
    run(right.manifest(&image, None)).unwrap();
    run(right.manifest(&image, None)).unwrap();
    let statuses: Vec<_> = registry.requests().into_iter().map(|it| it.status).collect();
    assert_eq!(statuses, [401, 200, 200], "refused once, then known");

    for (client, hint) in [
        (as_user(&registry, "wrong"), "the password is wrong"),
        (client(&registry), "asks for a user and a password"),
    ] {
        registry.clear_requests();
        let error = run(client.manifest(&image, None)).unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
        assert!(registry.requests().len() <= 2);
    }
}

#[test]
fn bearer_authentication() {
    let cases = [
        Bearer::anonymous(),
        Bearer::anonymous().fields(&["access_token"]),
        Bearer::anonymous().fields(&["token", "access_token"]).expires_in(300),
        Bearer::user("user", "secret"),
    ];
    for bearer in cases {
        let registry = Registry::builder().bearer(bearer.clone()).start();
        let (image, _) = with_image(&registry);
        let client = as_user(&registry, "secret");
        run(client.resolve(&image)).unwrap();
        run(client.manifest(&image, None)).unwrap();
        assert_eq!(registry.tokens_issued(), 1, "{bearer:?}");
    }
}

#[test]
fn a_token_that_is_refused() {
    let registry = Registry::builder().bearer(Bearer::user("user", "secret")).start();
    let (image, _) = with_image(&registry);
    for (client, hint) in [
        (as_user(&registry, "wrong"), "refused the user or the password"),
        (client(&registry), "without a user and a password"),
    ] {
        let error = run(client.manifest(&image, None)).unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
        assert!(error.to_string().contains("incorrect username"), "{error}");
    }
}

#[test]
fn many_requests_share_one_token() {
    let registry = Registry::builder().bearer(Bearer::anonymous()).start();
    let (image, blob, _) = with_blob(&registry);
    let (client, image, blob) = (&client(&registry), &image, &blob);
    let fetches = (0..20).map(|_| fetch(client, image, blob, None));
    let fetched = run(try_join_all(fetches)).unwrap();
    assert_eq!(fetched.len(), 20);
    assert_eq!(registry.tokens_issued(), 1);
}

#[test]
fn a_token_that_ran_out_is_renewed_without_being_refused() {
    let minute = Duration::from_secs(60);
    let bearer = Bearer::anonymous().expires_in(60).issued_ago(minute).lifetime(minute);
    let registry = Registry::builder().bearer(bearer).start();
    let (image, _) = with_image(&registry);
    let client = client(&registry);
    for _ in 0..3 {
        run(client.manifest(&image, None)).unwrap();
    }
    assert_eq!(registry.tokens_issued(), 3);
    let refused = registry.requests().into_iter().filter(|it| it.status == 401).count();
    assert_eq!(refused, 1);
}

#[test]
fn a_token_that_was_revoked_is_renewed_once() {
    let registry = Registry::builder().bearer(Bearer::anonymous().expires_in(3600)).start();
    let (image, _) = with_image(&registry);
    let client = client(&registry);
    run(client.manifest(&image, None)).unwrap();
    registry.revoke_tokens();
    run(client.manifest(&image, None)).unwrap();
    assert_eq!(registry.tokens_issued(), 2);
}

#[test]
fn a_registry_that_refuses_for_ever_is_not_asked_for_ever() {
    let registry = Registry::builder().bearer(Bearer::anonymous()).start();
    let (image, _) = with_image(&registry);
    let challenge =
        format!("Bearer realm=\"{}\",service=\"registry.test\"", registry.url("/token"));
    let refuse = Action::status(401, &[("WWW-Authenticate", &challenge)], "");
    registry.fault(Fault::on("", "/manifests/").then(refuse));
    let error = run(client(&registry).manifest(&image, None)).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(registry.requests().len(), 3, "the request, the token, the request");
}

#[test]
fn unusable_token_servers() {
    let big = Content::generated(1, 10 * 1024 * 1024);
    let cases = [
        (Action::status(200, &[], big), "larger than the limit of 65536"),
        (Action::status(200, &[], r#"{"token":"a\r\nX: y"}"#), "characters that no token"),
        (Action::status(200, &[], "{}"), "no token in it"),
        (Action::redirect(307, "/elsewhere"), "may not"),
        (Action::error(403, "DENIED", "not you"), "not you"),
        (Action::error(503, "BUSY", "later"), "BUSY"),
    ];
    for (action, text) in cases {
        let registry = Registry::builder().bearer(Bearer::anonymous()).start();
        let (image, _) = with_image(&registry);
        registry.fault(Fault::on("GET", "/token").then(action));
        let error = run(client(&registry).manifest(&image, None)).unwrap_err();
        assert!(error.to_string().contains(text), "{text}: {error}");
        assert_eq!(is_transient(&error), text == "BUSY", "{error}");
    }
}

#[test]
fn unusable_realms() {
    for realm in ["file:///etc/passwd", "http://user:pass@127.0.0.1/token", "/token", "gopher://x/"]
    {
        let registry = Registry::builder().bearer(Bearer::anonymous().realm(realm)).start();
        let (image, _) = with_image(&registry);
        let error = run(client(&registry).manifest(&image, None)).unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert_eq!(registry.requests().len(), 1, "{realm}");
    }
}

/// Trusts one token server beside what is known anyway.
struct Trusting(StaticCredentials, String);

impl AuthProvider for Trusting {
    fn credentials<'a>(
        &'a self,
        origin: &'a Origin,
        image: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        self.0.credentials(origin, image)
    }

    fn trusts_realm(&self, _: &Origin, realm: &Origin) -> bool {
        realm.to_string() == self.1
    }
}

#[test]
fn credentials_go_to_a_token_server_elsewhere_only_when_it_is_trusted() {
    let tokens = Registry::start();
    let bearer = Bearer::user("user", "secret");
    let registry = Registry::builder().bearer(bearer).token_server(&tokens).start();
    with_image(&registry);
    // The same machine by another name is another host.
    let host = format!("localhost:{}", registry.port());
    let image: Reference = format!("{host}/demo:1").parse().unwrap();
    let own = StaticCredentials::new(&host, Credentials::new("user", "secret"));

    let wary = HttpRegistry::builder().plain_http(&host).auth(own.clone()).build().unwrap();
    let error = run(wary.manifest(&image, None)).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(tokens.requests().len(), 0);

    let trusting = Trusting(own, tokens.url(""));
    let trusting = HttpRegistry::builder().plain_http(&host).auth(trusting).build().unwrap();
    run(trusting.manifest(&image, None)).unwrap();
    assert_eq!(tokens.requests().len(), 1);
}
