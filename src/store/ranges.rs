use std::ops::Range;

/// A set of byte offsets, as sorted ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// The offsets below `end`.
    pub(crate) fn prefix(end: u64) -> Ranges {
        let mut ranges = Ranges::default();
        ranges.insert(0..end);
        ranges
    }

    /// Adds a range.
    pub(crate) fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let from = self.0.partition_point(|range| range.end < new.start);
        let to = self.0.partition_point(|range| range.start <= new.end);
        let merged = self.0[from..to]
            .iter()
            .fold(new, |merged, range| merged.start.min(range.start)..merged.end.max(range.end));
        self.0.splice(from..to, [merged]);
    }

    /// How many offsets there are.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Up to where every offset from `start` on is in the set; `start` itself if it is not.
    pub(crate) fn end_from(&self, start: u64) -> u64 {
        let next = self.0.partition_point(|range| range.end <= start);
        match self.0.get(next) {
            Some(range) if range.start <= start => range.end,
            _ => start,
        }
    }

    /// What of a range is not in the set.
    pub(crate) fn missing(&self, within: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = within.start;
        for range in &self.0[self.0.partition_point(|range| range.end <= within.start)..] {
            if range.start >= within.end {
                break;
            }
            if range.start > at {
                missing.push(at..range.start);
            }
            at = range.end;
        }
        if at < within.end {
            missing.push(at..within.end);
        }
        missing
    }

    /// Those below `end`.
    pub(crate) fn within(self, end: u64) -> Ranges {
        let cut = self.0.into_iter().map(|range| range.start..range.end.min(end));
        Ranges(cut.filter(|range| !range.is_empty()).collect())
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }
}

/// In whatever order they come, in the time that it takes to sort them.
impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Ranges {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Ranges(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// The set against a plain one, offset by offset.
        #[test]
        fn as_a_set_of_offsets(
            inserts in proptest::collection::vec((0u64..64, 0u64..24), 0..12),
            start in 0u64..64, len in 0u64..64,
        ) {
            let mut ranges = Ranges::default();
            let mut plain = [false; 128];
            let together: Ranges = inserts.iter().map(|(start, len)| *start..start + len).collect();
            for (start, len) in inserts {
                ranges.insert(start..start + len);
                plain[start as usize..(start + len) as usize].fill(true);
            }
            proptest::prop_assert_eq!(&ranges, &together);
            proptest::prop_assert_eq!(ranges.total(), plain.iter().filter(|x| **x).count() as u64);
            let end = (start..).find(|at| !plain[*at as usize]).unwrap();
            proptest::prop_assert_eq!(ranges.end_from(start), end);
            let mut missing = [false; 128];
            let found = ranges.missing(start..start + len);
            for range in &found {
                proptest::prop_assert!(!range.is_empty());
                missing[range.start as usize..range.end as usize].fill(true);
            }
            for at in start..start + len {
                proptest::prop_assert_eq!(missing[at as usize], !plain[at as usize]);
            }
            proptest::prop_assert!(found.is_sorted_by(|a, b| a.end < b.start));
            let all: Vec<_> = ranges.iter().collect();
            proptest::prop_assert!(all.is_sorted_by(|a, b| a.end < b.start));
        }
    }
}
