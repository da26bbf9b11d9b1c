use crate::sandbox::Sandbox;

#[test]
fn every_command_explains_itself() {
    let sandbox = Sandbox::empty();
    let cases: [(&[&str], &[&str]); 27] = [
        (&[], &["Usage: store [OPTIONS] <COMMAND>", "pull ", "Exit codes:", "10 no store there"]),
        (
            &["pull"],
            &["--platform <OS/ARCH[/VARIANT]>", "--all-platforms", "--policy", "--plain-http"],
        ),
        (&["pull"], &["missing:", "Examples:", "NAME@DIGEST"]),
        (&["login"], &["<REGISTRY>", "--password-stdin", "--authfile <FILE>", "NAMESPACE"]),
        (&["logout"], &["--all", "exit code is 4"]),
        (&["pull"], &["--referrers", "--artifact-type <TYPE>", "--include-foreign"]),
        (&["digest"], &["<REF>", "--platform <OS/ARCH[/VARIANT]>", "--plain-http", "Examples:"]),
        (&["tags"], &["<REPO>", "--plain-http", "without a tag"]),
        (&["images"], &["List the images"]),
        (&["inspect"], &["<REF>", "docker.io/library/alpine:latest"]),
        (&["tag"], &["<SRC> <DST>", "docker.io/library/base:1"]),
        (&["rm"], &["<REF>...", "exit code is 3", "--force"]),
        (&["pin"], &["<REF>...", "on the name", "lease add"]),
        (&["unpin"], &["<REF>..."]),
        (&["touch"], &["<REF>...", "longest ago"]),
        (&["blob"], &["ls ", "stat ", "cat ", "put "]),
        (&["blob", "ls"], &["in no order"]),
        (&["blob", "stat"], &["<DIGEST>"]),
        (&["blob", "cat"], &["--range <A-B>", "the last N", "code is 7"]),
        (&["blob", "put"], &["<FILE>", "possible values: sha256, sha512, blake3"]),
        (&["lease"], &["ls ", "add ", "rm "]),
        (&["lease", "add"], &["<DIGEST>...", "--ttl <DURATION>", "7d"]),
        (
            &["gc"],
            &["--dry-run", "--grace <DURATION>", "default: 1h", "--max-used-space <SIZE>", "--why"],
        ),
        (&["df"], &["by kind and by image", "--html"]),
        (
            &["check"],
            &["--quick", "--read-data", "--subset <PERCENT>", "--since", "is 3 if any is left"],
        ),
        (&["config"], &["--unset <KEY>", "max-used-space", "config.toml"]),
        (&["init"], &["another tool"]),
    ];
    for (command, lines) in cases {
        let text = sandbox.ok(&[command, &["--help"]].concat());
        let shared = [
            "--root <DIR>",
            "--json",
            "--quiet",
            "--verbose",
            "--progress <HOW>",
            "--group-hashes <on|off>",
        ];
        // Where a line ends depends on what stands before it.
        let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for line in lines.iter().chain(&shared) {
            assert!(flowing.contains(line), "{command:?} lacks {line:?}:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "no colour where there is no terminal");
    }
    assert!(!sandbox.root().exists(), "help touches nothing");
}

#[test]
fn the_grace_time_of_the_help_is_the_librarys() {
    assert_eq!(layerstore::GcOptions::default().grace.as_secs(), 3600);
}

#[test]
fn the_version_in_both_forms() {
    let sandbox = Sandbox::empty();
    let text = format!("store {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(sandbox.ok(&["version"]), text);
    assert_eq!(sandbox.ok(&["--version"]), text);
    assert_eq!(
        sandbox.json(&["version"]),
        serde_json::json!({ "name": "store", "version": env!("CARGO_PKG_VERSION") })
    );
}

#[test]
fn a_wrong_command_line_is_explained_on_the_standard_error() {
    let sandbox = Sandbox::new();
    let digest = layerstore::oci::Algorithm::Sha256.digest(b"x").to_string();
    let tagged = format!("a@{digest}");
    let cases: [(&[&str], &str); 22] = [
        (&["frobnicate"], "unrecognized subcommand"),
        (&["inspect"], "<REF>"),
        (&["inspect", "UPPER/case"], "\"UPPER/case\" is not an image name"),
        (&["rm", "UPPER/case"], "lower-case"),
        (&["rm"], "<REF>"),
        (&["pull", "a b"], "is not an image name"),
        (&["pull", "a", "--platform", "linux"], "OS/ARCH"),
        (&["pull", "a", "--platform", "linux/arm", "--all-platforms"], "cannot be used with"),
        (&["pull", "a", "--artifact-type", "a/b"], "--referrers"),
        (&["pull", "a", "--referrers", "--artifact-type", "sbom"], "KIND/NAME"),
        (&["pull", "[::1/a"], "is not a"),
        (&["tags", "a:1"], "without a tag or a digest"),
        (&["tags", &tagged], "without a tag or a digest"),
        (&["digest"], "<REF>"),
        (&["tag", "a", &tagged], "must not demand a digest"),
        (&["blob", "stat", "sha256:12"], "wrong length"),
        (&["blob", "cat", &digest, "--range", "9-1"], "before it begins"),
        (&["lease", "add", &digest, "--ttl", "30"], "with its units"),
        (&["gc", "--grace", "1y"], "no fixed length"),
        (&["check", "--subset", "5"], "as in 5%"),
        (&["check", "--quick", "--read-data"], "cannot be used with"),
        (&["images", "-q", "-v"], "cannot be used with"),
    ];
    for (args, reason) in cases {
        sandbox.fails(args, 2, reason);
    }
    let nothing = sandbox.command(&[]).env_remove("STORE_ROOT").output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("Usage: store"));
}
