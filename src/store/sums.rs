//! The sums of an open blob's pages, as they are needed.

use super::groups::{self, GROUP, PAGES, RECORD, Sum};
use super::outboard::Outboard;

/// How many records are read at once: those of one MiB of the blob.
const RECORDS: usize = 64;
/// How many such runs are kept, of 2 KiB each: who reads here and there in less than a GiB has each
/// read once.
const KEPT: u64 = 1024;

/// The sums of a blob's pages.
#[derive(Debug)]
pub(super) struct Sums {
    /// None where all of them are in memory.
    outboard: Option<Outboard>,
    /// The length of the blob.
    len: u64,
    /// Each run has one place, which it shares with those that come so many runs later.
    runs: Vec<Option<Run>>,
}

#[derive(Clone, Debug)]
struct Run {
    n: u64,
    sums: Box<[Sum]>,
}

impl Sums {
    pub(super) fn new(outboard: Outboard, len: u64) -> Sums {
        Sums::keeping(KEPT, outboard, len)
    }

    fn keeping(most: u64, outboard: Outboard, len: u64) -> Sums {
        let all = len.div_ceil((RECORDS * GROUP) as u64);
        // No more than KEPT, which is a usize.
        Sums { outboard: Some(outboard), len, runs: vec![None; all.min(most) as usize] }
    }

    /// Of a blob whose sums nobody keeps: those of all its pages.
    pub(super) fn in_memory(sums: &[Sum]) -> Sums {
        let runs = (0..).zip(sums.chunks(RECORDS * PAGES));
        let runs = runs.map(|(n, sums)| Some(Run { n, sums: sums.into() })).collect();
        Sums { outboard: None, len: 0, runs }
    }

    /// The sums from the `n`th page on, some of them; none where they cannot be read.
    pub(super) fn from(&mut self, n: u64) -> &[Sum] {
        let pages = (RECORDS * PAGES) as u64;
        let (run, at) = (n / pages, n % pages);
        // Less than there are places, whose count is a usize; none where the blob is empty.
        let place = run.checked_rem(self.runs.len() as u64).unwrap_or(0) as usize;
        let Some(kept) = self.runs.get_mut(place) else {
            return &[];
        };
        if kept.as_ref().is_none_or(|kept| kept.n != run) {
            let sums = self.outboard.as_ref().map(|outboard| read(outboard, self.len, run));
            *kept = Some(Run { n: run, sums: sums.unwrap_or_default() });
        }
        // Less than the pages of a run, which is a usize.
        kept.as_ref().and_then(|kept| kept.sums.get(at as usize..)).unwrap_or_default()
    }
}

/// The sums of a run, of none where its records cannot be read.
fn read(outboard: &Outboard, len: u64, run: u64) -> Box<[Sum]> {
    let first = run * RECORDS as u64;
    let rest = len.div_ceil(GROUP as u64).saturating_sub(first);
    let mut records = [[0; RECORD]; RECORDS];
    // At most RECORDS, which is a usize.
    let records = &mut records[..rest.min(RECORDS as u64) as usize];
    if let Err(error) = outboard.read(first, records) {
        tracing::debug!(%error, "the sums of the pages cannot be read");
        return Box::default();
    }
    records.iter().flat_map(groups::sums_of).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::oci::Algorithm;
    use crate::store::BlobStore;
    use crate::store::groups::PAGE;

    #[test]
    fn runs_that_share_a_place_are_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        let bytes: Vec<u8> = (0..3_500_000u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
        let lease = store.lease("test").unwrap();
        let mut ingest = store.ingest(&lease, Algorithm::Sha256, 1 << 30).unwrap();
        ingest.write_all(&bytes).unwrap();
        let pinned = ingest.commit().unwrap();
        let len = bytes.len() as u64;
        let outboard = store.layout().outboards.open(pinned.digest(), len).unwrap();
        let mut sums = Sums::keeping(2, outboard, len);
        let expected: Vec<_> = bytes.chunks(PAGE).map(groups::sum).collect();
        for n in [0, 300, 0, 600, 854, 0, 255, 256, 511] {
            let found = sums.from(n as u64);
            assert!(!found.is_empty(), "page {n}");
            assert!(found.iter().zip(&expected[n..]).all(|(one, other)| one == other), "{n}");
            assert_eq!(sums.runs.len(), 2);
        }
        assert!(sums.from(860).is_empty(), "there is none");
    }
}
