//! The honest registry: paths, header fields, ranges, errors, connections.

use std::net::TcpStream;

use proptest::prelude::*;

use crate::support::media_type;
use crate::support::raw::Client;
use crate::support::{Content, Image, Layer, Registry, sha256};

fn code(reply: &crate::support::raw::Reply) -> String {
    reply.json()["errors"][0]["code"].as_str().expect("an error code").to_owned()
}

#[test]
fn the_base_says_which_api_this_is() {
    let registry = Registry::start();
    let reply = Client::connect(&registry).get("/v2/");
    assert_eq!((reply.status, &*reply.body), (200, &b"{}"[..]));
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
}

#[test]
fn a_manifest_is_served_by_tag_and_by_digest_as_it_was_put() {
    let registry = Registry::start();
    let image = Image::of(&[Layer::files(&[("etc/motd", b"hello")])]);
    let digest = registry.push("team/demo", "1", &image);
    assert_eq!(digest, sha256(&image.manifest));
    let mut client = Client::connect(&registry);
    for reference in ["1", &digest] {
        let path = format!("/v2/team/demo/manifests/{reference}");
        let got = client.get(&path);
        assert_eq!(got.status, 200);
        assert_eq!(got.body, image.manifest);
        assert_eq!(got.header("content-type"), Some(media_type::MANIFEST));
        assert_eq!(got.header("docker-content-digest"), Some(&*digest));
        assert_eq!(got.header("etag"), Some(&*format!("\"{digest}\"")));
        let head = client.ask("HEAD", &path, &[]).unwrap();
        assert_eq!(head.headers, got.headers);
        assert!(head.body.is_empty());
    }
}

#[test]
fn an_unchanged_manifest_is_not_sent_again() {
    let registry = Registry::start();
    let digest = registry.put_manifest("demo", Some("1"), media_type::MANIFEST, "{}");
    let etag = format!("\"{digest}\"");
    let mut client = Client::connect(&registry);
    let mut ask = |etag| client.ask("GET", "/v2/demo/manifests/1", &[("If-None-Match", etag)]);
    assert_eq!(ask(&etag).unwrap().status, 304);
    assert_eq!(ask("\"other\"").unwrap().status, 200);
}

#[test]
fn a_manifest_of_a_type_not_accepted_is_unknown() {
    let registry = Registry::start();
    registry.put_manifest("demo", Some("1"), media_type::INDEX, "{}");
    let mut client = Client::connect(&registry);
    let mut ask = |accept: &[(&str, &str)]| client.ask("GET", "/v2/demo/manifests/1", accept);
    let refused = ask(&[("Accept", media_type::MANIFEST)]).unwrap();
    assert_eq!((refused.status, &*code(&refused)), (404, "MANIFEST_UNKNOWN"));
    let both = [("Accept", media_type::MANIFEST), ("Accept", media_type::INDEX)];
    assert_eq!(ask(&both).unwrap().status, 200);
    assert_eq!(ask(&[("Accept", "text/html, */*;q=0.1")]).unwrap().status, 200);
    assert_eq!(ask(&[]).unwrap().status, 200);
}

#[test]
fn what_is_not_there_has_an_error_code() {
    let registry = Registry::start();
    registry.put_manifest("demo", Some("1"), media_type::MANIFEST, "{}");
    let nothing = sha256(b"nothing");
    let mut client = Client::connect(&registry);
    for (path, expected) in [
        ("/v2/other/manifests/1", "NAME_UNKNOWN"),
        ("/v2/other/tags/list", "NAME_UNKNOWN"),
        ("/v2/demo/manifests/2", "MANIFEST_UNKNOWN"),
        (&format!("/v2/demo/manifests/{nothing}"), "MANIFEST_UNKNOWN"),
        (&format!("/v2/demo/blobs/{nothing}"), "BLOB_UNKNOWN"),
    ] {
        let reply = client.get(path);
        assert_eq!((reply.status, &*code(&reply)), (404, expected), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    for path in ["/", "/v1/", "/token", "/v2/demo", &format!("/v2/demo/referrers/{nothing}")] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
    let reply = client.ask("DELETE", "/v2/demo/manifests/1", &[]).unwrap();
    assert_eq!((reply.status, &*code(&reply)), (405, "UNSUPPORTED"));
}

#[test]
fn a_blob_can_be_had_by_range() {
    let registry = Registry::start();
    let digest = registry.put_blob(b"0123456789");
    let path = format!("/v2/any/repository/blobs/{digest}");
    let mut client = Client::connect(&registry);
    for (range, status, content_range, body) in [
        ("bytes=0-0", 206, Some("bytes 0-0/10"), "0"),
        ("bytes=3-5", 206, Some("bytes 3-5/10"), "345"),
        ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=7-99", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-4", 206, Some("bytes 6-9/10"), "6789"),
        ("bytes=-99", 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=10-", 416, Some("bytes */10"), ""),
        ("bytes=10-12", 416, Some("bytes */10"), ""),
        ("bytes=-0", 416, Some("bytes */10"), ""),
        ("bytes=5-3", 200, None, "0123456789"),
        ("bytes=0-1,3-4", 200, None, "0123456789"),
        ("lines=1-2", 200, None, "0123456789"),
    ] {
        let reply = client.ask("GET", &path, &[("Range", range)]).unwrap();
        assert_eq!(reply.status, status, "{range}");
        assert_eq!(reply.header("content-range"), content_range, "{range}");
        if status != 416 {
            assert_eq!(reply.body, body.as_bytes(), "{range}");
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
            assert_eq!(reply.header("docker-content-digest"), Some(&*digest));
        }
    }
    let head = client.ask("HEAD", &path, &[("Range", "bytes=3-5")]).unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}

#[test]
fn a_range_of_another_version_is_not_given() {
    let registry = Registry::start();
    let digest = registry.put_blob(b"0123456789");
    let path = format!("/v2/demo/blobs/{digest}");
    let mut client = Client::connect(&registry);
    let mut ask = |etag: &str| {
        let headers = [("Range", "bytes=3-5"), ("If-Range", etag)];
        client.ask("GET", &path, &headers).unwrap().status
    };
    assert_eq!(ask(&format!("\"{digest}\"")), 206);
    assert_eq!(ask("\"other\""), 200);
}

#[test]
fn an_empty_blob_has_no_ranges() {
    let registry = Registry::start();
    let digest = registry.put_blob("");
    let path = format!("/v2/demo/blobs/{digest}");
    let mut client = Client::connect(&registry);
    let whole = client.get(&path);
    assert_eq!((whole.status, whole.header("content-length")), (200, Some("0")));
    for range in ["bytes=0-", "bytes=-5"] {
        assert_eq!(client.ask("GET", &path, &[("Range", range)]).unwrap().status, 416);
    }
}

#[test]
fn a_generated_blob_is_sent_as_its_digest_says() {
    let registry = Registry::start();
    let content = Content::generated(7, 3_000_001);
    let digest = registry.put_blob(content.clone());
    let path = format!("/v2/demo/blobs/{digest}");
    let mut client = Client::connect(&registry);
    let whole = client.get(&path).body;
    assert_eq!(sha256(&whole), digest);
    let part = client.ask("GET", &path, &[("Range", "bytes=1000001-2999999")]).unwrap();
    assert_eq!(part.body, whole[1_000_001..=2_999_999]);
    assert_ne!(Content::generated(8, 3_000_001).digest(), digest);
}

proptest! {
    #[test]
    fn any_part_of_generated_content_is_the_same_bytes(
        seed: u64, len in 0_u64..200, padding in 0_u64..40, offset in 0_u64..250, size in 0_usize..100,
    ) {
        let content = Content::generated(seed, len).padded(padding);
        let whole = content.to_vec();
        let start = (offset as usize).min(whole.len());
        let expected = &whole[start..(start + size).min(whole.len())];
        let mut buffer = vec![0; size];
        let read = content.read_at(offset, &mut buffer);
        prop_assert_eq!(&buffer[..read], expected);
        prop_assert_eq!(content.slice(offset, size as u64).to_vec(), expected);
    }
}

#[test]
fn tags_are_listed_in_pages() {
    let registry = Registry::start();
    for tag in ["b", "a", "c"] {
        registry.put_manifest("x/y", Some(tag), media_type::MANIFEST, "{}");
    }
    let mut client = Client::connect(&registry);
    let all = client.get("/v2/x/y/tags/list");
    assert_eq!(all.json(), serde_json::json!({"name": "x/y", "tags": ["a", "b", "c"]}));
    assert_eq!(all.header("link"), None);
    let first = client.get("/v2/x/y/tags/list?n=2");
    assert_eq!(first.json()["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(first.header("link"), Some("</v2/x/y/tags/list?n=2&last=b>; rel=\"next\""));
    let second = client.get("/v2/x/y/tags/list?n=2&last=b");
    assert_eq!(second.json()["tags"], serde_json::json!(["c"]));
    assert_eq!(second.header("link"), None);
}

#[test]
fn referrers_are_listed_in_pages_and_by_type() {
    let registry = Registry::builder().referrers().page(2).start();
    let image = Image::of(&[]);
    registry.push("demo", "1", &image);
    let kinds = ["a/b+c", "d/e", "a/b+c"];
    for (n, kind) in (0u8..).zip(kinds) {
        registry.push("demo", "x", &Image::artifact(kind, Some(&image), &[n]));
    }
    let mut client = Client::connect(&registry);
    let path = format!("/v2/demo/referrers/{}", image.digest);
    let first = client.get(&path);
    assert_eq!(first.header("content-type"), Some(media_type::INDEX));
    let list = |reply: &serde_json::Value| reply["manifests"].as_array().unwrap().len();
    assert_eq!(list(&first.json()), 2);
    assert_eq!(first.header("oci-filters-applied"), None);
    let link = first.header("link").unwrap().to_owned();
    let next = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0;
    let second = client.get(next);
    assert_eq!((list(&second.json()), second.header("link")), (1, None));
    let filtered = client.get(&format!("{path}?artifactType=a%2Fb%2Bc"));
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let kinds = filtered.json()["manifests"].clone();
    assert!(kinds.as_array().unwrap().iter().all(|it| it["artifactType"] == "a/b+c"), "{kinds}");
    let nothing = client.get(&format!("/v2/demo/referrers/sha256:{}", "0".repeat(64)));
    assert_eq!((nothing.status, list(&nothing.json())), (200, 0));
}

#[test]
fn what_is_removed_is_gone() {
    let registry = Registry::start();
    let manifest = registry.put_manifest("demo", Some("1"), media_type::MANIFEST, "{}");
    let blob = registry.put_blob(b"x");
    let mut client = Client::connect(&registry);
    registry.remove_tag("demo", "1");
    assert_eq!(client.get("/v2/demo/manifests/1").status, 404);
    assert_eq!(client.get(&format!("/v2/demo/manifests/{manifest}")).status, 200);
    registry.remove_manifest("demo", &manifest);
    assert_eq!(client.get(&format!("/v2/demo/manifests/{manifest}")).status, 404);
    registry.remove_blob(&blob);
    assert_eq!(client.get(&format!("/v2/demo/blobs/{blob}")).status, 404);
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let registry = Registry::start();
    let one = registry.put_blob(b"one");
    let two = registry.put_blob(b"two");
    let mut client = Client::connect(&registry);
    client.send("GET", &format!("/v2/demo/blobs/{one}"), &[]).unwrap();
    client.send("GET", &format!("/v2/demo/blobs/{two}"), &[("Connection", "close")]).unwrap();
    assert_eq!(client.receive("GET").unwrap().body, b"one");
    let last = client.receive("GET").unwrap();
    assert_eq!((&*last.body, last.header("connection")), (&b"two"[..], Some("close")));
    assert!(client.head().is_err(), "the connection is closed");
}

#[test]
fn what_is_no_request_closes_the_connection() {
    let registry = Registry::start();
    for (method, target) in [("GET / x", "/"), ("GET", "/ HTTP/1.0\r\nA: "), ("G\0", "")] {
        let mut client = Client::connect(&registry);
        client.send(method, target, &[("no colon\r\nhere", "x")]).unwrap();
        assert!(client.receive("GET").is_err());
    }
    assert!(registry.requests().is_empty());
}

#[test]
fn a_dropped_registry_closes_its_connections_and_its_port() {
    let registry = Registry::start();
    let address = registry.address();
    let port = registry.port();
    let mut client = Client::connect(&registry);
    assert_eq!(client.get("/v2/").status, 200);
    drop(registry);
    assert!(client.ask("GET", "/v2/", &[]).is_err());
    assert!(TcpStream::connect(&address).is_err());
    let again = Registry::builder().port(port).start();
    assert_eq!(again.address(), address);
    assert_eq!(Client::connect(&again).get("/v2/").status, 200);
}
