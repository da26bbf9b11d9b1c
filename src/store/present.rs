//! What lies under a blob's name already, and was not put there by the one who finds it.
//!
//! What this program commits has mode 0444 from before its sync, and gets its name after it. A file
//! with write bits is another tool's (skopeo, umoci, cp): nobody here knows whether its bytes are on
//! disk. So before anything durable names such a blob, it is synced, and only then gets the mode that
//! says so.

use std::fs::File;
use std::path::PathBuf;

use super::ingest::BLOB_MODE;
use super::layout::Layout;
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::sys::{self, Dir, Meta};

/// Bytes are compared in pieces of this size.
const PIECE: u64 = 256 * 1024;

/// Whether another program wrote a blob, which may not have synced it.
pub(crate) fn is_of_others(meta: &Meta) -> bool {
    meta.mode & 0o222 != 0
}

/// Makes durable the bytes of those of the blobs that another program wrote, and refuses one of them
/// that is marked: its sync may have failed, and the next would succeed. Blobs that are not there are
/// passed over; names become durable with their directory.
pub(crate) fn sync<'a>(layout: &Layout, blobs: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
    for digest in blobs {
        if layout.blob_meta(digest)?.is_some_and(|meta| meta.is_file && is_of_others(&meta)) {
            if layout.suspects.has(digest)? {
                let reason = "another program wrote it, and it is damaged or could not be made durable; \
                              a pull of an image that has it brings it anew";
                return Err(Error::Damaged {
                    path: path(layout, digest),
                    reason: reason.to_owned(),
                });
            }
            sync_one(layout, digest)?;
        }
    }
    Ok(())
}

/// Makes durable the bytes of a blob that another program wrote.
pub(crate) fn sync_one(layout: &Layout, digest: &Digest) -> Result<()> {
    let Some((file, _)) = layout.open_blob(digest)? else {
        return Ok(());
    };
    let path = path(layout, digest);
    if let Err(error) = sys::sync_data(&file, &path) {
        // The next sync would succeed with the bytes gone. So the blob counts as missing, and is
        // replaced by who brings it.
        layout.suspects.mark(digest, &file);
        return Err(error);
    }
    // Not before the sync: from now on nobody syncs it again. Only its owner may, and where that is
    // another user, it is synced each time.
    if let Err(error) = sys::set_mode(&file, BLOB_MODE, &path) {
        tracing::debug!(%digest, %error, "the blob of another program keeps its mode");
    }
    Ok(())
}

/// For messages.
fn path(layout: &Layout, digest: &Digest) -> PathBuf {
    layout.blobs.path_of(&format!("{}/{}", digest.algorithm(), digest.hex()))
}

/// Takes the mark from a blob that was read and is good. That of another program's stays: its sync may
/// have failed, and then what is read is not what is on disk.
pub(crate) fn acquit(layout: &Layout, digest: &Digest, meta: &Meta) -> Result<()> {
    match is_of_others(meta) {
        true => Ok(()),
        false => layout.suspects.clear(digest),
    }
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
