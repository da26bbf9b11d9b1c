//! Sizes and spans of time as people write them, on a command line or in the store's settings.

use std::time::Duration;

/// The longest span of time, a thousand years: any longer one is a mistake, and some of those can be
/// written with one unit and not with another.
const MAX_DURATION: Duration = Duration::from_secs(365_250 * 24 * 3600);

/// A number of bytes: plain, or with `k`, `M`, `G` or `T` for powers of 1024 (`KiB` and so on are
/// understood too). Nothing is no size.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn parse_size(text: &str) -> Result<u64, String> {
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

/// A span of time: `30m`, `1h 30m`, `7d`. Days have 24 hours.
///
/// A bare number is refused, since nobody could tell its unit, and so are months and years, which
/// have no fixed length.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration is written with its units, as in 90s, 30m, 1h30m, 7d".to_owned();
    if text.trim() != text {
        return Err(wrong());
    }
    let parser = jiff::fmt::friendly::SpanParser::new();
    let span = parser.parse_span(text).map_err(|_| wrong())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err("months and years have no fixed length: use days or weeks".to_owned());
    }
    let long = || "the duration is too long".to_owned();
    let duration =
        span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| long())?;
    let duration =
        Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())?;
    if duration > MAX_DURATION { Err(long()) } else { Ok(duration) }
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
            ("365250d", MAX_DURATION.as_secs()),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        let long = ["99999999w", "544444441h", "365251d"];
        let wrong = ["", "30", "-1h", "1h ago", "1y", "3mo", "h", "1x", "PT1H", "1h\n"];
        for text in wrong.into_iter().chain(long) {
            assert!(parse_duration(text).is_err(), "{text:?}: {:?}", parse_duration(text));
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        let cases =
            [("1", 1), ("500k", 512_000), ("20M", 20 << 20), ("3GiB", 3 << 30), ("1T", 1 << 40)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "0", "-1", "1.5M", "1 M", "1MB", "1x", "99999999999T", "iB", "1iB"] {
            assert!(parse_size(text).is_err(), "{text:?}: {:?}", parse_size(text));
        }
    }
}
