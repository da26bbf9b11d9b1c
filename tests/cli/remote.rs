//! `tags` and `digest`, and what a pull brings or leaves out beside an image's own blobs.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, keys};
use crate::support::{Action, Fault, Image, Layer, Registry, images, media_type as media};

#[test]
fn tags_are_listed_and_no_store_is_made() {
    let (sandbox, registry) = (Sandbox::empty(), Registry::builder().page(2).start());
    let image = images::synthetic(&[10]);
    for tag in ["b", "a", "c"] {
        registry.push("demo/app", tag, &image);
    }
    let name = registry.reference("demo/app");
    assert_eq!(sandbox.ok(&["tags", "--plain-http", &name]), "a\nb\nc\n");
    let list = sandbox.json(&["tags", "--plain-http", &name]);
    assert_eq!(list, json!({"repository": name, "tags": ["a", "b", "c"]}));
    let nothing = registry.reference("nothing");
    sandbox.fails(&["tags", "--plain-http", &nothing], 4, "answered 404");
    assert!(!sandbox.root().exists());
}

#[test]
fn a_tag_that_would_act_on_the_terminal_is_refused() {
    let (sandbox, registry) = (Sandbox::empty(), Registry::start());
    registry.push("demo", "1", &images::synthetic(&[10]));
    let body = r#"{"tags":["\u001b[2J"]}"#;
    registry.fault(Fault::on("GET", "/tags/").then(Action::status(200, &[], body)));
    let done = sandbox.run(&["tags", "--plain-http", &registry.reference("demo")]);
    assert_eq!((done.code, done.out.as_str()), (Some(6), ""), "{done:?}");
    assert!(!done.err.contains('\u{1b}'), "{done:?}");
}

#[test]
fn digests_of_names_and_of_platforms() {
    let (sandbox, registry) = (Sandbox::empty(), Registry::start());
    let platforms = ["linux/amd64", "linux/arm64"];
    let index = images::multi_platform(&platforms);
    registry.push("demo", "1", &index);
    let nested = Image::index(std::slice::from_ref(&index)).edited(|outer| {
        outer["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "arm64"});
    });
    registry.push("demo", "nested", &nested);
    registry.push("demo", "alone", &index.children[0]);
    registry.clear_requests();
    let digest = |tag: &str, more: &[&str]| {
        let name = registry.reference(&format!("demo:{tag}"));
        sandbox.ok(&[&["digest", "--plain-http", &name], more].concat())
    };
    assert_eq!(digest("1", &[]), format!("{}\n", index.digest));
    let asked: Vec<_> = registry.requests().into_iter().map(|it| it.method).collect();
    assert_eq!(asked, ["HEAD"], "one request");
    for (n, platform) in platforms.iter().enumerate() {
        let expected = format!("{}\n", index.children[n].digest);
        assert_eq!(digest("1", &["--platform", platform]), expected);
    }
    let arm = format!("{}\n", index.children[1].digest);
    assert_eq!(digest("nested", &["--platform", "linux/arm64"]), arm);
    let alone = format!("{}\n", index.children[0].digest);
    assert_eq!(digest("alone", &["--platform", "linux/s390x"]), alone);

    let name = registry.reference("demo:1");
    let found = sandbox.json(&["digest", "--plain-http", &name]);
    assert_eq!(keys(&found), ["ref", "digest", "mediaType", "size"]);
    assert_eq!((&found["ref"], &found["digest"]), (&json!(name), &json!(index.digest)));
    assert_eq!(found["size"], index.manifest.len());
    let other = ["digest", "--plain-http", &name, "--platform", "linux/s390x"];
    sandbox.fails(&other, 4, "it has: linux/amd64, linux/arm64");
    let gone = registry.reference("demo:gone");
    sandbox.fails(&["digest", "--plain-http", &gone], 4, "answered 404");
    assert!(!sandbox.root().exists());
}

#[test]
fn a_registry_at_an_ipv6_address() {
    // Nobody speaks HTTP there; that it was reached is what counts.
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let answer = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap();
        let body = r#"{"name":"a","tags":["there"]}"#;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let name = format!("[0:0::1]:{port}/a");
    assert_eq!(Sandbox::empty().ok(&["tags", "--plain-http", &name]), "there\n");
    let request = answer.join().unwrap().to_ascii_lowercase();
    assert!(request.contains(&format!("host: [::1]:{port}\r\n")), "{request}");
}

#[test]
fn schema_1_is_refused_with_what_to_do() {
    let (sandbox, registry) = (Sandbox::empty(), Registry::start());
    let text = r#"{"schemaVersion":1,"name":"demo","tag":"1","fsLayers":[],"history":[]}"#;
    registry.push("demo", "1", &images::synthetic(&[1]));
    for media_type in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        media::DOCKER_MANIFEST,
    ] {
        let answer = Action::status(200, &[("Content-Type", media_type)], text);
        registry.fault(Fault::on("GET", "/manifests/").then(answer));
        let name = registry.reference("demo:1");
        sandbox.fails(&["pull", "--plain-http", "-q", &name], 1, "`skopeo copy`");
        registry.clear_faults();
    }
}

#[test]
fn foreign_layers_are_shown_and_fetched_on_demand() {
    let (sandbox, registry, elsewhere) = (Sandbox::empty(), Registry::start(), Registry::start());
    let image = Image::of(&[Layer::generated(1, 1000), Layer::generated(2, 5000)]);
    let layer = &image.layers[1];
    let url = elsewhere.url(&format!("/v2/x/blobs/{}", layer.digest));
    elsewhere.put_blob(layer.content.clone());
    let image = image.edited(|manifest| {
        manifest["layers"][1]["mediaType"] = json!(media::LAYER_FOREIGN);
        manifest["layers"][1]["urls"] = json!([url]);
    });
    registry.push("demo", "1", &image);
    registry.remove_blob(&layer.digest);
    let name = registry.reference("demo:1");

    let done = sandbox.run(&["pull", "--plain-http", "--progress", "json", "--json", &name]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&report["foreignBlobs"], &report["foreignBytes"]), (&json!(1), &json!(5000)));
    let mut events = done.err.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let event = events.find(|event| event["event"] == "foreign").unwrap();
    assert_eq!(keys(&event), ["ref", "event", "digest", "size", "urls"]);
    assert_eq!((&event["digest"], &event["urls"]), (&json!(layer.digest), &json!([url])));
    assert!(sandbox.run(&["pull", "--plain-http", &name]).err.contains("--include-foreign"));

    let row = &sandbox.json(&["images"])[0];
    assert_eq!((&row["missing"], &row["foreign"]), (&json!(0), &json!(1)));
    assert!(sandbox.ok(&["images"]).contains("without 1 foreign layer"));
    let text = sandbox.ok(&["inspect", &name]);
    assert!(text.contains("foreign, not fetched") && !text.contains("missing"), "{text}");
    let shown = sandbox.json(&["inspect", &name]);
    let shown = &shown["manifests"][0]["layers"][1];
    assert_eq!((&shown["foreign"], &shown["present"]), (&json!(true), &json!(false)));
    assert_eq!(shown["urls"], json!([url]));
    assert_eq!(sandbox.run(&["check", "--read-data"]).code, Some(0));
    assert_eq!(sandbox.run(&["df"]).code, Some(0));

    let report = sandbox.json(&["pull", "--plain-http", "--include-foreign", &name]);
    assert_eq!((&report["foreignBlobs"], &report["fetchedBlobs"]), (&json!(0), &json!(1)));
    assert_eq!(sandbox.json(&["images"])[0]["foreign"], 0);
    assert!(!sandbox.ok(&["inspect", &name]).contains("foreign"));
}

#[test]
fn what_is_about_an_image_comes_with_it_and_goes_with_it() {
    let (sandbox, registry) = (Sandbox::empty(), Registry::builder().referrers().start());
    let image = images::synthetic(&[1000]);
    registry.push("demo", "1", &image);
    let sbom = Image::artifact("application/spdx+json", Some(&image), b"{}x");
    let signature = Image::artifact("application/vnd.example.sig", Some(&image), b"signed");
    registry.push("demo", "sbom", &sbom);
    registry.push("demo", "signature", &signature);
    let name = registry.reference("demo:1");
    let pull = |more: &[&str]| sandbox.json(&[&["pull", "--plain-http", &name], more].concat());
    assert_eq!(pull(&[])["referrers"], 0);
    let only = ["--referrers", "--artifact-type", "application/spdx+json"];
    assert_eq!(pull(&only)["referrers"], 1);
    assert_eq!(pull(&["--referrers"])["referrers"], 2);
    assert_eq!(sandbox.json(&["gc", "--grace", "0s"])["removed"], 0);
    assert_eq!(sandbox.run(&["blob", "stat", &sbom.digest]).code, Some(0));
    sandbox.ok(&["rm", &name]);
    let report = sandbox.json(&["gc", "--grace", "0s"]);
    // Three manifests; config and layer; the empty config and two files.
    assert_eq!((&report["removed"], &report["live"]), (&json!(8), &json!(0)));

    // An artifact by itself says what it is.
    let name = registry.reference("demo:sbom");
    sandbox.ok(&["pull", "--plain-http", &name]);
    assert!(sandbox.ok(&["inspect", &name]).contains("artifact application/spdx+json"));
}
