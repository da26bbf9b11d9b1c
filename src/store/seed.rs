//! What is good of a damaged blob, taken over into the part of the download that replaces it.
//!
//! Of a blob whose bytes are wrong here and there only those groups are fetched that are wrong: the
//! others are copied, group by group, each compared with its hash, and the download sees a part of
//! which they are there. Whoever reads the damaged file keeps it. The digest of the whole is asked at
//! the commit as ever, so that nothing depends on the hashes but how much is fetched.

use std::fs::File;

use super::groups::{self, GROUP, RECORD};
use super::layout::Layout;
use super::outboard::Outboard;
use super::part::Part;
use super::quarantine;
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::sys;

/// A blob is read in pieces of this size.
const PIECE: usize = 1024 * 1024;
const PIECE_GROUPS: usize = PIECE / GROUP;

/// Copies what is good into an empty part, from what has the blob's name or was put in quarantine.
pub(super) fn seed(layout: &Layout, part: &mut Part, digest: &Digest, size: u64) -> Result<()> {
    let Some((file, outboard)) = damaged(layout, digest, size)? else {
        return Ok(());
    };
    let mut outcome = Ok(());
    let compared = compare(&file, &outboard, size, |at, bytes, is_good| {
        if is_good && outcome.is_ok() {
            outcome = part.write_at(at, bytes);
        }
        outcome.is_ok()
    });
    outcome?;
    if compared.is_ok() && !part.is_empty() {
        part.note()?;
        tracing::debug!(%digest, good = part.len(), size, "taken over what is good of it");
    }
    Ok(())
}

/// The damaged file, and hashes of its groups that are at one with themselves.
fn damaged(layout: &Layout, digest: &Digest, size: u64) -> Result<Option<(File, Outboard)>> {
    if !layout.outboards.are_on() {
        return Ok(None);
    }
    let file = match layout.open_blob(digest) {
        Ok(Some((file, _))) => file,
        // Something else in its place is nothing to copy from.
        Ok(None) | Err(Error::Damaged { .. } | Error::Io { .. }) => {
            match quarantine::open(layout, digest)? {
                Some(file) => file,
                None => return Ok(None),
            }
        }
        Err(error) => return Err(error),
    };
    let outboard = layout.outboards.open(digest, size);
    Ok(outboard.filter(|outboard| outboard.is_sound(size)).map(|outboard| (file, outboard)))
}

/// Whether these bytes, whose digest is wrong, are nevertheless what the hashes of the groups say: then
/// the hashes are wrong, and are removed.
pub(super) fn forget_wrong_hashes(layout: &Layout, file: &File, digest: &Digest, size: u64) {
    let forget = || -> Result<()> {
        if let Some(outboard) = layout.outboards.open(digest, size) {
            let mut all_good = true;
            compare(file, &outboard, size, |_, _, is_good| {
                all_good &= is_good;
                all_good
            })?;
            if all_good || !outboard.is_sound(size) {
                layout.outboards.forget(digest)?;
            }
        }
        Ok(())
    };
    if let Err(error) = forget() {
        tracing::debug!(%digest, %error, "the group hashes are not looked at");
    }
}

/// Compares a file group by group; `each` is told the place, the bytes, and whether they are right,
/// for as long as it says so. What cannot be read is wrong.
fn compare(
    file: &File,
    outboard: &Outboard,
    size: u64,
    mut each: impl FnMut(u64, &[u8], bool) -> bool,
) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut records = [[0; RECORD]; PIECE_GROUPS];
    let mut start = 0;
    while start < size {
        // No more than a piece.
        let piece = &mut buffer[..(size - start).min(PIECE as u64) as usize];
        let is_read = sys::read_at(file, piece, start).is_ok();
        let first = start / GROUP as u64;
        let records = &mut records[..piece.len().div_ceil(GROUP)];
        outboard.read(first, records)?;
        // Neighbours that are right are told together.
        let (mut run, mut run_at) = (0, 0);
        let count = records.len();
        for (n, record) in records.iter().enumerate() {
            let (from, to) = (n * GROUP, ((n + 1) * GROUP).min(piece.len()));
            let group = &mut piece[from..to];
            let is_read = is_read || sys::read_at(file, group, start + from as u64).is_ok();
            let is_good = is_read && groups::record(group, first + n as u64) == *record;
            if is_good {
                run += group.len();
            }
            if run > 0 && (!is_good || n + 1 == count) {
                if !each(start + run_at as u64, &piece[run_at..run_at + run], true) {
                    return Ok(());
                }
                run = 0;
            }
            if !is_good {
                if !each(start + from as u64, &piece[from..to], false) {
                    return Ok(());
                }
                run_at = to;
            }
        }
        start += piece.len() as u64;
    }
    Ok(())
}
