//! Threads and sockets: one thread accepts, one serves each connection.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::http::{Reader, Request, Response};
use super::record::Log;
use super::send::Sender;
use super::signals::{Signals, peer_gone};

/// A client idle this long, or one that reads nothing this long, is disconnected.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A running server; dropping it closes every connection and joins every thread.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<Handler>,
    log: Arc<Log>,
    signals: Arc<Signals>,
    /// Weak, so that the serving thread alone decides when a socket closes.
    connections: Mutex<HashMap<u64, Weak<TcpStream>>>,
}

impl Server {
    pub(super) fn start(
        bound: SocketAddr,
        log: Arc<Log>,
        signals: Arc<Signals>,
        handler: impl FnOnce(SocketAddr) -> Box<Handler>,
    ) -> Self {
        let listener = TcpListener::bind(bound).expect("bind on loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            handler: handler(address),
            log,
            signals,
            connections: Mutex::default(),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections whose client is still there.
    pub(super) fn connections(&self) -> usize {
        self.shared.open()
    }

    /// Closes every connection; new ones are still accepted.
    pub(super) fn cut(&self) {
        self.shared.cut();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.signals.stop();
        self.shared.cut();
        let woken = TcpStream::connect_timeout(&self.address, Duration::from_secs(5));
        // Joining a thread that was not woken would hang.
        if woken.is_ok()
            && let Some(accepting) = self.accepting.take()
            && accepting.join().is_err()
            && !thread::panicking()
        {
            panic!("the accepting thread panicked");
        }
    }
}

impl Shared {
    /// Asks the kernel and not the threads: one that is about to notice that its client
    /// has closed must not count.
    fn open(&self) -> usize {
        let connections = self.connections.lock().unwrap();
        let alive = connections.values().filter_map(Weak::upgrade);
        alive.filter(|stream| !peer_gone(stream)).count()
    }

    fn cut(&self) {
        for stream in self.connections.lock().unwrap().values().filter_map(Weak::upgrade) {
            // It may be closed already.
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut serving: Vec<JoinHandle<()>> = Vec::new();
    for id in 1.. {
        let accepted = listener.accept();
        if shared.signals.stopped() {
            break;
        }
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: they may come back.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let stream = Arc::new(stream);
        shared.connections.lock().unwrap().insert(id, Arc::downgrade(&stream));
        shared.log.opened(shared.open());
        serving = join_finished(serving);
        serving.push(thread::spawn({
            let shared = Arc::clone(shared);
            move || {
                serve(&stream, id, &shared);
                shared.connections.lock().unwrap().remove(&id);
            }
        }));
    }
    shared.cut();
    for thread in serving {
        join(thread);
    }
}

fn join_finished(threads: Vec<JoinHandle<()>>) -> Vec<JoinHandle<()>> {
    let (finished, running) = threads.into_iter().partition(JoinHandle::is_finished);
    for thread in Vec::into_iter(finished) {
        join(thread);
    }
    running
}

fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn serve(stream: &TcpStream, id: u64, shared: &Shared) {
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(TIMEOUT)))
        .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    if prepared.is_err() {
        return;
    }
    let mut reader = Reader::new(stream, id);
    // Errors here are the client's going away, a timeout or the server's end: all three
    // close the connection, and a client that still cares sees that.
    while let Ok(Some(request)) = reader.next() {
        let entry = shared.log.begin(&request);
        let response = (shared.handler)(&request);
        let sender = Sender { stream, signals: &shared.signals, entry: &entry };
        match sender.send(&request, &response) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
}
