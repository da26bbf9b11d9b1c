//! What lies under a blob's name already, and was not put there by the one who finds it.
//!
//! What this program commits has mode 0444 from before its sync, and gets its name after it. A file
//! with write bits is another tool's (skopeo, umoci, cp): nobody here knows whether its bytes are on
//! disk, nor whether somebody's sync of it has failed, after which the next would succeed. So it is
//! never synced: before anything durable names such a blob, a copy takes its place, whose digest was
//! compared and whose own sync tells the truth.

use std::fs::File;
use std::path::Path;

use super::ingest;
use super::layout::Layout;
use super::outboard::BlobHasher;
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sys::{self, Aside, Dir, Filesystem, Meta};

/// Bytes are compared and copied in pieces of this size.
const PIECE: u64 = 256 * 1024;

/// Whether another program wrote a blob, which may not have synced it.
pub(crate) fn is_of_others(meta: &Meta) -> bool {
    meta.mode & 0o222 != 0
}

/// Makes this program's own those of the blobs that another program wrote, which a lease has pinned.
/// Their names are not yet durable. Blobs that are not there are passed over.
pub(crate) fn adopt<'a>(
    layout: &Layout,
    blobs: impl IntoIterator<Item = &'a Digest>,
) -> Result<()> {
    for digest in blobs {
        if layout.blob_meta(digest)?.is_some_and(|meta| meta.is_file && is_of_others(&meta)) {
            adopt_one(layout, digest)?;
        }
    }
    Ok(())
}

/// Puts a synced copy in the place of a blob that another program wrote.
pub(crate) fn adopt_one(layout: &Layout, digest: &Digest) -> Result<()> {
    let Some((file, meta)) = layout.open_blob(digest)? else {
        return Ok(());
    };
    let path = layout.blobs.path_of(&format!("{}/{}", digest.algorithm(), digest.hex()));
    require_room(layout, meta.len, &path)?;
    let dir = layout.make_algorithm(digest.algorithm())?;
    let copy = Aside::new(dir)?;
    let mut hasher = BlobHasher::new(digest.algorithm(), &layout.outboards);
    // At most a piece, which is a usize.
    let mut buffer = vec![0; meta.len.min(PIECE) as usize];
    let mut at = 0;
    while at < meta.len {
        let piece = &mut buffer[..(meta.len - at).min(PIECE) as usize];
        sys::read_at(&file, piece, at).context("read", &path)?;
        sys::write_at(copy.file(), piece, at, &copy.path())?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    let actual = hasher.digest();
    if actual != *digest {
        layout.suspects.mark(digest, &file);
        let reason = format!(
            "another program wrote it, and its bytes are those of {actual}; a pull of an image that \
             has it brings it anew"
        );
        return Err(Error::Damaged { path, reason });
    }
    ingest::finish(&copy)?;
    ingest::replace(layout, copy, dir, digest)?;
    hasher.keep(digest);
    Ok(())
}

/// Asks for space before a file is copied, when both lie on the disk for a while: not to fill the disk
/// of others in vain.
pub(crate) fn require_room(layout: &Layout, needed: u64, path: &Path) -> Result<()> {
    let available = Filesystem::available(layout.root.path()).ok();
    if available.is_some_and(|available| available < needed) {
        let (action, path, needed) = ("copy", path.to_owned(), Some(needed));
        return Err(Error::NoSpace { action, path, needed, available });
    }
    Ok(())
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
