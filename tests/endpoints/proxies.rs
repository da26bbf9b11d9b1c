//! Ways round.

use layerstore::fetch::{Proxies, Scheme};

use super::authority::{Authority, Front};
use super::proxy::Proxy;
use super::{World, image, nobody, with};

#[test]
fn https_goes_through_a_tunnel_and_is_verified_at_its_end() {
    let authority = Authority::new();
    let registry = with(&image(), "demo");
    // This name exists for the proxy alone.
    let front = Front::new(authority.certify("registry.test")).start(&registry.address());
    let proxy = Proxy::start(&front.address());
    let world = World::new();
    world.write("certs.d/registry.test:8443/ca.crt", &authority.pem);
    let with_user = format!("http://me:hunter2@{}", proxy.address);
    let proxies = Proxies::new().proxy(Scheme::Https, &with_user).unwrap();
    world.pull(world.client("").proxies(proxies.clone()), "registry.test:8443/demo:1").unwrap();
    world.has("registry.test:8443/demo:1", &image());
    let heads = proxy.heads();
    assert!(!heads.is_empty());
    for head in heads {
        assert!(head.starts_with("CONNECT registry.test:8443 HTTP/1.1\r\n"), "{head}");
        assert!(
            head.to_lowercase().contains("proxy-authorization: basic bwu6ahvudgvymg=="),
            "{head}"
        );
    }
    assert!(registry.requests().iter().all(|it| it.authorization.is_none()));

    let other = World::new();
    let error =
        other.pull(other.client("").proxies(proxies), "registry.test:8443/demo:1").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[test]
fn http_is_asked_for_by_its_whole_address() {
    let registry = with(&image(), "demo");
    let proxy = Proxy::start(&registry.address());
    let world = World::new();
    let proxies = Proxies::new().proxy(Scheme::Http, &proxy.address).unwrap();
    let client = world.client("").plain_http("registry.test").proxies(proxies);
    world.pull(client, "registry.test/demo:1").unwrap();
    world.has("registry.test/demo:1", &image());
    assert!(proxy.heads()[0].starts_with("GET http://registry.test/v2/demo/manifests/1 HTTP/1.1"));
}

#[test]
fn this_machine_and_the_exceptions_are_reached_directly() {
    let registry = with(&image(), "demo");
    let world = World::new();
    let proxies = Proxies::new().proxy(Scheme::Http, &nobody()).unwrap();
    let client = world.client("").plain_http(registry.address()).proxies(proxies.clone());
    world.pull(client, &registry.reference("demo:1")).unwrap();

    let proxy = Proxy::start(&registry.address());
    // Too long for a name: nobody is asked for it.
    let host = format!("{}.invalid", "r".repeat(64));
    let proxies = Proxies::new().proxy(Scheme::Http, &proxy.address).unwrap().except(&host);
    let client = world.client("").plain_http(&host).proxies(proxies);
    world.pull(client, &format!("{host}/demo:1")).unwrap_err();
    assert_eq!(proxy.heads(), [""; 0]);
}

#[test]
fn a_proxy_is_no_way_to_addresses_that_are_refused() {
    let registry = with(&image(), "demo");
    let proxy = Proxy::start(&registry.address());
    let world = World::new();
    for host in ["169.254.169.254", "[fe80::1]:5000"] {
        let proxies = Proxies::new().proxy(Scheme::Http, &proxy.address).unwrap();
        let client = world.client("").proxies(proxies).plain_http(host);
        let Ok(_) = format!("{host}/demo:1").parse::<layerstore::Reference>() else { continue };
        let error = world.pull(client, &format!("{host}/demo:1")).unwrap_err();
        assert!(matches!(error, layerstore::Error::RefusedAddress { .. }), "{error}");
    }
    assert_eq!(proxy.heads(), [""; 0]);
}
