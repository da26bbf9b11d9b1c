//! `check --repair`, and what the other commands say until it has run.

use std::fs;
use std::time::{Duration, Instant};

use layerstore::oci::Algorithm;
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, keys};
use crate::store_support::replace_with_its_hashes;
use crate::support::{Image, Layer, Registry};

struct World {
    sandbox: Sandbox,
    registry: Registry,
    image: Image,
    name: String,
}

impl World {
    fn new() -> World {
        World::of(&[Layer::random_file("big", 1, 300_000)])
    }

    fn of(layers: &[Layer]) -> World {
        let (sandbox, registry) = (Sandbox::empty(), Registry::start());
        let image = Image::of(layers);
        registry.push("demo", "1", &image);
        let name = registry.reference("demo:1");
        sandbox.ok(&["pull", "--plain-http", &name]);
        World { sandbox, registry, image, name }
    }

    /// Changes a bit of the layer.
    fn rot(&self) -> &str {
        let digest = &self.image.layers[0].digest;
        self.rot_at(digest, 100_000);
        digest
    }

    fn rot_at(&self, digest: &str, offset: usize) {
        let path = self.sandbox.root().join("blobs").join(digest.replace(':', "/"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[offset] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    /// Leaves no more room than the store takes.
    fn cap(&self) {
        let used = self.sandbox.json(&["df"])["total"]["disk"].to_string();
        self.sandbox.ok(&["config", "max-used-space", &used]);
    }

    fn repair(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let address = self.registry.address();
        let mut args = vec!["check", "--repair", "--plain-http", &address];
        args.extend(more);
        let done = self.sandbox.run(&args);
        (done.code, done.out, done.err)
    }

    fn repair_json(&self, code: i32) -> Value {
        let (found, out, err) = self.repair(&["--json"]);
        assert_eq!(found, Some(code), "{out}{err}");
        serde_json::from_str(&out).unwrap()
    }
}

#[test]
fn damage_is_mended_and_told() {
    let world = World::new();
    let digest = world.rot().to_owned();
    assert_eq!(world.sandbox.run(&["check"]).code, Some(3));
    let (code, out, _) = world.repair(&[]);
    assert_eq!(code, Some(0), "{out}");
    let repository = world.name.strip_suffix(":1").unwrap();
    let start = format!("mended: {digest}: 16.0 KiB of ");
    let line = out.lines().find(|line| line.starts_with(&start)).expect(&out);
    assert!(line.ends_with(&format!(" from {repository}")), "{out}");
    assert!(out.ends_with("\n1 blob mended, 16.0 KiB fetched; nothing is left\n"), "{out}");
    assert_eq!(world.sandbox.run(&["check"]).code, Some(0));
}

/// The limit of the check is one for all that its repair fetches.
#[test]
fn a_repair_keeps_to_the_rate_of_its_check() {
    let layers = [1, 2, 3].map(|seed| Layer::random_file("big", seed, 300_000));
    let world = World::of(&layers);
    for layer in &world.image.layers {
        let path = world.sandbox.root().join("blobs").join(layer.digest.replace(':', "/"));
        fs::remove_file(path).unwrap();
    }
    let begun = Instant::now();
    let (code, out, _) = world.repair(&["--limit-rate", "300k"]);
    let took = begun.elapsed();
    assert_eq!(code, Some(0), "{out}");
    assert!(took >= Duration::from_millis(2500), "900 kB at 300 KiB a second in {took:?}");
}

#[test]
fn the_report_for_programs() {
    let world = World::new();
    let digest = world.rot().to_owned();
    let report = world.repair_json(0);
    let repair = &report["repair"];
    assert_eq!(keys(repair), ["refs", "mended", "fetchedBytes", "failed", "damage"]);
    let refs = ["rebuilt", "fromCopy", "restored", "unnamed", "missing"];
    assert_eq!(keys(&repair["refs"]), refs);
    assert_eq!(repair["refs"]["rebuilt"], false);
    let mended = &repair["mended"][0];
    assert_eq!(keys(mended), ["digest", "size", "from", "servers", "fetchedBytes"]);
    assert_eq!((&mended["digest"], &mended["fetchedBytes"]), (&json!(digest), &json!(16384)));
    assert_eq!(mended["servers"], json!([format!("http://{}", world.registry.address())]));
    assert_eq!(report["damage"][0]["digest"], json!(digest), "what was found stays in the report");
    assert_eq!(repair["damage"], json!([]));

    world.rot();
    world.registry.remove_blob(&digest);
    let report = world.repair_json(3);
    let failed = &report["repair"]["failed"][0];
    assert_eq!(keys(failed), ["digest", "reason", "quarantined", "refs"]);
    assert_eq!((&failed["quarantined"], &failed["refs"]), (&json!(true), &json!([world.name])));
    assert_eq!(report["repair"]["damage"][0]["kind"], "missingBlob");
    assert_eq!(world.sandbox.run(&["images"]).code, Some(0), "the name is not lost");
}

/// Then the hashes that are kept of the blob say that all of it is good.
#[test]
fn what_the_digest_alone_can_see_is_mended_too() {
    let world = World::new();
    let layer = &world.image.layers[0];
    let good = layer.content.to_vec();
    let mut bad = good.clone();
    bad[100_000] ^= 1;
    replace_with_its_hashes(&world.sandbox.library(), &layer.digest.parse().unwrap(), &bad);
    assert_eq!(world.repair(&[]).0, Some(0), "the hashes fit");
    assert_eq!(world.sandbox.run(&["check", "--read-data"]).code, Some(3));
    assert_eq!(world.sandbox.run(&["check"]).code, Some(3), "it is known now");
    let report = world.repair_json(0);
    assert_eq!(report["repair"]["mended"][0]["digest"], json!(layer.digest));
    let output = world.sandbox.command(&["blob", "cat", &layer.digest]).output().unwrap();
    assert!(output.status.success() && output.stdout == good);
    assert_eq!(world.sandbox.run(&["check", "--read-data"]).code, Some(0));
}

#[test]
fn without_room_nothing_is_lost_and_a_repeated_repair_goes_on() {
    let world = World::new();
    let digest = world.rot().to_owned();
    world.cap();
    let (code, _, err) = world.repair(&[]);
    assert_eq!(code, Some(9), "{err}");
    assert!(err.contains("there is no room for ") && err.contains("`store config`"), "{err}");
    assert_eq!(world.sandbox.run(&["check"]).code, Some(3), "the damage is still known");
    assert!(world.sandbox.ok(&["images"]).contains(&world.name));
    world.sandbox.ok(&["config", "--unset", "max-used-space"]);
    let report = world.repair_json(0);
    assert_eq!(report["repair"]["mended"][0]["digest"], json!(digest));
    assert_eq!(world.sandbox.run(&["check"]).code, Some(0));
}

/// Then nobody can say what may go, and what can be mended is not to wait for it.
#[test]
fn while_a_manifest_is_damaged_a_blob_is_brought_beyond_the_limit() {
    let world = World::new();
    let other = Image::of(&[Layer::random_file("other", 2, 1000)]);
    world.registry.push("other", "1", &other);
    world.sandbox.ok(&["pull", "--plain-http", &world.registry.reference("other:1")]);
    world.cap();
    world.rot_at(&other.digest, 10);
    world.registry.remove_manifest("other", &other.digest);
    let digest = world.rot().to_owned();
    let (code, out, err) = world.repair(&["-v"]);
    assert_eq!(code, Some(3), "the manifest cannot be had: {out}{err}");
    assert!(out.contains(&format!("mended: {digest}")), "{out}{err}");
    assert!(out.contains(&format!("not mended: {}", other.digest)), "{out}{err}");
    assert!(err.contains("no room is made for the blob"), "{err}");
}

#[test]
fn a_lost_index_is_named_by_all_and_rebuilt() {
    let world = World::new();
    fs::remove_file(world.sandbox.root().join("index.json")).unwrap();
    for command in [&["images"][..], &["gc", "--grace", "0s"], &["rm", &world.name], &["df"]] {
        world.sandbox.fails(command, 3, "store check --repair");
    }
    let checked = world.sandbox.run(&["check"]);
    assert_eq!(checked.code, Some(3));
    assert!(checked.out.contains("`store check --repair` rebuilds it"), "{checked:?}");
    let (code, out, _) = world.repair(&["--quick"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("index.json: rebuilt from its copy, with 1 image name\n"), "{out}");
    assert!(world.sandbox.ok(&["images"]).contains(&world.name));
}

/// With an empty one, the next collection would remove every blob.
#[test]
fn no_command_but_a_repair_makes_a_new_index_json() {
    let world = World::new();
    let (sandbox, name, digest) = (&world.sandbox, &*world.name, &*world.image.digest);
    let layer = &*world.image.layers[0].digest;
    world.registry.push("other", "1", &Image::of(&[Layer::random_file("other", 2, 1000)]));
    let other = world.registry.reference("other:1");
    let file = sandbox.dir.path().join("file");
    fs::write(&file, [7; 100_000]).unwrap();
    let file = file.to_str().unwrap();
    let lease = sandbox.ok(&["lease", "add", digest]);
    sandbox.ok(&["pin", name]);
    let index = sandbox.root().join("index.json");
    fs::remove_file(&index).unwrap();
    let assert_stays_lost = |args: &[&str]| {
        assert!(!index.exists(), "{args:?} has made a new index.json");
        let layer = sandbox.root().join("blobs").join(layer.replace(':', "/"));
        assert!(layer.exists(), "{args:?} has removed a blob");
    };
    for args in [
        &["pull", "--plain-http", name][..],
        &["pull", "--plain-http", &other],
        &["pull", "--plain-http", "--policy", "missing", name],
        &["pull", "--plain-http", "--policy", "never", name],
        &["tag", name, "example.org/again:1"],
        &["tag", digest, "example.org/again:1"],
        &["pin", name],
        &["unpin", name],
        &["touch", name],
        &["rm", "--force", name],
        &["inspect", name],
        &["df", "--html", "-"],
        &["gc", "--grace", "0s"],
        &["gc", "--grace", "0s", "--dry-run"],
        &["gc", "--grace", "0s", "--max-used-space", "1"],
        &["gc", "--why", name],
        &["blob", "stat", layer],
    ] {
        sandbox.fails(args, 3, "store check --repair");
        assert_stays_lost(args);
    }
    // These ask for no name. What is put is kept by the grace time, and else by a lease.
    for args in [
        &["init"][..],
        &["blob", "put", file],
        &["lease", "add", digest],
        &["lease", "add", layer, "--ttl", "1h"],
        &["lease", "rm", lease.trim()],
        &["lease", "ls"],
        &["blob", "ls"],
        &["blob", "cat", digest],
        &["config", "max-used-space", "1M"],
        &["config"],
    ] {
        sandbox.ok(args);
        assert_stays_lost(args);
    }
    // Where room is wanted, nobody can say what may go.
    fs::write(sandbox.dir.path().join("large"), vec![8; 2_000_000]).unwrap();
    let large = sandbox.dir.path().join("large");
    let args = ["blob", "put", large.to_str().unwrap()];
    sandbox.fails(&args, 3, "store check --repair");
    assert_stays_lost(&args);
    sandbox.ok(&["config", "--unset", "max-used-space"]);
    // Those that make a store where there is none complete one that lacks more than that.
    for args in [&["init"][..], &["blob", "put", file], &["pull", "--plain-http", &other]] {
        fs::remove_dir(sandbox.root().join(".layerstore/trash")).unwrap();
        let code = if args[0] == "pull" { 3 } else { 0 };
        assert_eq!(sandbox.run(args).code, Some(code), "{args:?}");
        assert_stays_lost(args);
    }
    let put = Algorithm::Sha256.digest(&[7; 100_000]).to_string();
    sandbox.ok(&["lease", "add", &put]);

    assert_eq!(world.repair(&[]).0, Some(0));
    sandbox.ok(&["gc", "--grace", "0s", "--max-used-space", "1G"]);
    let image = &sandbox.json(&["images"])[0];
    assert_eq!((&image["name"], &image["missing"]), (&json!(name), &json!(0)));
    assert_eq!(image["pinned"], json!(true));
    assert_eq!(sandbox.json(&["blob", "stat", &put])["size"], json!(100_000));
}

#[test]
fn without_the_copy_the_images_can_be_named_again() {
    let world = World::new();
    fs::write(world.sandbox.root().join("index.json"), "{").unwrap();
    fs::remove_file(world.sandbox.root().join(".layerstore/refs")).unwrap();
    let (code, out, _) = world.repair(&["--quick"]);
    assert_eq!(code, Some(3), "the names are lost: {out}");
    let repository = world.name.strip_suffix(":1").unwrap();
    let line = format!("  store tag {} {repository}:TAG\n", world.image.digest);
    assert!(out.contains(&line), "{out}");
    world.sandbox.ok(&["gc", "--grace", "0s"]);
    world.sandbox.ok(&["tag", &world.image.digest, &world.name]);
    assert_eq!(world.repair(&[]).0, Some(0));
    let report = world.sandbox.json(&["tag", &world.image.digest, "again:1"]);
    assert_eq!(report["source"], json!(world.image.digest));
}

#[test]
fn only_a_repair_speaks_with_registries() {
    let sandbox = Sandbox::new();
    sandbox.fails(&["check", "--plain-http", "x"], 2, "--repair");
}
