//! Every fault does what it is named for, and only where and as often as told.

use std::io::{self, ErrorKind, Read as _};
use std::time::Duration;

use crate::support::media_type;
use crate::support::raw::{Client, Reply};
use crate::support::{Action, Fault, FaultHandle, Registry, Response};

pub(crate) const BLOB: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

pub(crate) struct Setup {
    pub registry: Registry,
    pub path: String,
    pub fault: FaultHandle,
}

/// A registry that does these things once to a GET of a blob.
pub(crate) fn once(actions: impl IntoIterator<Item = Action>) -> Setup {
    let registry = Registry::start();
    let path = format!("/v2/demo/blobs/{}", registry.put_blob(BLOB));
    let fault = Fault::on("GET", "/blobs/").times(1);
    let fault = registry.fault(actions.into_iter().fold(fault, Fault::then));
    Setup { registry, path, fault }
}

impl Setup {
    /// The wrong answer; checks that the next one is right.
    pub(crate) fn ask(&self, headers: &[(&str, &str)]) -> io::Result<Reply> {
        let reply = Client::connect(&self.registry).ask("GET", &self.path, headers);
        assert_eq!(self.fault.hits(), 1);
        assert_eq!(Client::connect(&self.registry).get(&self.path).body, BLOB);
        assert_eq!(self.fault.hits(), 1);
        reply
    }
}

fn whole(action: Action) -> Reply {
    once([action]).ask(&[]).expect("an answer")
}

/// The answer to `bytes=10-19`.
fn part(action: Action) -> Reply {
    once([action]).ask(&[("Range", "bytes=10-19")]).expect("an answer")
}

fn length(reply: &Reply) -> Option<usize> {
    reply.header("content-length").map(|value| value.parse().unwrap())
}

#[test]
fn another_answer_is_given() {
    let reply = whole(Action::status(429, &[("Retry-After", "3")], "slow down"));
    assert_eq!((reply.status, &*reply.body), (429, &b"slow down"[..]));
    assert_eq!(reply.header("retry-after"), Some("3"));
    let reply = whole(Action::error(403, "DENIED", "no"));
    assert_eq!((reply.status, &reply.json()["errors"][0]["code"]), (403, &"DENIED".into()));
    let reply = whole(Action::redirect(307, "http://127.0.0.1:1/x"));
    assert_eq!((reply.status, reply.header("location")), (307, Some("http://127.0.0.1:1/x")));
    let reply = whole(Action::run(|request| Response::new(200).body(request.target.clone())));
    assert!(reply.body.starts_with(b"/v2/demo/blobs/sha256:"));
}

#[test]
fn the_connection_closes_before_the_answer() {
    let setup = once([Action::Close]);
    assert_eq!(setup.ask(&[]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(setup.registry.requests()[0].status, 0);
}

#[test]
fn the_connection_closes_in_the_body() {
    let reply = whole(Action::CloseAfter(5));
    assert_eq!((length(&reply), &*reply.body), (Some(36), &b"01234"[..]));
    assert_eq!(reply.cut, Some(ErrorKind::UnexpectedEof));
    assert_eq!(whole(Action::CloseAfter(0)).body, b"");
    let reply = part(Action::CloseAfter(5));
    assert_eq!((reply.status, &*reply.body), (206, &b"abcde"[..]));
}

#[test]
fn the_connection_is_reset_in_the_body() {
    let setup = once([Action::StallAfter(5, Duration::from_millis(100)), Action::ResetAfter(5)]);
    let reply = setup.ask(&[]).unwrap();
    assert_eq!((&*reply.body, reply.cut), (&b"01234"[..], Some(ErrorKind::ConnectionReset)));
}

#[test]
fn a_byte_is_corrupt() {
    let reply = whole(Action::Corrupt(3));
    let wrong: Vec<_> = (0..BLOB.len()).filter(|at| reply.body[*at] != BLOB[*at]).collect();
    assert_eq!((wrong, reply.body.len()), (vec![3], BLOB.len()));
}

#[test]
fn the_body_is_short_or_long() {
    let reply = whole(Action::Short(5));
    assert_eq!((length(&reply), &*reply.body, reply.cut), (Some(5), &b"01234"[..], None));
    let reply = whole(Action::Long(5));
    assert_eq!((length(&reply), reply.body.len(), reply.cut), (Some(41), 41, None));
    assert_eq!(reply.body[..36], *BLOB);
}

#[test]
fn bytes_trail_behind_the_body() {
    let setup = once([Action::Trailing(5)]);
    let mut client = Client::connect(&setup.registry);
    let reply = client.ask("GET", &setup.path, &[]).unwrap();
    assert_eq!((length(&reply), &*reply.body), (Some(36), BLOB));
    let mut trail = Vec::new();
    client.rest(&mut trail).unwrap();
    assert_eq!(trail.len(), 5);
}

#[test]
fn the_declared_length_is_wrong() {
    let reply = whole(Action::Declare(40));
    assert_eq!((length(&reply), &*reply.body), (Some(40), BLOB));
    assert_eq!(reply.cut, Some(ErrorKind::UnexpectedEof));
    assert_eq!(whole(Action::Declare(4)).body, b"0123");
}

#[test]
fn the_length_is_not_announced() {
    let reply = whole(Action::NoLength);
    assert_eq!((length(&reply), &*reply.body, reply.cut), (None, BLOB, None));
    assert_eq!(reply.header("connection"), Some("close"));
    let reply = once([Action::NoLength, Action::CloseAfter(5)]).ask(&[]).unwrap();
    assert_eq!((&*reply.body, reply.cut), (&b"01234"[..], None));
}

#[test]
fn the_body_comes_in_chunks() {
    let setup = once([Action::Chunked, Action::StallAfter(7, Duration::ZERO)]);
    let mut client = Client::connect(&setup.registry);
    let reply = client.ask("GET", &setup.path, &[]).unwrap();
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!((length(&reply), &*reply.body, reply.cut), (None, BLOB, None));
    assert_eq!(client.get(&setup.path).body, BLOB, "the connection goes on");
    let reply = whole(Action::ChunkedAbort(7));
    assert_eq!((&*reply.body, reply.cut), (&BLOB[..7], Some(ErrorKind::UnexpectedEof)));
    let reply = whole(Action::ChunkedAbort(99));
    assert_eq!((&*reply.body, reply.cut), (BLOB, Some(ErrorKind::UnexpectedEof)));
}

#[test]
fn a_range_is_ignored() {
    let reply = part(Action::IgnoreRange);
    assert_eq!((reply.status, &*reply.body), (200, BLOB));
    assert_eq!(reply.header("content-range"), None);
}

#[test]
fn a_range_is_answered_with_another() {
    let reply = part(Action::WrongOffset);
    assert_eq!((reply.status, reply.header("content-range")), (206, Some("bytes 9-19/36")));
    assert_eq!(reply.body, BLOB[9..20]);
    let reply = once([Action::WrongOffset]).ask(&[("Range", "bytes=0-3")]).unwrap();
    assert_eq!((reply.header("content-range"), &*reply.body), (Some("bytes 1-3/36"), &BLOB[1..4]));
    let reply = part(Action::WrongTotal);
    assert_eq!(reply.header("content-range"), Some("bytes 10-19/37"));
    assert_eq!(reply.body, BLOB[10..20]);
    let reply = part(Action::PartialRange(4));
    assert_eq!(reply.header("content-range"), Some("bytes 10-13/36"));
    assert_eq!((length(&reply), &*reply.body), (Some(4), &BLOB[10..14]));
    let reply = part(Action::no_content_range());
    assert_eq!((reply.status, reply.header("content-range")), (206, None));
}

#[test]
fn a_range_is_answered_in_parts() {
    let reply = part(Action::Multipart);
    assert_eq!((reply.status, reply.header("content-range")), (206, None));
    assert_eq!(reply.header("content-type"), Some("multipart/byteranges; boundary=cut"));
    let body = String::from_utf8(reply.body).unwrap();
    assert!(
        body.contains("\r\nContent-Range: bytes 10-19/36\r\n\r\nabcdefghij\r\n--cut--"),
        "{body}"
    );
}

#[test]
fn range_faults_leave_whole_answers_alone() {
    for action in
        [Action::WrongOffset, Action::WrongTotal, Action::Multipart, Action::PartialRange(1)]
    {
        let reply = whole(action);
        assert_eq!((reply.status, &*reply.body), (200, BLOB));
    }
}

#[test]
fn header_fields_are_wrong() {
    let reply = whole(Action::wrong_digest());
    let digest = reply.header("docker-content-digest").unwrap();
    assert!(digest.starts_with("sha256:0123456789abcdef"), "{digest}");
    assert_eq!(whole(Action::content_type("text/html")).header("content-type"), Some("text/html"));
    let etag = whole(Action::SetHeader("etag".to_owned(), "\"changed\"".to_owned()));
    let fields = etag.headers.iter().filter(|(name, _)| name == "etag");
    assert_eq!(fields.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["\"changed\""]);
    let twice = whole(Action::AddHeader("Content-Length".to_owned(), "35".to_owned()));
    assert_eq!(twice.headers.iter().filter(|(name, _)| name == "content-length").count(), 2);
    let large = whole(Action::HugeHeader(1 << 20));
    assert_eq!(large.header("x-padding").unwrap().len(), 1 << 20);
}

#[test]
fn the_body_is_compressed() {
    let reply = whole(Action::Gzip);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*reply.body).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, BLOB);
}

#[test]
fn faults_count_skip_and_follow_each_other() {
    let registry = Registry::start();
    let one = format!("/v2/demo/blobs/{}", registry.put_blob(BLOB));
    let two = format!("/v2/demo/blobs/{}", registry.put_blob(b"other"));
    let status = |code| Action::status(code, &[], "");
    let first = registry.fault(Fault::on("GET", &one[15..]).skip(1).times(2).then(status(500)));
    let second = registry.fault(Fault::on("", "/blobs/").then(status(503)).times(2).skip(1));
    let ranged = registry.fault(
        Fault::on("GET", "").when(|request| request.header("range").is_some()).then(status(418)),
    );
    let mut client = Client::connect(&registry);
    let seen: Vec<_> = (0..6).map(|_| client.get(&one).status).collect();
    // One skipped by both, two for the first fault, then two for the second.
    assert_eq!(seen, [200, 500, 500, 503, 503, 200]);
    assert_eq!(client.get(&two).status, 200);
    assert_eq!(client.ask("GET", &two, &[("Range", "bytes=0-")]).unwrap().status, 418);
    assert_eq!((first.hits(), second.hits(), ranged.hits()), (2, 2, 1));
    ranged.remove();
    assert_eq!(client.ask("GET", &two, &[("Range", "bytes=0-")]).unwrap().status, 206);
    registry.fault(Fault::on("HEAD", "").then(status(500)));
    assert_eq!(client.ask("HEAD", &two, &[]).unwrap().status, 500);
    registry.clear_faults();
    assert_eq!(client.ask("HEAD", &two, &[]).unwrap().status, 200);
}

#[test]
fn bending_faults_wait_for_an_answer_to_bend() {
    let registry = Registry::builder().basic("user", "secret").start();
    registry.put_manifest("demo", Some("1"), media_type::MANIFEST, "{}");
    let bent = registry.fault(Fault::on("GET", "/manifests/").times(1).then(Action::Corrupt(0)));
    let mut client = Client::connect(&registry);
    assert_eq!(client.get("/v2/demo/manifests/1").status, 401);
    assert_eq!(bent.hits(), 0);
    let login = [("Authorization", "Basic dXNlcjpzZWNyZXQ=")];
    let reply = client.ask("GET", "/v2/demo/manifests/1", &login).unwrap();
    assert_eq!((reply.status, &*reply.body, bent.hits()), (200, &[b'{' ^ 0xff, b'}'][..], 1));
}
