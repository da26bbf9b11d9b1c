//! `SIGINT` and `SIGTERM`, wherever a command may be when they come.
//!
//! No time is asserted but one that tells an end from a command that goes on: what it waits for in
//! these tests never comes.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fs2::FileExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::support::{Action, Fault, Image, Registry, images};

const SIZE: u64 = 40 << 20;
const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// Waits for what must come, with a limit that nothing but a hang reaches.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct World {
    sandbox: Sandbox,
    registry: Registry,
    image: Image,
}

impl World {
    fn new() -> World {
        let (registry, image) = (Registry::start(), images::synthetic(&[SIZE]));
        registry.push("demo", "1", &image);
        World { sandbox: Sandbox::new(), registry, image }
    }

    fn layer(&self) -> &str {
        &self.image.layers[0].digest
    }

    /// On one connection: of several, all that wait too long would be asked again.
    fn start(&self) -> Child {
        self.start_on(1)
    }

    fn start_on(&self, connections: usize) -> Child {
        let connections = format!("--max-connections={connections}");
        let name = self.registry.reference("demo:1");
        self.sandbox
            .command(&["pull", "--plain-http", "--progress=json", &connections, &name])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn part(&self) -> u64 {
        let name = format!("{}.part", self.layer().replace(':', "-"));
        let part = self.sandbox.root().join(".layerstore/parts").join(name);
        part.metadata().map_or(0, |meta| meta.len())
    }

    /// The pull has ended in order: it says how to go on, holds nothing, and has kept its part.
    fn assert_stopped(&self, child: Child, code: i32, kept: u64) {
        self.assert_ended(child, code, "pull");
        self.assert_kept(kept);
    }

    fn assert_ended(&self, child: Child, code: i32, what: &str) {
        let (status, said) = end(child);
        assert_eq!(status.code(), Some(code), "{said}");
        let advice = format!("a repeated {what} goes on where this one stopped");
        assert!(said.contains(&advice), "{said}");
        self.assert_free();
    }

    fn assert_kept(&self, kept: u64) {
        assert!(self.part() >= kept, "{} of {kept}", self.part());
    }

    /// Nobody holds a lock.
    fn assert_free(&self) {
        for folder in ["locks", "parts", "leases"] {
            let folder = self.sandbox.root().join(".layerstore").join(folder);
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let file = File::open(&path).unwrap();
                file.try_lock_exclusive().unwrap_or_else(|error| panic!("{path:?}: {error}"));
            }
        }
    }

    /// The same pull again brings the image, and does not ask for what was kept.
    fn assert_resumes(&self, kept: u64) {
        self.registry.clear_faults();
        self.registry.release();
        let name = self.registry.reference("demo:1");
        let report = self.sandbox.json(&["pull", "--plain-http", "-q", &name]);
        assert!(report["resumedBytes"].as_u64().unwrap() >= kept, "{report}");
        self.sandbox.ok(&["check", "--read-data"]);
    }
}

fn end(mut child: Child) -> (ExitStatus, String) {
    let status = until("the end of the command", || child.try_wait().unwrap());
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut said).unwrap();
    }
    (status, said)
}

#[test]
fn a_pull_in_the_middle_of_a_body() {
    for (signal, code) in SIGNALS {
        let world = World::new();
        world.registry.fault(Fault::on("GET", world.layer()).then(Action::Hold(30 << 20)));
        let child = world.start();
        until("the first bytes", || (world.part() > 20 << 20).then_some(()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        world.assert_stopped(child, code, 20 << 20);
        world.assert_resumes(20 << 20);
    }
}

#[test]
fn a_pull_over_several_connections() {
    for (signal, code) in SIGNALS {
        let world = World::new();
        world.registry.fault(Fault::on("GET", world.layer()).then(Action::Throttle(8 << 20)));
        let child = world.start_on(4);
        let ranges = || world.registry.requests().iter().filter(|it| it.range.is_some()).count();
        until("several connections", || (ranges() > 1).then_some(()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        world.assert_stopped(child, code, 1);
        world.assert_resumes(1);
    }
}

#[test]
fn a_pull_that_waits_for_another_process() {
    for (signal, code) in SIGNALS {
        let world = World::new();
        world.registry.fault(Fault::on("GET", world.layer()).times(1).then(Action::Hold(30 << 20)));
        let holder = world.start();
        assert!(world.registry.wait_held(1));
        // It may have a second connection to the host, or it would wait for that.
        let mut waiter = world.start_on(2);
        let mut events = std::io::BufReader::new(waiter.stderr.take().unwrap());
        let waits = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"] == "waiting";
        until("the waiter", || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut events, &mut line).unwrap();
            waits(&line).then_some(())
        });
        kill_process(Pid::from_child(&waiter), signal).unwrap();
        assert_eq!(end(waiter).0.code(), Some(code));
        // Who holds the part has noticed nothing.
        world.registry.release();
        let (status, said) = end(holder);
        assert!(status.success(), "{said}");
        assert_eq!(world.registry.bytes_sent(world.layer()), SIZE);
    }
}

#[test]
fn a_pull_that_was_told_to_wait() {
    for (signal, code) in SIGNALS {
        let world = World::new();
        let wait = Action::status(503, &[("Retry-After", "60")], "");
        world.registry.fault(Fault::on("GET", world.layer()).then(wait));
        let child = world.start();
        let asked = || world.registry.requests().iter().any(|it| it.path.contains(world.layer()));
        until("the request", || asked().then_some(()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        world.assert_stopped(child, code, 0);
    }
}

#[test]
fn a_pull_that_waits_for_a_lock() {
    for (signal, code) in SIGNALS {
        let world = World::new();
        let gate = File::open(world.sandbox.root().join(".layerstore/locks/turn")).unwrap();
        gate.lock_exclusive().unwrap();
        let child = world.start();
        let leases = || std::fs::read_dir(world.sandbox.root().join(".layerstore/leases")).unwrap();
        until("the lease, which comes before the lock", || leases().next().map(|_| ()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (status, said) = end(child);
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(said.contains("a repeated pull goes on"), "{said}");
        drop(gate);
        world.assert_free();
        world.assert_resumes(0);
    }
}

#[test]
fn a_repair_in_the_middle_of_a_body() {
    for (signal, code) in SIGNALS {
        let world = World::new();
        world.sandbox.ok(&["pull", "--plain-http", &world.registry.reference("demo:1")]);
        let blob = world.sandbox.root().join("blobs").join(world.layer().replace(':', "/"));
        std::fs::remove_file(blob).unwrap();
        world.registry.fault(Fault::on("GET", world.layer()).then(Action::Hold(30 << 20)));
        let address = world.registry.address();
        let command = ["check", "--repair", "--plain-http", &address];
        let mut repair = world.sandbox.command(&command);
        let child = repair.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        until("the first bytes", || (world.part() > 20 << 20).then_some(()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        world.assert_ended(child, code, "repair");
        world.assert_kept(1);
        world.registry.clear_faults();
        world.registry.release();
        let report = world.sandbox.json(&command);
        let fetched = report["repair"]["fetchedBytes"].as_u64().unwrap();
        // Over several connections a part has gaps, and its length says nothing.
        assert!(fetched < SIZE - (1 << 20), "{report}");
        world.sandbox.ok(&["check", "--read-data"]);
    }
}

/// The other commands have nothing to say: the signal ends them, whatever they are at.
#[test]
fn other_commands_are_ended_by_the_signal() {
    let world = World::new();
    let name = world.registry.reference("demo:1");
    world.sandbox.ok(&["pull", "--plain-http", &name]);
    let layer = world.layer();
    let commands: [&[&str]; 6] = [
        &["gc", "--grace", "0s"],
        &["check", "--read-data"],
        &["tag", &name, "registry.test/other:1"],
        &["rm", &name],
        &["blob", "cat", layer],
        &["lease", "add", layer],
    ];
    for (signal, code) in SIGNALS {
        for command in commands {
            let mut child = world.sandbox.command(command).stdout(Stdio::null()).spawn().unwrap();
            // Stopped at once, it cannot have come to its end when the signal comes.
            kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
            assert_eq!(child.try_wait().unwrap(), None, "{command:?}");
            kill_process(Pid::from_child(&child), signal).unwrap();
            kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
            let status = until("the end", || child.try_wait().unwrap());
            assert_eq!(status.signal(), Some(code - 128), "{command:?}");
            world.assert_free();
        }
    }
    world.sandbox.ok(&["check", "--read-data"]);
    world.sandbox.ok(&["blob", "stat", layer]);
}

#[test]
fn a_put_that_reads_leaves_nothing() {
    for (signal, code) in SIGNALS {
        let world = World::new();
        let mut put = world.sandbox.command(&["blob", "put", "-"]);
        let mut child = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, &vec![7; 1 << 20]).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (status, _) = end(child);
        assert_eq!(status.signal(), Some(code - 128));
        world.assert_free();
        let blobs = world.sandbox.root().join("blobs/sha256");
        assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
    }
}
