//! TLS as docker-registry speaks it, with a certificate of the test's own authority.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::authority::{Authority, Pair};
use super::{User, start};

/// A registry with this certificate, and the options that made it.
fn with(user: &User, pair: &Pair) -> super::peers::Registry {
    let cert = user.write("server/tls.crt", &pair.cert);
    let key = user.write("server/tls.key", &pair.key);
    start(&user.path("server"), &["--tls", cert.to_str().unwrap(), key.to_str().unwrap()])
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn an_authority_that_is_named_is_trusted_and_no_other() {
    let (user, authority) = (User::new(), Authority::new());
    let registry = with(&user, &authority.certify("127.0.0.1"));
    let name = format!("{}/real/debian:v1", registry.address);
    user.is_refused(&[&name], 6, "certificate");
    let other = user.write("other.pem", Authority::new().pem);
    user.is_refused(&["--ca-file", other.to_str().unwrap(), &name], 6, "certificate");

    user.write(&format!("config/containers/certs.d/{}/ca.crt", registry.address), &authority.pem);
    let report = user.pulls(&[&name]);
    assert_eq!(report["fetchedBlobs"], 3);
    user.store.assert_complete(&name);

    let again = User::new();
    let ca = again.write("ca.pem", &authority.pem);
    again.pulls(&["--ca-file", ca.to_str().unwrap(), &name]);
    again.store.assert_complete(&name);
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn certificates_that_are_not_right_are_refused() {
    let authority = Authority::new();
    for (pair, reason) in [
        (authority.certify("127.0.0.2"), "not valid for"),
        (authority.certify_until("127.0.0.1", 2020), "expired"),
        (Pair::self_signed("127.0.0.1"), "certificate"),
    ] {
        let user = User::new();
        let registry = with(&user, &pair);
        let ca = user.write("ca.pem", &authority.pem);
        let name = format!("{}/real/debian:v1", registry.address);
        user.is_refused(&["--ca-file", ca.to_str().unwrap(), &name], 6, reason);
    }
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn nothing_falls_back_from_tls_or_to_it() {
    let user = User::new();
    let plain = start(&user.path("plain"), &[]);
    let name = format!("{}/real/debian:v1", plain.address);
    user.is_refused(&[&name], 6, "does not speak TLS");

    let secure = with(&user, &Authority::new().certify("127.0.0.1"));
    let name = format!("{}/real/debian:v1", secure.address);
    user.is_refused(&["--plain-http", &name], 6, "400");
}

/// A server of OpenSSL that speaks one version of TLS and no other.
struct Speaks {
    server: Child,
    address: String,
}

impl Speaks {
    fn start(user: &User, pair: &Pair, version: &str) -> Speaks {
        let cert = user.write("old/tls.crt", &pair.cert);
        let key = user.write("old/tls.key", &pair.key);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        // Debian's OpenSSL allows the old ones at this level only.
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &address, version])
            .args(["-cipher", "ALL:@SECLEVEL=0", "-cert"])
            .args([cert.as_path(), "-key".as_ref(), key.as_path()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(&address).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Speaks { server, address }
    }
}

impl Drop for Speaks {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn nothing_older_than_tls_1_2_is_spoken() {
    let authority = Authority::new();
    let pair = authority.certify("127.0.0.1");
    // What the server says about itself comes as an answer, and is no manifest.
    let (refused, spoken) = ((6, "ProtocolVersion"), (1, "not a usable manifest"));
    for (version, (code, reason)) in
        [("-tls1", refused), ("-tls1_1", refused), ("-tls1_2", spoken), ("-tls1_3", spoken)]
    {
        let user = User::new();
        let server = Speaks::start(&user, &pair, version);
        let ca = user.write("ca.pem", &authority.pem);
        let name = format!("{}/real/debian:v1", server.address);
        println!("{version}");
        user.is_refused(&["--ca-file", ca.to_str().unwrap(), &name], code, reason);
    }
}
