//! Nothing of what a registry is shown is written down, neither while a pull runs nor after.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layerstore::fetch::{Credentials, StaticCredentials};

use super::*;
use crate::support::{Action, Bearer, Fault, images};

const PASSWORD: &str = "canary-password";

/// The files and names under a folder that have any of these texts in them.
fn with_any(folder: &Path, secrets: &[String]) -> Vec<String> {
    let (mut found, mut looked, mut folders) = (Vec::new(), 0, vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            looked += 1;
            let mut text = std::fs::read(&path).unwrap();
            text.extend_from_slice(path.to_str().unwrap().as_bytes());
            let has = |secret: &String| {
                text.windows(secret.len()).any(|window| window == secret.as_bytes())
            };
            if secrets.iter().any(has) {
                found.push(path.display().to_string());
            }
        }
    }
    assert!(looked > 5, "this is no store");
    found
}

/// The password, what it is in a header, and everything else that was shown.
fn secrets(registry: &Registry) -> Vec<String> {
    let shown = registry.requests().into_iter().filter_map(|it| it.authorization);
    let shown: BTreeSet<String> =
        shown.map(|it| it.split(' ').next_back().unwrap().to_owned()).collect();
    let tokens = shown.iter().filter(|it| it.starts_with("tok")).count();
    assert!(tokens > 0, "{shown:?}");
    let basic = STANDARD.encode(format!("user:{PASSWORD}"));
    assert!(shown.contains(&basic), "{shown:?}");
    shown.into_iter().chain([PASSWORD.to_owned(), STANDARD.encode(PASSWORD)]).collect()
}

#[test]
fn no_password_and_no_token_is_written_to_the_store() {
    let bearer = Bearer::user("user", PASSWORD);
    let world = World::beside(Registry::builder().bearer(bearer).start());
    let image = images::synthetic(&[300_000, 1_000]);
    world.registry.push("demo", "1", &image);
    let layer = &image.layers[0].digest;
    world.registry.fault(Fault::on("GET", layer).times(1).then(Action::Hold(100_000)));
    let credentials = Credentials::new("user", PASSWORD);
    let client = HttpRegistry::builder()
        .plain_http(world.registry.address())
        .auth(StaticCredentials::new(world.registry.address(), credentials))
        .build()
        .unwrap();
    let puller = Puller::new(BlobStore::open(world.store.root()).unwrap(), Arc::new(client));
    let reference = world.reference("demo:1");
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| run(puller.pull(&reference)));
        assert!(world.registry.wait_held(1));
        assert!(!world.names_in(".layerstore/leases").is_empty(), "it is under way");
        let found = with_any(world.store.root(), &secrets(&world.registry));
        world.registry.release();
        assert_eq!(found, [""; 0], "while it runs");
        pull.join().unwrap().unwrap();
    });
    world.assert_has("demo:1", &image);
    // A repair asks as the pull did.
    let digest: Digest = layer.parse().unwrap();
    std::fs::remove_file(repair::path(&world, layer)).unwrap();
    let mended = run(puller.repair(&repair::check(&world))).unwrap();
    assert_eq!(mended.mended.iter().map(|it| it.digest).collect::<Vec<_>>(), [digest]);
    let secrets = secrets(&world.registry);
    assert_eq!(with_any(world.store.root(), &secrets), [""; 0]);

    // Each of them would be found, wherever it lay.
    for secret in &secrets {
        let planted = world.store.root().join(".layerstore/origins/planted");
        std::fs::write(&planted, format!("a line\n{secret}\n")).unwrap();
        assert_eq!(with_any(world.store.root(), &secrets).len(), 1, "{secret}");
        std::fs::remove_file(planted).unwrap();
    }
}
