//! `pull`, from a registry in this process.

use layerstore::oci::Algorithm;
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, keys};
use crate::support::{Action, Fault, Image, Layer, Registry};

const REPORT: [&str; 15] = [
    "ref",
    "digest",
    "mediaType",
    "size",
    "fetchedBlobs",
    "fetchedBytes",
    "reusedBlobs",
    "reusedBytes",
    "resumedBytes",
    "waitedBlobs",
    "foreignBlobs",
    "foreignBytes",
    "referrers",
    "retries",
    "seconds",
];

fn image() -> Image {
    Image::of(&[Layer::files(&[("etc/motd", b"hello")]), Layer::random_file("big", 1, 300_000)])
}

fn short(digest: &str) -> &str {
    &digest["sha256:".len()..][..12]
}

#[test]
fn a_pull_ends_with_the_name_and_the_digest() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    let digest = registry.push("demo", "1", &image);
    let name = registry.reference("demo:1");
    let done = sandbox.run(&["pull", "--plain-http", &name]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.out, format!("{name}@{digest}\n"));
    for layer in &image.layers {
        let start = format!("{}  fetched  ", short(&layer.digest));
        let lines = done.err.lines().filter(|line| line.starts_with(&start)).count();
        assert_eq!(lines, 1, "one line a layer: {done:?}");
    }
    let again = sandbox.run(&["pull", "--plain-http", &name]);
    assert!(again.err.contains(&format!("{}  there  ", short(&image.layers[0].digest))));
    let quiet = sandbox.run(&["pull", "--plain-http", "-q", &name]);
    assert_eq!((quiet.out, quiet.err), (format!("{name}@{digest}\n"), String::new()));
    let by_digest = registry.reference(&format!("demo@{digest}"));
    assert_eq!(sandbox.ok(&["pull", "--plain-http", &by_digest]), format!("{by_digest}\n"));
}

#[test]
fn the_report_for_programs() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    let digest = registry.push("demo", "1", &image);
    let name = registry.reference("demo:1");
    let first = sandbox.json(&["pull", "--plain-http", &name]);
    assert_eq!(keys(&first), REPORT);
    assert_eq!((&first["ref"], &first["digest"]), (&json!(name), &json!(digest)));
    assert_eq!((&first["fetchedBlobs"], &first["reusedBlobs"]), (&json!(4), &json!(0)));
    assert_eq!(first["fetchedBytes"], first["size"]);
    let again = sandbox.json(&["pull", "--plain-http", &name]);
    assert_eq!((&again["fetchedBlobs"], &again["reusedBlobs"]), (&json!(0), &json!(4)));
}

#[test]
fn several_images_are_pulled_although_one_fails() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    registry.push("demo", "1", &image);
    registry.push("demo", "2", &image);
    let names = ["demo:1", "demo:gone", "demo:2"].map(|name| registry.reference(name));
    let [one, gone, two] = names.each_ref().map(String::as_str);
    let done = sandbox.run(&["pull", "--plain-http", "--json", one, gone, two]);
    assert_eq!(done.code, Some(3), "{done:?}");
    let lines: Vec<Value> =
        done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refs: Vec<&Value> = lines.iter().map(|line| &line["ref"]).collect();
    assert_eq!(refs, [one, gone, two]);
    assert_eq!(keys(&lines[1]), ["ref", "error", "exitCode"]);
    assert_eq!(lines[1]["exitCode"], 4);
    assert!(done.err.lines().any(|line| line.starts_with("error: ")), "{done:?}");
    let alone = sandbox.run(&["pull", "--plain-http", gone]);
    assert_eq!((alone.code, alone.out.as_str()), (Some(4), ""), "{alone:?}");
}

#[test]
fn platforms_and_policies() {
    let (sandbox, registry) = (Sandbox::empty(), Registry::start());
    let index =
        crate::support::images::multi_platform(&["linux/amd64", "linux/arm64", "linux/s390x"]);
    registry.push("multi", "1", &index);
    let name = registry.reference("multi:1");
    let pull = |more: &[&str]| sandbox.run(&[&["pull", "--plain-http", &name], more].concat());
    let platforms = || sandbox.json(&["images"])[0]["platforms"].clone();
    assert_eq!(pull(&["--platform", "linux/s390x"]).code, Some(0));
    assert_eq!(platforms(), json!(["linux/s390x"]));
    let done = pull(&["--platform", "linux/arm64", "--policy", "never"]);
    assert_eq!(done.code, Some(4), "{done:?}");
    let done = pull(&["--platform", "linux/riscv64"]);
    assert!(done.code == Some(4) && done.err.contains("it has: "), "{done:?}");
    assert_eq!(pull(&["--all-platforms"]).code, Some(0));
    assert_eq!(platforms(), json!(["linux/amd64", "linux/arm64", "linux/s390x"]));
    registry.clear_requests();
    assert_eq!(pull(&["--policy", "missing"]).code, Some(0));
    assert_eq!(pull(&["--policy", "never"]).code, Some(0));
    assert_eq!(registry.requests().len(), 0);
}

#[test]
fn a_registry_that_lets_nobody_in_and_one_that_is_broken() {
    let sandbox = Sandbox::empty();
    let closed = Registry::builder().basic("user", "password").start();
    closed.push("demo", "1", &image());
    let name = closed.reference("demo:1");
    sandbox.fails_to_pull(&name, 5, "did not let us in");
    let broken = Registry::start();
    broken.push("demo", "1", &image());
    broken.fault(Fault::on("", "/manifests/").then(Action::error(400, "BAD", "\u{1b}[2Jevil")));
    let done = sandbox.fails_to_pull(&broken.reference("demo:1"), 6, "answered 400");
    assert!(done.contains("[2Jevil") && !done.contains('\u{1b}'), "{done:?}");
}

#[test]
fn bytes_that_are_not_the_digests() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    registry.push("demo", "1", &image);
    registry.fault(Fault::on("GET", &image.layers[1].digest).then(Action::Corrupt(1000)));
    sandbox.fails_to_pull(&registry.reference("demo:1"), 7, "does not match its digest");
    assert_eq!(sandbox.json(&["images"]), json!([]));
}

#[test]
fn events_for_programs() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    registry.push("demo", "1", &image);
    let name = registry.reference("demo:1");
    let done = sandbox.run(&["pull", "--plain-http", "--progress", "json", &name]);
    let events: Vec<Value> =
        done.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["ref"] == name), "{events:?}");
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!(keys(of("resolved")[0]), ["ref", "event", "digest"]);
    assert_eq!(keys(of("planned")[0]), ["ref", "event", "blobs", "bytes"]);
    assert_eq!(keys(of("started")[0]), ["ref", "event", "digest", "size", "resumed"]);
    assert_eq!(keys(of("finished")[0]), ["ref", "event", "digest", "size"]);
    assert_eq!(of("finished").len(), 3, "the config and two layers");
    assert_eq!(events.last().unwrap()["event"], "finished");
}

#[test]
fn bars_on_a_terminal_end_in_lines() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    let digest = registry.push("demo", "1", &image);
    registry.fault(Fault::on("GET", &image.layers[1].digest).then(Action::Throttle(600_000)));
    let name = registry.reference("demo:1");
    let screen = sandbox.on_terminal(&["pull", "--plain-http", &name], &[]);
    assert!(screen.contains("total  "), "{screen:?}");
    let layer = short(&image.layers[1].digest);
    assert!(screen.contains(&format!("{layer}  fetched  ")), "{screen:?}");
    assert!(screen.ends_with(&format!("{name}@{digest}\r\n")), "{screen:?}");
}

#[test]
fn what_was_pulled_is_what_blob_cat_gives() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    registry.push("demo", "1", &image);
    sandbox.ok(&["pull", "--plain-http", &registry.reference("demo:1")]);
    let digest = &image.layers[1].digest;
    let output = sandbox.command(&["blob", "cat", digest]).output().unwrap();
    assert_eq!(Algorithm::Sha256.digest(&output.stdout).to_string(), *digest);
    assert_eq!(output.stdout, image.layers[1].content.to_vec());
}

impl Sandbox {
    /// A pull that fails; what it said.
    #[track_caller]
    fn fails_to_pull(&self, name: &str, code: i32, reason: &str) -> String {
        let done = self.run(&["pull", "--plain-http", name]);
        assert_eq!((done.code, done.out.as_str()), (Some(code), ""), "{done:?}");
        assert!(done.err.contains(reason), "{done:?}");
        done.err
    }
}

/// The events of one kind that a pull tells, which has to succeed.
fn events(done: &crate::sandbox::Done, kind: &str) -> Vec<Value> {
    assert_eq!(done.code, Some(0), "{done:?}");
    let all = done.err.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["event"] == kind).collect()
}

#[test]
fn how_far_all_has_come_and_where_from() {
    let (sandbox, registry, image) = (Sandbox::empty(), Registry::start(), image());
    registry.push("demo", "1", &image);
    registry.fault(Fault::on("GET", &image.layers[1].digest).then(Action::Throttle(150_000)));
    let name = registry.reference("demo:1");
    let done = sandbox.run(&["pull", "--plain-http", "--progress=json", &name]);
    let totals = events(&done, "total");
    assert_eq!(keys(&totals[0]), ["ref", "event", "done", "bytes", "rate", "left"]);
    let bytes = totals[0]["bytes"].as_u64().unwrap();
    assert!(totals.iter().all(|total| total["done"].as_u64().unwrap() <= bytes), "{totals:?}");
    let served = events(&done, "served");
    assert_eq!(keys(&served[0]), ["ref", "event", "digest", "origins"]);
    assert!(served.iter().all(|it| it["origins"] == json!([registry.url("")])), "{served:?}");
}

#[test]
fn who_waits_for_a_host_says_so() {
    let (sandbox, registry, image) = (Sandbox::new(), Registry::start(), image());
    registry.push("demo", "1", &image);
    let (name, host) = (registry.reference("demo:1"), registry.url(""));
    let hosts = sandbox.library().hosts().unwrap();
    hosts.close(&host, std::time::Duration::from_secs(1)).unwrap();
    let pull = ["pull", "--plain-http", "--progress=json", &name];
    let paused = events(&sandbox.run(&pull), "paused");
    assert_eq!(keys(&paused[0]), ["ref", "event", "host", "delay"]);
    assert_eq!(paused[0]["host"], host);

    let slots: Vec<_> = (0..8).map(|n| hosts.slot(&host, n..n + 1).unwrap().unwrap()).collect();
    let mut command = sandbox.command(&pull);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(lines).map(Result::unwrap);
    let queued: Value =
        serde_json::from_str(&lines.find(|line| line.contains("queued")).unwrap()).unwrap();
    assert_eq!(keys(&queued), ["ref", "event", "host", "holder"]);
    assert!(queued["holder"].as_str().unwrap().contains(&std::process::id().to_string()));
    drop(slots);
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
}
