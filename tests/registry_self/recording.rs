//! What the registry says it sent is what came.

use std::time::Duration;

use crate::support::media_type;
use crate::support::raw::Client;
use crate::support::{Action, Content, Fault, Registry};

#[test]
fn requests_are_recorded_as_they_were() {
    let registry = Registry::start();
    let digest = registry.put_blob(b"0123456789");
    registry.put_manifest("demo", Some("1"), media_type::MANIFEST, "{}");
    let mut client = Client::connect(&registry);
    let path = format!("/v2/demo/blobs/{digest}?x=%20");
    let headers = [("Range", "bytes=2-4"), ("User-Agent", "test/1"), ("Authorization", "Basic x")];
    client.ask("GET", &path, &headers).unwrap();
    client.ask("HEAD", "/v2/demo/manifests/1", &[]).unwrap();
    Client::connect(&registry).get("/nowhere");
    let seen = registry.requests();
    assert_eq!(seen.len(), 3);
    assert_eq!((&*seen[0].method, &*seen[0].path), ("GET", &*path));
    assert_eq!(seen[0].range.as_deref(), Some("bytes=2-4"));
    assert_eq!(seen[0].user_agent.as_deref(), Some("test/1"));
    assert_eq!(seen[0].authorization.as_deref(), Some("Basic x"));
    assert_eq!((seen[0].status, seen[0].body_bytes_sent), (206, 3));
    assert_eq!((seen[1].status, seen[1].body_bytes_sent), (200, 0));
    assert_eq!((&seen[1].range, &seen[1].authorization), (&None, &None));
    assert_eq!(seen[2].status, 404);
    let connections: Vec<_> = seen.iter().map(|one| one.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
    registry.clear_requests();
    assert!(registry.requests().is_empty());
}

#[test]
fn sends_of_a_blob_are_counted() {
    let registry = Registry::start();
    let digest = registry.put_blob(b"0123456789");
    let other = registry.put_blob(b"other");
    let path = format!("/v2/demo/blobs/{digest}");
    let mut client = Client::connect(&registry);
    let counts = || (registry.blob_sends(&digest), registry.bytes_sent(&digest));
    client.ask("HEAD", &path, &[]).unwrap();
    client.ask("GET", &path, &[("Range", "bytes=10-")]).unwrap();
    client.get(&format!("/v2/demo/blobs/{other}"));
    client.get(&format!("/v2/demo/manifests/{digest}"));
    assert_eq!(counts(), (0, 0));
    client.get(&path);
    assert_eq!(counts(), (1, 10));
    client.ask("GET", &path, &[("Range", "bytes=7-")]).unwrap();
    assert_eq!(counts(), (2, 13));

    // Neither an error's body nor a redirect's is the blob's.
    registry.fault(Fault::on("", "").times(1).then(Action::status(503, &[], "busy")));
    registry.fault(Fault::on("", "").times(1).then(Action::redirect(302, "/x")));
    registry.fault(Fault::on("", "").times(1).then(Action::CloseAfter(0)));
    client.get(&path);
    client.get(&path);
    client.get(&path);
    assert_eq!(counts(), (2, 13));

    // Chunk sizes are no bytes of the blob.
    registry.fault(Fault::on("", "").times(1).then(Action::Chunked));
    let mut client = Client::connect(&registry);
    client.get(&path);
    assert_eq!(counts(), (3, 23));
    registry.fault(Fault::on("", "").times(1).then(Action::CloseAfter(4)));
    client.get(&path);
    assert_eq!(counts(), (4, 27));
}

#[test]
fn a_request_is_counted_once_its_bytes_arrive() {
    let registry = Registry::start();
    let digest = registry.put_blob(Content::generated(1, 1_000_000));
    let path = format!("/v2/demo/blobs/{digest}");
    let mut client = Client::connect(&registry);
    for round in 1..=50 {
        client.get(&path);
        assert_eq!(registry.blob_sends(&digest), round);
        assert_eq!(registry.bytes_sent(&digest), round as u64 * 1_000_000);
    }
}

#[test]
fn what_is_cleared_stays_cleared_for_requests_under_way() {
    let registry = Registry::start();
    let digest = registry.put_blob(b"0123456789");
    let path = format!("/v2/demo/blobs/{digest}");
    registry.fault(Fault::on("", "").times(1).then(Action::Hold(4)));
    let mut held = Client::connect(&registry);
    held.send("GET", &path, &[]).unwrap();
    assert!(registry.wait_held(1));
    registry.clear_requests();
    let mut other = Client::connect(&registry);
    other.get("/v2/");
    registry.release();
    assert_eq!(held.receive("GET").unwrap().body, b"0123456789");
    let seen = registry.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!((&*seen[0].path, seen[0].body_bytes_sent), ("/v2/", 2));
}

#[test]
fn open_connections_are_counted_without_those_that_were_closed() {
    let registry = Registry::start();
    let ask = || {
        let mut client = Client::connect(&registry);
        client.get("/v2/");
        client
    };
    // The thread that serves a closed connection may not have noticed; the count has.
    for _ in 0..100 {
        drop(ask());
    }
    assert_eq!(registry.peak_connections(), 1);
    let three = [ask(), ask(), ask()];
    assert_eq!((registry.connections(), registry.peak_connections()), (3, 3));
    drop(three);
    assert_eq!((registry.connections(), registry.peak_connections()), (0, 3));
    registry.clear_requests();
    assert_eq!(registry.peak_connections(), 0);
    let _one = ask();
    assert_eq!(registry.peak_connections(), 1);
}

#[test]
fn cut_connections_end_and_new_ones_are_served() {
    let registry = Registry::start();
    let digest = registry.put_blob(b"0123456789");
    let path = format!("/v2/demo/blobs/{digest}");
    let stall = Action::StallAfter(4, Duration::from_secs(3600));
    let stalled = registry.fault(Fault::on("", "").times(1).then(stall));
    let mut client = Client::connect(&registry);
    client.send("GET", &path, &[]).unwrap();
    client.head().unwrap();
    let mut body = Vec::new();
    client.exactly(4, &mut body).unwrap();
    registry.cut_connections();
    assert!(client.exactly(6, &mut body).is_err());
    assert_eq!((stalled.hits(), &*body), (1, &b"0123"[..]));
    assert_eq!(Client::connect(&registry).get(&path).body, b"0123456789");
}

#[test]
fn many_clients_are_served_at_once() {
    let registry = Registry::start();
    let digest = registry.put_blob(Content::generated(1, 100_000));
    let path = format!("/v2/demo/blobs/{digest}");
    registry.fault(Fault::on("GET", "/blobs/").then(Action::Hold(50_000)));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                assert_eq!(Client::connect(&registry).get(&path).body.len(), 100_000);
            });
        }
        assert!(registry.wait_held(20));
        assert_eq!(registry.peak_connections(), 20);
        registry.release();
    });
    assert_eq!(registry.blob_sends(&digest), 20);
    assert_eq!(registry.bytes_sent(&digest), 2_000_000);
}
