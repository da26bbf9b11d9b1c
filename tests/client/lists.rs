//! Tags and referrers, and the pages that they come in.

use serde_json::json;

use super::*;
use layerstore::oci::Algorithm;

/// A repository with these many tags, in pages of ten.
fn with_tags(count: usize) -> (Registry, Reference, Vec<String>) {
    let registry = Registry::builder().page(10).start();
    let tags: Vec<String> = (0..count).map(|n| format!("v{n:03}")).collect();
    for tag in &tags {
        registry.put_manifest("demo/app", Some(tag), media_type::MANIFEST, "{}");
    }
    let image = registry.reference("demo/app").parse().unwrap();
    (registry, image, tags)
}

fn page(link: &str, tags: &[&str]) -> Action {
    let body = json!({"name": "demo/app", "tags": tags}).to_string();
    Action::status(200, &[("Content-Type", "application/json"), ("Link", link)], body)
}

#[test]
fn tags_come_in_the_registrys_order_over_all_pages() {
    for (count, requests) in [(0, 1), (1, 1), (10, 1), (11, 2), (95, 10)] {
        let (registry, image, tags) = with_tags(count);
        if count == 0 {
            registry.put_manifest("demo/app", None, media_type::MANIFEST, "{}");
        }
        assert_eq!(run(client(&registry).tags(&image)).unwrap(), tags);
        assert_eq!(registry.requests().len(), requests, "{count}");
    }
    let registry = Registry::start();
    let image = registry.reference("demo").parse().unwrap();
    let error = run(client(&registry).tags(&image)).unwrap_err();
    assert!(matches!(error, Error::Registry { status: 404, .. }), "{error:?}");
}

#[test]
fn an_odd_order_and_a_list_of_nothing_are_the_registrys_business() {
    let (registry, image, _) = with_tags(1);
    registry.fault(Fault::on("GET", "/tags/").then(page("", &["b", "a", "_", "B"])));
    assert_eq!(run(client(&registry).tags(&image)).unwrap(), ["b", "a", "_", "B"]);
    registry.clear_faults();
    for body in [r#"{"name":"demo/app","tags":null}"#, r#"{"name":"demo/app"}"#] {
        let fault = registry.fault(Fault::on("GET", "/tags/").then(Action::status(200, &[], body)));
        assert_eq!(run(client(&registry).tags(&image)).unwrap(), [""; 0]);
        assert_eq!(fault.hits(), 1);
        registry.clear_faults();
    }
}

#[test]
fn a_next_page_anywhere_else_is_not_asked_for() {
    let other = Registry::start();
    let (registry, image, _) = with_tags(1);
    let own = registry.address();
    for target in [
        other.url("/v2/demo/app/tags/list?last=a"),
        format!("//{}/v2/demo/app/tags/list?last=a", other.address()),
        format!("https://{own}/v2/demo/app/tags/list?last=a"),
        format!("http://user:password@{own}/v2/demo/app/tags/list?last=a"),
        "/v2/demo/other/tags/list?last=a".to_owned(),
        "/v2/demo/app/manifests/v000?x".to_owned(),
        "/admin?x".to_owned(),
    ] {
        registry.clear_requests();
        let link = format!("<{target}>; rel=\"next\"");
        let fault = registry.fault(Fault::on("GET", "/tags/").then(page(&link, &["a"])));
        let error = run(client(&registry).tags(&image)).unwrap_err();
        assert!(matches!(error, Error::BadResponse { .. }), "{target}: {error:?}");
        assert!(error.to_string().contains("not of the same list"), "{error}");
        assert!(!error.to_string().contains("password"), "{error}");
        assert_eq!((fault.hits(), registry.requests().len()), (1, 1));
        registry.clear_faults();
    }
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn lists_without_end_are_ended() {
    let (registry, image, _) = with_tags(1);
    // The same page again.
    let first = "</v2/demo/app/tags/list?n=1000>; rel=next";
    registry.fault(Fault::on("GET", "/tags/").then(page(first, &["a"])));
    let error = run(client(&registry).tags(&image)).unwrap_err();
    assert!(error.to_string().contains("in a circle"), "{error}");
    assert_eq!(registry.requests().len(), 1);
    registry.clear_faults();

    // Two that lead to one another.
    registry.clear_requests();
    let to = |n: u32| format!("</v2/demo/app/tags/list?p={n}>; rel=next");
    registry.fault(Fault::on("GET", "p=1").then(page(&to(2), &["b"])));
    registry.fault(Fault::on("GET", "p=2").then(page(&to(1), &["c"])));
    registry.fault(Fault::on("GET", "n=1000").then(page(&to(1), &["a"])));
    let error = run(client(&registry).tags(&image)).unwrap_err();
    assert!(error.to_string().contains("in a circle"), "{error}");
    assert_eq!(registry.requests().len(), 3);
    registry.clear_faults();

    // Ever new ones.
    registry.clear_requests();
    let deep = Registry::builder().page(1).start();
    for n in 0..1001 {
        deep.put_manifest("demo/app", Some(&format!("v{n:04}")), media_type::MANIFEST, "{}");
    }
    let image = deep.reference("demo/app").parse().unwrap();
    let error = run(client(&deep).tags(&image)).unwrap_err();
    assert!(error.to_string().contains("more than 1000 pages"), "{error}");
    assert_eq!(deep.requests().len(), 1000);
}

#[test]
fn lists_that_are_too_large_are_cut_off() {
    let (registry, image, _) = with_tags(1);
    let endless = Content::generated(1, 1 << 40);
    let large = Action::status(200, &[("Content-Type", "application/json")], endless);
    registry.fault(Fault::on("GET", "/tags/").then(large));
    let error = run(client(&registry).tags(&image)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    registry.clear_faults();

    // Each page is fine, all together are not.
    let many: Vec<String> = (0..30_000).map(|n| format!("{n:0>120}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for n in 0..6 {
        let link = format!("</v2/demo/app/tags/list?p={}>; rel=next", n + 1);
        registry.fault(Fault::on("GET", &format!("p={n}")).then(page(&link, &many)));
    }
    registry.fault(
        Fault::on("GET", "n=1000").then(page("</v2/demo/app/tags/list?p=0>; rel=next", &many)),
    );
    let error = run(client(&registry).tags(&image)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 0x100_0000, .. }), "{error:?}");
}

#[test]
fn what_is_no_list_of_tags_is_refused() {
    let (registry, image, _) = with_tags(1);
    for body in [
        "",
        "[]x",
        "<html>",
        r#"{"tags":7}"#,
        r#"{"tags":[7]}"#,
        r#"{"tags":["a b"]}"#,
        r#"{"tags":["\u001b[2J"]}"#,
        r#"{"tags":[""]}"#,
    ] {
        registry.fault(Fault::on("GET", "/tags/").then(Action::status(200, &[], body)));
        let error = run(client(&registry).tags(&image)).unwrap_err();
        assert!(matches!(error, Error::BadResponse { .. }), "{body}: {error:?}");
        registry.clear_faults();
    }
    registry.fault(Fault::on("GET", "/tags/").then(page("<no end", &["a"])));
    let error = run(client(&registry).tags(&image)).unwrap_err();
    assert!(error.to_string().contains("Link cannot be read"), "{error}");
}

#[test]
fn referrers_with_their_types_page_by_page_and_filtered() {
    for has_api in [true, false] {
        let registry = match has_api {
            true => Registry::builder().referrers().page(2).start(),
            false => Registry::start(),
        };
        let (reference, image) = with_image(&registry);
        let subject = image.digest.parse().unwrap();
        let all: Vec<Image> = (0..5u8)
            .map(|n| Image::artifact(["a/x+y", "b/z"][usize::from(n % 2)], Some(&image), &[n]))
            .collect();
        let mut entries = Vec::new();
        for one in &all {
            registry.push("demo", "x", one);
            let kind = &one.layers[0].media_type;
            entries.push(json!({"mediaType": one.media_type, "digest": one.digest,
                "size": one.manifest.len(), "artifactType": kind}));
        }
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        let tag = image.digest.replace(':', "-");
        registry.put_manifest("demo", Some(&tag), media_type::INDEX, index);

        let list = |wanted: Option<&MediaType>| {
            run(client(&registry).referrers(&reference, &subject, wanted)).unwrap()
        };
        let found = list(None);
        assert_eq!(found.len(), 5, "{has_api}");
        assert!(found.iter().all(|it| it.artifact_type.is_some()));
        let wanted = MediaType::new("a/x+y");
        let found = list(Some(&wanted));
        assert_eq!(found.len(), 3, "{has_api}");
        assert!(found.iter().all(|it| it.artifact_type.as_ref() == Some(&wanted)));
        let nothing = Algorithm::Sha512.digest(b"nothing refers to this");
        assert_eq!(run(client(&registry).referrers(&reference, &nothing, None)).unwrap(), []);
    }
}

#[test]
fn a_registry_that_ignores_the_filter_is_filtered_here() {
    let registry = Registry::builder().referrers().start();
    let (reference, image) = with_image(&registry);
    let entry = |n: u8, kind: &str| {
        json!({"mediaType": media_type::MANIFEST, "digest": support::sha256(&[n]), "size": 1,
               "artifactType": kind})
    };
    let index = json!({"schemaVersion": 2, "manifests": [entry(1, "a/b"), entry(2, "c/d")]});
    let headers = [("Content-Type", media_type::INDEX)];
    let answer = Action::status(200, &headers, index.to_string());
    registry.fault(Fault::on("GET", "/referrers/").then(answer));
    let subject = image.digest.parse().unwrap();
    let wanted = MediaType::new("c/d");
    let found = run(client(&registry).referrers(&reference, &subject, Some(&wanted))).unwrap();
    assert_eq!(found.len(), 1);
}
