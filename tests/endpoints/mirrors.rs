//! The order of asking, and what makes the next one be asked.

use std::sync::Arc;
use std::time::Duration;

use layerstore::fetch::{Puller, RetryPolicy};
use layerstore::{Error, ErrorKind};

use super::support::{Action, Fault, Registry, media_type};
use super::{World, image, nobody, run, with};

fn entry(registry: &Registry, more: &str) -> String {
    format!("[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n{more}\n", registry.address())
}

fn conf(origin: &Registry, mirrors: &[String]) -> String {
    format!(
        "[[registry]]\nprefix = \"r.example\"\nlocation = \"{}\"\ninsecure = true\n{}",
        origin.address(),
        mirrors.concat()
    )
}

fn url(registry: &Registry) -> String {
    format!("http://{}", registry.address())
}

#[test]
fn the_first_mirror_that_answers_is_the_only_one_asked() {
    let image = image();
    let (first, second, origin) =
        (with(&image, "demo"), with(&image, "demo"), with(&image, "demo"));
    let world = World::new();
    let conf = conf(&origin, &[entry(&first, ""), entry(&second, "")]);
    world.pull(world.client(&conf), "r.example/demo:1").unwrap();
    world.has("r.example/demo:1", &image);
    assert_eq!(first.blob_sends(&image.layers[0].digest), 1);
    assert!(second.requests().is_empty() && origin.requests().is_empty());
    assert_eq!(world.origins(&image.layers[0].digest), [url(&first)]);
}

#[test]
fn whatever_a_mirror_lacks_comes_from_the_next() {
    let image = image();
    let (empty, broken) = (Registry::start(), with(&image, "demo"));
    let (partial, origin) = (with(&image, "demo"), with(&image, "demo"));
    broken.fault(Fault::on("GET", "").then(Action::error(503, "UNAVAILABLE", "later")));
    partial.remove_blob(&image.layers[0].digest);
    let world = World::new();
    let gone = format!("[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n", nobody());
    let mirrors = [gone, entry(&empty, ""), entry(&broken, ""), entry(&partial, "")];
    world.pull(world.client(&conf(&origin, &mirrors)), "r.example/demo:1").unwrap();
    world.has("r.example/demo:1", &image);
    assert!(!empty.requests().is_empty() && !broken.requests().is_empty());
    assert_eq!(world.origins(&image.layers[0].digest), [url(&origin)]);
    assert_eq!(world.origins(&image.layers[1].digest), [url(&partial)]);
    assert!(origin.requests().iter().all(|it| it.path.contains(&image.layers[0].digest)));
}

#[test]
fn pull_from_mirror_is_honoured() {
    let image = image();
    let (tags, digests) = (with(&image, "demo"), with(&image, "demo"));
    let origin = with(&image, "demo");
    let mirrors = [
        entry(&tags, "pull-from-mirror = \"tag-only\""),
        entry(&digests, "pull-from-mirror = \"digest-only\""),
    ];
    let conf = conf(&origin, &mirrors);
    let world = World::new();
    world.pull(world.client(&conf), "r.example/demo:1").unwrap();
    assert!(!tags.requests().is_empty() && digests.requests().is_empty());
    tags.clear_requests();
    let world = World::new();
    let name = format!("r.example/demo@{}", image.digest);
    world.pull(world.client(&conf), &name).unwrap();
    world.has(&name, &image);
    assert!(tags.requests().is_empty() && !digests.requests().is_empty());
    assert!(origin.requests().is_empty());
}

#[test]
fn blocked_names_are_not_asked_for() {
    let image = image();
    let origin = with(&image, "demo");
    let conf = format!("[[registry]]\nlocation = \"{}/demo\"\nblocked = true\n", origin.address());
    let world = World::new();
    let client = world.client(&conf).plain_http(origin.address());
    let error = world.pull(client, &origin.reference("demo:1")).unwrap_err();
    assert!(matches!(error, Error::Blocked { .. }), "{error}");
    assert!(error.to_string().contains("registries.conf"), "{error}");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_mirror_with_wrong_bytes_is_passed_over() {
    let image = image();
    let layer = &image.layers[0].digest;
    let (first, second, origin) =
        (with(&image, "demo"), with(&image, "demo"), with(&image, "demo"));
    first.fault(Fault::on("GET", layer).then(Action::Corrupt(2_000_000)));
    second.fault(Fault::on("GET", "/manifests/").then(Action::Corrupt(3)));
    let conf = conf(&origin, &[entry(&first, ""), entry(&second, "")]);
    let world = World::new();
    world.pull(world.client(&conf), "r.example/demo:1").unwrap();
    world.has("r.example/demo:1", &image);
    assert_eq!((first.blob_sends(layer), second.blob_sends(layer)), (1, 1));
    assert_eq!(world.origins(layer), [url(&second)]);

    // A manifest by digest, of which the second has another idea.
    first.fault(Fault::on("", "/manifests/").then(Action::error(404, "MANIFEST_UNKNOWN", "no")));
    let world = World::new();
    world.pull(world.client(&conf), &format!("r.example/demo@{}", image.digest)).unwrap();
    assert!(origin.requests().iter().any(|it| it.path.contains("/manifests/")));
}

#[test]
fn wrong_bytes_are_held_against_nobody_for_ever() {
    let image = image();
    let layer = &image.layers[0].digest;
    let origin = with(&image, "demo");
    origin.fault(Fault::on("GET", layer).times(1).then(Action::Corrupt(5)));
    let world = World::new();
    let puller = world.puller(world.client(&conf(&origin, &[])));
    let name = "r.example/demo:1".parse().unwrap();
    let error = run(puller.pull(&name)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    run(puller.pull(&name)).unwrap();
    world.has("r.example/demo:1", &image);
}

#[test]
fn who_sent_it_the_last_time_is_not_blamed() {
    let image = image();
    let layer = &image.layers[0].digest;
    let (mirror, origin) = (with(&image, "demo"), with(&image, "demo"));
    let fault = Fault::on("GET", layer);
    let lacks = mirror.fault(fault.clone().times(1).then(Action::error(404, "BLOB_UNKNOWN", "no")));
    let corrupt = mirror.fault(fault.then(Action::Corrupt(2_000_000)));
    let world = World::new();
    let client = Arc::new(world.client(&conf(&origin, &[entry(&mirror, "")])).build().unwrap());
    let name = "r.example/demo:1".parse().unwrap();
    for hits in 0..2 {
        let world = World::new();
        run(Puller::new(world.store.clone(), client.clone()).pull(&name)).unwrap();
        world.has("r.example/demo:1", &image);
        assert_eq!((lacks.hits(), corrupt.hits()), (1, hits));
    }
}

#[test]
fn wrong_bytes_stay_the_error_where_nobody_has_the_right_ones() {
    let image = image();
    let layer = &image.layers[0].digest;
    let (mirror, origin) = (with(&image, "demo"), with(&image, "demo"));
    mirror.fault(Fault::on("GET", layer).then(Action::Corrupt(2_000_000)));
    for (kind, action) in [
        (ErrorKind::Mismatch, Action::Corrupt(5)),
        (ErrorKind::Mismatch, Action::error(404, "BLOB_UNKNOWN", "no")),
    ] {
        let fault = origin.fault(Fault::on("GET", layer).then(action));
        let world = World::new();
        let conf = conf(&origin, &[entry(&mirror, "")]);
        let error = world.pull(world.client(&conf), "r.example/demo:1").unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("does not match its digest"), "{error}");
        assert!(fault.hits() > 0);
        fault.remove();
    }
}

#[test]
fn a_blob_that_breaks_off_goes_on_elsewhere() {
    let image = image();
    let layer = &image.layers[0].digest;
    let (first, second, origin) =
        (with(&image, "demo"), with(&image, "demo"), with(&image, "demo"));
    let cut = first.fault(Fault::on("GET", layer).then(Action::CloseAfter(1_000_000)));
    second.fault(Fault::on("GET", layer).then(Action::CloseAfter(500_000)));
    let world = World::new();
    let conf = conf(&origin, &[entry(&first, ""), entry(&second, "")]);
    world.pull(world.client(&conf), "r.example/demo:1").unwrap();
    world.has("r.example/demo:1", &image);
    assert_eq!(cut.hits(), 1);
    assert_eq!(world.origins(layer), [url(&first), url(&second), url(&origin)]);
    let asked = |registry: &Registry| -> Vec<Option<String>> {
        let all = registry.requests().into_iter();
        all.filter(|it| it.path.contains(layer)).map(|it| it.range).collect()
    };
    assert_eq!(asked(&first), [None]);
    let range = |from: u64| vec![Some(format!("bytes={from}-2999999"))];
    assert_eq!(asked(&second), range(1_000_000));
    assert_eq!(asked(&origin), range(1_500_000));
}

#[test]
fn a_mirror_that_trickles_is_passed_over() {
    let image = image();
    let layer = &image.layers[0].digest;
    let (mirror, origin) = (with(&image, "demo"), with(&image, "demo"));
    let trickle = mirror.fault(Fault::on("GET", layer).then(Action::Throttle(1000)));
    let world = World::new();
    let mut patience = RetryPolicy::default();
    (patience.retries, patience.stall) = (1, Duration::from_millis(500));
    let puller = world.puller(world.client(&conf(&origin, &[entry(&mirror, "")]))).retry(patience);
    run(puller.pull(&"r.example/demo:1".parse().unwrap())).unwrap();
    world.has("r.example/demo:1", &image);
    assert_eq!(trickle.hits(), 1);
    assert_eq!(world.origins(layer), [url(&mirror), url(&origin)]);
}

#[test]
fn a_server_that_ignores_ranges_does_not_go_on() {
    let image = image();
    let layer = &image.layers[0].digest;
    let (first, second, origin) =
        (with(&image, "demo"), with(&image, "demo"), with(&image, "demo"));
    first.fault(Fault::on("GET", layer).then(Action::CloseAfter(1_000_000)));
    second.fault(Fault::on("GET", layer).then(Action::IgnoreRange));
    let world = World::new();
    let conf = conf(&origin, &[entry(&first, ""), entry(&second, "")]);
    world.pull(world.client(&conf), "r.example/demo:1").unwrap();
    world.has("r.example/demo:1", &image);
    assert_eq!(origin.bytes_sent(layer), 2_000_000);
}

#[test]
fn hosts_toml_is_honoured() {
    let image = image();
    let (content, names) = (with(&image, "demo"), with(&image, "demo"));
    let origin = with(&image, "demo");
    let hosts = format!(
        "server = \"http://{}\"\n\
         [host.\"http://{}\"]\ncapabilities = [\"pull\"]\n\
         [host.\"http://{}\".header]\nx-canary = \"hunter2\"\n\
         [host.\"http://{}\"]\ncapabilities = [\"resolve\"]\n",
        origin.address(),
        content.address(),
        content.address(),
        names.address()
    );
    let world = World::new();
    world.write("certs.d/r.example_5000_/hosts.toml", hosts);
    world.pull(world.client(""), "r.example:5000/demo:1").unwrap();
    world.has("r.example:5000/demo:1", &image);
    assert!(names.requests().iter().all(|it| it.path.contains("/manifests/1?ns=r.example%3A5000")));
    assert_eq!(names.requests().len(), 1);
    assert!(content.requests().iter().all(|it| it.path.contains("/blobs/")));
    assert_eq!(world.origins(&image.layers[0].digest), [url(&content)]);
    assert!(origin.requests().is_empty());
}

#[test]
fn headers_of_a_host_stay_with_it() {
    let image = image();
    let (mirror, storage) = (with(&image, "demo"), with(&image, "demo"));
    let seen = |request: &super::support::Request| request.header("x-canary") == Some("hunter2");
    let layer = image.layers[0].digest.clone();
    let away = Action::redirect(307, storage.url(&format!("/v2/demo/blobs/{layer}")));
    let sent = mirror.fault(Fault::on("GET", &layer).when(seen).then(away));
    let leaked = storage.fault(Fault::on("", "").when(seen).then(Action::Close));
    let hosts = format!(
        "[host.\"http://{0}\"]\n[host.\"http://{0}\".header]\nx-canary = \"hunter2\"\n",
        mirror.address()
    );
    let world = World::new();
    world.write("certs.d/r.example/hosts.toml", hosts);
    world.pull(world.client(""), "r.example/demo:1").unwrap();
    world.has("r.example/demo:1", &image);
    assert_eq!((sent.hits(), leaked.hits(), storage.blob_sends(&layer)), (1, 0, 1));
}

#[test]
fn headers_of_a_host_are_not_repeated_in_an_error() {
    let image = image();
    let mirror = with(&image, "demo");
    mirror.fault(Fault::on("GET", "/manifests/").then(Action::error(
        400,
        "BAD",
        "not canary-value",
    )));
    let hosts = format!(
        "[host.\"http://{0}\"]\n[host.\"http://{0}\".header]\nx-canary = \"Bearer canary-value\"\n",
        mirror.address()
    );
    let world = World::new();
    world.write("certs.d/r.example/hosts.toml", hosts);
    let error = world.pull(world.client(""), "r.example/demo:1").unwrap_err().to_string();
    assert!(error.contains("repeats the credentials") && !error.contains("canary"), "{error}");
}

/// Whoever wrote the manifest chose it: a mirror on this machine is no reason to go there.
#[test]
fn the_address_of_a_foreign_layer_is_judged_by_the_registry_and_not_by_its_mirror() {
    let mirror = Registry::start();
    let image = image();
    let secret = mirror.url("/internal");
    let image = image.edited(|manifest| {
        manifest["layers"][0]["mediaType"] = media_type::LAYER_FOREIGN.into();
        manifest["layers"][0]["urls"] = vec![secret].into();
    });
    mirror.push("demo", "1", &image);
    let hosts = format!(
        "[host.\"http://{0}\"]\n[host.\"http://{0}\".header]\nx-canary = \"hunter2\"\n",
        mirror.address()
    );
    let world = World::new();
    world.write("certs.d/r.example/hosts.toml", hosts);
    let name = "r.example/demo:1".parse().unwrap();
    let client = world.client("").plain_http("r.example");
    run(world.puller(client).include_foreign(true).pull(&name)).unwrap();
    world.has("r.example/demo:1", &image);
    let asked: Vec<_> = mirror.requests().into_iter().map(|it| it.path).collect();
    assert!(!asked.iter().any(|path| path.contains("internal")), "{asked:?}");
}

#[test]
fn plain_http_is_spoken_only_where_said() {
    let image = image();
    let origin = with(&image, "demo");
    let world = World::new();
    let error = world.pull(world.client(""), &origin.reference("demo:1")).unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    assert!(origin.requests().is_empty());
    let conf = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", origin.address());
    world.pull(world.client(&conf), &origin.reference("demo:1")).unwrap();
    world.has(&origin.reference("demo:1"), &image);
}
