//! What was asked and what was sent.

use std::sync::{Arc, Mutex, MutexGuard};

use super::http::Request;

/// One request and what it was answered with, as far as that has got.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// Path and query, still encoded.
    pub path: String,
    /// The `Range` header field.
    pub range: Option<String>,
    /// The `Authorization` header field, in full: tests look for secrets in wrong places.
    pub authorization: Option<String>,
    /// The `User-Agent` header field.
    pub user_agent: Option<String>,
    /// Every header field and the body, as they came: tests look for secrets in wrong places.
    pub text: String,
    /// Status of the answer; 0 while there is none, or when the connection was closed
    /// without one.
    pub status: u16,
    /// Bytes of body handed to the kernel, without chunk framing.
    pub body_bytes_sent: u64,
    /// Number of the connection, counted from 1.
    pub connection: u64,
}

impl Recorded {
    fn is_blob_send(&self, digest: &str) -> bool {
        // What mirrors are told of whom they mirror stands in the query.
        let path = self.path.split('?').next().unwrap_or_default();
        self.method == "GET"
            && (200..300).contains(&self.status)
            && path.ends_with(&format!("/blobs/{digest}"))
    }
}

fn text(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.method, request.target);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text + "\n" + &String::from_utf8_lossy(&request.body)
}

#[derive(Default)]
pub(super) struct Log {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts the calls of `clear`, so that a request begun before one is not confused
    /// with another begun after it.
    epoch: u64,
    requests: Vec<Recorded>,
    peak: usize,
}

impl Log {
    pub(super) fn begin(self: &Arc<Self>, request: &Request) -> Entry {
        let own = |name| request.header(name).map(str::to_owned);
        let mut state = self.lock();
        state.requests.push(Recorded {
            method: request.method.clone(),
            path: request.target.clone(),
            range: own("range"),
            authorization: own("authorization"),
            user_agent: own("user-agent"),
            text: text(request),
            status: 0,
            body_bytes_sent: 0,
            connection: request.connection,
        });
        Entry { log: Arc::clone(self), epoch: state.epoch, index: state.requests.len() - 1 }
    }

    pub(super) fn requests(&self) -> Vec<Recorded> {
        self.lock().requests.clone()
    }

    pub(super) fn blob_sends(&self, digest: &str) -> usize {
        let state = self.lock();
        let sends = state.requests.iter().filter(|one| one.is_blob_send(digest));
        sends.filter(|one| one.body_bytes_sent > 0).count()
    }

    pub(super) fn bytes_sent(&self, digest: &str) -> u64 {
        let state = self.lock();
        let sends = state.requests.iter().filter(|one| one.is_blob_send(digest));
        sends.map(|one| one.body_bytes_sent).sum()
    }

    /// Notes how many connections are open now.
    pub(super) fn opened(&self, open: usize) {
        let mut state = self.lock();
        state.peak = state.peak.max(open);
    }

    pub(super) fn peak(&self) -> usize {
        self.lock().peak
    }

    /// Forgets everything, with `open` connections still open.
    pub(super) fn clear(&self, open: usize) {
        let mut state = self.lock();
        state.epoch += 1;
        state.requests.clear();
        state.peak = open;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The place in the log of a request under way.
///
/// It is written before the bytes go out and corrected after, so that a client that has
/// its answer finds it counted.
pub(super) struct Entry {
    log: Arc<Log>,
    epoch: u64,
    index: usize,
}

impl Entry {
    pub(super) fn status(&self, status: u16) {
        self.update(|one| one.status = status);
    }

    pub(super) fn sending(&self, bytes: u64) {
        self.update(|one| one.body_bytes_sent += bytes);
    }

    pub(super) fn unsent(&self, bytes: u64) {
        self.update(|one| one.body_bytes_sent -= bytes);
    }

    fn update(&self, change: impl FnOnce(&mut Recorded)) {
        let mut state = self.log.lock();
        if state.epoch == self.epoch {
            change(&mut state.requests[self.index]);
        }
    }
}
