//! Requests for the same grant, in any order of their steps, and dropped at any of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::fetch::HttpRegistry;
use crate::fetch::schedules::{Task, schedule, step};
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
        let granted: Vec<_> =
            tasks.into_iter().filter_map(|task| task.ended).map(Result::unwrap).collect();
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
        schedule(&mut [Task::new(std::future::pending::<()>())], &[]);
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
