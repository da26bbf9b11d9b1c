//! Bytes that lie in pieces, one after the other, as they come from a connection.

use std::ops::Range;

/// How many bytes there are.
pub(super) fn len(pieces: &[&[u8]]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// The bytes of a range, which lies within the pieces.
pub(super) fn cut<'a>(pieces: &[&'a [u8]], range: Range<u64>) -> Vec<&'a [u8]> {
    let (mut cut, mut at) = (Vec::with_capacity(pieces.len()), 0);
    for piece in pieces {
        let end = at + piece.len() as u64;
        // Both lie within the piece, whose length is a usize.
        let from = range.start.clamp(at, end) - at;
        let to = range.end.clamp(at, end) - at;
        if from < to {
            cut.push(&piece[from as usize..to as usize]);
        }
        at = end;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_cut_is_that_of_the_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(0..=255u8, 0..9), 0..6),
            from: u16,
            to: u16,
        ) {
            let slices: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            let whole = pieces.concat();
            proptest::prop_assert_eq!(len(&slices), whole.len() as u64);
            let (a, b) = (from as usize % (whole.len() + 1), to as usize % (whole.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let cut = cut(&slices, from as u64..to as u64);
            proptest::prop_assert!(cut.iter().all(|piece| !piece.is_empty()));
            proptest::prop_assert_eq!(cut.concat(), &whole[from..to]);
        }
    }
}
