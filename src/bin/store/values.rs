//! Values on the command line that are no type of the library.

use std::num::NonZeroU64;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use layerstore::oci::MediaType;

/// A span of time as people write it: `30m`, `1h 30m`, `7d`. Days have 24 hours.
///
/// A bare number is refused, since nobody could tell its unit, and so are months and years, which
/// have no fixed length.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration is written with its units, as in 90s, 30m, 1h30m, 7d".to_owned();
    if text.trim() != text {
        return Err(wrong());
    }
    let parser = jiff::fmt::friendly::SpanParser::new();
    let span = parser.parse_span(text).map_err(|_| wrong())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err("months and years have no fixed length: use days or weeks".to_owned());
    }
    let duration = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "the duration is too long".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())
}

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

/// A number of bytes: plain, or with `k`, `M`, `G` or `T` for powers of 1024 (`KiB` and so on are
/// understood too).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || "a size is a number of bytes, or one with k, M, G or T, as 500k or 20M".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match text[digits..].trim_end_matches("iB") {
        "" if digits == text.len() => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    match number.checked_mul(1 << shift) {
        Some(0) => Err("a size of nothing would never end".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("the size is too large".to_owned()),
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
    fn durations_have_units() {
        let cases = [
            ("0s", 0),
            ("90s", 90),
            ("30m", 1800),
            ("1h", 3600),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("2 hours", 7200),
        ];
        for (text, seconds) in cases {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "30", "-1h", "1h ago", "1y", "3mo", "h", "1x", "PT1H", "1h\n", "99999999w"]
        {
            assert!(duration(text).is_err(), "{text:?}: {:?}", duration(text));
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn sizes_have_binary_units() {
        let cases =
            [("1", 1), ("500k", 512_000), ("20M", 20 << 20), ("3GiB", 3 << 30), ("1T", 1 << 40)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "0", "-1", "1.5M", "1 M", "1MB", "1x", "99999999999T", "iB", "1iB"] {
            assert!(size(text).is_err(), "{text:?}: {:?}", size(text));
        }
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
