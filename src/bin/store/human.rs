//! Sizes, ages and digests as people read them. Programs get bytes and seconds, by `--json`.

use std::time::{Duration, SystemTime};

use layerstore::{Digest, Role};

/// Bytes with three or four digits and a binary unit: `29.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, 0);
    // Rounded half up, so 1023.95 KiB is 1.0 MiB and not 1024.0 KiB.
    let mut divisor = 1024u128;
    while (tenths + divisor / 2) / divisor >= 10_240 && unit + 1 < UNITS.len() {
        divisor *= 1024;
        unit += 1;
    }
    tenths = (tenths + divisor / 2) / divisor;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A span of time in its largest whole unit: `3 min`, `5 d`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago something was; what lies in the future is new.
pub(crate) fn age(time: SystemTime) -> String {
    span(SystemTime::now().duration_since(time).unwrap_or_default())
}

/// Seconds of Unix time.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The first 12 digits of the hash, as image tools show it.
pub(crate) fn short(digest: &Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(12);
    hex
}

/// What a blob is, in one word.
pub(crate) fn role(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Index) => "index",
        Some(Role::Manifest) => "manifest",
        Some(Role::Config) => "config",
        Some(Role::Layer) => "layer",
        None => "blob",
    }
}

/// `1 blob`, `2 blobs`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (30_723_277, "29.3 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn spans() {
        let cases = [(59, "59 s"), (60, "1 min"), (7199, "1 h"), (86_400 * 9, "9 d")];
        for (seconds, text) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
