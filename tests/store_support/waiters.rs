//! Who waits for a lock, as /proc/locks shows it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Whether somebody waits for the lock on a file.
pub(crate) fn is_awaited(path: &Path) -> bool {
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&inode);
    std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits)
}

/// Until somebody waits for the lock on a file.
pub(crate) fn wait_for_a_waiter(path: &Path) {
    let begun = Instant::now();
    while !is_awaited(path) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody waits for {}", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}
