//! Values on the command line that are no type of the library.

use std::num::NonZeroU64;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use layerstore::oci::MediaType;
pub(crate) use layerstore::{parse_duration as duration, parse_size as size};

/// As [`duration`], but not nothing.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it would end as soon as it began".to_owned()),
        duration => Ok(duration),
    }
}

/// A media type as it is compared: two names of RFC 6838, section 4.2.
pub(crate) fn media_type(text: &str) -> Result<MediaType, String> {
    let name = |name: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        !name.is_empty() && name.len() <= 127 && name.bytes().all(allowed)
    };
    match text.split_once('/') {
        Some((kind, of)) if name(kind) && name(of) => Ok(MediaType::new(text)),
        _ => Err("a media type is written KIND/NAME, as in application/spdx+json".to_owned()),
    }
}

/// As [`size`], in a second.
pub(crate) fn rate(text: &str) -> Result<NonZeroU64, String> {
    size(text).and_then(|bytes| NonZeroU64::new(bytes).ok_or_else(|| "it is nothing".to_owned()))
}

/// A share of a whole, in hundredths of a percent: `5%`, `0.25%`, no more than `100%`.
pub(crate) fn hundredths(text: &str) -> Result<u32, String> {
    let wrong = || "a share is written as in 5% or 0.25%, and is no more than 100%".to_owned();
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 2 {
        return Err(wrong());
    }
    let share: u32 = format!("{whole}{part:0<2}").parse().map_err(|_| wrong())?;
    (1..=10_000).contains(&share).then_some(share).ok_or_else(wrong)
}

/// Which bytes of a blob: as in the `Range` header of HTTP (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// `A-B` or `A-`: from one byte to another, which is part of it, or to the end.
    From(u64, Option<u64>),
    /// `-N`: the last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// The bytes of a blob of this length; `None` if there are none.
    pub(crate) fn of(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            ByteRange::From(first, None) => first..len,
            ByteRange::From(first, Some(last)) => first..len.min(last.saturating_add(1)),
            ByteRange::Last(count) => len.saturating_sub(count)..len,
        };
        (!range.is_empty()).then_some(range)
    }
}

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteRange, String> {
        let wrong = || "a range is written A-B, A- or -N, counted from 0, B included".to_owned();
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse::<u64>().ok()).flatten().ok_or_else(wrong)
        };
        match text.split_once('-').ok_or_else(wrong)? {
            ("", count) => Ok(ByteRange::Last(number(count)?)),
            (first, "") => Ok(ByteRange::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                match first <= last {
                    true => Ok(ByteRange::From(first, Some(last))),
                    false => Err(format!("the range ends at {last}, before it begins")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_no_duration() {
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn shares_are_percent() {
        let cases = [("5%", 500), ("0.25%", 25), ("100%", 10_000), ("0.5%", 50), ("99.99%", 9_999)];
        for (text, share) in cases {
            assert_eq!(hundredths(text), Ok(share), "{text}");
        }
        for text in ["", "%", "5", "0%", "100.01%", "101%", "-1%", ".5%", "5.%", "1.234%", "1e1%"] {
            assert!(hundredths(text).is_err(), "{text:?}: {:?}", hundredths(text));
        }
    }

    #[test]
    fn ranges_are_those_of_http() {
        let of = |text: &str, len| text.parse::<ByteRange>().unwrap().of(len);
        assert_eq!(of("0-0", 10), Some(0..1));
        assert_eq!(of("2-5", 10), Some(2..6));
        assert_eq!(of("2-99", 10), Some(2..10));
        assert_eq!(of("9-", 10), Some(9..10));
        assert_eq!(of("10-", 10), None);
        assert_eq!(of("-3", 10), Some(7..10));
        assert_eq!(of("-99", 10), Some(0..10));
        assert_eq!(of("-0", 10), None);
        assert_eq!(of("0-", 0), None);
        assert_eq!(of("0-18446744073709551615", 10), Some(0..10));
        for text in ["", "-", "5", "5-2", "a-b", "+1-2", "1-2-3", "0-18446744073709551616", " 1-2"]
        {
            assert!(text.parse::<ByteRange>().is_err(), "{text:?}");
        }
    }
}
