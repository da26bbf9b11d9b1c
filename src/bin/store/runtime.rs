//! The runtime that commands of the network run on, and the signals that end them.

use std::io;
use std::num::NonZeroUsize;
use std::panic;
use std::thread;
use std::time::Duration;

use layerstore::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;

/// How long threads that write to the disk, or wait for a lock, may take to end after a signal or an
/// error. What they are cut off in is what a kill could cut them off in.
pub(crate) const LAST_WRITES: Duration = Duration::from_millis(500);

/// A runtime for a command, or why there can be none.
pub(crate) fn start() -> Result<Runtime, Error> {
    // What a pull's writing threads leave: more would wake one another up for nothing.
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cores.div_ceil(2);
    let build = || Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    // tokio panics where it gets no thread, or no descriptor for signals.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let built = panic::catch_unwind(build);
    panic::set_hook(hook);
    built
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map_or("no runtime", String::as_str);
            Err(io::Error::other(text.to_owned()))
        })
        .map_err(cannot_start)
}

fn cannot_start(source: io::Error) -> Error {
    Error::Io { action: "start", path: "the threads of the program".into(), source }
}

/// The signals that ask for an end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// To be called on the runtime.
    pub(crate) fn new() -> Result<Signals, Error> {
        let of = |kind| signal(kind).map_err(cannot_start);
        Ok(Signals {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}
