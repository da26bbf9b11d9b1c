//! The command finds the settings where its users have them.
#![cfg(feature = "cli")]

use std::process::{Command, Output};

use super::authority::{Authority, Front};
use super::{World, image, text, with};

fn store(world: &World, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
    command.env_clear().env("STORE_ROOT", world.path("store"));
    command.env("XDG_CONFIG_HOME", world.path("config"));
    command.envs(variables.iter().copied()).args(args).output().unwrap()
}

#[track_caller]
fn ok(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn registries_conf_and_its_aliases() {
    let image = image();
    let origin = with(&image, "team/demo");
    let world = World::new();
    world.write(
        "config/containers/registries.conf",
        format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", origin.address()),
    );
    world.write(
        "config/containers/registries.conf.d/50-names.conf",
        format!("[aliases]\ndemo = \"{}/team/demo\"\n", origin.address()),
    );
    let printed = ok(&store(&world, &["pull", "demo:1", "--progress", "json"], &[]));
    assert_eq!(printed, format!("{}/team/demo:1@{}\n", origin.address(), image.digest));
    let other = text(&world.path("config/containers/registries.conf"))
        + &format!("[[registry]]\nlocation = \"{}/team\"\nblocked = true\n", origin.address());
    world.write("other.conf", other);
    let path = world.path("other.conf");
    let variables = [("CONTAINERS_REGISTRIES_CONF", path.to_str().unwrap())];
    let output = store(&world, &["pull", "demo:1"], &variables);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("is blocked by") && errors.contains("other.conf"), "{errors}");
    world.write("other.conf", "[[registry]]\nlocation = 1\n");
    let output = store(&world, &["pull", "demo:1"], &variables);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("other.conf, line 2"), "{errors}");
}

#[test]
fn certificates_of_every_tool() {
    let authority = Authority::new();
    let registry = with(&image(), "demo");
    let front = Front::new(authority.certify("127.0.0.1")).start(&registry.address());
    let name = format!("{}/demo:1", front.address());
    let world = World::new();
    assert_eq!(store(&world, &["pull", &name], &[]).status.code(), Some(6));
    for tool in ["containers", "docker", "containerd"] {
        let world = World::new();
        world.write(&format!("config/{tool}/certs.d/{}/ca.crt", front.address()), &authority.pem);
        ok(&store(&world, &["pull", &name], &[]));
    }
    world.write("ca.pem", &authority.pem);
    ok(&store(&world, &["pull", "--ca-file", world.path("ca.pem").to_str().unwrap(), &name], &[]));
}

#[test]
fn proxies_of_the_environment() {
    let registry = with(&image(), "demo");
    let world = World::new();
    let bad = [("http_proxy", "socks5://u:hunter2@p")];
    let output = store(&world, &["pull", &registry.reference("demo:1")], &bad);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("proxy") && !errors.contains("hunter2"), "{errors}");
    let dead = super::nobody();
    let args = ["pull", "--plain-http", "r.invalid/demo:1", "-q"];
    let output = store(&world, &args, &[("HTTP_PROXY", &dead)]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("refused"), "{errors}");
    let args = ["pull", "--plain-http", &registry.reference("demo:1")];
    ok(&store(&world, &args, &[("HTTP_PROXY", &dead)]));
}
