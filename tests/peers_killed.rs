//! A puller that is killed or asked to stop, at any moment, leaves a sound store, and the next
//! fetches only what is missing.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use peers::{Registry, Sent, images};
use store::{Random, Store, closure, jq, messages, served};

/// Fast enough for ten pulls, and so slow that a moment between its beginning and its end is met.
const RATE: &str = "24m";
const SIGKILL: i32 = 9;

/// Two registries: one to be broken off at, another to go on at, whose log has nothing else.
struct World {
    slow: Registry,
    fast: Registry,
    /// What is sent for an image: all of it but the manifest.
    wanted: BTreeMap<String, u64>,
    temp: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let temp = tempfile::tempdir().unwrap();
        let slow = Registry::start_slow(&temp.path().join("slow"), RATE);
        let fast = Registry::start(&temp.path().join("fast"));
        let wanted = served(&images(), "python");
        World { slow, fast, wanted, temp }
    }

    fn store(&self, name: &str) -> Store {
        Store::at(self.temp.path().join(name))
    }

    fn start_pull(&self, store: &Store) -> Child {
        store.start_pull(&format!("{}/real/python:v1", self.slow.address))
    }

    /// A moment, as bytes that have arrived.
    fn moment(&self, random: &mut Random) -> u64 {
        random.below(self.wanted.values().sum())
    }

    /// Checks what a pull has left, lets another finish it, and returns how much had arrived.
    fn go_on(&self, store: &Store) -> u64 {
        store.assert_sound();
        let (blobs, parts) = (store.blobs(), store.parts());
        if store.root().join("index.json").exists() {
            for name in store.names() {
                store.assert_complete(&name);
            }
        }
        let had = |digest: &String| {
            let part = parts.get(digest).copied().unwrap_or(0);
            blobs.get(digest).copied().unwrap_or(part)
        };
        let missing = self.wanted.iter().map(|(digest, size)| (digest, size - had(digest)));
        let missing: BTreeMap<_, _> = missing.collect();

        let before = self.fast.sent();
        let name = format!("{}/real/python:v1", self.fast.address);
        let report = store.pull(&name);
        let bytes = |sent: &BTreeMap<_, Sent>| sent.values().map(|sent| sent.bytes).sum::<u64>();
        let after = self.fast.sent_after(bytes(&before) + missing.values().sum::<u64>());
        let none = Sent { responses: 0, bytes: 0 };
        for (digest, missing) in &missing {
            let of = |sent: &BTreeMap<_, Sent>| sent.get(*digest).copied().unwrap_or(none);
            let sent = of(&after).bytes - of(&before).bytes;
            assert_eq!(sent, *missing, "of {digest} {} bytes were there", had(digest));
        }
        let resumed: u64 = parts.values().sum();
        assert_eq!(report["resumedBytes"], resumed, "{report}");

        assert_eq!(store.assert_complete(&name), closure(&images(), "python"));
        store.assert_sound();
        assert!(store.parts().is_empty());
        self.wanted.keys().map(had).sum()
    }
}

/// How many bytes a pull has brought so far.
fn arrived(store: &Store) -> u64 {
    // The parts first: one that becomes a blob in between is counted twice, not never.
    let parts: u64 = store.parts().values().sum();
    parts + store.blobs().values().sum::<u64>()
}

fn wait_until_arrived(store: &Store, moment: u64, pull: &mut Child) {
    while arrived(store) < moment && pull.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn after_a_kill_only_what_is_missing_is_fetched() {
    let world = World::new();
    let mut random = Random::new();
    let mut broken_off = 0;
    for round in 0..10 {
        let store = world.store(&format!("store{round}"));
        let moment = world.moment(&mut random);
        let mut pull = world.start_pull(&store);
        wait_until_arrived(&store, moment, &mut pull);
        // Not at the moment of a look, which comes between two writes more often than in one.
        random.sleep_up_to(Duration::from_millis(20));
        pull.kill().unwrap();
        let killed = pull.wait().unwrap().signal() == Some(SIGKILL);
        let parts = store.parts();
        let had = world.go_on(&store);
        println!("round {round}: killed: {killed}, {had} bytes there, parts {parts:?}");
        broken_off += u32::from(killed && !parts.is_empty());
    }
    assert!(broken_off > 0, "no kill was in time");
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn a_signal_ends_a_pull_at_once_and_keeps_its_parts() {
    let world = World::new();
    let mut random = Random::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut fastest = Duration::MAX;
        for round in 0..3 {
            let store = world.store(&format!("{signal}{round}"));
            // After the first bytes of a layer, and too early for it to end by itself.
            let moment = 1_000_000 + world.moment(&mut random) / 2;
            let mut pull = world.start_pull(&store);
            wait_until_arrived(&store, moment, &mut pull);
            let pid = pull.id().to_string();
            let asked = Instant::now();
            store::must(Command::new("sh").args(["-c", "kill -s $0 $1", signal, &pid]));
            let output = pull.wait_with_output().unwrap();
            fastest = fastest.min(asked.elapsed());

            let messages = messages(&output);
            assert_eq!(output.status.code(), Some(code), "{messages}");
            assert!(
                messages.contains("a repeated pull goes on where this one stopped"),
                "{messages}"
            );
            assert!(output.stdout.is_empty(), "nothing was pulled");
            assert_eq!(jq(".manifests | length", "", &store.root().join("index.json")), ["0"]);
            assert!(store.parts().values().sum::<u64>() > 0, "no parts were kept");
            let had = world.go_on(&store);
            println!("SIG{signal} {round}: {had} bytes there");
        }
        // A busy machine may be late once; it would be late each time if it waited for bytes.
        println!("SIG{signal}: {fastest:?} to the end");
        assert!(fastest < Duration::from_secs(1), "SIG{signal}: {fastest:?}");
    }
}
