use serde_json::{Map, json};

use crate::home::{Home, auth, basic, shown};
use crate::support::{Action, Bearer, Fault, Image, Layer, Registry};

const FILE: &str = "run/containers/auth.json";

#[test]
fn each_of_eight_registries_sees_its_own_credentials_alone() {
    let home = Home::new();
    let password = |n: usize| format!("canary-{n}");
    let start = |n| Registry::builder().basic("me", &password(n)).start();
    let registries: Vec<Registry> = (0..8).map(start).collect();
    let storage: Vec<Registry> = (0..8).map(|_| Registry::start()).collect();
    let mut entries = Map::new();
    for (n, registry) in registries.iter().enumerate() {
        let image = Image::of(&[Layer::random_file("file", n as u64, 1000)]);
        registry.push("team/demo", "1", &image);
        let digest = &image.layers[0].digest;
        storage[n].put_blob_as(digest, image.layers[0].content.clone());
        let there = storage[n].url(&format!("/v2/x/blobs/{digest}"));
        registry.fault(Fault::on("GET", digest).then(Action::redirect(307, there)));
        entries.insert(registry.address(), auth("me", &password(n)));
    }
    home.write(FILE, &json!({"auths": entries}));
    let names: Vec<_> = registries.iter().map(|it| it.reference("team/demo:1")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let done = home.run(&[&["pull", "--plain-http"], &names[..]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    for (n, registry) in registries.iter().enumerate() {
        assert_eq!(shown(registry), [basic("me", &password(n))]);
        assert_eq!(storage[n].requests().len(), 1);
        assert_eq!(shown(&storage[n]), [""; 0]);
    }
}

#[test]
fn a_token_server_elsewhere_must_be_allowed() {
    let home = Home::new();
    let tokens = Registry::start();
    let bearer = Bearer::user("me", "canary-password").refresh_token("canary-identity");
    let registry = Registry::builder().bearer(bearer).token_server(&tokens).start();
    crate::home::push(&registry);
    // The same machine by another name is another host.
    let host = format!("localhost:{}", registry.port());
    let name = format!("{host}/team/demo:1");
    for entry in [auth("me", "canary-password"), json!({"identitytoken": "canary-identity"})] {
        home.write(FILE, &json!({"auths": {&host: entry}}));
        tokens.clear_requests();
        for more in [&[][..], &["--token-server", "http://127.0.0.1:1"]] {
            let done = home.run(&[&["pull", "--plain-http", &name], more].concat());
            assert!(done.code == 5 && done.err.contains("not known to belong"), "{done:?}");
        }
        assert_eq!(tokens.requests().len(), 0);
        let url = tokens.url("");
        let done = home.run(&["pull", "--plain-http", &name, "--token-server", &url]);
        assert_eq!((done.code, tokens.requests().len()), (0, 1), "{done:?}");
    }
    let url = tokens.url("");
    let args = ["login", "--plain-http", "-u", "me", "--password-stdin", &host];
    assert_eq!(home.run_with(&args, "canary-password").code, 5);
    let args = [&args[..], &["--token-server", &url]].concat();
    assert_eq!(home.run_with(&args, "canary-password").code, 0);
}
