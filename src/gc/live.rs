use std::collections::HashSet;

use crate::oci::Digest;

/// How many prefixes are held unsorted before they are sorted in.
const RECENT: usize = 64 * 1024;

/// A set of digests in 8 bytes each: what must not be removed.
///
/// It holds 64-bit prefixes. Two digests may share one; then garbage is taken to be live, never the
/// other way round, so the set must not be asked in order to skip work that keeps blobs alive.
#[derive(Debug, Default)]
pub(super) struct Live {
    sorted: Vec<u64>,
    recent: HashSet<u64>,
}

impl Live {
    pub(super) fn insert(&mut self, digest: &Digest) {
        let prefix = prefix(digest);
        let is_new = self.sorted.binary_search(&prefix).is_err() && self.recent.insert(prefix);
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
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        let prefix = prefix(digest);
        self.recent.contains(&prefix) || self.sorted.binary_search(&prefix).is_ok()
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

    #[test]
    fn the_algorithm_counts() {
        let hex = "00".repeat(32);
        let mut live = Live::default();
        live.insert(&Digest::from_hex(Algorithm::Sha256, &hex).unwrap());
        assert!(!live.contains(&Digest::from_hex(Algorithm::Blake3, &hex).unwrap()));
    }
}
