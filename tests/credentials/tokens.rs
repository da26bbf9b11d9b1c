use serde_json::json;

use crate::home::{Home, auth, push, shown};
use crate::support::{Action, Bearer, Fault, Image, Layer, Registry};

const PASSWORD: &str = "canary-password";
const FILE: &str = "run/containers/auth.json";

#[test]
fn an_identity_token_is_exchanged_at_the_token_server() {
    let bearer = Bearer::user("nobody", "else").refresh_token("canary-identity");
    let registry = Registry::builder().bearer(bearer).start();
    push(&registry);
    for config in [
        json!({"auths": {registry.address(): {"auth": "Og==", "identitytoken": "canary-identity"}}}),
        json!({"credsStore": "test"}),
    ] {
        let home = Home::new();
        let kept = format!("kept/{}", registry.address().replace(':', "_"));
        home.write(&kept, &json!({"Username": "<token>", "Secret": "canary-identity"}));
        home.write(FILE, &config);
        registry.clear_requests();
        let done = home.pull(&registry, &[]);
        assert_eq!(done.code, 0, "{done:?}");
        let asked: Vec<_> =
            registry.requests().into_iter().filter(|it| it.path.starts_with("/token")).collect();
        assert_eq!(asked.len(), 1, "one token for one repository");
        assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/token"));
        assert_eq!(asked[0].authorization, None);
        assert!(shown(&registry).iter().all(|it| it.starts_with("Bearer tok")));
    }
    let home = Home::new();
    home.write(FILE, &json!({"auths": {registry.address(): {"identitytoken": "canary-stale"}}}));
    let done = home.pull(&registry, &[]);
    assert!(done.code == 5 && done.err.contains("refused the identity token"), "{done:?}");
}

#[test]
fn a_registry_token_is_sent_as_it_is() {
    let (home, registry) = (Home::new(), Registry::start());
    push(&registry);
    let challenge = format!("Bearer realm=\"{}\",service=\"x\"", registry.url("/token"));
    let refuse = Action::status(401, &[("WWW-Authenticate", &challenge)], "");
    let unknown =
        |it: &crate::support::Request| it.header("authorization") != Some("Bearer canary-registry");
    registry.fault(Fault::on("", "/v2/").when(unknown).then(refuse));
    home.write(FILE, &json!({"auths": {registry.address(): {"registrytoken": "canary-registry"}}}));
    let done = home.pull(&registry, &[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(registry.requests().iter().all(|it| !it.path.starts_with("/token")));
    assert_eq!(shown(&registry), ["Bearer canary-registry"]);
    home.write(FILE, &json!({"auths": {registry.address(): {"registrytoken": "canary-other"}}}));
    assert_eq!(home.pull(&registry, &[]).code, 5);
}

#[test]
fn tokens_are_not_for_a_registry_that_wants_a_password() {
    let home = Home::new();
    let registry = crate::home::registry();
    for entry in [json!({"identitytoken": "canary-i"}), json!({"registrytoken": "canary-r"})] {
        home.write(FILE, &json!({"auths": {registry.address(): entry}}));
        let done = home.pull(&registry, &[]);
        assert!(done.code == 5 && done.err.contains("there is a token"), "{done:?}");
        assert_eq!(shown(&registry), [""; 0]);
    }
}

#[test]
fn a_token_is_renewed_in_the_middle_of_a_blob() {
    for refresh in [false, true] {
        let bearer = Bearer::user("me", PASSWORD).refresh_token("canary-identity").expires_in(3600);
        let registry = Registry::builder().bearer(bearer).start();
        let image = Image::of(&[Layer::random_file("big", 1, 3_000_000)]);
        registry.push("team/demo", "1", &image);
        let layer = &image.layers[0].digest;
        registry.fault(Fault::on("GET", layer).times(1).then(Action::Hold(2_000_000)));
        let home = Home::new();
        let entry = match refresh {
            true => json!({"identitytoken": "canary-identity"}),
            false => auth("me", PASSWORD),
        };
        home.write(FILE, &json!({"auths": {registry.address(): entry}}));
        let done = std::thread::scope(|scope| {
            let pull = scope.spawn(|| home.pull(&registry, &[]));
            assert!(registry.wait_held(1));
            registry.revoke_tokens();
            registry.cut_connections();
            pull.join().unwrap()
        });
        assert_eq!(done.code, 0, "{done:?}");
        let of_layer: Vec<_> = registry
            .requests()
            .into_iter()
            .filter(|it| it.path.ends_with(layer.as_str()))
            .collect();
        let statuses: Vec<_> = of_layer.iter().map(|it| it.status).collect();
        assert_eq!(statuses, [200, 401, 206], "{of_layer:?}");
        assert!(of_layer[1].range.is_some() && of_layer[1].range == of_layer[2].range);
        assert_eq!(registry.tokens_issued(), 2, "the first, and the one in the middle");
    }
}
