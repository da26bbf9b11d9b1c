//! What requests travel by.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::Duration;

use layerstore::fetch::{HttpRegistry, RegistryPull as _, is_transient};
use layerstore::oci::MediaType;
use layerstore::{Descriptor, Error, ErrorKind, Reference};

use super::support::{Action, Bearer, Fault, Registry};
use super::{blob_error, client, fetch, run, with_blob, with_image};

#[test]
fn small_blobs_share_a_connection() {
    let registry = Registry::builder().bearer(Bearer::anonymous()).start();
    let (image, made) = with_image(&registry);
    let client = client(&registry);
    run(async {
        client.resolve(&image).await.unwrap();
        client.manifest(&image, None).await.unwrap();
        for layer in made.config.iter().chain(&made.layers) {
            let digest = layer.digest.parse().unwrap();
            let blob = Descriptor::new(MediaType::new(&layer.media_type), digest, layer.size);
            let (_, bytes) = fetch(&client, &image, &blob, None).await.unwrap();
            assert_eq!(bytes, layer.content.to_vec());
        }
        let missing = registry.reference("demo:nope").parse().unwrap();
        client.manifest(&missing, None).await.unwrap_err();
        client.manifest(&image, None).await.unwrap();
    });
    let requests = registry.requests();
    assert_eq!(requests.len(), 8, "{requests:#?}");
    assert!(requests.iter().all(|it| it.connection == 1), "{requests:#?}");
}

#[test]
fn a_redirect_whose_body_is_late_still_keeps_its_connection() {
    let registry = Registry::start();
    let (image, blob, bytes) = with_blob(&registry);
    let to = format!("/v2/other/blobs/{}", blob.digest);
    let moved = Action::status(307, &[("Location", &to)], "it has moved");
    let late = Action::StallAfter(1, Duration::from_millis(50));
    registry.fault(Fault::on("GET", "/v2/demo/blobs/").then(moved).then(late));
    let (_, whole) = run(fetch(&client(&registry), &image, &blob, None)).unwrap();
    assert_eq!(whole, bytes);
    let connections: Vec<_> = registry.requests().into_iter().map(|it| it.connection).collect();
    assert_eq!(connections, [1, 1]);
}

#[test]
fn too_many_headers_are_refused() {
    for size in [70 * 1024, 1024 * 1024] {
        let error = blob_error(None, &[Action::HugeHeader(size)]);
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    }
}

#[test]
fn plain_http_is_spoken_only_where_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let image: Reference = format!("{}/demo:1", listener.local_addr().unwrap()).parse().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nthis is plain HTTP").unwrap();
        // To the end of what the client sends: closing before would reset the connection.
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
        first
    });
    let error = run(HttpRegistry::builder().build().unwrap().manifest(&image, None)).unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    assert!(!is_transient(&error));
    assert_eq!(server.join().unwrap(), [22], "the first byte of a TLS handshake");
}

#[test]
fn settings_that_cannot_be_used() {
    let error = HttpRegistry::builder().user_agent("a\r\nX: y").build().err().unwrap();
    assert!(error.to_string().starts_with("cannot set up the HTTP client"), "{error}");
    assert!(!is_transient(&error));
}

#[test]
fn a_registry_that_is_not_there() {
    let address = Registry::start().address();
    let image = format!("{address}/demo:1").parse().unwrap();
    let client = HttpRegistry::builder().plain_http(&address).build().unwrap();
    let error = run(client.manifest(&image, None)).unwrap_err();
    assert!(error.to_string().starts_with("cannot connect to http://"), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(is_transient(&error));
}
