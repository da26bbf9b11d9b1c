//! Ways round.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use layerstore::fetch::{Proxies, Scheme};

use super::authority::{Authority, Front};
use super::{World, image, nobody, with};

/// A proxy that leads to one server whatever it is asked for, and the first lines and the
/// credentials it was asked with.
struct Proxy {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, heads) = (target.to_owned(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&heads);
        // Both threads of a connection end with it; this one with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (target, seen) = (target.clone(), Arc::clone(&seen));
                thread::spawn(move || relay(client, &target, &seen));
            }
        });
        Proxy { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn relay(mut client: TcpStream, target: &str, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(text.clone());
    let mut server = TcpStream::connect(target).unwrap();
    if text.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    } else {
        // The absolute form becomes the one that a server expects; one request a connection.
        let (first, rest) = text.split_once("\r\n").unwrap();
        let url: Vec<_> = first.splitn(3, ' ').collect();
        let path = url[1].splitn(4, '/').nth(3).unwrap();
        let head = format!("{} /{path} HTTP/1.1\r\nConnection: close\r\n{rest}", url[0]);
        server.write_all(head.as_bytes()).unwrap();
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

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
    let proxies = Proxies::new().proxy(Scheme::Http, &proxy.address).unwrap().except("r.invalid");
    let client = world.client("").plain_http("r.invalid").proxies(proxies);
    world.pull(client, "r.invalid/demo:1").unwrap_err();
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
