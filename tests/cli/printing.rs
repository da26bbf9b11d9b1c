//! What reaches a terminal.

use serde_json::json;

use crate::sandbox::Sandbox;

const HOSTILE: &str = "evil\u{1b}[2J\u{7}\u{9b}31m\u{202e}\nexample.org/forged:1";

/// Another tool wrote a name that would act on a terminal.
fn with_hostile_name() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.add_image("example.org/a:1", &[b"a"]);
    let path = sandbox.root().join("index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let name = serde_json::to_string(HOSTILE).unwrap();
    std::fs::write(&path, text.replace("\"example.org/a:1\"", &name)).unwrap();
    sandbox
}

fn is_harmless(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}'))
}

#[test]
fn names_that_act_on_a_terminal_are_shown_instead() {
    let sandbox = with_hostile_name();
    let shown = r"evil\u{1b}[2J\u{7}\u{9b}31m\u{202e}\nexample.org/forged:1";
    for args in [&["images"][..], &["inspect", HOSTILE], &["df"], &["check"]] {
        let text = sandbox.ok(args);
        assert!(is_harmless(&text), "{args:?}: {text:?}");
        assert!(args == ["check"] || text.contains(shown), "{args:?}: {text}");
        assert!(!text.lines().any(|line| line.starts_with("example.org")), "{args:?}: {text}");
    }
    let done = sandbox.run(&["rm", HOSTILE, "x"]);
    assert!(is_harmless(&done.out) && done.out.contains(shown), "{done:?}");
}

#[test]
fn json_keeps_such_a_name_and_is_harmless_too() {
    let sandbox = with_hostile_name();
    let text = sandbox.ok(&["images", "--json"]);
    assert!(is_harmless(&text), "{text:?}");
    assert!(text.contains(r"\u009b31m\u202e"), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value[0]["name"], json!(HOSTILE));
}

#[test]
fn errors_and_usage_errors_are_escaped() {
    let sandbox = with_hostile_name();
    std::fs::write(sandbox.root().join(".layerstore/version"), "\u{1b}]0;title\u{7}").unwrap();
    let cases: [&[&str]; 4] = [
        &["images"],
        &["images", "--root", "/nonexistent/\u{1b}[2J"],
        &["inspect", "\u{1b}[2J"],
        &["blob", "stat", "\u{1b}[2J"],
    ];
    for args in cases {
        let done = sandbox.run(args);
        assert!(done.err.contains(r"\u{1b}") && is_harmless(&done.err), "{args:?}: {done:?}");
    }
}

#[test]
fn a_blob_is_escaped_on_a_terminal_and_nowhere_else() {
    let sandbox = Sandbox::new();
    let digest = sandbox.run_with_input(&["blob", "put", "-"], b"a\x1b[2J\n").out;
    let digest = digest.trim();
    assert_eq!(sandbox.ok(&["blob", "cat", digest]), "a\u{1b}[2J\n");
    assert_eq!(sandbox.on_terminal(&["blob", "cat", digest], &[]), "a\\u{1b}[2J\r\n");
}

#[test]
fn colour_only_on_a_terminal_that_wants_it() {
    let sandbox = Sandbox::new();
    let bold = "\u{1b}[1mNAME  DIGEST  PLATFORM  SIZE\u{1b}[0m";
    assert!(sandbox.on_terminal(&["images"], &[]).contains(bold));
    assert!(sandbox.on_terminal(&["images"], &[("NO_COLOR", "")]).contains(bold));
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = sandbox.on_terminal(&["images"], &[variable]);
        assert_eq!(text, "NAME  DIGEST  PLATFORM  SIZE\r\n", "{variable:?}");
    }
    let error = sandbox.on_terminal(&["inspect", "a"], &[]);
    assert!(error.starts_with("\u{1b}[1;31merror:\u{1b}[0m there is no image"), "{error:?}");
    let error = sandbox.on_terminal(&["inspect", "a"], &[("NO_COLOR", "1")]);
    assert!(error.starts_with("error: there is no image"), "{error:?}");
}
