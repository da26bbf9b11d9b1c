use std::collections::HashSet;

use crate::oci::Digest;

/// How many prefixes are held unsorted before they are sorted in.
const RECENT: usize = 64 * 1024;
/// About how many sorted prefixes share their first bits: as many as lie in two lines of a cache.
const TOGETHER: usize = 16;

/// A set of digests in nine bytes each: what must not be removed.
///
/// It holds 64-bit prefixes. Two digests may share one; then garbage is taken to be live, never the
/// other way round, so the set must not be asked in order to skip work that keeps blobs alive.
#[derive(Debug, Default)]
pub(super) struct Live {
    sorted: Vec<u64>,
    /// Where those of the same first bits begin in `sorted`, and where the last end. To halve a million
    /// again and again waits twenty times for memory; hashes lie evenly, so this waits once or twice.
    starts: Vec<usize>,
    recent: HashSet<u64>,
}

impl Live {
    pub(super) fn insert(&mut self, digest: &Digest) {
        let prefix = prefix(digest);
        let is_new = !self.is_sorted_in(prefix) && self.recent.insert(prefix);
        if is_new && self.recent.len() >= RECENT.max(self.sorted.len() / 8) {
            self.settle();
        }
    }

    /// Sorts everything in: from now on more is asked than inserted, and what is sorted is found
    /// faster.
    pub(super) fn settle(&mut self) {
        // Exactly: a vector that doubles would take twice the memory that is said above.
        self.sorted.reserve_exact(self.recent.len());
        self.sorted.extend(self.recent.drain());
        self.sorted.sort_unstable();
        self.starts.clear();
        self.starts.resize(1 + (self.sorted.len() / TOGETHER).next_power_of_two().max(2), 0);
        for n in 0..self.sorted.len() {
            let bucket = self.bucket(self.sorted[n]);
            self.starts[bucket + 1] = n + 1;
        }
        // Those without any begin where the one before ends.
        for bucket in 1..self.starts.len() {
            self.starts[bucket] = self.starts[bucket].max(self.starts[bucket - 1]);
        }
    }

    fn is_sorted_in(&self, prefix: u64) -> bool {
        if self.sorted.is_empty() {
            return false;
        }
        let bucket = self.bucket(prefix);
        let (start, end) = (self.starts[bucket], self.starts[bucket + 1]);
        self.sorted[start..end].binary_search(&prefix).is_ok()
    }

    /// The first bits of a prefix. There is a power of two of buckets, two at least.
    fn bucket(&self, prefix: u64) -> usize {
        let bits = (self.starts.len() - 1).trailing_zeros();
        // Fewer than there are buckets, so it is a usize.
        (prefix >> (u64::BITS - bits)) as usize
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        let prefix = prefix(digest);
        self.is_sorted_in(prefix) || self.recent.contains(&prefix)
    }
}

/// The first eight bytes of the hash, shifted by the algorithm: the same bytes may be a hash of two.
fn prefix(digest: &Digest) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = digest.as_bytes().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    hash.wrapping_add(STEP.wrapping_mul(digest.algorithm() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn what_was_inserted_is_contained_across_sorting() {
        let mut live = Live::default();
        let digest = |n: u32| Algorithm::Blake3.digest(&n.to_le_bytes());
        let count = u32::try_from(RECENT).unwrap() * 2 + 100;
        for n in 0..count {
            live.insert(&digest(n));
            live.insert(&digest(n / 2));
        }
        assert_eq!(live.sorted.len() + live.recent.len(), count as usize, "each once");
        assert!(!live.sorted.is_empty() && !live.recent.is_empty());
        assert!((0..count).all(|n| live.contains(&digest(n))));
        assert!(!(count..2 * count).any(|n| live.contains(&digest(n))));
    }

    /// As somebody may choose them.
    #[test]
    fn all_may_begin_with_the_same_bits() {
        let digest = |n: u64| {
            let hex = format!("{:016x}{}", u64::MAX - 2 * n, "0".repeat(48));
            Digest::from_hex(Algorithm::Sha256, &hex).unwrap()
        };
        let mut live = Live::default();
        (1..1000).for_each(|n| live.insert(&digest(n)));
        live.settle();
        assert!((1..1000).all(|n| live.contains(&digest(n))));
        assert!(![0, 1000, u64::MAX / 2].into_iter().any(|n| live.contains(&digest(n))));
    }

    #[test]
    fn the_algorithm_counts() {
        let hex = "00".repeat(32);
        let mut live = Live::default();
        live.insert(&Digest::from_hex(Algorithm::Sha256, &hex).unwrap());
        assert!(!live.contains(&Digest::from_hex(Algorithm::Blake3, &hex).unwrap()));
    }
}
