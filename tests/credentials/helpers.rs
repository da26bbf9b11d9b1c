use std::time::{Duration, Instant};

use layerstore::Error;
use layerstore::fetch::{AuthFiles, LoginKey};
use serde_json::{Value, json};

use crate::home::{Home, assert_no_secret, auth, basic, registry, shown};

const PASSWORD: &str = "canary-password";

impl Home {
    fn keep(&self, server: &str, user: &str, secret: &str) {
        let file = format!("kept/{}", server.replace(['/', ':'], "_"));
        self.write(&file, &json!({"ServerURL": server, "Username": user, "Secret": secret}));
    }

    fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_helper_for_the_registry_and_one_for_all() {
    for config in [
        |address: &str| json!({"credHelpers": {address: "test"}, "credsStore": "absent"}),
        |_: &str| json!({"credsStore": "test"}),
        |address: &str| json!({"credsStore": "test", "auths": {address: {}}}),
    ] {
        let (home, registry) = (Home::new(), registry());
        home.keep(&registry.address(), "me", PASSWORD);
        home.write(".docker/config.json", &config(&registry.address()));
        let done = home.pull(&registry, &[]);
        assert_eq!((done.code, shown(&registry)), (0, vec![basic("me", PASSWORD)]), "{done:?}");
        assert_eq!(home.asked(), ["get"]);
    }
}

#[test]
fn a_helper_of_the_registry_comes_before_its_entry_and_that_of_all_after() {
    let (home, registry) = (Home::new(), registry());
    let address = registry.address();
    home.keep(&address, "kept", PASSWORD);
    let auths = json!({&address: auth("entry", PASSWORD)});
    for (config, user) in [
        (json!({"auths": auths, "credHelpers": {&address: "test"}}), "kept"),
        (json!({"auths": auths, "credsStore": "test"}), "entry"),
    ] {
        home.write("run/containers/auth.json", &config);
        home.pull(&registry, &[]);
        assert_eq!(shown(&registry), [basic(user, PASSWORD)]);
    }
}

#[test]
fn what_a_helper_does_not_have_the_next_file_may() {
    let (home, registry) = (Home::new(), registry());
    let address = registry.address();
    home.write("run/containers/auth.json", &json!({"credHelpers": {&address: "test"}}));
    home.write(".docker/config.json", &json!({"auths": {&address: auth("me", PASSWORD)}}));
    assert_eq!(home.pull(&registry, &[]).code, 0);
    assert_eq!((home.asked(), shown(&registry)), (vec!["get".into()], vec![basic("me", PASSWORD)]));
}

#[test]
fn helpers_that_cannot_be_trusted() {
    let (mut home, registry) = (Home::new(), registry());
    let address = registry.address();
    home.keep(&address, "me", PASSWORD);
    home.write("run/containers/auth.json", &json!({"credHelpers": {&address: "test"}}));
    for (mode, reason) in [
        ("endless", "says more than 1048576 bytes"),
        ("garbage", "not what a helper says"),
        ("fail", "`get` failed"),
    ] {
        home.set("HELPER_MODE", mode);
        let done = home.pull(&registry, &[]);
        assert!(done.code == 5 && done.err.contains(reason), "{mode}: {done:?}");
        assert!(done.err.contains("docker-credential-test"), "{mode}: {done:?}");
    }
    for name in ["../bin/docker-credential-test", "a b", "a\nb", "/bin/sh", ".", "$(id)"] {
        home.write("run/containers/auth.json", &json!({"credHelpers": {&address: name}}));
        let done = home.pull(&registry, &[]);
        assert!(done.code == 5 && done.err.contains("not that of a program"), "{name}: {done:?}");
    }
    home.write("run/containers/auth.json", &json!({"credsStore": "nowhere"}));
    let done = home.pull(&registry, &[]);
    assert!(done.code == 5 && done.err.contains("docker-credential-nowhere"), "{done:?}");
    assert_eq!(shown(&registry), [""; 0]);
}

#[test]
fn a_helper_that_does_not_end_is_ended() {
    // In a process of its own, for its environment.
    let home = Home::new();
    let script = |mode: &str| {
        let path = home.path(&format!("bin/docker-credential-{mode}"));
        let helper = home.path("bin/docker-credential-test").display().to_string();
        let kept = home.path("kept").display().to_string();
        let text =
            format!("#!/bin/sh\nHELPER_MODE={mode} HELPER_DIR={kept} exec {helper} \"$@\"\n");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    };
    for mode in ["hang", "deaf"] {
        script(mode);
        home.write("auth.json", &json!({"credsStore": mode}));
        let files = AuthFiles::new()
            .file(home.path("auth.json"))
            .helpers_in([home.path("bin")])
            .helper_timeout(Duration::from_millis(700));
        let key: LoginKey = "r.example".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = Instant::now();
        let error = runtime.block_on(files.keeper(&key)).unwrap_err();
        assert!(matches!(error, Error::Credentials { .. }), "{error}");
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(300), "the helper sleeps for 600 s");
        assert_no_secret(&format!("{error:?}"));
    }
}

#[test]
fn a_login_is_kept_by_the_helper_and_forgotten_by_it() {
    let (home, registry) = (Home::new(), registry());
    let address = registry.address();
    let config = json!({"credsStore": "test", "auths": {&address: auth("old", "canary-old")}});
    home.write("run/containers/auth.json", &config);
    let login = ["login", "--json", "--plain-http", "-u", "me", "--password-stdin", &address];
    let done = home.run_with(&login, PASSWORD);
    assert_eq!(done.code, 0, "{done:?}");
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let expected = json!({"registry": address, "username": "me", "checked": true, "file": null, "helper": "test"});
    assert_eq!(report, expected);
    let file = home.read("run/containers/auth.json");
    assert_eq!(file, json!({"credsStore": "test", "auths": {}}), "the helper's is the only one");
    registry.clear_requests();
    assert_eq!(home.pull(&registry, &[]).code, 0);

    let done = home.run(&["logout", &address]);
    assert!(done.code == 0 && done.out.contains("docker-credential-test"), "{done:?}");
    assert_eq!(home.asked(), ["store", "get", "get", "erase", "get"]);
    assert_eq!(home.run(&["logout", &address]).code, 4);
    assert_eq!(home.pull(&registry, &[]).code, 5);
}

#[test]
fn everything_is_forgotten() {
    let home = Home::new();
    home.keep("a.example", "me", PASSWORD);
    home.keep("https://index.docker.io/v1/", "me", PASSWORD);
    let auths = json!({"b.example": auth("me", PASSWORD), "c.example/team": auth("me", PASSWORD)});
    home.write(
        "run/containers/auth.json",
        &json!({"auths": auths, "credHelpers": {"a.example": "test"}}),
    );
    let done = home.run(&["logout", "--all", "--json"]);
    let file = home.path("run/containers/auth.json").display().to_string();
    let kept = json!([{"file": null, "helper": "test"}, {"file": file, "helper": null}]);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report, json!({"registry": null, "kept": kept}));
    assert_eq!(home.read("run/containers/auth.json")["auths"], json!({}));
    assert_eq!(std::fs::read_dir(home.path("kept")).unwrap().count(), 0);
    assert_eq!(home.run(&["logout", "--all"]).code, 4);
}
