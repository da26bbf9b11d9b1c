//! Eight hosts, each with a password of its own in the user's file, and a pull that meets them all.

use std::net::Ipv4Addr;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};

use crate::front::{Authority, Front};
use crate::support::{Action, Bearer, Builder, Fault, Image, Layer, Registry, media_type};

/// The hosts, by the last number of their address on loopback.
const REGISTRY: u8 = 1;
const TOKENS: u8 = 2;
const STORAGE: u8 = 3;
const FOREIGN: u8 = 4;
const MIRROR: u8 = 5;
const PROXY: u8 = 6;
const OTHER: u8 = 7;
const STRANGER: u8 = 8;
/// Reached by way of the proxy alone, and not a host of its own.
const FAR: u8 = 9;

fn password(host: u8) -> String {
    format!("canary-{host}")
}

fn basic(host: u8) -> String {
    STANDARD.encode(format!("user:{}", password(host)))
}

fn at(host: u8) -> Builder {
    Registry::builder().host(Ipv4Addr::new(127, 0, 0, host))
}

/// Whose passwords were shown to a server, in any header or body.
fn seen(server: &Registry) -> Vec<u8> {
    let all: String = server.requests().into_iter().map(|it| it.text).collect();
    (REGISTRY..=FAR)
        .filter(|it| all.contains(&password(*it)) || all.contains(&basic(*it)))
        .collect()
}

fn tokens_seen(server: &Registry) -> bool {
    server.requests().iter().any(|it| it.text.contains("Bearer "))
}

#[test]
fn credentials_are_seen_where_they_belong_alone() {
    let tokens = at(TOKENS).start();
    let bearer = Bearer::user("user", &password(REGISTRY));
    let registry = at(REGISTRY).bearer(bearer).token_server(&tokens).start();
    let (storage, foreign, stranger) =
        (at(STORAGE).start(), at(FOREIGN).start(), at(STRANGER).start());
    let mirror = at(MIRROR).basic("user", &password(MIRROR)).start();
    // What is asked of the proxy it answers itself, as the registry that is far away.
    let proxy = at(PROXY).basic("user", &password(FAR)).start();
    let other = at(OTHER).basic("user", &password(OTHER)).start();
    let all = [&registry, &tokens, &storage, &foreign, &mirror, &proxy, &other, &stranger];

    let authority = Authority::new();
    let mut front = Front::new(authority.certify("127.0.0.4"));
    front.host = "127.0.0.4";
    let front = front.start(&foreign.address());
    let layers = [Layer::generated(1, 1000), Layer::generated(2, 1000), Layer::generated(3, 1000)];
    let url = format!("https://{}/v2/any/blobs/{}", front.address(), layers[1].digest);
    let image = Image::of(&layers).edited(|it| {
        it["layers"][1]["mediaType"] = json!(media_type::LAYER_FOREIGN);
        it["layers"][1]["urls"] = json!([url]);
    });
    for server in all {
        server.push("demo", "1", &image);
        // From the mirror come the manifest and the config alone.
        if [&registry, &mirror].iter().any(|it| it.address() == server.address()) {
            server.remove_blob(&layers[1].digest);
        }
    }
    layers.iter().for_each(|layer| mirror.remove_blob(&layer.digest));
    let moved = storage.url(&format!("/v2/any/blobs/{}?signature=s", layers[0].digest));
    registry.fault(Fault::on("GET", &layers[0].digest).then(Action::redirect(307, moved)));
    // Another registry, at another port of the same host, is in league with a stranger.
    let trap = at(OTHER).start();
    let realm = format!("Bearer realm=\"{}\",service=\"s\"", stranger.url("/token"));
    trap.fault(Fault::on("", "/v2/").then(Action::status(
        401,
        &[("WWW-Authenticate", &realm)],
        "",
    )));

    let dir = tempfile::tempdir().unwrap();
    let mut logins = Map::new();
    for (n, server) in (REGISTRY..).zip(all) {
        logins.insert(server.address(), json!({"auth": basic(n)}));
    }
    logins.insert("203.0.113.1".to_owned(), json!({"auth": basic(FAR)}));
    logins.insert(front.address(), json!({"auth": basic(FOREIGN)}));
    logins.insert(trap.address(), json!({"auth": basic(OTHER)}));
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("auth.json"), json!({"auths": logins}).to_string()).unwrap();
    std::fs::write(path("ca.pem"), &authority.pem).unwrap();
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address(),
        mirror.address()
    );
    std::fs::write(path("registries.conf"), conf).unwrap();
    let through = format!("http://user:{}@{}", password(PROXY), proxy.address());
    let names = [&registry.address(), "203.0.113.1", &other.address(), &trap.address()];
    let output = Command::new(env!("CARGO_BIN_EXE_store"))
        .env_clear()
        .env("STORE_ROOT", path("store"))
        .env("CONTAINERS_REGISTRIES_CONF", path("registries.conf"))
        .env("REGISTRY_AUTH_FILE", path("auth.json"))
        .env("HTTP_PROXY", through)
        .args(["pull", "-vvv", "--plain-http", "--include-foreign"])
        .args(["--ca-file", &path("ca.pem"), "--token-server", &tokens.url("")])
        .args(names.map(|name| format!("{name}/demo:1")))
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = said.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>();
    assert_eq!(output.status.code(), Some(3), "all but the last: {error:?}");
    assert!(said.contains("not known to belong there"), "{error:?}");
    assert!(said.contains("TRACE") && !said.contains("canary"), "a secret is logged");
    // Everybody took part but the stranger, whom nobody may ask anything.
    let asked: Vec<_> = all.iter().map(|server| !server.requests().is_empty()).collect();
    assert_eq!(asked, [true, true, true, true, true, true, true, false]);
    let shown: Vec<_> = all.into_iter().map(seen).collect();
    let nobodys = Vec::new;
    let expected = [
        nobodys(), // gets tokens for it
        vec![REGISTRY],
        nobodys(),
        nobodys(),
        vec![MIRROR],
        vec![PROXY, FAR],
        vec![OTHER],
        nobodys(),
    ];
    assert_eq!(shown, expected);
    assert_eq!(seen(&trap), nobodys());
    let with_tokens: Vec<_> = all.into_iter().map(tokens_seen).collect();
    assert_eq!(with_tokens, [true, false, false, false, false, false, false, false]);
}
