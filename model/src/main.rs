//! Looks at every state of the protocol, and refutes it with each rule left out in turn.
//!
//!     cargo run --manifest-path model/Cargo.toml [-- --long | --refute]
//!
//! `--long` looks at more states, `--refute` at the weakened protocols alone.
//!
//! The steps are those of docs/protocol.md. The last line is a summary; the exit code is 0 if every
//! property holds in every state, and each weakened protocol is refuted.

mod collector;
mod process;
mod protocol;
mod scenes;
mod state;
mod trace;
mod weakness;

use std::process::ExitCode;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use protocol::Protocol;
use weakness::Weakness;

/// Looks at every state; how many there are, or nothing if a property does not hold.
fn exhaust(name: &str, protocol: Protocol, threads: usize) -> Option<usize> {
    let started = Instant::now();
    let checker = protocol.clone().checker().threads(threads).spawn_bfs().join();
    let mut holds = checker.is_done();
    for property in protocol.properties() {
        let found = checker.discovery(property.name);
        match (property.expectation, found) {
            (Expectation::Sometimes, Some(_)) | (Expectation::Always, None) => {}
            (_, Some(path)) => {
                holds = false;
                println!("{name}: broken: {}\n{}", property.name, trace::of(&protocol, path));
            }
            (_, None) => {
                holds = false;
                println!("{name}: never reached: {}", property.name);
            }
        }
    }
    let states = checker.unique_state_count();
    let depth = checker.max_depth();
    println!("{name}: {states} states, {depth} deep, {:.0?}", started.elapsed());
    holds.then_some(states)
}

/// Whether the weakened protocol is refuted; how is printed.
fn refute(weakness: Weakness, threads: usize) -> bool {
    let protocol = scenes::of(weakness);
    let checker = protocol.clone().checker().threads(threads);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let broken = protocol.properties().into_iter().find_map(|property| {
        let always = property.expectation == Expectation::Always;
        let path = checker.discovery(property.name).filter(|_| always)?;
        Some((property.name, path))
    });
    println!("\nLeft out: {}.", weakness.describe());
    match broken {
        Some((property, path)) => {
            println!("{}  broken: {property}", trace::of(&protocol, path));
            true
        }
        None => {
            println!("  NOT REFUTED in {} states", checker.unique_state_count());
            false
        }
    }
}

fn main() -> ExitCode {
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let scenes = if asked("--refute") { Vec::new() } else { scenes::whole(asked("--long")) };
    let exhausted: Vec<_> =
        scenes.into_iter().map(|(name, protocol)| exhaust(name, protocol, threads)).collect();
    let refuted = Weakness::ALL.into_iter().filter(|it| refute(*it, threads)).count();
    let states: usize = exhausted.iter().flatten().sum();
    let variants = Weakness::ALL.len();
    println!("\nmodel: {states} states, variants refuted: {refuted} of {variants}");
    match exhausted.iter().all(Option::is_some) && refuted == variants {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
