//! The connections that a server of this machine has, as the kernel counts them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The connections of the server on this port, each by its client's address: those that clients
/// have closed are none, whether or not the server has noticed.
pub(crate) fn established(port: u16) -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let own = format!(":{port:04X}");
    let client = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[1].ends_with(&own) && words[3] == "01").then(|| words[2].to_owned())
    };
    table.lines().skip(1).filter_map(client).collect()
}

/// The most connections that there were at once while `work` went on.
///
/// The kernel does not give its table as it was at one moment: a connection that was closed and one
/// that was opened for it while it was read can both be in it. What two readings in turn have was
/// there between them.
pub(crate) fn peak_during<T>(port: u16, work: impl FnOnce() -> T) -> (usize, T) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut peak, mut before) = (0, BTreeSet::new());
            while !ended.load(Ordering::Relaxed) {
                let now = established(port);
                peak = peak.max(before.intersection(&now).count());
                before = now;
                std::thread::sleep(Duration::from_micros(300));
            }
            peak
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        (watch.join().unwrap(), result)
    })
}
