//! A registry that does whatever it likes, and the client that must come to no harm by it.
//!
//! Each case is a pull in a process of its own, from a registry on loopback that misbehaves in one
//! way. It ends inside its deadline, with the error or the success that the case names, in bounded
//! memory; it shows no secret, though it logs all it can; and it leaves the store as it was, but for
//! what the next pull goes on with, which is then seen to succeed.
//!
//! `LAYERSTORE_TEST_CASE=WORDS cargo nextest run --test hostile` runs the cases with those words in
//! their names.
#![cfg(feature = "cli")]

mod auth;
mod bodies;
mod canaries;
mod case;
mod child;
mod disk;
#[path = "../endpoints/authority.rs"]
mod front;
mod headers;
mod library;
mod manifests;
mod planted;
mod ranges;
mod redirects;
mod scene;
#[path = "../store_support/mod.rs"]
mod store_support;
#[path = "../support/mod.rs"]
mod support;
mod time;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Case, Verdict};

/// How many cases run at a time: most of them wait for something.
const AT_A_TIME: usize = 6;

/// The groups, and how many cases each has at least.
fn groups() -> [(&'static str, Vec<Case>, usize); 8] {
    [
        ("body", bodies::cases(), 10),
        ("range", ranges::cases(), 10),
        ("encoding", headers::encodings(), 5),
        ("header", headers::cases(), 7),
        ("manifest", manifests::cases(), 14),
        ("authentication", auth::cases(), 12),
        ("redirect", redirects::cases(), 8),
        ("time", time::cases(), 6),
    ]
}

#[test]
fn no_registry_does_harm() {
    library::run_if_asked();
    let mut cases = Vec::new();
    for (group, of_group, least) in groups() {
        assert!(of_group.len() >= least, "{group}: {} of {least}", of_group.len());
        cases.extend(of_group.into_iter().map(|case| (group, case)));
    }
    if let Ok(words) = std::env::var("LAYERSTORE_TEST_CASE") {
        cases.retain(|(group, case)| format!("{group}: {}", case.name).contains(&words));
    }
    let verdicts = judge(&cases);
    let count = |is: fn(&Verdict) -> bool| verdicts.iter().filter(|it| is(it)).count();
    let peak = verdicts.iter().map(|it| it.peak).max().unwrap_or_default();
    println!("the most memory of a case: {peak} KiB");
    println!(
        "hostile cases: {}, wrongly accepted: {}, leaked: {}",
        verdicts.len(),
        count(|it| it.wrongly_accepted),
        count(|it| it.leaked)
    );
    assert!(!verdicts.is_empty(), "there is no such case");
    assert_eq!(count(|it| !it.faults.is_empty()), 0, "cases that failed; see above");
}

fn judge(cases: &[(&str, Case)]) -> Vec<Verdict> {
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((group, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = case.run();
                    for fault in &verdict.faults {
                        println!("{group}: {}: {fault}", case.name);
                    }
                    verdicts.lock().unwrap().push(verdict);
                }
            });
        }
    });
    verdicts.into_inner().unwrap()
}
