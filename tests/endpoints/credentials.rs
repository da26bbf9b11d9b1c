//! Who sees which password.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use layerstore::fetch::{AuthProvider, Credentials, Origin};
use layerstore::{Reference, Result};

use super::support::{Action, Fault, Registry};
use super::{World, image};

/// A password for each server, with the server's own port in it.
struct OnePerServer;

impl AuthProvider for OnePerServer {
    fn credentials<'a>(
        &'a self,
        origin: &'a Origin,
        image: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        // A mirror is asked about under its own name.
        assert!(origin.serves(image.registry()), "{origin} {image}");
        let password = format!("canary-{}", origin.port());
        ready(Ok(Some(Credentials::new("user", password)))).boxed()
    }
}

/// A registry that lets nobody in but with its own password.
fn locked(image: &super::Image) -> Registry {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let registry = Registry::builder().port(port).basic("user", &format!("canary-{port}")).start();
    registry.push("demo", "1", image);
    registry
}

#[test]
fn each_of_eight_servers_sees_its_own_password_alone() {
    let image = image();
    let layer = &image.layers[0].digest;
    let registries: Vec<_> = (0..8).map(|_| locked(&image)).collect();
    let (origin, mirrors) = registries.split_last().unwrap();
    // Each breaks off sooner or later, so that all are asked.
    for (n, mirror) in mirrors.iter().enumerate() {
        let action = match n % 3 {
            0 => Action::CloseAfter(100_000),
            1 => Action::error(503, "UNAVAILABLE", "later"),
            _ => Action::redirect(307, origin.url(&format!("/v2/demo/blobs/{layer}"))),
        };
        mirror.fault(Fault::on("GET", layer).when(known).then(action));
    }
    let mut conf = format!(
        "[[registry]]\nprefix = \"r.example\"\nlocation = \"{}\"\ninsecure = true\n",
        origin.address()
    );
    for mirror in mirrors {
        let address = mirror.address();
        conf += &format!("[[registry.mirror]]\nlocation = \"{address}\"\ninsecure = true\n");
    }
    let world = World::new();
    world.pull(world.client(&conf).auth(OnePerServer), "r.example/demo:1").unwrap();
    world.has("r.example/demo:1", &image);
    for registry in &registries {
        let expected = basic(&format!("user:canary-{}", registry.port()));
        let seen: Vec<_> =
            registry.requests().into_iter().filter_map(|it| it.authorization).collect();
        assert!(!seen.is_empty(), "{} was never asked", registry.address());
        assert!(seen.iter().all(|it| *it == expected), "{}: {seen:?}", registry.address());
    }
}

fn known(request: &super::support::Request) -> bool {
    request.header("authorization").is_some()
}

fn basic(text: &str) -> String {
    use std::io::Write as _;
    let mut child = std::process::Command::new("base64")
        .arg("-w0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    format!("Basic {}", String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
}
