//! Which certificates are taken, and which are shown.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use layerstore::fetch::HttpRegistry;
use layerstore::{Error, ErrorKind};
use tokio_rustls::rustls::version;

use super::authority::{Authority, Front, Pair, Running};
use super::support::{Action, Fault, Registry};
use super::{World, image, nobody, with};

/// A registry behind TLS, whose certificate is for `host`.
fn behind(pair: Pair) -> (Registry, Running) {
    let registry = with(&image(), "demo");
    let front = Front::new(pair).start(&registry.address());
    (registry, front)
}

#[track_caller]
fn refused(world: &World, registry: &Registry, front: &Running) -> String {
    let error = world.pull(world.client(""), &format!("{}/demo:1", front.address())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert!(registry.requests().is_empty(), "{error}");
    error.to_string()
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    let (_registry, front) = behind(authority.certify("127.0.0.1"));
    let name = format!("{}/demo:1", front.address());

    let world = World::new();
    refused(&world, &_registry, &front);
    world.write(&format!("certs.d/{}/ca.crt", front.address()), &authority.pem);
    world.pull(world.client(""), &name).unwrap();
    world.has(&name, &image());

    let world = World::new();
    world.write("ca.pem", &authority.pem);
    world.write(
        &format!("certs.d/127.0.0.1_{}_/hosts.toml", front.port),
        format!("ca = {:?}\n", world.path("ca.pem")),
    );
    world.pull(world.client(""), &name).unwrap();

    let world = World::new();
    world.write("ca.pem", &authority.pem);
    let settings = world.settings("").ca_file(world.path("ca.pem")).unwrap();
    world.pull(HttpRegistry::builder().settings(settings), &name).unwrap();

    // Named for another host, it says nothing of this one.
    let world = World::new();
    world.write("certs.d/127.0.0.1:1/ca.crt", &authority.pem);
    world.pull(world.client(""), &name).unwrap_err();
}

#[test]
fn certificates_that_are_not_right_are_refused() {
    let authority = Authority::new();
    for (pair, reason) in [
        (authority.certify("127.0.0.2"), "not valid for"),
        (authority.certify("elsewhere.example"), "not valid for"),
        (authority.certify_until("127.0.0.1", 2020), "expired"),
        (Authority::new().certify("127.0.0.1"), ""),
        (Pair::self_signed("127.0.0.1"), ""),
    ] {
        let (registry, front) = behind(pair);
        let world = World::new();
        world.write(&format!("certs.d/{}/ca.crt", front.address()), &authority.pem);
        let error = refused(&world, &registry, &front);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn skip_verify_holds_for_its_host_alone() {
    let (registry, front) = behind(Pair::self_signed("elsewhere.example"));
    let (other, other_front) = behind(Pair::self_signed("elsewhere.example"));
    let world = World::new();
    let text = "skip_verify = true\n";
    world.write(&format!("certs.d/{}/hosts.toml", front.address()), text);
    world.pull(world.client(""), &format!("{}/demo:1", front.address())).unwrap();
    refused(&World::new(), &other, &other_front);

    // Nor does it go along where that host sends us.
    let layer = image().layers[0].digest.clone();
    let away = format!("https://{}/v2/demo/blobs/{layer}", other_front.address());
    let sent = registry.fault(Fault::on("GET", &layer).then(Action::redirect(307, away)));
    let again = World::new();
    again.write(&format!("certs.d/{}/hosts.toml", front.address()), text);
    again.pull(again.client(""), &format!("{}/demo:1", front.address())).unwrap_err();
    assert!(sent.hits() > 0 && other.requests().is_empty());
}

#[test]
fn who_has_spoken_tls_is_asked_for_nothing_without() {
    let (registry, front) = behind(Pair::self_signed("127.0.0.1"));
    let layer = image().layers[0].digest.clone();
    let away = format!("https://{}/v2/demo/blobs/{layer}", nobody());
    for action in [Action::redirect(307, away), Action::CloseAfter(1000)] {
        let fault = registry.fault(Fault::on("GET", &layer).then(action));
        let conf = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", front.address());
        let world = World::new();
        let name = format!("{}/demo:1", front.address());
        let error = world.pull(world.client(&conf), &name).unwrap_err();
        assert!(fault.hits() > 0, "{error}");
        assert!(!error.to_string().contains(&format!("http://{}", front.address())), "{error}");
        fault.remove();
    }
}

#[test]
fn trust_goes_along_with_a_redirect() {
    let authority = Authority::new();
    let (registry, front) = behind(authority.certify("127.0.0.1"));
    let (storage, storage_front) = behind(authority.certify("127.0.0.1"));
    let layer = image().layers[0].digest.clone();
    let away = format!("https://{}/v2/demo/blobs/{layer}", storage_front.address());
    registry.fault(Fault::on("GET", &layer).then(Action::redirect(307, away)));
    let world = World::new();
    world.write(&format!("certs.d/{}/ca.crt", front.address()), &authority.pem);
    world.pull(world.client(""), &format!("{}/demo:1", front.address())).unwrap();
    assert_eq!(storage.blob_sends(&layer), 1);
}

#[test]
fn client_certificates_are_shown_to_whom_they_are_for() {
    let authority = Authority::new();
    let clients = Authority::new();
    let mine = clients.certify("me.example");
    let registry = with(&image(), "demo");
    let mut front = Front::new(authority.certify("127.0.0.1"));
    front.clients = Some(clients);
    let front = front.start(&registry.address());
    let name = format!("{}/demo:1", front.address());
    let directory = format!("certs.d/{}", front.address());

    let world = World::new();
    world.write(&format!("{directory}/ca.crt"), &authority.pem);
    refused(&world, &registry, &front);
    world.write(&format!("{directory}/me.cert"), &mine.cert);
    world.write(&format!("{directory}/me.key"), &mine.key);
    world.pull(world.client(""), &name).unwrap();

    let world = World::new();
    world.write("ca.pem", &authority.pem);
    world.write("both.pem", format!("{}{}", mine.cert, mine.key));
    world.write(
        &format!("{directory}/hosts.toml"),
        "ca = \"../../ca.pem\"\nclient = \"../../both.pem\"\n",
    );
    world.pull(world.client(""), &name).unwrap();

    let stranger = Authority::new().certify("me.example");
    let world = World::new();
    world.write(&format!("{directory}/ca.crt"), &authority.pem);
    world.write(&format!("{directory}/me.cert"), &stranger.cert);
    world.write(&format!("{directory}/me.key"), &stranger.key);
    registry.clear_requests();
    refused(&world, &registry, &front);
}

#[test]
fn tls_1_2_is_spoken() {
    let authority = Authority::new();
    let registry = with(&image(), "demo");
    let mut front = Front::new(authority.certify("127.0.0.1"));
    front.versions = vec![&version::TLS12];
    let front = front.start(&registry.address());
    let world = World::new();
    world.write(&format!("certs.d/{}/ca.crt", front.address()), &authority.pem);
    world.pull(world.client(""), &format!("{}/demo:1", front.address())).unwrap();
}

/// The answer to a greeting: TLS 1.1, a random number, no session, a cipher of those days.
fn hello_of_1_1() -> Vec<u8> {
    let mut hello = vec![0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x13, 0]);
    hello
}

#[test]
fn tls_1_1_is_neither_offered_nor_spoken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = [0; 5];
        client.read_exact(&mut head).unwrap();
        let mut greeting = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        client.read_exact(&mut greeting).unwrap();
        client.write_all(&hello_of_1_1()).unwrap();
        let mut alert = Vec::new();
        client.read_to_end(&mut alert).ok();
        (greeting, alert)
    });
    let world = World::new();
    let error = world.pull(world.client(""), &format!("{address}/demo:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    let (greeting, alert) = server.join().unwrap();
    // The extension `supported_versions` (RFC 8446, section 4.2.1), of 1.3 and 1.2 alone.
    let offered = |versions: &[u8]| greeting.windows(versions.len()).any(|it| it == versions);
    assert!(offered(&[0, 43, 0, 5, 4, 3, 4, 3, 3]), "{greeting:?}");
    // A fatal alert: protocol_version.
    assert_eq!((alert[0], &alert[5..]), (0x15, &[2, 70][..]), "{error}");
}

#[test]
fn certificates_that_cannot_be_read_are_named() {
    let world = World::new();
    world.write("certs.d/127.0.0.1:1/ca.crt", "no certificate");
    let error = world.pull(world.client(""), "127.0.0.1:1/demo:1").unwrap_err();
    assert!(matches!(error, Error::Configuration { .. }), "{error}");
    assert!(error.to_string().contains("ca.crt"), "{error}");
}
