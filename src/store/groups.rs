//! The hashes of a blob's groups: runs of 16 KiB, each of which can be checked alone.
//!
//! Of each group two things are kept. Its BLAKE3 chaining value, a leaf of the blob's BLAKE3 tree,
//! which is what a check compares; and a 64-bit XXH3 of each of its pages of 4 KiB, which is some ten
//! times as fast, and is what a read compares, of the pages that it touches. Both find rot. Neither is
//! proof against somebody who can write to the store.

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use crate::sys;

/// The length of a group, in bytes. Only the last of a blob may be shorter.
pub(crate) const GROUP: usize = 16 * 1024;
/// The length of a page, in bytes. Only the last of a blob may be shorter.
pub(crate) const PAGE: usize = 4 * 1024;
/// How many pages a group has.
pub(crate) const PAGES: usize = GROUP / PAGE;
/// What is kept of a group, in bytes.
pub(crate) const RECORD: usize = 32 + PAGES * 8;

/// What is kept of a group.
pub(crate) type Record = [u8; RECORD];
/// What is kept of a page.
pub(crate) type Sum = [u8; 8];

/// The fast sum of a page.
pub(crate) fn sum(page: &[u8]) -> Sum {
    sys::xxh3(page).to_le_bytes()
}

/// The leaf of the tree that the `n`th group is, where the blob has more groups than one.
pub(crate) fn leaf(group: &[u8], n: u64) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(n * GROUP as u64);
    hasher.update(group);
    hasher.finalize_non_root()
}

/// What is kept of the `n`th group. Pages that it does not have are of zeros.
pub(crate) fn record(group: &[u8], n: u64) -> Record {
    let mut record = [0; RECORD];
    record[..32].copy_from_slice(&leaf(group, n));
    for (kept, page) in record[32..].as_chunks_mut().0.iter_mut().zip(group.chunks(PAGE)) {
        *kept = sum(page);
    }
    record
}

/// The leaf in a record.
pub(crate) fn leaf_of(record: &Record) -> &[u8] {
    &record[..32]
}

/// The fast sums in a record.
pub(crate) fn sums_of(record: &Record) -> &[Sum; PAGES] {
    let (sums, _) = record[32..].as_chunks();
    // The record is as long as that.
    sums.first_chunk().unwrap_or(&[[0; 8]; PAGES])
}

/// The root of a BLAKE3 tree, from its leaves in their order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    count: u64,
    /// The subtrees that are waiting for what comes right of them.
    stack: Vec<ChainingValue>,
}

impl Tree {
    pub(crate) fn push(&mut self, leaf: ChainingValue) {
        // Subtrees are merged only when more is to come, since the last merge, the root's, differs.
        while self.stack.len() > self.count.count_ones() as usize {
            self.merge(hazmat::merge_subtrees_non_root);
        }
        self.stack.push(leaf);
        self.count += 1;
    }

    fn merge(&mut self, merge: fn(&ChainingValue, &ChainingValue, Mode<'_>) -> ChainingValue) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(merge(&left, &right, Mode::Hash));
        }
    }

    /// The BLAKE3 hash of the whole; `None` if there were fewer than two leaves.
    pub(crate) fn root(mut self) -> Option<[u8; 32]> {
        while self.stack.len() > 2 {
            self.merge(hazmat::merge_subtrees_non_root);
        }
        match self.stack[..] {
            [left, right] => {
                let root = hazmat::merge_subtrees_root(&left, &right, Mode::Hash);
                Some(*root.as_bytes())
            }
            _ => None,
        }
    }
}

/// Cuts a stream of bytes into groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// The group that is not whole yet.
    partial: Vec<u8>,
    count: u64,
}

impl Groups {
    /// Takes in the next bytes; `each` is given every group that they complete, and its number.
    pub(crate) fn update(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], u64)) {
        if !self.partial.is_empty() {
            let (more, rest) = bytes.split_at(bytes.len().min(GROUP - self.partial.len()));
            self.partial.extend_from_slice(more);
            bytes = rest;
            if self.partial.len() < GROUP {
                return;
            }
            each(&self.partial, self.count);
            self.count += 1;
            self.partial.clear();
        }
        let mut groups = bytes.chunks_exact(GROUP);
        for group in &mut groups {
            each(group, self.count);
            self.count += 1;
        }
        self.partial.extend_from_slice(groups.remainder());
    }

    /// How many bytes the group that has begun still takes; more than none.
    pub(crate) fn room(&self) -> usize {
        GROUP - self.partial.len()
    }

    /// Ends the stream: the last group, if it is a short one.
    pub(crate) fn finish(self, mut each: impl FnMut(&[u8], u64)) {
        if !self.partial.is_empty() {
            each(&self.partial, self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    /// The root that the leaves lead to is the hash that BLAKE3 itself gives the whole.
    #[test]
    fn leaves_lead_to_the_hash_of_the_whole() {
        for groups in 2..70 {
            for less in [0, 1, GROUP / 2, GROUP - 1] {
                let bytes = bytes(groups * GROUP - less);
                let mut tree = Tree::default();
                for (n, group) in bytes.chunks(GROUP).enumerate() {
                    tree.push(leaf(group, n as u64));
                }
                let expected = *blake3::hash(&bytes).as_bytes();
                assert_eq!(tree.root(), Some(expected), "{groups} groups less {less} bytes");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_stream_is_cut_at_the_same_places_however_it_comes(
            cuts in proptest::collection::vec(0..40_000usize, 0..12),
        ) {
            let all = bytes(cuts.iter().sum());
            let (mut groups, mut got, mut rest) = (Groups::default(), Vec::new(), &all[..]);
            for cut in cuts {
                let (now, later) = rest.split_at(cut);
                groups.update(now, |group, n| got.push((group.to_vec(), n)));
                rest = later;
            }
            groups.finish(|group, n| got.push((group.to_vec(), n)));
            let expected: Vec<_> =
                all.chunks(GROUP).enumerate().map(|(n, it)| (it.to_vec(), n as u64)).collect();
            proptest::prop_assert_eq!(got, expected);
        }
    }
}
