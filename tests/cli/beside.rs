//! `check` beside everything that changes a store, each in processes of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;
use crate::support::{Registry, images};

const CHECKS: usize = 20;
const IMAGES: u64 = 4;
/// How often each of the others has to be done meanwhile; and for how long, if they are slow, checks
/// go on for that.
const OFTEN: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends all loops where one of them fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a command again and again until there is an end, with one image after the other; how often it
/// was done.
fn repeat(
    sandbox: &Sandbox,
    args: &[&str],
    names: &[String],
    end: &AtomicBool,
    done: &AtomicUsize,
) {
    let _end = End(end);
    for name in names.iter().cycle().take_while(|_| !end.load(Ordering::Relaxed)) {
        let run = sandbox.run(&[args, &[name.as_str()]].concat());
        match run.code {
            Some(0) => drop(done.fetch_add(1, Ordering::Relaxed)),
            // Its name is not there, or not any more.
            Some(4) if args[0] == "rm" => {}
            _ => panic!("{args:?} {name}: {run:?}"),
        }
    }
}

#[test]
fn checks_beside_pulls_removals_and_collections_find_no_damage() {
    let (sandbox, registry) = (Sandbox::new(), Registry::start());
    // They share layers, so that some stay where others go.
    for (n, image) in images::series_of_sizes(IMAGES, [200_000, 100_000, 70_000]).iter().enumerate()
    {
        registry.push("demo", &n.to_string(), image);
    }
    let names: Vec<_> = (0..IMAGES).map(|n| registry.reference(&format!("demo:{n}"))).collect();
    let (end, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    let is_busy = || counts.iter().all(|count| count.load(Ordering::Relaxed) >= OFTEN);
    std::thread::scope(|scope| {
        let (sandbox, names, end, counts) = (&sandbox, &names[..], &end, &counts);
        scope.spawn(|| repeat(sandbox, &["pull", "--plain-http"], names, end, &counts[0]));
        scope.spawn(|| repeat(sandbox, &["rm"], names, end, &counts[1]));
        scope.spawn(|| repeat(sandbox, &["gc", "--grace"], &["0s".to_owned()], end, &counts[2]));
        let (_end, begun) = (End(end), Instant::now());
        let depths = [&["check"][..], &["check", "--quick"], &["check", "--read-data"]];
        for (n, depth) in (1..).zip(depths.iter().cycle()) {
            let done = sandbox.run(depth);
            assert_eq!(done.code, Some(0), "check {n}: {done:?}");
            let is_enough = n >= CHECKS && (is_busy() || begun.elapsed() > PATIENCE);
            if is_enough || end.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    assert!(is_busy(), "{counts:?}");
}
