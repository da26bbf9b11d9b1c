//! A process that is watched: for how long it runs, how much memory it takes, what it says.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) struct Ended {
    /// None where it did not end in time, and was killed.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The kernel's high-water mark of its resident memory, in KiB.
    pub(crate) peak: u64,
}

/// Runs it to its end, or to the deadline.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command can be run");
    let out = reader(child.stdout.take().expect("it is a pipe"));
    let err = reader(child.stderr.take().expect("it is a pipe"));
    let (code, peak) = watch(&mut child, Instant::now() + deadline);
    let text = |reader: thread::JoinHandle<String>| reader.join().expect("it only reads");
    Ended { code, out: text(out), err: text(err), peak }
}

fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The mark only grows, so that looking often misses nothing but the last moment.
fn watch(child: &mut Child, until: Instant) -> (Option<i32>, u64) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(mark) = std::fs::read_to_string(&status).ok().as_deref().and_then(mark) {
            peak = mark;
        }
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return (status.code(), peak);
        }
        if Instant::now() > until {
            child.kill().expect("it is ours");
            child.wait().expect("it was killed");
            return (None, peak);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// One that has ended has no memory.
fn mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB").expect("the unit is kB").parse().expect("a number"))
}
