use super::*;

fn image(name: &str) -> Reference {
    name.parse().unwrap()
}

fn conf(text: &str) -> RegistrySettings {
    let mut settings = RegistrySettings::new();
    settings.conf.add(Path::new("/r.conf"), text).unwrap();
    settings
}

/// A directory with one file for each name and text.
fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn urls(settings: &RegistrySettings, name: &str) -> Vec<String> {
    let steps = settings.steps(&image(name), false).unwrap();
    steps.iter().map(|it| it.endpoint.url("x").into()).collect()
}

#[test]
fn without_settings_there_is_the_registry_alone() {
    let settings = RegistrySettings::new();
    assert_eq!(urls(&settings, "alpine"), ["https://registry-1.docker.io/v2/library/alpine/x"]);
    let plain = settings.steps(&image("127.0.0.1:5000/a:1"), true).unwrap();
    assert_eq!(plain[0].endpoint.url("x").as_str(), "http://127.0.0.1:5000/v2/a/x");
    assert_eq!(plain.len(), 1);
}

#[test]
fn mirrors_of_registries_conf_come_before_the_registry() {
    let settings = conf(
        r#"
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "m.example/hub"
        [[registry.mirror]]
        location = "tags.example"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "digests.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "*.corp.example"
        [[registry.mirror]]
        location = "cache.example/corp"
        insecure = true
        [[registry]]
        prefix = "old.example/team"
        location = "new.example:8443/x"
        "#,
    );
    let hub = "https://registry-1.docker.io/v2/library/alpine/x";
    assert_eq!(
        urls(&settings, "alpine"),
        [
            "https://m.example/v2/hub/library/alpine/x",
            "https://tags.example/v2/library/alpine/x",
            hub
        ]
    );
    let digest = format!("alpine:3@sha256:{}", "0".repeat(64));
    assert_eq!(
        urls(&settings, &digest),
        [
            "https://m.example/v2/hub/library/alpine/x",
            "https://digests.example/v2/library/alpine/x",
            hub
        ]
    );
    assert_eq!(
        urls(&settings, "a.corp.example/b/c:1"),
        [
            "https://cache.example/v2/corp/b/c/x",
            "http://cache.example/v2/corp/b/c/x",
            "https://a.corp.example/v2/b/c/x"
        ]
    );
    let steps = settings.steps(&image("a.corp.example/b/c:1"), false).unwrap();
    assert_eq!(steps.iter().map(|it| it.last_resort).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(steps[0].endpoint.image.to_string(), "cache.example/corp/b/c:1");
    assert_eq!(urls(&settings, "old.example/team/app"), ["https://new.example:8443/v2/x/app/x"]);
    assert_eq!(urls(&settings, "old.example/teams"), ["https://old.example/v2/teams/x"]);
}

#[test]
fn blocked_names_are_an_error() {
    let settings = conf("[[registry]]\nlocation = \"a.example/x\"\nblocked = true\n");
    let error = settings.steps(&image("a.example/x/y:1"), false).unwrap_err();
    assert!(matches!(error, Error::Blocked { .. }), "{error}");
    assert!(settings.steps(&image("a.example/z:1"), false).is_ok());
}

#[test]
fn hosts_toml_says_whom_to_ask() {
    let hosts = r#"
        server = "https://up.example"
        [host."http://m.example:5000"]
        capabilities = ["pull"]
        [host."https://n.example/prefix"]
        [host."https://n.example/prefix".header]
        x-token = "t"
        "#;
    let dir = files(&[
        ("r.example_8443_/hosts.toml", hosts),
        ("s.example/hosts.toml", "[host.\"https://m.example\"]\n"),
        ("_default/hosts.toml", "[host.\"https://any.example\"]\n"),
    ]);
    let settings = RegistrySettings::new().certs_dir(dir.path());
    assert_eq!(
        urls(&settings, "r.example:8443/a:1"),
        [
            "http://m.example:5000/v2/a/x?ns=r.example%3A8443",
            "https://n.example/prefix/v2/a/x?ns=r.example%3A8443",
            "https://up.example/v2/a/x?ns=r.example%3A8443"
        ]
    );
    let steps = settings.steps(&image("r.example:8443/a:1"), false).unwrap();
    assert_eq!(steps.iter().map(|it| it.resolves).collect::<Vec<_>>(), [false, true, true]);
    assert!(steps[0].endpoint.headers.is_empty());
    assert_eq!(steps[1].endpoint.headers["x-token"], "t");
    assert_eq!(
        urls(&settings, "s.example/a:1"),
        ["https://m.example/v2/a/x?ns=s.example", "https://s.example/v2/a/x"]
    );
    assert_eq!(
        urls(&settings, "t.example/a:1"),
        ["https://any.example/v2/a/x?ns=t.example", "https://t.example/v2/a/x"]
    );
}

#[test]
fn broken_settings_of_one_host_are_no_concern_of_others() {
    let dir = files(&[("bad.example/hosts.toml", "[["), ("odd.example/a.cert", "x")]);
    let settings = RegistrySettings::new().certs_dir(dir.path());
    assert_eq!(urls(&settings, "good.example/a:1"), ["https://good.example/v2/a/x"]);
    for host in ["bad.example", "odd.example"] {
        let error = settings.steps(&image(&format!("{host}/a:1")), false).unwrap_err();
        assert!(matches!(error, Error::Configuration { .. }), "{error}");
        assert!(error.to_string().contains(host), "{error}");
    }
    assert!(settings.knows("odd.example") && !settings.knows("good.example"));
    assert!(!settings.knows("../bad.example") && !settings.knows(".."));
}

#[test]
fn aliases_are_written_out() {
    let settings = conf(
        "[aliases]\nfedora = \"registry.fedoraproject.org/fedora\"\n\"a/b\" = \"x.example/b\"\n\
         \"localhost/c\" = \"x.example/c\"\n\"y.example/d\" = \"x.example/d\"\n",
    );
    let cases = [
        ("fedora", "registry.fedoraproject.org/fedora"),
        ("fedora:40", "registry.fedoraproject.org/fedora:40"),
        ("fedora:40@sha256:00", "registry.fedoraproject.org/fedora:40@sha256:00"),
        ("fedora@sha256:00", "registry.fedoraproject.org/fedora@sha256:00"),
        ("a/b:1", "x.example/b:1"),
        ("alpine", "alpine"),
        ("library/fedora", "library/fedora"),
        ("localhost/c", "localhost/c"),
        ("y.example/d", "y.example/d"),
        ("localhost:5000/fedora", "localhost:5000/fedora"),
        ("", ""),
    ];
    for (name, full) in cases {
        assert_eq!(settings.expand(name), full, "{name}");
    }
}

#[test]
fn drop_ins_are_read_in_order() {
    let dir = files(&[
        ("registries.conf", "[aliases]\na = \"one.example/a\"\nb = \"one.example/b\"\n"),
        ("d/20-second.conf", "[aliases]\na = \"three.example/a\"\n"),
        ("d/10-first.conf", "[aliases]\na = \"two.example/a\"\n"),
        ("d/notes.txt", "this is not TOML"),
    ]);
    let settings = RegistrySettings::new()
        .registries_conf(dir.path().join("registries.conf"))
        .unwrap()
        .registries_conf_dir(dir.path().join("d"))
        .unwrap()
        .registries_conf_dir(dir.path().join("none"))
        .unwrap();
    assert_eq!(settings.expand("a"), "three.example/a");
    assert_eq!(settings.expand("b"), "one.example/b");
    let large = "#".repeat(1024 * 1024 + 1);
    let dir = files(&[("large.conf", &large)]);
    let error = RegistrySettings::new().registries_conf(dir.path().join("large.conf")).unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}
