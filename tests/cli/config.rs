//! `config`.

use serde_json::json;

use crate::sandbox::{Sandbox, keys};

#[test]
fn settings_are_set_shown_and_unset() {
    let sandbox = Sandbox::new();
    let file = sandbox.root().join(".layerstore/config.toml");
    let none = sandbox.json(&["config"]);
    assert_eq!(
        keys(&none),
        ["maxUsedSpace", "minFreeSpace", "reservedSpace", "keepDuration", "groupHashes", "unknown"]
    );
    assert!(!file.exists(), "looking makes nothing");
    assert_eq!(sandbox.ok(&["config", "max-used-space", "20G"]), "20G\n");
    sandbox.ok(&["config", "keep-duration", "2d"]);
    sandbox.ok(&["config", "group-hashes", "off"]);
    let set = sandbox.json(&["config"]);
    assert_eq!(set["maxUsedSpace"], json!(20u64 << 30));
    assert_eq!((&set["keepDuration"], &set["groupHashes"]), (&json!(172_800), &json!(false)));
    assert_eq!(set["minFreeSpace"], json!(null));
    assert_eq!(sandbox.ok(&["config", "keep-duration"]), "2d\n");
    let text = sandbox.ok(&["config"]);
    assert!(text.contains("max-used-space: 20G\n") && text.contains("min-free-space: not set\n"));
    let done = sandbox.run(&["config", "min-free-space"]);
    assert_eq!((done.code, done.out.as_str()), (Some(4), ""));

    // What people wrote stays where it was.
    let before = std::fs::read_to_string(&file).unwrap();
    assert!(before.starts_with("# The settings of this store"), "{before}");
    let by_hand = before.replace(
        "\nmax-used-space = \"20G\"\n",
        "\nmax-used-space = \"20G\" # the disk has 30\nmine = { x = 1 }\n",
    );
    std::fs::write(&file, &by_hand).unwrap();
    let done = sandbox.run(&["config", "max-used-space", "1T"]);
    assert!(done.err.contains("warning: ") && done.err.contains("\"mine\""), "{done:?}");
    let after = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        after,
        by_hand.replace("max-used-space = \"20G\" # the", "max-used-space = \"1T\" # the")
    );
    assert_eq!(sandbox.json(&["-q", "config"])["unknown"], json!(["mine"]));

    let set = sandbox.json(&["-q", "config", "--unset", "keep-duration"]);
    assert_eq!((&set["keepDuration"], &set["maxUsedSpace"]), (&json!(null), &json!(1u64 << 40)));
    sandbox.ok(&["-q", "config", "--unset", "keep-duration"]);
    let report = sandbox.json(&["check"]);
    assert_eq!(report["damage"], json!([]), "{report}");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.root().join(".layerstore/config.toml");
    sandbox.fails(&["config", "max-used-spase", "1G"], 2, "max-used-space");
    sandbox.fails(&["config", "max-used-space", "1.5G"], 2, "max-used-space: a size is");
    sandbox.fails(&["config", "keep-duration", "7"], 2, "units");
    sandbox.fails(&["config", "group-hashes", "maybe"], 2, "on or off");
    assert!(!file.exists());

    sandbox.add_image("example.org/a:1", &[b"a"]);
    let large = "# 64 KiB and more\n".repeat(4000);
    for (bytes, why) in [
        (&b"max-used-space = '20G'\nmin-free-space = = 1"[..], "config.toml, line 2"),
        (b"min-free-space = true", "min-free-space: a size is"),
        (b"\xff\xfe", "it is not UTF-8"),
        (&[b'['; 10_000], "config.toml"),
        (large.as_bytes(), "larger than"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        sandbox.fails(&["config"], 1, why);
        sandbox.fails(&["config", "max-used-space", "1G"], 1, why);
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "it stays for whoever wrote it");
        // Nothing else needs it.
        sandbox.ok(&["images"]);
        sandbox.ok(&["touch", "example.org/a:1"]);
    }
}

#[test]
fn group_hashes_are_as_the_settings_say_unless_the_command_does() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["config", "group-hashes", "off"]);
    let bytes = [7; 200_000];
    let outboards = || {
        let path = sandbox.root().join(".layerstore/outboard/sha256");
        std::fs::read_dir(path).map_or(0, Iterator::count)
    };
    sandbox.run_with_input(&["blob", "put", "-"], &bytes);
    assert_eq!(outboards(), 0);
    sandbox.run_with_input(&["--group-hashes", "on", "blob", "put", "-"], &bytes[1..]);
    assert_eq!(outboards(), 1);
    sandbox.ok(&["config", "--unset", "group-hashes"]);
    sandbox.run_with_input(&["blob", "put", "-"], &bytes[2..]);
    assert_eq!(outboards(), 2);
}
