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

/// Gives the bytes of both, as long as there are as many of one as of the other; and then those of one
/// alone, beside none.
pub(super) fn in_pairs(both: [&[&[u8]]; 2], mut each: impl FnMut([&[u8]; 2])) {
    let mut rests = both.map(|pieces| pieces.iter().copied());
    let mut now = [&[][..]; 2];
    loop {
        for (now, rest) in now.iter_mut().zip(&mut rests) {
            while now.is_empty() {
                match rest.next() {
                    Some(piece) => *now = piece,
                    None => break,
                }
            }
        }
        let shortest = now[0].len().min(now[1].len());
        match now {
            [[], []] => return,
            [_, []] | [[], _] => each(std::mem::take(&mut now)),
            [one, other] => {
                let (one, one_left) = one.split_at(shortest);
                let (other, other_left) = other.split_at(shortest);
                each([one, other]);
                now = [one_left, other_left];
            }
        }
    }
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

        #[test]
        fn pairs_are_all_bytes_of_both(
            both in proptest::array::uniform2(
                proptest::collection::vec(proptest::collection::vec(0..=255u8, 0..9), 0..6)),
        ) {
            let slices = both.each_ref().map(|it| it.iter().map(|it| &it[..]).collect::<Vec<_>>());
            let (mut found, mut alone) = ([Vec::new(), Vec::new()], false);
            in_pairs([&slices[0], &slices[1]], |[one, other]| {
                assert!(!one.is_empty() || !other.is_empty());
                assert!(one.len() == other.len() || one.is_empty() || other.is_empty());
                assert!(!alone || one.is_empty() || other.is_empty(), "together while they can");
                alone = one.is_empty() || other.is_empty();
                found[0].extend_from_slice(one);
                found[1].extend_from_slice(other);
            });
            proptest::prop_assert_eq!(found, both.map(|it| it.concat()));
        }
    }
}
