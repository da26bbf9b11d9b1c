//! Pulls, tags, removals, kills and a collector for a minute: what succeeded stays whole.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use peers::{Registry, TAGS};
use serde_json::Value;
use store::{Random, Store, messages, must};

/// How many pull at a time.
const PULLERS: usize = 4;
const FOR: Duration = Duration::from_secs(60);

/// What was done, by its name.
type Counts = BTreeMap<&'static str, u64>;

fn count(counts: &mut Counts, what: &'static str, number: u64) {
    *counts.entry(what).or_default() += number;
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap()
}

/// Pulls images under names of its own, and removes them some time later.
struct Puller<'a> {
    store: &'a Store,
    /// Of each tag the name that no other puller uses.
    names: Vec<String>,
    /// Where no other puller puts tags.
    repository: String,
    held: Vec<String>,
    random: Random,
    counts: Counts,
}

impl Puller<'_> {
    fn choose<'a>(random: &mut Random, among: &'a [String]) -> &'a String {
        &among[random.below(among.len() as u64) as usize]
    }

    /// Everything that was pulled and not removed is there, by other means than our own.
    fn check(&mut self) {
        for name in &self.held {
            self.store.assert_complete(name);
        }
        count(&mut self.counts, "checks", self.held.len() as u64);
    }

    fn pull(&mut self) {
        let name = Self::choose(&mut self.random, &self.names).clone();
        if self.random.below(4) == 0 {
            self.kill(&mut self.store.start_pull(&name));
        }
        let output = self.store.start_pull(&name).wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {}{}", output.status, messages(&output));
        self.store.assert_complete(&name);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        count(&mut self.counts, "pulls", 1);
        count(&mut self.counts, "pulls that fetched", number(&report, "fetchedBytes").min(1));
        for key in ["fetchedBlobs", "reusedBlobs", "waitedBlobs"] {
            count(&mut self.counts, key, number(&report, key));
        }
        count(&mut self.counts, "pulls that resumed", number(&report, "resumedBytes").min(1));
        self.hold(name);
    }

    fn kill(&mut self, pull: &mut Child) {
        self.random.sleep_up_to(Duration::from_millis(400));
        pull.kill().unwrap();
        pull.wait().unwrap();
        count(&mut self.counts, "kills", 1);
    }

    /// Gives an image of this puller's another name.
    fn tag(&mut self) {
        let source = Self::choose(&mut self.random, &self.held).clone();
        let name = format!("{}:{}", self.repository, self.random.below(3));
        self.store.run(&["tag", &source, &name]);
        count(&mut self.counts, "tags", 1);
        self.hold(name);
    }

    fn hold(&mut self, name: String) {
        self.held.push(name);
        self.held.sort();
        self.held.dedup();
    }

    /// Removes one name, or more often all, so that whole images become garbage.
    fn remove(&mut self) {
        let all = self.random.below(4) > 0;
        while !self.held.is_empty() {
            let at = self.random.below(self.held.len() as u64) as usize;
            let name = self.held.swap_remove(at);
            self.store.assert_complete(&name);
            self.store.run(&["rm", &name]);
            count(&mut self.counts, "removals", 1);
            if !all {
                break;
            }
        }
        self.held.sort();
    }

    /// Goes on for the time, or until another has failed.
    fn run(mut self, until: Instant, stop: &AtomicBool) -> (Counts, Vec<String>) {
        let _failed = StopOnPanic(stop);
        while Instant::now() < until && !stop.load(Ordering::SeqCst) {
            match self.random.below(6) {
                0..=1 => self.pull(),
                2 if !self.held.is_empty() => self.tag(),
                _ => self.remove(),
            }
            self.random.sleep_up_to(Duration::from_millis(50));
            self.check();
        }
        (self.counts, self.held)
    }
}

/// Collects; every other time slowed down at its locks, so that pulls come in between its steps.
fn collect_until(store: &Store, mut random: Random, stop: &AtomicBool) -> Counts {
    let mut counts = Counts::new();
    let _failed = StopOnPanic(stop);
    while !stop.load(Ordering::SeqCst) {
        // Some garbage lives long enough to be found and used again.
        random.sleep_up_to(Duration::from_millis(100));
        let report = match random.below(2) {
            0 => store.gc(),
            _ => slow_gc(store, random.below(200_000)),
        };
        count(&mut counts, "collections", 1);
        count(&mut counts, "collections that removed", number(&report, "removed").min(1));
        count(&mut counts, "removed blobs", number(&report, "removed"));
        count(&mut counts, "kept for a lease", number(&report, "keptLeased"));
    }
    counts
}

fn slow_gc(store: &Store, microseconds: u64) -> Value {
    let mut command = Command::new("strace");
    command.args(["-qq", "-f", "-o", "/dev/null", "-e", "trace=flock"]);
    command.args(["-e", &format!("inject=flock:delay_enter={microseconds}")]);
    command.arg(env!("CARGO_BIN_EXE_store")).arg("--root").arg(store.root());
    command.args(["--json", "gc", "--grace", "0s"]);
    serde_json::from_str(&must(&mut command)).unwrap()
}

struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn collections_beside_pulls_lose_nothing_for_a_minute() {
    let temp = tempfile::tempdir().unwrap();
    let registry = Registry::start(&temp.path().join("registry"));
    let store = Store::at(temp.path().join("store"));
    store.run(&["init"]);
    let mut random = Random::new();
    let collecting = random.fork();
    // The same image has other names by the registry's other port, and with its digest.
    let names = |puller: usize| {
        let host = [&registry.address, &registry.direct][puller % 2];
        let name = |(tag, _)| match puller / 2 {
            0 => format!("{host}/real/{tag}:v1"),
            _ => format!("{host}/real/{tag}:v1@{}", manifest(tag)),
        };
        TAGS.into_iter().map(name).collect::<Vec<_>>()
    };
    let until = Instant::now() + FOR;
    let stop = AtomicBool::new(false);
    let (counts, held) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| collect_until(&store, collecting, &stop));
        let pullers: Vec<_> = (0..PULLERS)
            .map(|puller| {
                let puller = Puller {
                    store: &store,
                    names: names(puller),
                    repository: format!("example.org/puller{puller}"),
                    held: Vec::new(),
                    random: random.fork(),
                    counts: Counts::new(),
                };
                let stop = &stop;
                scope.spawn(move || puller.run(until, stop))
            })
            .collect();
        let ended: Vec<_> = pullers.into_iter().map(|puller| puller.join()).collect();
        stop.store(true, Ordering::SeqCst);
        let (mut counts, mut held) = (collector.join().unwrap(), Vec::new());
        for (counted, kept) in ended.into_iter().map(Result::unwrap) {
            counted.into_iter().for_each(|(what, number)| count(&mut counts, what, number));
            held.extend(kept);
        }
        (counts, held)
    });
    println!("{counts:#?}");
    for needed in ["pulls that fetched", "reusedBlobs", "removed blobs", "kept for a lease"] {
        assert!(counts.get(needed) > Some(&0), "nothing was tried: no {needed}");
    }

    held.iter().for_each(|name| drop(store.assert_complete(name)));
    // Beside them only pulls that were killed when they had written their name.
    store.assert_sound();
    store.gc();
    assert_eq!(store.blobs(), store.live());
    held.iter().for_each(|name| drop(store.assert_complete(name)));
    store.assert_sound();
}

/// Under the shut gate everybody waits, and a lease of somebody who ends beside a collection stays until it
/// is over: there may be hundreds.
#[test]
#[ignore = "needs strace: run ./tests/all"]
fn a_lease_that_has_not_grown_is_not_read_again_each_time_the_gate_is_shut() {
    const LEASES: usize = 20;
    let temp = tempfile::tempdir().unwrap();
    let store = Store::at(temp.path().join("store"));
    let put = |n: usize| {
        let file = temp.path().join("file");
        std::fs::write(&file, n.to_string()).unwrap();
        store.run(&["blob", "put", file.to_str().unwrap()]).trim().to_owned()
    };
    let leased = put(0);
    (1..=50).for_each(|n| drop(put(n)));
    for _ in 0..LEASES {
        store.run(&["lease", "add", "--ttl", "1h", &leased]);
    }
    let trace = temp.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-qq", "-f", "-e", "trace=openat,openat2,unlinkat", "-o"]).arg(&trace);
    // So that there is time for one blob only whenever it is shut.
    command.args(["-e", "inject=unlinkat:delay_enter=20000"]);
    must(
        command
            .arg(env!("CARGO_BIN_EXE_store"))
            .arg("--root")
            .arg(store.root())
            .args(["--json", "gc", "--grace", "0s"]),
    );
    let trace = std::fs::read_to_string(trace).unwrap();
    let opened = |what: &str| {
        trace.lines().filter(|line| line.contains("open") && line.contains(what)).count()
    };
    let shut = opened("\"gate\"");
    assert!(shut > 10, "the gate was shut {shut} times\n{trace}");
    for lease in std::fs::read_dir(store.root().join(".layerstore/leases")).unwrap() {
        let name = lease.unwrap().file_name().into_string().unwrap();
        let times = opened(&name);
        // To see whether it has ended, what it pins, and whether anything can still be added.
        assert_eq!(times, 3, "{name} was opened {times} times, and the gate shut {shut} times");
    }
    assert_eq!(store.blobs().len(), 1);
}

fn manifest(tag: &str) -> String {
    let filter = ".manifests[] | select(.annotations[] == $name) | .digest";
    store::jq(filter, tag, &peers::images().join("index.json")).remove(0)
}
