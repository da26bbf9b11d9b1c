use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::home::{Home, assert_no_secret, auth, registry, shown};
use crate::support::{Bearer, Registry};

const PASSWORD: &str = "canary-password";
const FILE: &str = "run/containers/auth.json";

fn login(home: &Home, registry: &str, password: &str) -> crate::home::Done {
    let args = ["login", "--plain-http", "-u", "me", "--password-stdin", registry];
    home.run_with(&args, password)
}

#[test]
fn a_login_is_checked_and_kept_for_its_owner_alone() {
    let bearer = Bearer::user("me", PASSWORD);
    for registry in [registry(), Registry::builder().bearer(bearer).start()] {
        let home = Home::new();
        let address = registry.address();
        home.write(
            FILE,
            &json!({"z": [1], "auths": {"other.example": {"auth": "eDp5"}}, "a": null}),
        );
        fs::set_permissions(home.path(FILE), PermissionsExt::from_mode(0o644)).unwrap();
        let before = home.read(FILE);
        let done = login(&home, &address, "canary-wrong\n");
        assert!(done.code == 5 && done.out.is_empty(), "{done:?}");
        assert_eq!(home.read(FILE), before, "what is refused is not kept");

        let done = login(&home, &address, "canary-password\n");
        let path = home.path(FILE).display().to_string();
        assert_eq!(done.code, 0, "{done:?}");
        assert_eq!(done.out, format!("logged in to {address} as me: kept by {path}\n"));
        let mut expected = before.clone();
        expected["auths"][&address] = auth("me", PASSWORD);
        assert_eq!(home.read(FILE), expected);
        assert_eq!(fs::metadata(home.path(FILE)).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(home.path("run/containers")).unwrap().count(), 1);

        let done = home.run(&["logout", &address]);
        assert_eq!((done.code, home.read(FILE)), (0, before), "{done:?}");
        assert_eq!(home.run(&["logout", &address]).code, 4);
    }
}

#[test]
fn the_file_that_is_named_is_made() {
    let (home, registry) = (Home::new(), registry());
    let file = home.path("new/folder/auth.json");
    let name = file.display().to_string();
    let namespace = format!("{}/team", registry.address());
    let args = ["login", "--plain-http", "-u", "me", "--password-stdin", "--authfile", &name];
    let done = home.run_with(&[&args[..], &[&namespace]].concat(), PASSWORD);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        home.read("new/folder/auth.json"),
        json!({"auths": {namespace: auth("me", PASSWORD)}})
    );
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(home.pull(&registry, &["--authfile", &name]).code, 0);
    assert_eq!(home.pull(&registry, &[]).code, 5);
}

#[test]
fn a_file_that_is_not_understood_is_left_alone() {
    let (home, registry) = (Home::new(), registry());
    fs::create_dir(home.path("run/containers")).unwrap();
    for text in [r#"{"auths": {"canary": "#, r#"{"auths": ["canary"]}"#, "[1]"] {
        fs::write(home.path(FILE), text).unwrap();
        for done in
            [login(&home, &registry.address(), PASSWORD), home.run(&["logout", "r.example"])]
        {
            assert!(done.code == 5 && done.err.contains("line 1, column"), "{done:?}");
        }
        assert_eq!(fs::read_to_string(home.path(FILE)).unwrap(), text);
    }
}

#[test]
fn a_registry_that_asks_nobody_is_told_apart() {
    let (home, open) = (Home::new(), Registry::start());
    let done = login(&home, &open.address(), PASSWORD);
    assert!(done.code == 0 && done.err.contains("lets everybody in"), "{done:?}");
    assert_eq!(shown(&open), [""; 0], "what is not asked for is not shown");
}

#[test]
fn what_another_tool_keeps_is_pointed_out() {
    let (home, registry) = (Home::new(), registry());
    home.write(
        ".docker/config.json",
        &json!({"auths": {registry.address(): auth("me", PASSWORD)}}),
    );
    assert_eq!(login(&home, &registry.address(), PASSWORD).code, 0);
    let done = home.run(&["logout", &registry.address()]);
    assert!(done.code == 0 && done.err.contains(".docker/config.json still has"), "{done:?}");
    assert_eq!(home.pull(&registry, &[]).code, 0);
}

#[test]
fn wrong_command_lines() {
    let home = Home::new();
    for (args, reason) in [
        (&["login", "https://r.example"][..], "without its scheme"),
        (&["login", "word"][..], "dot or a port"),
        (&["login", "r.example"][..], "no terminal"),
        (&["login", "r.example", "--password-stdin"][..], "--username"),
        (&["login", "r.example", "-u", "a:b", "--password-stdin"][..], "no password"),
        (&["logout"][..], "REGISTRY"),
        (&["logout", "--all", "r.example"][..], "cannot be used with"),
    ] {
        let done = home.run(args);
        assert!(done.code == 2 && done.err.contains(reason), "{args:?}: {done:?}");
    }
}

#[test]
fn a_terminal_is_asked_and_does_not_show_the_password() {
    let (home, registry) = (Home::new(), registry());
    let command = home.command(&["login", "--plain-http", &registry.address()]);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]);
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    script.env_clear().envs(variables).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().expect("`script` of bsdutils, which is part of every Debian");
    let mut keys = script.stdin.take().unwrap();
    let mut screen = BufReader::new(script.stdout.take().unwrap());
    let mut seen = String::new();
    let mut wait_for = |text: &str| {
        while !seen.ends_with(&format!("{text}\r\n")) {
            assert_ne!(screen.read_line(&mut seen).unwrap(), 0, "{seen}");
        }
    };
    wait_for(":");
    keys.write_all(b"me\n").unwrap();
    wait_for("not shown:");
    keys.write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    screen.read_to_string(&mut seen).unwrap();
    assert!(script.wait().unwrap().success(), "{seen}");
    assert!(seen.contains("logged in to"), "{seen}");
    assert_no_secret(&seen);
    assert_eq!(home.read(FILE)["auths"][registry.address()], auth("me", PASSWORD));
}
