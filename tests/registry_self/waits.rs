//! Faults that take their time, and how they end.

use std::time::{Duration, Instant};

use crate::eventually;
use crate::faults::{BLOB, once};
use crate::support::raw::Client;
use crate::support::{Action, Content, Fault, Registry};

#[test]
fn the_body_stalls() {
    let setup = once([Action::StallAfter(5, Duration::from_millis(200))]);
    let started = Instant::now();
    let reply = setup.ask(&[]).unwrap();
    assert_eq!((&*reply.body, reply.cut), (BLOB, None));
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn the_answer_is_delayed() {
    let setup = once([Action::Delay(Duration::from_millis(200))]);
    let started = Instant::now();
    assert_eq!(setup.ask(&[]).unwrap().body, BLOB);
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn the_head_is_slow() {
    let setup = once([Action::SlowHeaders(Duration::from_millis(1))]);
    let started = Instant::now();
    assert_eq!(setup.ask(&[]).unwrap().body, BLOB);
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn the_body_is_throttled() {
    let registry = Registry::builder().throttle(100_000).start();
    let path = format!("/v2/demo/blobs/{}", registry.put_blob(Content::generated(1, 50_000)));
    let timed = |path: &str| {
        let started = Instant::now();
        assert_eq!(Client::connect(&registry).get(path).body.len(), 50_000);
        started.elapsed()
    };
    assert!(timed(&path) >= Duration::from_millis(450));
    registry.fault(Fault::on("GET", "/blobs/").then(Action::Throttle(50_000)));
    assert!(timed(&path) >= Duration::from_millis(950), "a fault overrides the setting");
}

#[test]
fn a_body_can_be_endless() {
    let setup = once([Action::Long(u64::MAX / 2), Action::NoLength]);
    let mut client = Client::connect(&setup.registry);
    client.send("GET", &setup.path, &[]).unwrap();
    assert_eq!(client.head().unwrap().header("content-length"), None);
    let mut body = Vec::new();
    client.exactly(2_000_000, &mut body).unwrap();
    assert_eq!(body[..36], *BLOB);
    drop(client);
    let counted = setup.registry.requests()[0].body_bytes_sent;
    assert!(counted >= 2_000_000, "{counted}");
}

#[test]
fn held_requests_wait_for_the_release() {
    let setup = once([Action::Hold(5)]);
    let mut client = Client::connect(&setup.registry);
    client.send("GET", &setup.path, &[]).unwrap();
    assert!(setup.registry.wait_held(1));
    assert_eq!(setup.registry.requests()[0].body_bytes_sent, 5);
    client.head().unwrap();
    let mut body = Vec::new();
    client.exactly(5, &mut body).unwrap();
    setup.registry.release();
    client.exactly(31, &mut body).unwrap();
    assert_eq!(body, BLOB);
}

#[test]
fn a_client_that_leaves_ends_its_hold() {
    let setup = once([Action::Hold(5)]);
    let mut client = Client::connect(&setup.registry);
    client.send("GET", &setup.path, &[]).unwrap();
    assert!(setup.registry.wait_held(1));
    drop(client);
    eventually(|| setup.registry.held() == 0);
    assert_eq!(setup.registry.bytes_sent(setup.path.rsplit('/').next().unwrap()), 5);
}

#[test]
fn a_registry_stops_whatever_its_faults_are_at() {
    let hour = Duration::from_secs(3600);
    for action in [
        Action::Delay(hour),
        Action::StallAfter(5, hour),
        Action::Hold(5),
        Action::SlowHeaders(hour),
        Action::Throttle(1),
        Action::Long(u64::MAX / 2),
    ] {
        let setup = once([action]);
        let mut client = Client::connect(&setup.registry);
        client.send("GET", &setup.path, &[]).unwrap();
        eventually(|| setup.fault.hits() == 1);
        drop(setup.registry);
        let mut rest = Vec::new();
        // Closed or reset, according to what was under way.
        client.rest(&mut rest).ok();
    }
}
