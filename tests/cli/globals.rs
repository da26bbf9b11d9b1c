//! The options of every command, and where the store is.

use crate::sandbox::Sandbox;

#[test]
fn the_root_stands_before_or_after_the_command_and_wins_over_the_environment() {
    let (here, elsewhere) = (Sandbox::new(), Sandbox::empty());
    here.add_image("example.org/a:1", &[b"x"]);
    let root = here.root();
    let root = root.to_str().unwrap();
    for args in [["--root", root, "images"], ["images", "--root", root]] {
        assert!(elsewhere.ok(&args).contains("example.org/a:1"));
    }
    elsewhere.fails(&["images"], 10, "there is no store at");
    for args in [["--json", "images"], ["images", "--json"]] {
        assert!(here.ok(&args).starts_with('['));
    }
}

#[test]
fn init_makes_a_store_once_and_nothing_else_makes_one() {
    let sandbox = Sandbox::empty();
    let digest = layerstore::oci::Algorithm::Sha256.digest(b"x").to_string();
    let commands: [&[&str]; 10] = [
        &["images"],
        &["inspect", "a"],
        &["tag", "a", "b"],
        &["rm", "a"],
        &["blob", "ls"],
        &["blob", "cat", &digest],
        &["lease", "ls"],
        &["gc"],
        &["df"],
        &["pull", "a", "--policy", "never"],
    ];
    for args in commands {
        sandbox.fails(args, 10, "`store init` makes one");
    }
    assert!(!sandbox.root().exists());
    let root = sandbox.root().display().to_string();
    assert_eq!(sandbox.ok(&["init"]), format!("{root}\n"));
    assert!(sandbox.root().join("oci-layout").is_file());
    sandbox.add_image("example.org/a:1", &[b"x"]);
    assert_eq!(sandbox.json(&["init"]), serde_json::json!({ "root": root }));
    assert!(sandbox.ok(&["images"]).contains("example.org/a:1"), "a second init changes nothing");
    sandbox.fails(&["init", "--root", "/proc/self"], 10, "other things in it");
}

#[test]
fn a_store_of_the_future_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.root().join(".layerstore/version"), "99\n").unwrap();
    sandbox.fails(&["images"], 1, "use a newer one");
}

#[test]
fn more_is_logged_on_demand_and_never_among_the_results() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&["gc"]).err, "");
    let verbose = sandbox.run(&["gc", "-vv", "--json"]);
    assert!(verbose.err.contains("DEBUG layerstore"), "{verbose:?}");
    serde_json::from_str::<serde_json::Value>(&verbose.out).unwrap();
}
