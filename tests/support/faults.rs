//! Which requests are answered wrongly, and when.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::actions::Action;
use super::http::{Request, Response};

type Test = dyn Fn(&Request) -> bool + Send + Sync;

/// Actions, and the requests that meet them: all that match, without end, unless told
/// otherwise. Of several faults that match a request the one given first acts, and once
/// that is used up the next.
#[derive(Clone)]
pub struct Fault {
    method: String,
    path: String,
    when: Option<Arc<Test>>,
    skip: usize,
    times: Option<usize>,
    actions: Vec<Action>,
}

impl Fault {
    /// Matches requests of this method (all when empty) whose path and query contain
    /// `path`.
    pub fn on(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            when: None,
            skip: 0,
            times: None,
            actions: Vec::new(),
        }
    }

    /// Matches only requests for which `test` holds as well.
    #[must_use]
    pub fn when(mut self, test: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(test));
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// Acts `count` times, then no more.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.times = Some(count);
        self
    }

    /// Adds an action; several are done to the same answer, in this order.
    #[must_use]
    pub fn then(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    fn matches(&self, request: &Request, honest: &Response) -> bool {
        (self.method.is_empty() || self.method == request.method)
            && request.target.contains(&self.path)
            && (honest.is_success() || !self.actions.iter().any(Action::needs_success))
            && self.when.as_ref().is_none_or(|test| test(request))
    }
}

/// A fault in place.
#[derive(Clone)]
pub struct FaultHandle {
    armed: Arc<Armed>,
    faults: Arc<Faults>,
}

impl FaultHandle {
    /// How often it has acted. A test that asserts this knows that its fault happened.
    pub fn hits(&self) -> usize {
        self.armed.hits.load(Ordering::SeqCst)
    }

    /// Takes the fault away.
    pub fn remove(&self) {
        self.faults.0.lock().unwrap().retain(|one| !Arc::ptr_eq(one, &self.armed));
    }
}

impl fmt::Debug for FaultHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = &self.armed.fault;
        write!(f, "Fault on {} {:?}, {} hits", fault.method, fault.path, self.hits())
    }
}

struct Armed {
    fault: Fault,
    seen: AtomicUsize,
    hits: AtomicUsize,
}

/// The faults of a registry.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<Arc<Armed>>>);

impl Faults {
    pub(super) fn add(self: &Arc<Self>, fault: Fault) -> FaultHandle {
        let armed = Arc::new(Armed { fault, seen: AtomicUsize::new(0), hits: AtomicUsize::new(0) });
        self.0.lock().unwrap().push(Arc::clone(&armed));
        FaultHandle { armed, faults: Arc::clone(self) }
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The answer to `request`: the honest one, or what the fault in charge makes of it.
    pub(super) fn answer(
        &self,
        request: &Request,
        honest: &dyn Fn(&Request) -> Response,
    ) -> Response {
        let mut response = honest(request);
        if let Some(armed) = self.select(request, &response) {
            for action in &armed.fault.actions {
                action.apply(request, honest, &mut response);
            }
        }
        response
    }

    fn select(&self, request: &Request, honest: &Response) -> Option<Arc<Armed>> {
        let faults = self.0.lock().unwrap();
        let chosen = faults.iter().find(|armed| {
            let fault = &armed.fault;
            let left = fault.times.is_none_or(|times| armed.hits.load(Ordering::SeqCst) < times);
            left && fault.matches(request, honest)
                && armed.seen.fetch_add(1, Ordering::SeqCst) >= fault.skip
        })?;
        chosen.hits.fetch_add(1, Ordering::SeqCst);
        Some(Arc::clone(chosen))
    }
}
