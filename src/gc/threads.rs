use std::num::NonZeroUsize;
use std::panic;
use std::thread;

/// More threads than these only wait for each other's changes to the same directory.
const MOST: usize = 4;
/// Fewer calls than these are over before a thread has begun.
const FEWEST: usize = 32;

/// Calls `work` for each item, on a few threads; the results in the order of the items.
///
/// For the collector's many short calls to the kernel: what an unlinked file took is given back
/// after its directory was let go, so two threads overlap.
pub(super) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cores.min(MOST).min(items.len() / FEWEST).max(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, FEWEST, 2 * FEWEST, 1000, 1001] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(map(&items, |n| n + 1), (1..=count).collect::<Vec<_>>(), "{count} items");
        }
    }
}
