//! nginx in front of a docker-registry as the mirror of another one.

use super::peers::{self, Registry};
use super::store::served;
use super::{User, start};

/// On one connection: several may leave bytes unread that a server has sent.
const ONE: &str = "--max-connections=1";

/// Settings that put a mirror before a registry, for `registry.example`.
fn settings(user: &User, origin: &Registry, mirror: &Registry) {
    let conf = format!(
        "[[registry]]\nprefix = \"registry.example\"\nlocation = \"{}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        origin.address, mirror.address
    );
    user.write("config/containers/registries.conf", conf);
}

fn all_bytes(registry: &Registry, at_least: u64) -> u64 {
    registry.sent_after(at_least).values().map(|sent| sent.bytes).sum()
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn a_mirror_is_asked_first_and_what_it_lacks_comes_from_the_registry() {
    let user = User::new();
    let origin = start(&user.path("origin"), &["--nginx"]);
    let mirror = start(&user.path("mirror"), &["--nginx"]);
    settings(&user, &origin, &mirror);
    let name = "registry.example/real/debian:v1";
    let size: u64 = served(&peers::images(), "debian").values().sum();
    user.pulls(&[ONE, name]);
    user.store.assert_complete(name);
    assert_eq!((all_bytes(&mirror, size), all_bytes(&origin, 0)), (size, 0));

    // One that has not got the image.
    let user = User::new();
    let empty = Registry::start_on(&user.path("mirror"), &user.path("nothing"), &["--nginx"]);
    settings(&user, &origin, &empty);
    user.pulls(&[ONE, name]);
    user.store.assert_complete(name);
    assert_eq!((all_bytes(&empty, 0), all_bytes(&origin, size)), (0, size));

    // One that has died: nginx is there, and has nothing to ask.
    let user = User::new();
    mirror.cut();
    settings(&user, &origin, &mirror);
    user.pulls(&[ONE, name]);
    user.store.assert_complete(name);
    assert_eq!(all_bytes(&origin, 2 * size), 2 * size);
}
