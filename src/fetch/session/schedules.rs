//! Requests for the same grant, in any order of their steps, and dropped at any of them.
//!
//! Tasks meet only where they wait, so an order of polls is all that a scheduler can choose; only
//! those that were woken are polled, so a wake-up that is lost shows as a task that never ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::fetch::HttpRegistry;
use crate::fetch::settings::Endpoint;

/// Has a new password each time it is asked, after some steps.
#[derive(Default)]
struct Slow {
    calls: AtomicUsize,
    running: Arc<AtomicUsize>,
    overlapped: AtomicBool,
}

/// One call that is under way, also if it is dropped.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AuthProvider for Slow {
    fn credentials<'a>(
        &'a self,
        _: &'a Origin,
        _: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        async {
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            if self.running.fetch_add(1, Ordering::SeqCst) > 0 {
                self.overlapped.store(true, Ordering::SeqCst);
            }
            let _running = Running(Arc::clone(&self.running));
            for _ in 0..3 {
                step().await;
            }
            Ok(Some(Credentials::new("me", format!("password {call}"))))
        }
        .boxed()
    }
}

/// Lets others come first.
async fn step() {
    let mut first = true;
    std::future::poll_fn(|context| {
        if std::mem::take(&mut first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task<'a> {
    future: Option<Pin<Box<dyn Future<Output = Result<Authorization>> + 'a>>>,
    woken: Arc<Woken>,
    granted: Option<Authorization>,
}

impl<'a> Task<'a> {
    fn new(future: impl Future<Output = Result<Authorization>> + 'a) -> Task<'a> {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Task { future: Some(Box::pin(future)), woken, granted: None }
    }

    fn poll(&mut self) {
        let Some(future) = &mut self.future else { return };
        if !self.woken.0.swap(false, Ordering::SeqCst) {
            return;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        if let Poll::Ready(granted) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.granted = Some(granted.unwrap());
            self.future = None;
        }
    }
}

/// Polls and drops tasks in the order given, then polls until nobody is woken; what each was
/// granted. Fails if one is left that waits for a wake-up.
fn schedule(tasks: &mut [Task<'_>], order: &[(usize, bool)]) -> usize {
    let (mut dropped, count) = (0, tasks.len());
    for (n, drops) in order {
        let task = &mut tasks[n % count];
        if *drops && task.future.is_some() {
            task.future = None;
            dropped += 1;
        }
        task.poll();
    }
    while tasks.iter().any(|it| it.future.is_some() && it.woken.0.load(Ordering::SeqCst)) {
        tasks.iter_mut().for_each(Task::poll);
    }
    assert!(tasks.iter().all(|task| task.future.is_none()), "a task was not woken");
    dropped
}

/// Four tasks, each of which wants a grant, and then four that were refused with what these got.
fn tries(sessions: &[Sessions], door: &Door<'_>, provider: &Slow, orders: [&[(usize, bool)]; 2]) {
    let mut refused: Option<Authorization> = None;
    for order in orders {
        let before = provider.calls.load(Ordering::SeqCst);
        let task = |n: usize| {
            let sessions = &sessions[n % sessions.len()];
            Task::new(sessions.answer(door, Challenge::Basic, refused.as_ref()))
        };
        let mut tasks: Vec<_> = (0..4).map(task).collect();
        let dropped = schedule(&mut tasks, order);
        let granted: Vec<_> = tasks.into_iter().filter_map(|task| task.granted).collect();
        let calls = provider.calls.load(Ordering::SeqCst) - before;
        assert!(!provider.overlapped.load(Ordering::SeqCst), "two ask at once");
        assert!(calls <= 1 + dropped, "{calls} calls, and {dropped} were dropped");
        assert!(granted.windows(2).all(|pair| pair[0] == pair[1]), "one grant for all");
        assert!(granted.iter().all(|it| Some(it) != refused.as_ref()), "what was refused");
        refused = granted.into_iter().next().or(refused);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 2000, ..Default::default() })]

    #[test]
    fn one_asks_and_all_share(
        first in proptest::collection::vec((0usize..4, proptest::bool::weighted(0.15)), 0..40),
        second in proptest::collection::vec((0usize..4, proptest::bool::weighted(0.15)), 0..40),
    ) {
        with_door(|door| {
            let provider = Arc::new(Slow::default());
            let sessions = [Sessions::new(Arc::clone(&provider) as Arc<dyn AuthProvider>)];
            tries(&sessions, door, &provider, [&first, &second]);
        });
    }
}

/// What the test above is for is noticed where it is so: two who ask at once, as if they did not
/// know of each other, and a task that is not woken.
#[test]
fn what_is_wrong_is_noticed() {
    let noticed = |what: &dyn Fn()| catch_unwind(AssertUnwindSafe(what)).is_err();
    assert!(noticed(&|| with_door(|door| {
        let provider = Arc::new(Slow::default());
        let sessions = || Sessions::new(Arc::clone(&provider) as Arc<dyn AuthProvider>);
        tries(&[sessions(), sessions()], door, &provider, [&[], &[]]);
    })));
    assert!(noticed(&|| {
        schedule(&mut [Task::new(std::future::pending())], &[]);
    }));
    assert!(!noticed(&|| with_door(|door| {
        let provider = Arc::new(Slow::default());
        let sessions = [Sessions::new(Arc::clone(&provider) as Arc<dyn AuthProvider>)];
        tries(&sessions, door, &provider, [&[(0, false), (1, false), (0, true)], &[]]);
    })));
}

fn with_door(run: impl FnOnce(&Door<'_>)) {
    thread_local! {
        static WAY: (Reference, Endpoint, Transport) = way();
    }
    WAY.with(|(image, endpoint, transport)| {
        let repository = Some(image.repository());
        run(&Door { transport, origin: &endpoint.origin, image, repository });
    });
}

/// Nothing is sent: a user and a password are for the registry itself.
fn way() -> (Reference, Endpoint, Transport) {
    let image: Reference = "r.example/a:1".parse().unwrap();
    let registry = HttpRegistry::builder().build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (endpoint, transport) = runtime.block_on(registry.registries.origin_of(&image)).unwrap();
    (image, endpoint, transport)
}
