//! The file that says which bytes of a part are there, where the part was not simply written from
//! its beginning.
//!
//! Each line is a whole account, `bytes START-END,START-END,…`; the last good one counts. Nothing
//! is synced: what a power cut makes of it is noticed by the blob's digest.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use super::line;
use super::ranges::Ranges;
use crate::error::{IoContext, Result};
use crate::sys::Dir;

/// The longest version that is written down or believed, and how many.
const MAX_VERSION: usize = 1024;
const MAX_VERSIONS: usize = 16;
/// How much of an account is read: a line for each 4 MiB of a blob of 64 GiB has less.
const MAX_STATE: u64 = 16 * 1024 * 1024;

/// An account that is being kept.
#[derive(Debug)]
pub(crate) struct PartState {
    file: File,
    name: String,
    dir: Dir,
}

impl PartState {
    /// Begins an account, or goes on with one.
    pub(crate) fn open(dir: &Dir, name: &str) -> Result<PartState> {
        let mut file = dir.open_append(name)?;
        // Ends the line that an earlier holder may have been torn from.
        file.write_all(b"\n").context("write to", dir.path_of(name))?;
        Ok(PartState { file, name: name.to_owned(), dir: dir.clone() })
    }

    /// Writes down what is there now.
    pub(crate) fn note(&mut self, ranges: &Ranges) -> Result<()> {
        let list: Vec<String> = ranges.iter().map(|r| format!("{}-{}", r.start, r.end)).collect();
        let line = line::seal(&format!("bytes {}", list.join(",")));
        self.file.write_all(line.as_bytes()).context("write to", self.dir.path_of(&self.name))
    }
}

/// A version of the blob that bytes came from: the origin of a server, and the strong entity tag
/// that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `https://registry.example`, for one.
    pub origin: String,
    /// The tag with its quotes.
    pub etag: String,
}

impl Version {
    /// Whether it can be a word of a line.
    fn is_plain(&self) -> bool {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        plain(&self.origin)
            && plain(&self.etag)
            && self.origin.len() + self.etag.len() <= MAX_VERSION
    }
}

/// Writes down a version, whether or not there is an account of the bytes.
pub(crate) fn note_version(dir: &Dir, name: &str, version: &Version) -> Result<()> {
    if !version.is_plain() {
        return Ok(());
    }
    let mut state = PartState::open(dir, name)?;
    let line = line::seal(&format!("version {} {}", version.origin, version.etag));
    state.file.write_all(line.as_bytes()).context("write to", dir.path_of(name))
}

/// The versions that an account names.
pub(crate) fn parse_versions(bytes: &[u8]) -> Vec<Version> {
    let mut versions: Vec<Version> = Vec::new();
    for text in bytes.rsplit(|byte| *byte == b'\n').filter_map(line::open) {
        let words = text.strip_prefix("version ").and_then(|rest| rest.split_once(' '));
        let Some((origin, etag)) = words else {
            continue;
        };
        let version = Version { origin: origin.to_owned(), etag: etag.to_owned() };
        if version.is_plain() && versions.iter().all(|known| known.origin != version.origin) {
            versions.push(version);
        }
        if versions.len() == MAX_VERSIONS {
            break;
        }
    }
    versions
}

/// What an account says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Account {
    /// Which bytes are there. `None` if no good line says that: the first is written before the
    /// first byte beyond a gap, so until then there is no gap.
    pub(crate) ranges: Option<Ranges>,
    /// The versions that are written down, of each origin the last.
    pub(crate) versions: Vec<Version>,
}

/// What the account says; nothing if there is none. Of a very long one the end is read, for the last
/// line counts; if that has none, nothing is taken to be there.
pub(crate) fn read(dir: &Dir, name: &str) -> Result<Account> {
    let Some((mut file, meta)) = dir.open_file_meta(name)? else {
        return Ok(Account::default());
    };
    let (mut bytes, skipped) = (Vec::new(), meta.len.saturating_sub(MAX_STATE));
    file.seek(SeekFrom::Start(skipped)).context("read", dir.path_of(name))?;
    file.take(MAX_STATE).read_to_end(&mut bytes).context("read", dir.path_of(name))?;
    let ranges = parse(&bytes).or_else(|| (skipped > 0).then(Ranges::default));
    Ok(Account { ranges, versions: parse_versions(&bytes) })
}

/// The last good line of an account.
pub(crate) fn parse(bytes: &[u8]) -> Option<Ranges> {
    let lines = bytes.rsplit(|byte| *byte == b'\n');
    lines.filter_map(line::open).find_map(parse_line)
}

fn parse_line(text: &str) -> Option<Ranges> {
    let ranges = text.strip_prefix("bytes ")?.split(',').filter(|range| !range.is_empty());
    let parse = |range: &str| {
        let (start, end) = range.split_once('-')?;
        let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
        (start <= end).then_some(start..end)
    };
    ranges.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_line_counts() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        assert_eq!(read(&dir, "x").unwrap().ranges, None);
        let mut state = PartState::open(&dir, "x").unwrap();
        let mut ranges = Ranges::prefix(10);
        state.note(&ranges).unwrap();
        ranges.insert(20..30);
        state.note(&ranges).unwrap();
        assert_eq!(read(&dir, "x").unwrap().ranges, Some(ranges.clone()));
        // A writer that died in the middle of a line.
        std::fs::write(temp.path().join("x"), "bytes 0-10 0\nnonsense\nbytes 0-9").unwrap();
        assert_eq!(read(&dir, "x").unwrap().ranges, None);
        PartState::open(&dir, "x").unwrap().note(&ranges).unwrap();
        assert_eq!(read(&dir, "x").unwrap().ranges, Some(ranges));
    }

    #[test]
    fn of_a_long_account_the_end_counts() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        let first = line::seal("bytes 0-10");
        let filler = vec![b'\n'; usize::try_from(MAX_STATE).unwrap()];
        std::fs::write(temp.path().join("x"), [first.as_bytes(), &filler].concat()).unwrap();
        assert_eq!(read(&dir, "x").unwrap().ranges, Some(Ranges::default()), "nothing is known");
        PartState::open(&dir, "x").unwrap().note(&Ranges::prefix(7)).unwrap();
        assert_eq!(read(&dir, "x").unwrap().ranges, Some(Ranges::prefix(7)));
    }

    /// An account that somebody has made up. Were each range moved to its place, this would not end.
    #[test]
    fn ranges_in_the_wrong_order_take_no_longer() {
        let count = 1_000_000u64;
        let list: Vec<String> =
            (0..count).rev().map(|n| format!("{}-{}", 2 * n, 2 * n + 1)).collect();
        let ranges = parse(line::seal(&format!("bytes {}", list.join(","))).as_bytes()).unwrap();
        assert_eq!((ranges.total(), ranges.iter().count() as u64), (count, count));
    }

    #[test]
    fn versions_are_kept_beside_the_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        let version =
            |origin: &str, etag: &str| Version { origin: origin.into(), etag: etag.into() };
        for (origin, etag) in [
            ("https://a", "\"1\""),
            ("https://b", "\"2\""),
            ("https://a", "\"3\""),
            ("https://c d", "\"4\""),
            ("https://e", "\"5\nbytes 0-9\""),
            ("https://f", &"6".repeat(2000)),
        ] {
            note_version(&dir, "x", &version(origin, etag)).unwrap();
        }
        let known = [version("https://a", "\"3\""), version("https://b", "\"2\"")];
        assert_eq!(read(&dir, "x").unwrap().versions, known);
        assert_eq!(read(&dir, "x").unwrap().ranges, None, "they say nothing of the bytes");
        PartState::open(&dir, "x").unwrap().note(&Ranges::prefix(7)).unwrap();
        assert_eq!(read(&dir, "x").unwrap().ranges, Some(Ranges::prefix(7)));
        assert_eq!(read(&dir, "x").unwrap().versions, known);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, text in "bytes [0-9,-]{0,60}") {
            let _ = (parse(&bytes), parse_versions(&bytes));
            let ranges = parse(line::seal(&text).as_bytes());
            let _ = ranges.map(|ranges| ranges.total());
        }
    }
}
