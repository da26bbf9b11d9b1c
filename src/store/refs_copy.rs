//! A copy of `index.json` as this program saw it last: `.layerstore/refs`.
//!
//! ```text
//! refs blake3:HEX LENGTH CRC
//! the bytes of index.json, of this length and with this digest
//! ```
//!
//! It is a file of its own, for whatever happens to `index.json` must not happen to it. Whoever
//! changes `index.json`, or acknowledges what it says, has the copy durable before that is acknowledged;
//! so does a collection before it removes anything that a ref of an older copy leads to. It is written
//! under the lock of `index.json`.

use std::io::{BufRead, BufReader, Read, Write};

use super::index_file::IndexFile;
use super::layout::{Layout, read_small};
use super::line;
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Digest};
use crate::sys::Aside;

/// The file, below `.layerstore`.
pub(crate) const NAME: &str = "refs";
/// The longest first line, in bytes.
const MAX_LINE: u64 = 256;

/// A copy that has no name yet.
pub(crate) struct RefsCopy {
    aside: Aside,
}

impl RefsCopy {
    /// Writes a copy of these bytes aside.
    pub(crate) fn write(layout: &Layout, index: &[u8]) -> Result<RefsCopy> {
        let aside = Aside::hidden(&layout.private)?;
        aside.file().write_all(heading(index).as_bytes()).context("write to", aside.path())?;
        aside.file().write_all(index).context("write to", aside.path())?;
        aside.set_mode(layout.private.file_mode())?;
        Ok(RefsCopy { aside })
    }

    /// Makes its bytes durable, and gives it its name, which is durable after [`settle`].
    pub(crate) fn put(self, layout: &Layout) -> Result<()> {
        self.aside.sync()?;
        self.aside.name_over(&layout.private, NAME).map(drop)
    }
}

/// Makes the name durable, whoever gave it.
pub(crate) fn settle(layout: &Layout) -> Result<()> {
    layout.private.sync()
}

/// Whether the copy has this first line.
pub(crate) fn has_heading(layout: &Layout, heading: &str) -> bool {
    match layout.private.open_file(NAME) {
        Ok(Some(file)) => {
            let mut line = Vec::new();
            let read = BufReader::new(file).take(MAX_LINE).read_until(b'\n', &mut line);
            read.is_ok() && line == heading.as_bytes()
        }
        Ok(None) | Err(_) => false,
    }
}

/// Reads the copy; `None` if there is none.
///
/// # Errors
///
/// [`Error::Damaged`] if it is not what was written.
pub(crate) fn read(layout: &Layout, limit: u64) -> Result<Option<(Vec<u8>, IndexFile)>> {
    let Some(bytes) = read_small(&layout.private, NAME, limit + MAX_LINE)? else {
        return Ok(None);
    };
    let parsed = parse(&bytes).and_then(|index| {
        let file = IndexFile::parse(index).ok()?;
        Some((index.to_vec(), file))
    });
    let damaged = || {
        let reason = "it is not the copy of index.json that was written".to_owned();
        Error::Damaged { path: layout.private.path_of(NAME), reason }
    };
    parsed.map(Some).ok_or_else(damaged)
}

/// The first line of the copy of these bytes.
pub(super) fn heading(index: &[u8]) -> String {
    heading_of(&Algorithm::Blake3.digest(index), index.len() as u64)
}

/// The same by their BLAKE3 digest and their length.
pub(super) fn heading_of(digest: &Digest, len: u64) -> String {
    line::seal(&format!("refs {digest} {len}"))
}

/// What it is a copy of, if it is as it was written.
pub(super) fn parse(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.iter().take(MAX_LINE as usize).position(|byte| *byte == b'\n')?;
    let (line, index) = bytes.split_at(at + 1);
    (line == heading(index).as_bytes()).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_byte_and_each_cut_is_noticed() {
        let index = IndexFile::default().to_bytes();
        let whole = [heading(&index).as_bytes(), &index].concat();
        assert_eq!(parse(&whole), Some(&index[..]));
        for at in 0..whole.len() {
            assert_eq!(parse(&whole[..at]), None, "cut at {at}");
            let mut bad = whole.clone();
            bad[at] ^= 1;
            assert_eq!(parse(&bad), None, "byte {at}");
        }
        assert_eq!(parse(&[&whole[..], b" "].concat()), None);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, text in "refs [0-9a-z: ]{0,90}") {
            let _ = parse(&bytes);
            let _ = parse(line::seal(&text).as_bytes());
        }
    }
}
