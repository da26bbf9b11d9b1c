//! A large layer over several connections, through nginx that gives each 20 MB a second: what is
//! asked for, and how many connections there are. How long it takes is measured by
//! benches/peers/run, in its section `ranges`.
#![cfg(feature = "cli")]

#[path = "support/connections.rs"]
mod connections;
#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use peers::Registry;
use store::Store;

/// Of the layer, in bytes.
const SIZE: u64 = 286_000_000;
/// Bytes a second on each connection.
const RATE: &str = "20000000";
/// What one request asks for at most where several share a blob.
const CHUNK: u64 = 16 << 20;
const CONNECTIONS: usize = 8;

struct World {
    temp: tempfile::TempDir,
    data: PathBuf,
    layer: String,
}

impl World {
    fn new() -> World {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = temp.path().join("data");
        let layer = large_image(&data, SIZE, "large");
        World { temp, data, layer }
    }

    fn registry(&self, name: &str) -> Registry {
        Registry::start_over(&self.temp.path().join(name), &self.data, RATE)
    }

    fn store(&self, name: &str) -> Store {
        Store::at(self.temp.path().join(name))
    }

    fn name(registry: &Registry) -> String {
        format!("{}/real/large:v1", registry.address)
    }

    /// How many bytes of the layer nginx sent, once it was `least`.
    fn sent(&self, registry: &Registry, least: u64) -> u64 {
        registry.sent_after(least).get(&self.layer).map_or(0, |sent| sent.bytes)
    }
}

/// Puts an image of one layer into the folder of a registry; the digest of the layer.
fn large_image(data: &Path, size: u64, name: &str) -> String {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/large-image");
    let output = Command::new(tool).arg(data).args([&size.to_string(), name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The most connections to the registry that there were at once until all of these had ended.
fn peak(registry: &Registry, mut pulls: Vec<Child>) -> usize {
    let port = registry.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let wait = || {
        for pull in &mut pulls {
            assert!(pull.wait().unwrap().success());
        }
    };
    connections::peak_during(port, wait).0
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn a_large_layer_comes_over_all_connections_and_once() {
    let world = World::new();
    let registry = world.registry("registry");
    // On a machine that is busy bytes wait to be written, and then no connection is added.
    let has_all = (1..=3).any(|round| {
        let store = world.store(&format!("store-{round}"));
        let pull = store.start_pull(&World::name(&registry));
        let peak = peak(&registry, vec![pull]);
        assert_eq!(store.blobs()[&world.layer], SIZE);
        store.assert_sound();
        // Whose piece was made smaller, after it had asked for more, is sent a little too much: what
        // is on its way when it closes its connection.
        let sent = world.sent(&registry, round * SIZE);
        println!("{sent} bytes sent in {round} pulls of {SIZE}, over {peak} connections");
        let most = round * (SIZE + CHUNK * CONNECTIONS as u64);
        assert!(sent >= round * SIZE && sent <= most, "{sent}");
        peak == CONNECTIONS
    });
    assert!(has_all, "no pull had all connections");
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn a_killed_pull_has_only_the_rest_sent() {
    let world = World::new();
    for percent in [30, 80] {
        let store = world.store(&format!("store{percent}"));
        let first = world.registry(&format!("first{percent}"));
        let mut pull = store.start_pull(&World::name(&first));
        let there = || store.parts().get(&world.layer).copied().unwrap_or(0);
        while there() < SIZE * percent / 100 {
            assert!(pull.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        pull.kill().unwrap();
        pull.wait().unwrap();
        let had = there();
        assert!(had >= SIZE * percent / 100 && had < SIZE, "{had}");

        let second = world.registry(&format!("second{percent}"));
        let report = store.pull(&World::name(&second));
        assert_eq!(report["resumedBytes"], had, "{report}");
        assert_eq!(store.blobs()[&world.layer], SIZE);
        store.assert_sound();
        let missing = SIZE - had;
        let sent = world.sent(&second, missing);
        println!("killed at {percent} %: {missing} bytes were missing, {sent} were sent");
        assert!(sent >= missing && sent <= missing + CHUNK * CONNECTIONS as u64, "{sent}");
    }
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn four_processes_keep_to_one_limit_and_a_killed_one_gives_its_connections_back() {
    let world = World::new();
    let mut names = Vec::new();
    // Of the same image three would follow the first.
    for image in ["one", "two", "three", "four"] {
        large_image(&world.data, 60_000_000, image);
        names.push(image);
    }
    let registry = world.registry("registry");
    let store = world.store("store");
    let names: Vec<String> =
        names.iter().map(|image| format!("{}/real/{image}:v1", registry.address)).collect();
    let start = |name: &String| store.start_pull_with(name, &["--max-connections", "6"]);
    let mut killed = start(&World::name(&registry));
    while store.parts().values().sum::<u64>() == 0 {
        assert!(killed.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(1));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let peak = peak(&registry, names.iter().map(start).collect());
    assert!((4..=6).contains(&peak), "{peak}");
    for name in &names {
        store.assert_complete(name);
    }
}
