//! For tests: tasks whose steps come in any order, and that are dropped at any of them.
//!
//! Tasks meet only where they wait, so an order of polls is all that a scheduler can choose; only
//! those that were woken are polled, so a wake-up that is lost shows as a task that never ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Lets others come first.
pub(super) async fn step() {
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

pub(super) struct Task<'a, T> {
    future: Option<Pin<Box<dyn Future<Output = T> + 'a>>>,
    woken: Arc<Woken>,
    /// What it came to, unless it was dropped.
    pub(super) ended: Option<T>,
}

impl<'a, T> Task<'a, T> {
    pub(super) fn new(future: impl Future<Output = T> + 'a) -> Task<'a, T> {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Task { future: Some(Box::pin(future)), woken, ended: None }
    }

    fn poll(&mut self) {
        let Some(future) = &mut self.future else { return };
        if !self.woken.0.swap(false, Ordering::SeqCst) {
            return;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.ended = Some(ended);
            self.future = None;
        }
    }
}

/// Polls and drops tasks in the order given, then polls until nobody is woken; how many were dropped.
/// Fails if one is left that waits for a wake-up.
pub(super) fn schedule<T>(tasks: &mut [Task<'_, T>], order: &[(usize, bool)]) -> usize {
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
