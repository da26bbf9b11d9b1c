//! Who downloads which bytes of a blob: pure bookkeeping.

use std::collections::BTreeMap;
use std::ops::Range;

/// What one request asks for, where a blob is fetched by several connections.
const CHUNK: u64 = 16 * 1024 * 1024;
/// A piece of less than twice this is not split any more.
const LEAST: u64 = 1024 * 1024;
/// With less than this to do, no connection is added.
const WORTHWHILE: u64 = 2 * CHUNK;

/// The bytes that nobody has been given yet, and those that each worker has.
#[derive(Debug)]
pub(super) struct Work {
    size: u64,
    /// Given to nobody, in order.
    open: Vec<Range<u64>>,
    /// By worker: what is left of what it was given.
    given: BTreeMap<usize, Range<u64>>,
    /// Whether the server is known to send whole blobs only.
    whole: bool,
}

impl Work {
    /// All that is missing of a blob of `size` bytes.
    pub(super) fn new(size: u64, missing: Vec<Range<u64>>) -> Work {
        Work { size, open: missing, given: BTreeMap::new(), whole: false }
    }

    /// Gives a worker something to do, or nothing if there is no more.
    ///
    /// One alone gets all up to the next gap, since it may be fast enough. Several get pieces, in
    /// order, so that what is hashed in order is not far behind what is written.
    pub(super) fn take(&mut self, worker: usize) -> Option<Range<u64>> {
        self.give_back(worker);
        let alone = self.given.is_empty();
        if self.whole {
            let first = self.open.first()?.start;
            if !alone {
                return None;
            }
            self.open.clear();
            return Some(self.give(worker, first..self.size));
        }
        if self.open.is_empty() {
            self.split()?;
        }
        let first = self.open.first_mut()?;
        let end = if alone { first.end } else { first.end.min(first.start + CHUNK) };
        let piece = first.start..end;
        first.start = end;
        if first.is_empty() {
            self.open.remove(0);
        }
        Some(self.give(worker, piece))
    }

    fn give(&mut self, worker: usize, piece: Range<u64>) -> Range<u64> {
        self.given.insert(worker, piece.clone());
        piece
    }

    /// Takes from the worker with most to do what it will not come to soon.
    fn split(&mut self) -> Option<()> {
        let most = self.given.values_mut().max_by_key(|range| range.end - range.start)?;
        let left = most.end - most.start;
        if left < 2 * LEAST {
            return None;
        }
        let cut = most.start + if left > 2 * CHUNK { CHUNK } else { left / 2 };
        self.open.push(cut..most.end);
        most.end = cut;
        Some(())
    }

    /// What a worker still has to do. It may have become less since it was given.
    pub(super) fn left(&self, worker: usize) -> Range<u64> {
        self.given.get(&worker).cloned().unwrap_or(0..0)
    }

    /// A worker has come to an offset.
    pub(super) fn advance(&mut self, worker: usize, to: u64) {
        if let Some(range) = self.given.get_mut(&worker) {
            range.start = to.clamp(range.start, range.end);
        }
    }

    /// A worker has done what it was given, or gives up: what is left is anybody's.
    pub(super) fn give_back(&mut self, worker: usize) {
        if let Some(range) = self.given.remove(&worker)
            && !range.is_empty()
        {
            let at = self.open.partition_point(|open| open.start < range.start);
            self.open.insert(at, range);
        }
    }

    /// Whether some worker has something to do.
    pub(super) fn is_under_way(&self) -> bool {
        !self.given.is_empty()
    }

    /// The server sends whole blobs only: one worker is enough, and the others end.
    pub(super) fn only_whole(&mut self) {
        self.whole = true;
    }

    /// Whether the server is known to send whole blobs only.
    pub(super) fn is_only_whole(&self) -> bool {
        self.whole
    }

    /// Whether there is enough left for one more worker.
    pub(super) fn has_more(&self) -> bool {
        let left: u64 =
            self.open.iter().chain(self.given.values()).map(|range| range.end - range.start).sum();
        !self.whole && left >= WORTHWHILE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn all(size: u64) -> Work {
        Work::new(size, std::iter::once(0..size).collect())
    }

    #[test]
    fn one_alone_gets_everything_and_gives_when_another_comes() {
        let mut work = all(100 * MIB);
        assert_eq!(work.take(0), Some(0..100 * MIB));
        work.advance(0, 10 * MIB);
        assert_eq!(work.take(1), Some(26 * MIB..42 * MIB));
        assert_eq!(work.left(0), 10 * MIB..26 * MIB);
        assert_eq!(work.take(2), Some(42 * MIB..58 * MIB));
        work.advance(1, 30 * MIB);
        work.give_back(1);
        assert_eq!(work.take(3), Some(30 * MIB..42 * MIB), "what failed comes first");
    }

    #[test]
    fn the_end_is_shared() {
        let mut work = all(10 * MIB);
        work.take(0);
        assert_eq!(work.take(1), Some(5 * MIB..10 * MIB));
        work.advance(0, 4 * MIB);
        assert!(!work.has_more(), "not worth a further connection");
        assert_eq!(work.take(2), Some(7 * MIB + MIB / 2..10 * MIB));
    }

    #[test]
    fn a_server_without_ranges_has_one_worker() {
        let mut work = Work::new(50, vec![10..20, 30..50]);
        work.take(0);
        work.only_whole();
        assert_eq!(work.take(1), None);
        assert!(!work.has_more());
        assert_eq!(work.take(0), Some(10..50));
        assert_eq!(work.take(0), Some(10..50), "what was not done is done again");
        work.advance(0, 50);
        assert_eq!(work.take(0), None);
    }

    proptest::proptest! {
        /// Workers come, go on, fail and end in any order: each byte is done once.
        #[test]
        fn every_byte_is_done_once(
            size in 1u64..80 * MIB,
            steps in proptest::collection::vec((0usize..5, 0u64..20 * MIB, 0u8..8), 0..200),
        ) {
            let mut work = all(size);
            let mut done = Vec::new();
            let mut active = [false; 5];
            let mut advance = |work: &mut Work, worker: usize, by: u64| {
                let left = work.left(worker);
                let to = left.end.min(left.start + by);
                if to > left.start {
                    done.push(left.start..to);
                    work.advance(worker, to);
                }
            };
            for (worker, by, what) in steps {
                match what {
                    0 => { work.give_back(worker); active[worker] = false; }
                    1 => { active[worker] = work.take(worker).is_some(); }
                    _ if active[worker] => advance(&mut work, worker, by),
                    _ => {}
                }
            }
            for worker in 0..5 {
                work.give_back(worker);
            }
            while work.take(0).is_some() {
                advance(&mut work, 0, u64::MAX / 2);
            }
            done.sort_by_key(|range| range.start);
            proptest::prop_assert_eq!(done.first().unwrap().start, 0);
            proptest::prop_assert_eq!(done.last().unwrap().end, size);
            proptest::prop_assert!(done.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
