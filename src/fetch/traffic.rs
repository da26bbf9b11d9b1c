//! The connections to each host, and the hosts that want to be left alone, over all processes that
//! pull into one store.

mod wait;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::origin::Origin;
use super::progress::{Event, Observer};
use super::task::blocking;
use super::way::Way;
use crate::error::{Error, RegistryMessage, Result};
use crate::store::{Hosts, Queued, Slot};

use reqwest::Client;

use wait::Wait;

/// How often it is looked whether a connection has become free.
const POLL: Duration = Duration::from_millis(25);
/// How often waiting is told.
const TELL: Duration = Duration::from_secs(1);
/// How long a slot is kept after its connection was given up before its pull opens another, and before
/// anybody else does. A task of the same runtime closes the socket, and was woken before the one that
/// waits so long.
const CLOSING: Duration = Duration::from_millis(10);
const LINGER: Duration = Duration::from_millis(50);
/// How long it takes until a connection whose answer has been read can be found to serve again.
const READY: Duration = Duration::from_millis(1);
/// How long a connection that serves nobody is kept for the next request, if nobody else waits for one.
const IDLE: Duration = Duration::from_secs(10);
/// How often those who have a connection look whether somebody waits, and how long one that gave a
/// connection up keeps the others.
const LOOK: Duration = Duration::from_millis(100);
const RESPITE: Duration = Duration::from_millis(300);
/// How long a large body may go on in the last slot while others wait.
const TURN: Duration = Duration::from_secs(2);
/// How long one may go on that is its pull's only one, in any other slot, while somebody has none.
const LONG_TURN: Duration = Duration::from_secs(10);
/// The most that is added at random to a wait that a host asked for.
const SPREAD: Duration = Duration::from_secs(5);

/// What one pull has to do with the hosts that it asks, beside other pulls and processes.
///
/// A request holds one of its host's connections from before it is sent until its answer has been
/// read or dropped. Its clones are the same.
#[derive(Clone)]
pub struct Traffic(Arc<Inner>);

struct Inner {
    hosts: Hosts,
    limit: usize,
    /// For how long a host is left alone at most.
    ceiling: Duration,
    observer: Observer,
    held: Mutex<HashMap<String, Held>>,
    kept: AtomicU64,
}

/// What this pull holds of one host.
#[derive(Default)]
struct Held {
    /// How many large bodies are on their way.
    large: usize,
    /// How many connections there are in use.
    used: usize,
    /// When one of them was last broken off for somebody who waits.
    yielded: Option<Instant>,
    /// Slots whose connection serves nobody, or is being closed.
    kept: Vec<Kept>,
}

/// A slot that is kept until its connection is used again, or closed.
struct Kept {
    /// Which keeping it is: the same slot may be used, and kept again.
    id: u64,
    /// Closed with its connection, before the slot is let go.
    client: Option<(Way, Client)>,
    slot: Slot,
    /// When it can serve the next request of the same pull: its connection is idle, or closed.
    ready: Instant,
    /// Whether it may: not if it was given up for others.
    ours: bool,
}

/// Leave to have one connection to a host.
pub(super) struct Permit {
    traffic: Traffic,
    host: String,
    /// The client that has this connection, and no other.
    client: Mutex<Option<(Way, Client)>>,
    /// There until the permit is dropped.
    slot: Option<Slot>,
    large: bool,
    since: Instant,
    looked: Mutex<Instant>,
    /// Whether it was given up for somebody who waits.
    yielded: AtomicBool,
    /// Whether the answer has been read to its end.
    idle: AtomicBool,
}

/// What came of looking for a connection.
enum Found {
    Slot(Slot, Option<(Way, Client)>),
    /// One of this pull's own will be idle, or closed, in so long.
    Soon(Duration),
    None(Option<Queued>),
    Closed(Duration),
}

impl Traffic {
    /// At most `limit` connections to each host, together with all others who say so, and no host
    /// is left alone for longer than `ceiling`.
    pub(super) fn new(
        hosts: Hosts,
        limit: usize,
        ceiling: Duration,
        observer: Observer,
    ) -> Traffic {
        let limit = limit.max(1);
        let (held, kept) = (Mutex::default(), AtomicU64::new(0));
        Traffic(Arc::new(Inner { hosts, limit, ceiling, observer, held, kept }))
    }

    /// Waits for one of a host's connections. One who is not patient is told at once that a host
    /// wants to be left alone.
    pub(super) async fn enter(&self, to: &Origin, large: bool, patient: bool) -> Result<Permit> {
        let (host, mut wait) = (to.to_string(), Wait::new(Instant::now()));
        let (mut queued, mut told) = (None, None::<Instant>);
        loop {
            let now = Instant::now();
            match self.look(&host, large, wait, queued.take()).await? {
                Found::Slot(slot, client) => return Ok(self.permit(host, slot, client, large)),
                Found::Soon(time) => tokio::time::sleep(time).await,
                Found::Closed(left) if patient => {
                    let delay = left + spread(left);
                    self.0.observer.tell(Event::Paused { host: host.clone(), delay });
                    tokio::time::sleep(delay).await;
                }
                Found::Closed(left) => return Err(left_alone(host, left)),
                Found::None(seen) => {
                    queued = seen;
                    if self.0.uses(&host) {
                        wait.has_another(now);
                    } else if wait.is_over(now) {
                        return Err(self.gave_up(&host, wait.waited(now)));
                    }
                    if told.is_none_or(|told| told.elapsed() >= TELL) {
                        told = Some(Instant::now());
                        let holder = self.0.hosts.holders(&host, 0..self.0.limit);
                        self.0.observer.tell(Event::Queued { host: host.clone(), holder });
                    }
                    tokio::time::sleep(POLL + spread(POLL)).await;
                }
            }
        }
    }

    async fn look(
        &self,
        host: &str,
        large: bool,
        wait: Wait,
        queued: Option<Queued>,
    ) -> Result<Found> {
        let (inner, host) = (Arc::clone(&self.0), host.to_owned());
        blocking(move || {
            let now = Instant::now();
            let left = match wait.is_over(now) {
                false => inner.hosts.closed(&host, inner.ceiling)?,
                true => Duration::ZERO,
            };
            if !left.is_zero() {
                return Ok(Found::Closed(left));
            }
            if let Some(found) = inner.slot(&host, large, wait.waited(now))? {
                return Ok(found);
            }
            // Who has a connection gets the next of its own: only who has none is given way to.
            if inner.uses(&host) {
                return Ok(Found::None(None));
            }
            let queued = match queued {
                Some(queued) => Some(queued),
                None => inner.hosts.queue(&host)?,
            };
            Ok(Found::None(queued))
        })
        .await
    }

    fn permit(
        &self,
        host: String,
        slot: Slot,
        client: Option<(Way, Client)>,
        large: bool,
    ) -> Permit {
        {
            let mut held = self.0.held();
            let held = held.entry(host.clone()).or_default();
            held.used += 1;
            held.large += usize::from(large);
        }
        let now = Instant::now();
        Permit {
            traffic: self.clone(),
            host,
            client: Mutex::new(client),
            slot: Some(slot),
            large,
            since: now,
            looked: Mutex::new(now),
            yielded: AtomicBool::new(false),
            idle: AtomicBool::new(false),
        }
    }

    fn gave_up(&self, host: &str, waited: Duration) -> Error {
        let holder = self.0.hosts.holders(host, 0..self.0.limit);
        Error::Locked {
            what: "one of the connections to",
            path: PathBuf::from(host),
            holder,
            waited,
        }
    }
}

impl Inner {
    /// Whether this pull has a connection to this host in use.
    fn uses(&self, host: &str) -> bool {
        self.held().get(host).is_some_and(|held| held.used > 0)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Nothing that holds this lock can leave the map half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that this pull has already, or a free one, if there is one.
    ///
    /// The last is kept for what is small, and for what is given up as soon as somebody waits: so
    /// manifests and tokens never wait for the end of a large blob. What is large and has waited long
    /// takes it too, and gives it up after a while.
    fn slot(&self, host: &str, large: bool, waited: Duration) -> Result<Option<Found>> {
        let of_host = |held: &HashMap<String, Held>| held.get(host).map_or(0, |held| held.large);
        let alone = large && of_host(&self.held()) == 0 && self.limit > 1 && waited < TURN;
        let fits = |it: &Kept| it.ours && (!alone || it.slot.number() + 1 < self.limit);
        if let Some(held) = self.held().get_mut(host) {
            let now = Instant::now();
            if let Some(at) = held.kept.iter().position(|it| fits(it) && it.ready <= now) {
                let Kept { slot, client, .. } = held.kept.swap_remove(at);
                return Ok(Some(Found::Slot(slot, client)));
            }
        }
        let slot = match (large, alone) {
            (true, true) => self.hosts.slot(host, 0..self.limit - 1),
            (true, false) => self.hosts.slot(host, 0..self.limit),
            (false, _) => self.hosts.slot(host, (0..self.limit).rev()),
        };
        if let Some(slot) = slot? {
            return Ok(Some(Found::Slot(slot, None)));
        }
        let held = self.held();
        let kept = held.get(host).into_iter().flat_map(|held| &held.kept);
        let ready = kept.filter(|it| fits(it)).map(|it| it.ready).min();
        Ok(ready
            .map(|ready| Found::Soon(ready.saturating_duration_since(Instant::now()).max(READY))))
    }
}

impl Permit {
    /// The client for its request: the one that had the connection, if it connects in the same way.
    pub(super) fn client(
        &self,
        way: Way,
        make: impl FnOnce(&Way) -> Result<Client>,
    ) -> Result<Client> {
        let mut own = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*own
            && *known == way
        {
            return Ok(client.clone());
        }
        // What another way had is closed first.
        *own = None;
        let client = make(&way)?;
        *own = Some((way, client.clone()));
        Ok(client)
    }

    /// Its answer is read to the end, or has nothing to read: the connection serves again.
    pub(super) fn is_idle(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Whether there is a further connection to the same host. If so, it is kept for a moment.
    pub(super) fn has_company(&self) -> Result<bool> {
        let inner = &self.traffic.0;
        let ours = |held: &Held| held.kept.iter().any(|it| it.ours);
        if inner.held().get(&self.host).is_some_and(ours) {
            return Ok(true);
        }
        let slot = inner.hosts.slot(&self.host, 0..inner.limit)?;
        let found = slot.is_some();
        if let Some(slot) = slot {
            self.traffic.keep(&self.host, slot, None, Duration::ZERO, true);
        }
        Ok(found)
    }

    /// Whether this connection is to be given up, because somebody else waits for one and its pull
    /// has another, or it is the last, which is nobody's for long.
    pub(super) fn must_yield(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.large || looked.elapsed() < LOOK {
            return false;
        }
        *looked = Instant::now();
        let inner = &self.traffic.0;
        let last = self.slot.as_ref().is_some_and(|slot| slot.number() + 1 == inner.limit);
        let mut held = inner.held();
        let Some(held) = held.get_mut(&self.host) else {
            return false;
        };
        let may = match held.large {
            0 | 1 => self.since.elapsed() >= if last { TURN } else { LONG_TURN },
            _ => held.yielded.is_none_or(|yielded| yielded.elapsed() >= RESPITE),
        };
        // Where it cannot be seen that somebody waits, nobody is given way to.
        let yields = may && inner.hosts.is_queued(&self.host).unwrap_or(false);
        if yields {
            held.yielded = Some(Instant::now());
            self.yielded.store(true, Ordering::Relaxed);
        }
        yields
    }

    /// The host wants to be left alone: all processes are told, if the wish can be borne at all.
    pub(super) async fn leave_alone(&self, time: Duration) {
        let (inner, host) = (Arc::clone(&self.traffic.0), self.host.clone());
        if time > inner.ceiling || time.is_zero() {
            return;
        }
        if let Err(error) = blocking(move || inner.hosts.close(&host, time)).await {
            tracing::warn!(host = self.host, %error, "others are not told to leave the host alone");
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let inner = &self.traffic.0;
        if let Some(held) = inner.held().get_mut(&self.host) {
            held.used = held.used.saturating_sub(1);
            held.large = held.large.saturating_sub(usize::from(self.large));
        }
        let Some(slot) = self.slot.take() else {
            return;
        };
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
        // After a large body it is another's turn, if somebody has no connection at all.
        let turn = self.large && inner.hosts.is_queued(&self.host).unwrap_or(false);
        let ours = !self.yielded.load(Ordering::Relaxed) && !turn;
        let ready = if self.idle.load(Ordering::Relaxed) { READY } else { CLOSING };
        self.traffic.keep(&self.host, slot, client, ready, ours);
    }
}

impl Traffic {
    /// Keeps a slot, with its connection, until it is used again, or for a time; no longer than
    /// somebody waits for it.
    fn keep(
        &self,
        host: &str,
        slot: Slot,
        client: Option<(Way, Client)>,
        ready_in: Duration,
        ours: bool,
    ) {
        // Without a runtime there is no connection either.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let id = self.0.kept.fetch_add(1, Ordering::Relaxed);
        let time = match &client {
            Some(_) if ours => IDLE,
            _ => LINGER,
        };
        let now = Instant::now();
        let kept = Kept { id, client, slot, ready: now + ready_in, ours };
        self.0.held().entry(host.to_owned()).or_default().kept.push(kept);
        let (inner, host, until) = (Arc::downgrade(&self.0), host.to_owned(), now + time);
        runtime.spawn(async move {
            loop {
                let left = until.saturating_duration_since(Instant::now());
                tokio::time::sleep(left.min(LOOK)).await;
                let Some(inner) = inner.upgrade() else { return };
                // Where it cannot be seen that somebody waits, nobody is given way to.
                let over = Instant::now() >= until;
                if over || inner.hosts.is_queued(&host).unwrap_or(false) {
                    break inner.let_go(&host, id).await;
                }
                let is_it = |it: &Kept| it.id == id;
                if !inner.held().get(&host).is_some_and(|held| held.kept.iter().any(is_it)) {
                    return;
                }
            }
        });
    }
}

impl Inner {
    /// Makes a slot anybody's, once its connection is closed.
    async fn let_go(&self, host: &str, id: u64) {
        let is_it = |it: &Kept| it.id == id;
        let client = {
            let mut held = self.held();
            let kept =
                held.get_mut(host).and_then(|held| held.kept.iter_mut().find(|it| is_it(it)));
            let Some(kept) = kept else { return };
            kept.ours = false;
            kept.client.take()
        };
        if client.is_some() {
            drop(client);
            tokio::time::sleep(LINGER).await;
        }
        if let Some(held) = self.held().get_mut(host) {
            held.kept.retain(|it| !is_it(it));
        }
    }
}

/// A random time of up to as much as `time`, so that those who wait do not all come at once.
fn spread(time: Duration) -> Duration {
    time.min(SPREAD).mul_f64(fastrand::f64())
}

fn left_alone(url: String, left: Duration) -> Error {
    let message = format!("it asked to be left alone for {} s more", left.as_secs() + 1);
    let errors = vec![RegistryMessage { code: "TOOMANYREQUESTS".to_owned(), message }];
    Error::Registry { url, status: 429, errors, retry_after: Some(left) }
}
