//! What lies under a blob's name already, and was not put there by the one who finds it.
//!
//! What this program commits has mode 1444 from before its sync, and gets its name after it. A file
//! of any other mode is another tool's (skopeo, umoci, oras, cp): nobody here knows whether its bytes are
//! on disk.

use std::fs::File;

use crate::sys::{self, Dir, Meta};

/// The mode of a blob: nobody writes to it, and the sticky bit, which means nothing on a file, says who
/// made it. Others give their blobs mode 0444 as well, unsynced.
pub(crate) const BLOB_MODE: u32 = 0o1444;
/// The bits that say so: the sticky one, and the rights to write.
const MARKS: u32 = 0o1222;
/// Bytes are compared in pieces of this size.
const PIECE: u64 = 256 * 1024;

/// Whether another program wrote a blob, which may not have synced it.
pub(crate) fn is_of_others(meta: &Meta) -> bool {
    meta.mode & MARKS != BLOB_MODE & MARKS
}

/// Whether what has a blob's name can keep it, given a file with the blob's bytes: it is this
/// program's, and has the same bytes. If it cannot be read, it is as good as none.
pub(crate) fn can_stay(dir: &Dir, name: &str, bytes: &File) -> bool {
    match dir.open_file_meta(name) {
        Ok(Some((there, meta))) if !is_of_others(&meta) => {
            is_same(&there, bytes).unwrap_or_default()
        }
        _ => false,
    }
}

/// Whether two files have the same bytes.
fn is_same(one: &File, other: &File) -> std::io::Result<bool> {
    let len = Meta::of(one)?.len;
    if len != Meta::of(other)?.len {
        return Ok(false);
    }
    // At most a piece, which is a usize.
    let (mut left, mut right) =
        (vec![0; len.min(PIECE) as usize], vec![0; len.min(PIECE) as usize]);
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(PIECE) as usize;
        sys::read_at(one, &mut left[..piece], at)?;
        sys::read_at(other, &mut right[..piece], at)?;
        if left[..piece] != right[..piece] {
            return Ok(false);
        }
        at += piece as u64;
    }
    Ok(true)
}
