use std::fmt;
use std::ops::{Range, RangeFrom};

/// A part of a blob: from `start` up to, and without, `end`; in bytes.
///
/// ```
/// use layerstore::fetch::ByteRange;
///
/// assert_eq!(ByteRange::from(500..1000).to_string(), "bytes=500-999");
/// assert_eq!(ByteRange::from(500..).to_string(), "bytes=500-");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte wanted.
    pub start: u64,
    /// The first byte no longer wanted; without it, everything to the end of the blob.
    pub end: Option<u64>,
}

impl ByteRange {
    /// The range within a blob of `size` bytes, or nothing where it is empty or reaches beyond.
    pub(super) fn within(self, size: u64) -> Option<Range<u64>> {
        let end = self.end.unwrap_or(size);
        (self.start < end && end <= size).then_some(self.start..end)
    }
}

impl From<Range<u64>> for ByteRange {
    fn from(Range { start, end }: Range<u64>) -> ByteRange {
        ByteRange { start, end: Some(end) }
    }
}

impl From<RangeFrom<u64>> for ByteRange {
    fn from(RangeFrom { start }: RangeFrom<u64>) -> ByteRange {
        ByteRange { start, end: None }
    }
}

/// As the value of a `Range` header (RFC 9110, section 14.2), which names the last byte instead.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(end) => write!(f, "bytes={}-{}", self.start, end.saturating_sub(1)),
            None => write!(f, "bytes={}-", self.start),
        }
    }
}

/// A `Content-Range` of one range whose total is told (RFC 9110, section 14.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// The bytes that follow.
    pub(super) range: Range<u64>,
    /// The size of the whole.
    pub(super) total: u64,
}

impl ContentRange {
    /// Parses `bytes 500-999/1234`, and nothing looser: a total of `*` cannot be checked.
    pub(super) fn parse(text: &str) -> Option<ContentRange> {
        let (unit, rest) = text.trim().split_once(' ')?;
        let (range, total) = rest.trim_start().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        let sound = unit.eq_ignore_ascii_case("bytes") && first <= last && last < total;
        sound.then(|| ContentRange { range: first..last + 1, total })
    }
}

/// A number as HTTP writes it: digits only, where `u64::from_str` would take a sign.
pub(super) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let parsed = |text| ContentRange::parse(text).map(|it| (it.range, it.total));
        assert_eq!(parsed("bytes 0-0/1"), Some((0..1, 1)));
        assert_eq!(parsed("bytes 500-999/1234"), Some((500..1000, 1234)));
        assert_eq!(parsed("Bytes  5-9/10 "), Some((5..10, 10)));
        let max = u64::MAX;
        assert_eq!(parsed(&format!("bytes 0-{}/{max}", max - 1)), Some((0..max, max)));
    }

    #[test]
    fn unsound_content_ranges_are_refused() {
        let cases = [
            "",
            "bytes",
            "bytes ",
            "bytes 0-9",
            "bytes 0-9/*",
            "bytes */10",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes 5-/10",
            "bytes -5/10",
            "bytes 0-9/10, 20-29/30",
            "bytes=0-9/10",
            "bits 0-9/10",
            "bytes +0-9/10",
            "bytes 0-9/ 10",
            "bytes 0-9/-10",
            "bytes 0x0-9/10",
            "bytes 0-18446744073709551616/18446744073709551617",
        ];
        for text in cases {
            assert_eq!(ContentRange::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_range_must_lie_within_its_blob() {
        assert_eq!(ByteRange::from(3..).within(10), Some(3..10));
        assert_eq!(ByteRange::from(3..10).within(10), Some(3..10));
        assert_eq!(ByteRange::from(3..11).within(10), None);
        assert_eq!(ByteRange::from(3..3).within(10), None);
        assert_eq!(ByteRange::from(10..).within(10), None);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "(bytes )?[-/*0-9 ]{0,50}") {
            if let Some(ContentRange { range, total }) = ContentRange::parse(&text) {
                proptest::prop_assert!(range.start < range.end && range.end <= total);
            }
        }
    }
}
