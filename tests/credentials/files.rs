use std::fs;

use serde_json::json;

use crate::home::{Home, auth, basic, registry, shown};
use crate::support::Registry;

const PASSWORD: &str = "canary-password";

#[test]
fn each_place_in_its_order() {
    let (mut home, registry) = (Home::new(), registry());
    let places = [
        "flag.json",
        "variable.json",
        "run/containers/auth.json",
        "config/containers/auth.json",
        ".docker/config.json",
    ];
    for place in places {
        home.write(place, &json!({"auths": {registry.address(): auth(place, PASSWORD)}}));
    }
    let asked_as = |home: &Home, more: &[&str]| {
        let done = home.pull(&registry, more);
        assert_eq!(done.code, 5, "{done:?}");
        shown(&registry)
    };
    let flag = home.path("flag.json").display().to_string();
    home.set("REGISTRY_AUTH_FILE", &home.path("variable.json").display().to_string());
    let option: &[&str] = &["--authfile", &flag, "--username", "option", "--password-stdin"];
    let name = registry.reference("team/demo:1");
    let done = home.run_with(&[&["pull", "--plain-http", &name], option].concat(), PASSWORD);
    assert_eq!((done.code, shown(&registry)), (5, vec![basic("option", PASSWORD)]));
    assert_eq!(asked_as(&home, &["--authfile", &flag]), [basic("flag.json", PASSWORD)]);
    assert_eq!(asked_as(&home, &[]), [basic("variable.json", PASSWORD)]);
    home.set("REGISTRY_AUTH_FILE", "");
    for place in &places[2..] {
        assert_eq!(asked_as(&home, &[]), [basic(place, PASSWORD)]);
        fs::remove_file(home.path(place)).unwrap();
    }
    assert_eq!(asked_as(&home, &[]), [""; 0]);
    home.write(
        "elsewhere/config.json",
        &json!({"auths": {registry.address(): auth("me", PASSWORD)}}),
    );
    home.set("DOCKER_CONFIG", &home.path("elsewhere").display().to_string());
    assert_eq!(home.pull(&registry, &[]).code, 0);
    assert_eq!(shown(&registry), [basic("me", PASSWORD)]);
}

#[test]
fn a_file_without_the_registry_leaves_it_to_the_next() {
    let (home, registry) = (Home::new(), registry());
    home.write("flag.json", &json!({"auths": {"other.example": auth("me", "canary-other")}}));
    home.write(
        ".docker/config.json",
        &json!({"auths": {registry.address(): auth("me", PASSWORD)}}),
    );
    home.write("run/containers/auth.json", &json!({"auths": {registry.address(): {}}}));
    let flag = home.path("flag.json").display().to_string();
    assert_eq!(home.pull(&registry, &["--authfile", &flag]).code, 0);
    assert_eq!(shown(&registry), [basic("me", PASSWORD)]);
}

#[test]
fn the_longest_namespace_is_asked() {
    let (home, registry) = (Home::new(), registry());
    let address = registry.address();
    let mut entries = json!({
        &address: auth("whole", PASSWORD),
        format!("{address}/team"): auth("namespace", PASSWORD),
        format!("{address}/team/demo"): auth("repository", PASSWORD),
        format!("{address}/team/demo2"): auth("other", PASSWORD),
    });
    for (user, key) in [("repository", "/team/demo"), ("namespace", "/team"), ("whole", "")] {
        home.write("run/containers/auth.json", &json!({"auths": entries}));
        assert_eq!(home.pull(&registry, &[]).code, 5);
        assert_eq!(shown(&registry), [basic(user, PASSWORD)]);
        entries.as_object_mut().unwrap().remove(&format!("{address}{key}"));
    }
}

#[test]
fn broken_files_are_named_and_not_echoed() {
    let (home, registry) = (Home::new(), registry());
    fs::create_dir(home.path("run/containers")).unwrap();
    let file = home.path("run/containers/auth.json");
    for (text, reason) in [
        (r#"{"auths":{"x":{"auth":"canary"}}"#.to_owned(), "line 1, column 32"),
        (r#"{"auths":["canary"]}"#.to_owned(), "line 1, column"),
        (format!(r#"{{"auths":{{"{}":{{"auth":"canary!"}}}}}}"#, registry.address()), "not base64"),
        (format!("[{}\"canary\"", " ".repeat(2 << 20)), "larger than"),
    ] {
        fs::write(&file, text).unwrap();
        let done = home.pull(&registry, &[]);
        assert!(
            done.err.contains(&file.display().to_string()) && done.err.contains(reason),
            "{done:?}"
        );
        assert_ne!(done.code, 0);
        assert_eq!(shown(&registry), [""; 0]);
    }
    let done = home.pull(&registry, &["--authfile", "/nowhere/auth.json"]);
    assert!(done.code == 5 && done.err.contains("/nowhere/auth.json: there is no"), "{done:?}");
}

#[test]
fn options_are_for_one_registry() {
    let (home, registry, other) = (Home::new(), registry(), Registry::start());
    let images = [registry.reference("team/demo:1"), other.reference("team/demo:1")];
    let options = ["pull", "--plain-http", "-u", "me", "--password-stdin", &images[0], &images[1]];
    let done = home.run_with(&options, PASSWORD);
    assert!(done.code == 2 && done.err.contains("for one registry"), "{done:?}");
    let done = home.pull(&registry, &["-u", "me"]);
    assert!(done.code == 2 && done.err.contains("--password-stdin"), "{done:?}");
    let done = home.run(&["pull", &images[0], "--password", "canary"]);
    assert_eq!(done.code, 2, "no secret may be an argument: {done:?}");
    assert_eq!(registry.requests().len() + other.requests().len(), 0);
    let done = home.run_with(&options[..6], &format!("{PASSWORD}\n"));
    assert_eq!(done.code, 0, "{done:?}");
}
