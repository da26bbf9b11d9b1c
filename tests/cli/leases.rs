use layerstore::oci::Algorithm;
use serde_json::json;

use crate::sandbox::{Sandbox, keys};

#[test]
fn a_lease_is_added_listed_and_removed() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.json(&["lease", "ls"]), json!([]));
    let digest = sandbox.run_with_input(&["blob", "put", "-"], b"kept").out;
    let digest = digest.trim();
    let lasting = sandbox.ok(&["lease", "add", digest]);
    let lasting = lasting.trim();
    assert!(lasting.len() == 32 && lasting.bytes().all(|b| b.is_ascii_hexdigit()), "{lasting}");
    let timed = sandbox.json(&["lease", "add", digest, "--ttl", "7d"]);
    assert_eq!(keys(&timed), ["id", "until", "trees"]);
    assert_eq!(timed["trees"], json!([digest]));

    let list = sandbox.json(&["lease", "ls"]);
    let find = |id: &str| {
        let list = list.as_array().unwrap();
        list.iter().find(|lease| lease["id"] == id).unwrap().clone()
    };
    let lease = find(lasting);
    assert_eq!(keys(&lease), ["id", "holder", "state", "until", "blobs", "trees"]);
    assert_eq!((&lease["state"], &lease["until"]), (&json!("lasting"), &json!(null)));
    let lease = find(timed["id"].as_str().unwrap());
    assert!(lease["until"].as_u64().unwrap().abs_diff(timed["until"].as_u64().unwrap()) <= 60);
    let text = sandbox.ok(&["lease", "ls"]);
    assert!(text.starts_with("ID "), "{text}");
    let line = text.lines().find(|line| line.starts_with(lasting)).unwrap();
    assert!(line.contains("lasting  never") && line.ends_with("store lease add"), "{line}");

    assert_eq!(sandbox.ok(&["lease", "rm", lasting]), format!("removed {lasting}\n"));
    assert_eq!(sandbox.json(&["lease", "ls"]).as_array().unwrap().len(), 1);
    sandbox.fails(&["lease", "rm", lasting], 4, "there is no lease");
    sandbox.fails(&["lease", "rm", "../version"], 4, "there is no lease");
}

#[test]
fn only_what_is_there_can_be_kept() {
    let sandbox = Sandbox::new();
    let absent = Algorithm::Sha256.digest(b"absent").to_string();
    sandbox.fails(&["lease", "add", &absent], 4, "there is no blob");
    assert_eq!(sandbox.json(&["lease", "ls"]), json!([]));
    sandbox.fails(&["lease", "add", &absent, "--ttl", "0s"], 2, "end as soon as");
}

#[test]
fn a_lease_that_a_process_holds_stays() {
    let sandbox = Sandbox::new();
    let lease = sandbox.library().lease("a test").unwrap();
    let text = sandbox.ok(&["lease", "ls"]);
    assert!(text.contains("live   with its process"), "{text}");
    sandbox.fails(&["lease", "rm", lease.id()], 11, "the lease's process");
}
