use std::num::NonZeroUsize;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use crate::sys;

/// More threads than these only wait for each other's changes to the same directory.
const MOST: usize = 4;
/// Fewer calls than these are over before a thread has begun.
const FEWEST: usize = 32;

/// Fewer calls than these are over, a millisecond or two, before a thread that gives way has begun where others
/// are busy.
const FEWEST_GIVING_WAY: usize = 1024;
/// How long others can keep the processors before the collection goes on all the same: a machine that
/// is never idle is not to keep its garbage.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a thread sleeps before it is seen how soon it goes on.
const NAP: Duration = Duration::from_micros(50);

/// Calls `work` for each item, on a few threads; the results in the order of the items.
///
/// For the collector's many short calls to the kernel: what an unlinked file took is given back
/// after its directory was let go, so two threads overlap.
pub(super) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = count(items.len());
    let share = items.len().div_ceil(threads).max(1);
    let (own, others) = items.split_at(share.min(items.len()));
    thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = others
            .chunks(share)
            .map(|share| {
                let run = move || share.iter().map(work).collect::<Vec<R>>();
                (share, thread::Builder::new().spawn_scoped(scope, run))
            })
            .collect();
        let mut results: Vec<R> = own.iter().map(work).collect();
        for (share, thread) in started {
            match thread.map(|thread| thread.join()) {
                Ok(ended) => results.extend(ended.unwrap_or_else(|it| panic::resume_unwind(it))),
                // There is none to be had: then this one does it.
                Err(_) => results.extend(share.iter().map(work)),
            }
        }
        results
    })
}

/// As [`map`], on threads before which others run, and with this one's help where they do not get far. For
/// what is much and that nobody waits for: no lock is held that a pull may want.
pub(super) fn map_giving_way<T: Sync, R: Send + Sync>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if items.len() < FEWEST_GIVING_WAY {
        return map(items, work);
    }
    let chunks: Vec<(&[T], OnceLock<Vec<R>>)> =
        items.chunks(FEWEST).map(|chunk| (chunk, OnceLock::new())).collect();
    let next = AtomicUsize::new(0);
    let drain = || {
        while let Some((chunk, results)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Each chunk is taken once.
            let _ = results.set(chunk.iter().map(&work).collect());
        }
    };
    thread::scope(|scope| {
        let (working, ended) = mpsc::channel::<()>();
        for _ in 0..count(items.len()) {
            let (drain, working) = (&drain, working.clone());
            let run = move || {
                sys::give_way();
                drain();
                drop(working);
            };
            // Where there are no threads to be had, this one does it in the end.
            let _ = thread::Builder::new().spawn_scoped(scope, run);
        }
        drop(working);
        let _ = ended.recv_timeout(PATIENCE);
        drain();
    });
    chunks.into_iter().filter_map(|(_, results)| results.into_inner()).flatten().collect()
}

/// How many threads to use for so many calls.
fn count(calls: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.min(MOST).min(calls / FEWEST).max(1)
}

/// Whether a processor has nothing to do right now.
pub(super) fn is_idle() -> bool {
    let (sender, receiver) = mpsc::channel();
    let ask = move || {
        sys::give_way();
        thread::sleep(NAP);
        // Nobody listens any more where it took too long.
        let _ = sender.send(());
    };
    thread::Builder::new().spawn(ask).is_ok() && receiver.recv_timeout(4 * NAP).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, FEWEST, 2 * FEWEST, 1000, 1001, FEWEST_GIVING_WAY, 10_001] {
            let items: Vec<usize> = (0..count).collect();
            let expected: Vec<_> = (1..=count).collect();
            assert_eq!(map(&items, |n| n + 1), expected, "{count} items");
            assert_eq!(map_giving_way(&items, |n| n + 1), expected, "{count} items");
        }
    }
}
