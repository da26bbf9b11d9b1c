//! The file that says which bytes of a part are there, where the part was not simply written from
//! its beginning.
//!
//! Each line is a whole account, `bytes START-END,START-END,…`; the last good one counts. Nothing
//! is synced: what a power cut makes of it is noticed by the blob's digest.

use std::fs::File;
use std::io::Write;

use super::layout::read_small;
use super::line;
use super::ranges::Ranges;
use crate::error::{IoContext, Result};
use crate::sys::Dir;

/// The largest account that is read: a line for each 4 MiB of a blob of 64 GiB has less.
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

/// What the account says. `None` if there is none, or none of its lines is good: the first is
/// written before the first byte beyond a gap, so until then there is no gap.
pub(crate) fn read(dir: &Dir, name: &str) -> Result<Option<Ranges>> {
    let bytes = read_small(dir, name, MAX_STATE)?;
    Ok(bytes.and_then(|bytes| parse(&bytes)))
}

/// The last good line of an account.
pub(crate) fn parse(bytes: &[u8]) -> Option<Ranges> {
    let lines = bytes.rsplit(|byte| *byte == b'\n');
    lines.filter_map(line::open).find_map(parse_line)
}

fn parse_line(text: &str) -> Option<Ranges> {
    let mut ranges = Ranges::default();
    for range in text.strip_prefix("bytes ")?.split(',').filter(|range| !range.is_empty()) {
        let (start, end) = range.split_once('-')?;
        let (start, end) = (start.parse().ok()?, end.parse().ok()?);
        if start > end {
            return None;
        }
        ranges.insert(start..end);
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_line_counts() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        assert_eq!(read(&dir, "x").unwrap(), None);
        let mut state = PartState::open(&dir, "x").unwrap();
        let mut ranges = Ranges::prefix(10);
        state.note(&ranges).unwrap();
        ranges.insert(20..30);
        state.note(&ranges).unwrap();
        assert_eq!(read(&dir, "x").unwrap(), Some(ranges.clone()));
        // A writer that died in the middle of a line.
        std::fs::write(temp.path().join("x"), "bytes 0-10 0\nnonsense\nbytes 0-9").unwrap();
        assert_eq!(read(&dir, "x").unwrap(), None);
        PartState::open(&dir, "x").unwrap().note(&ranges).unwrap();
        assert_eq!(read(&dir, "x").unwrap(), Some(ranges));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, text in "bytes [0-9,-]{0,60}") {
            let _ = parse(&bytes);
            let ranges = parse(line::seal(&text).as_bytes());
            let _ = ranges.map(|ranges| ranges.total());
        }
    }
}
