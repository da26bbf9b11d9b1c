//! Being sent elsewhere.

use layerstore::{Error, ErrorKind};

use super::support::{Action, Content, Fault, Registry, Request};
use super::{SIZE, as_user, client, fetch, run, with_blob};

#[test]
fn redirects_keep_credentials_at_home() {
    let registry = Registry::builder().basic("user", "secret").start();
    let (elsewhere, other) = (Registry::start(), Registry::start());
    let (image, blob, bytes) = with_blob(&registry);
    elsewhere.put_blob(Content::generated(7, SIZE));
    let path = format!("/v2/demo/blobs/{}", blob.digest);
    let away = Action::redirect(307, elsewhere.url(&format!("{path}?sig=canary")));
    let known = |request: &Request| request.header("authorization").is_some();
    let fault = registry.fault(Fault::on("GET", "/blobs/").when(known).times(1).then(away));

    let client = as_user(&registry, "secret");
    let (start, part) = run(fetch(&client, &image, &blob, Some((50..).into()))).unwrap();
    assert_eq!((start, &part[..]), (50, &bytes[50..]));
    assert_eq!(fault.hits(), 1);
    let seen = elsewhere.requests();
    assert_eq!((seen.len(), seen[0].range.as_deref()), (1, Some("bytes=50-")));
    assert_eq!(seen[0].authorization, None);

    // Home again by way of another origin is no longer home, nor is a 401 from there a question.
    let there = Action::redirect(302, other.url("/back"));
    registry.fault(Fault::on("GET", "/blobs/").when(known).then(there));
    other.fault(Fault::on("GET", "/back").then(Action::redirect(302, registry.url(&path))));
    let error = run(fetch(&client, &image, &blob, None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(other.requests().iter().all(|it| it.authorization.is_none()));
}

#[test]
fn redirects_within_the_registry_keep_credentials() {
    let registry = Registry::builder().basic("user", "secret").start();
    let (image, blob, bytes) = with_blob(&registry);
    let to = format!("/v2/other/blobs/{}", blob.digest);
    registry.fault(Fault::on("GET", "/v2/demo/blobs/").then(Action::redirect(307, to)));
    let (_, whole) = run(fetch(&as_user(&registry, "secret"), &image, &blob, None)).unwrap();
    assert_eq!(whole, bytes);
}

#[test]
fn redirects_that_lead_nowhere() {
    let registry = Registry::start();
    let (image, blob, _) = with_blob(&registry);
    let cases = [
        (Action::redirect(307, format!("/v2/demo/blobs/{}", blob.digest)), 11),
        (Action::redirect(302, "file:///etc/passwd"), 1),
        (Action::redirect(302, "http://user:pass@127.0.0.1:1/"), 1),
        (Action::redirect(302, "http://[::1"), 1),
        (Action::status(307, &[], ""), 1),
    ];
    for (action, requests) in cases {
        registry.clear_requests();
        let fault = registry.fault(Fault::on("GET", "/blobs/").then(action));
        let error = run(fetch(&client(&registry), &image, &blob, None)).unwrap_err();
        assert!(matches!(error, Error::BadResponse { .. }), "{error}");
        assert_eq!(registry.requests().len(), requests, "{error}");
        fault.remove();
    }
}
