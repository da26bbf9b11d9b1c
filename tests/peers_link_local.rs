//! Addresses where clouds keep secrets are not connected to, whoever names them.
//!
//! The addresses are put on the loopback of a network namespace that the test makes, with a server
//! behind them that notes who comes: nothing can leave this machine, whatever the client does.
#![cfg(feature = "fetch")]

#[path = "support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use layerstore::fetch::{HttpRegistry, Puller, RegistryPull as _, RegistrySettings};
use layerstore::{BlobStore, Error, Reference};
use support::media_type::LAYER_FOREIGN;
use support::{Action, Fault, Image, Layer, Registry};

/// Set in the process that is in the namespace.
const INSIDE: &str = "LAYERSTORE_TEST_INSIDE_NAMESPACE";
const V4: [&str; 3] = ["169.254.169.254", "169.254.1.1", "100.100.100.200"];
/// One that anybody could have, and nobody has (RFC 5737).
const PUBLIC: &str = "203.0.113.1";
const V6: [&str; 2] = ["fd00:ec2::254", "fe80::1"];

#[test]
#[ignore = "needs root for a network namespace: run ./tests/all"]
fn link_local_addresses_are_not_connected_to() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    // The namespace has no interface but its own loopback, which is down until it is set up.
    let adding = [V4.as_slice(), &[PUBLIC]].concat();
    let adding = adding.iter().map(|it| format!("ip addr add {it}/32 dev lo"));
    let adding = adding.collect::<Vec<_>>().join(" && ");
    let adding6 = V6.map(|it| format!("ip -6 addr add {it}/128 dev lo nodad")).join(" && ");
    let names = "mount --bind \"$HOSTS\" /etc/hosts";
    let script =
        format!("ip link set lo up && {adding} && {adding6} && {names} && exec \"$0\" \"$@\"");
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let text = "127.0.0.1 localhost\n169.254.169.254 metadata.test\n\
                ::ffff:169.254.169.254 mapped.test\n127.0.0.1 both.test\n100.100.100.200 both.test\n";
    std::fs::write(hosts.path(), text).unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "link_local_addresses_are_not_connected_to"])
        .args(["--include-ignored", "--nocapture"])
        .env(INSIDE, "1")
        .env("HOSTS", hosts.path())
        .status()
        .expect("unshare can be run");
    assert!(status.success(), "the test in the namespace failed");
}

/// Takes connections at every address of the namespace, and counts them.
fn trap() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

fn inside() {
    let (port, count) = trap();
    // The trap works: it is the client that does not walk into it.
    for address in V4 {
        std::net::TcpStream::connect((address, port)).unwrap();
    }
    std::net::TcpStream::connect(("fd00:ec2::254", port)).unwrap();
    while count.load(Ordering::SeqCst) < V4.len() + 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    count.store(0, Ordering::SeqCst);

    let mut hosts: Vec<String> = V4.map(|it| format!("{it}:{port}")).into();
    hosts.extend(["metadata.test", "mapped.test", "both.test"].map(|it| format!("{it}:{port}")));
    for host in &hosts {
        as_registry(host);
        as_mirror(host);
        as_foreign(host);
        as_redirect(host);
        as_realm(host);
    }
    for host in V6.map(|it| format!("[{it}]:{port}")) {
        as_foreign(&host);
        as_redirect(&host);
        as_realm(&host);
    }
    from_the_public_network(&format!("127.0.0.1:{port}"));
    assert_eq!(count.load(Ordering::SeqCst), 0, "somebody connected");
}

#[track_caller]
fn ask(registry: &str) -> Error {
    let client = HttpRegistry::builder().plain_http(registry).build().unwrap();
    let image: Reference = format!("{registry}/demo:1").parse().unwrap();
    runtime().block_on(client.manifest(&image, None)).unwrap_err()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn image() -> Image {
    Image::of(&[Layer::files(&[("a", b"b")])])
}

#[track_caller]
fn assert_refused(host: &str, error: &Error) {
    assert!(matches!(error, Error::RefusedAddress { .. }), "{host}: {error}");
}

fn as_registry(host: &str) {
    assert_refused(host, &ask(host));
}

/// A mirror that is refused is passed over: the registry behind it answers.
fn as_mirror(host: &str) {
    let registry = Registry::start();
    registry.push("demo", "1", &image());
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true\n",
        registry.address()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), conf).unwrap();
    let settings = RegistrySettings::new().registries_conf(file.path()).unwrap();
    let client = HttpRegistry::builder().settings(settings).build().unwrap();
    let name: Reference = registry.reference("demo:1").parse().unwrap();
    runtime().block_on(client.manifest(&name, None)).unwrap();
    registry.fault(Fault::on("GET", "").then(Action::error(404, "MANIFEST_UNKNOWN", "no")));
    match runtime().block_on(client.manifest(&name, None)).unwrap_err() {
        Error::Endpoints { errors } => assert_refused(host, &errors[0]),
        other => panic!("{host}: {other}"),
    }
}

/// A foreign layer that is said to be there. The registry, asked after that, does not have it.
fn as_foreign(host: &str) {
    let registry = Registry::start();
    let image = image().edited(|it| {
        it["layers"][0]["mediaType"] = LAYER_FOREIGN.into();
        it["layers"][0]["urls"] = vec![format!("https://{host}/latest/meta-data")].into();
    });
    registry.push("demo", "1", &image);
    registry.remove_blob(&image.layers[0].digest);
    let client = HttpRegistry::builder().plain_http(registry.address()).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::init(dir.path().join("store")).unwrap();
    let puller = Puller::new(store, Arc::new(client)).include_foreign(true);
    let name: Reference = registry.reference("demo:1").parse().unwrap();
    let error = runtime().block_on(puller.pull(&name)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("will not connect to"), "{host}: {text}");
}

/// A registry on the public network cannot send us to this machine.
fn from_the_public_network(home: &str) {
    let public: std::net::Ipv4Addr = PUBLIC.parse().unwrap();
    let challenge = format!("Bearer realm=\"http://{home}/token\",service=\"s\"");
    for answer in [
        Action::redirect(307, format!("http://{home}/admin")),
        Action::status(401, &[("WWW-Authenticate", &challenge)], ""),
    ] {
        let registry = Registry::builder().host(public).start();
        registry.push("demo", "1", &image());
        registry.fault(Fault::on("GET", "/manifests/").then(answer));
        assert_refused(home, &ask(&registry.address()));
    }
}

fn as_redirect(host: &str) {
    let registry = Registry::start();
    registry.push("demo", "1", &image());
    let away = Action::redirect(307, format!("http://{host}/latest/meta-data"));
    let sent = registry.fault(Fault::on("GET", "/manifests/").then(away));
    assert_refused(host, &ask(&registry.address()));
    assert_eq!(sent.hits(), 1);
}

fn as_realm(host: &str) {
    let registry = Registry::start();
    let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
    let answer = Action::status(401, &[("WWW-Authenticate", &challenge)], "");
    let sent = registry.fault(Fault::on("GET", "/manifests/").then(answer));
    assert_refused(host, &ask(&registry.address()));
    assert_eq!(sent.hits(), 1);
}
