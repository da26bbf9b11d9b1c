//! Waits that end early: at shutdown, at a release, or when the client has gone.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// How often a wait looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(10);
/// A hold nobody releases ends after this, so that a forgotten one cannot hang a test run.
const LONGEST_HOLD: Duration = Duration::from_secs(120);

/// The connection must be closed: the server stops, or the client has gone.
#[derive(Debug)]
pub(super) struct Cut;

#[derive(Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    releases: u64,
    held: usize,
}

impl Signals {
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Lets every held request go on; those held later wait for the next release.
    pub(super) fn release(&self) {
        self.lock().releases += 1;
        self.changed.notify_all();
    }

    pub(super) fn held(&self) -> usize {
        self.lock().held
    }

    /// Waits until at least `count` requests are held; false after `limit`.
    pub(super) fn wait_held(&self, count: usize, limit: Duration) -> bool {
        let state = self.lock();
        let (state, _) =
            self.changed.wait_timeout_while(state, limit, |state| state.held < count).unwrap();
        state.held >= count
    }

    pub(super) fn sleep(&self, duration: Duration, stream: &TcpStream) -> Result<(), Cut> {
        let started = Instant::now();
        self.wait(stream, |_| started.elapsed() >= duration, duration.min(LOOK))
    }

    pub(super) fn hold(&self, stream: &TcpStream) -> Result<(), Cut> {
        let started = Instant::now();
        let releases = {
            let mut state = self.lock();
            state.held += 1;
            state.releases
        };
        self.changed.notify_all();
        let over = |state: &State| state.releases > releases || started.elapsed() > LONGEST_HOLD;
        let result = self.wait(stream, over, LOOK);
        self.lock().held -= 1;
        if started.elapsed() > LONGEST_HOLD { Err(Cut) } else { result }
    }

    fn wait(
        &self,
        stream: &TcpStream,
        over: impl Fn(&State) -> bool,
        slice: Duration,
    ) -> Result<(), Cut> {
        let mut state = self.lock();
        loop {
            if state.stopped || peer_gone(stream) {
                return Err(Cut);
            }
            if over(&state) {
                return Ok(());
            }
            (state, _) = self.changed.wait_timeout(state, slice).unwrap();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Whether the other end has closed or reset the connection, as far as the kernel knows.
pub(super) fn peer_gone(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    // MSG_DONTWAIT on this one call: O_NONBLOCK would hit the thread that reads the same
    // socket.
    match SockRef::from(stream).recv_with_flags(&mut byte, MSG_PEEK | MSG_DONTWAIT) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// From `sys/socket.h` of Linux, and of the BSDs and macOS; the standard library has no
/// names for them.
const MSG_PEEK: i32 = 0x2;
const MSG_DONTWAIT: i32 = if cfg!(target_os = "linux") { 0x40 } else { 0x80 };
