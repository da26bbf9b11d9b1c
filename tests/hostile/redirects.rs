//! Being sent elsewhere.

use crate::case::{Case, refused, well};
use crate::scene::PASSWORD;
use crate::support::{Action, Fault, Registry, Request};

/// Whoever comes with credentials is noticed: the pull fails.
fn wary(other: &Registry) {
    let known = |request: &Request| request.header("authorization").is_some();
    other.fault(Fault::on("", "").when(known).then(Action::error(418, "LEAKED", "credentials")));
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        refused("in a circle", 6, "more than 10 redirects", |scene| {
            let here = format!("/v2/demo/blobs/{}", scene.layer());
            scene.on_layer(Action::redirect(307, here));
        }),
        refused("twenty times", 6, "more than 10 redirects", |scene| {
            let hop = |request: &Request| {
                let hops = request.query("hop").first().map_or(0, |it| it.parse().unwrap());
                assert!(hops <= 20, "the client goes on");
                let to = format!("{}?hop={}", request.path(), hops + 1);
                crate::support::Response::new(302).header("Location", to)
            };
            scene.on_layer(Action::run(hop));
        }),
        refused("from https to http", 6, "give up encryption", |scene| {
            scene.behind_tls();
            let away = format!("http://{}/v2/demo/blobs/x", scene.registry.address());
            scene.on_layer(Action::redirect(307, away));
        }),
        well("to another host, which must not see credentials", |scene| {
            let path = format!("/v2/any/blobs/{}?signature=canary", scene.layer());
            let other = scene.another();
            wary(other);
            let away = other.url(&path).replace("127.0.0.1", "localhost");
            scene.on_layer(Action::redirect(307, away));
        }),
        well("to another port, which must not see credentials", |scene| {
            let path = format!("/v2/any/blobs/{}?signature=canary", scene.layer());
            let other = scene.another();
            wary(other);
            let away = other.url(&path);
            scene.on_layer(Action::redirect(307, away));
        }),
        refused("to another scheme that nobody speaks there", 6, "does not speak TLS", |scene| {
            let other = scene.another().address();
            scene.on_layer(Action::redirect(307, format!("https://{other}/blob?canary")));
        }),
        refused("from the public network to this machine", 6, "is private", |scene| {
            // By way of a proxy, so that the public address is not connected to.
            let away = scene.another().url("/v2/any/blobs/x?signature=canary");
            scene.ask_another(Registry::builder().basic("user", PASSWORD));
            scene.variables.push(("HTTP_PROXY".to_owned(), scene.registry.url("")));
            scene.login("203.0.113.1");
            scene.name = "203.0.113.1/demo:1".to_owned();
            scene.on_layer(Action::redirect(307, away));
        }),
        refused("to a file", 6, "neither http nor https", |scene| {
            scene.on_layer(Action::redirect(307, "file:///etc/passwd"));
        }),
        refused("to no address", 6, "not an address", |scene| {
            scene.on_layer(Action::redirect(307, "http://[::1"));
        }),
        refused("to nowhere", 6, "without saying where", |scene| {
            scene.on_layer(Action::status(307, &[], ""));
        }),
        refused("to an address with a user in it", 6, "a user in it", |scene| {
            scene.on_layer(Action::redirect(307, "http://user:canary@127.0.0.1:1/"));
        }),
        refused("home by way of another host", 5, "did not let us in", |scene| {
            let back = scene.registry.url(&format!("/v2/demo/blobs/{}", scene.layer()));
            let other = scene.another();
            wary(other);
            other.fault(Fault::on("", "/away").then(Action::redirect(307, back)));
            let away = other.url("/away");
            let known = |request: &Request| request.header("authorization").is_some();
            let fault = Fault::on("GET", &scene.layer()).when(known);
            scene.on(fault.then(Action::redirect(307, away)));
        }),
    ]
}
