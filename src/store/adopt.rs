//! Taking over what another program wrote into the layout.
//!
//! Nobody here knows whether its bytes are on disk, nor whether somebody's sync of it has failed, after
//! which the next would succeed with the bytes gone. So it is never synced: before anything durable
//! names such a blob, a copy takes its place, whose digest was compared and whose own sync tells the
//! truth.

use std::fs::File;
use std::io;
use std::path::Path;

use super::ingest;
use super::layout::Layout;
use super::lease::{Lease, Pinned};
use super::outboard::BlobHasher;
use super::present;
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Digest};
use crate::sys::{self, Aside, Filesystem, Meta};

/// Bytes are copied in pieces of this size.
const PIECE: u64 = 256 * 1024;
/// How often blobs are copied that another program goes on to write.
pub(crate) const ROUNDS: usize = 4;

/// Makes this program's own those of the blobs that another program wrote. Their names are not yet
/// durable. What is not there, or has another length, is passed over.
///
/// The pins keep others from taking away what is being given its name.
pub(crate) fn adopt(layout: &Layout, blobs: &[Pinned]) -> Result<()> {
    let all = blobs.iter().map(|it| (*it.digest(), it.size()));
    let others = of_others(layout, all)?;
    if others.is_empty() {
        return Ok(());
    }
    require_room_for(layout, &others)?;
    // One that is damaged is marked, and so is the next: whoever brings them anew is to know of all.
    let mut damaged = None;
    for (digest, meta) in &others {
        match adopt_one(layout, digest, meta.len) {
            Err(error @ Error::Damaged { .. }) => damaged = damaged.or(Some(error)),
            adopted => adopted?,
        }
    }
    damaged.map_or(Ok(()), Err)
}

/// Adopts blobs that were found below a root and are pinned with it only, and makes all names durable.
pub(crate) fn settle_found(layout: &Layout, lease: &Lease, blobs: &[(Digest, u64)]) -> Result<()> {
    for _ in 0..ROUNDS {
        let others = of_others(layout, blobs.iter().copied())?;
        if !others.is_empty() {
            let others: Vec<_> = others.iter().map(|(digest, meta)| (*digest, meta.len)).collect();
            adopt(layout, &lease.pin(&others)?)?;
        }
        for algorithm in Algorithm::ALL {
            layout.sync_names(algorithm)?;
        }
        // Another program may have written one again meanwhile.
        if of_others(layout, blobs.iter().copied())?.is_empty() {
            return Ok(());
        }
    }
    Err(written_again(layout))
}

/// What to say when another program goes on to write blobs that are copied.
pub(crate) fn written_again(layout: &Layout) -> Error {
    let reason = "another program writes the blobs of the image again and again".to_owned();
    Error::Damaged { path: layout.blobs.path().to_path_buf(), reason }
}

/// Those of the blobs that another program wrote, and that have their length.
fn of_others(
    layout: &Layout,
    blobs: impl IntoIterator<Item = (Digest, u64)>,
) -> Result<Vec<(Digest, Meta)>> {
    let mut others = Vec::new();
    for (digest, size) in blobs {
        let found = layout.blob_meta(&digest)?.filter(|meta| meta.is_file && meta.len == size);
        others.extend(found.filter(present::is_of_others).map(|meta| (digest, meta)));
    }
    // Where modes do not hold nobody's blobs can be told from another's.
    if !others.is_empty() && !layout.keeps_modes()? {
        others.clear();
    }
    Ok(others)
}

/// Asks for space before the first is copied. One after the other is replaced: all that was copied
/// stays beside what it replaces only where that has other names.
fn require_room_for(layout: &Layout, blobs: &[(Digest, Meta)]) -> Result<()> {
    let lens = |is_shared: bool| {
        let those = blobs.iter().filter(move |(_, meta)| (meta.links > 1) == is_shared);
        those.map(|(_, meta)| meta.len)
    };
    let needed =
        lens(true).fold(0, u64::saturating_add).saturating_add(lens(false).max().unwrap_or(0));
    require_room(layout, needed, layout.blobs.path())
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

/// Puts a synced copy in the place of a blob that another program wrote.
fn adopt_one(layout: &Layout, digest: &Digest, size: u64) -> Result<()> {
    let Some((file, _)) = layout.open_blob(digest)? else {
        return Ok(());
    };
    let dir = layout.make_algorithm(digest.algorithm())?;
    let copy = Aside::new(dir)?;
    let mut hasher = BlobHasher::new(digest.algorithm(), &layout.outboards);
    let path = dir.path_of(&digest.hex());
    let damaged = |why: String| {
        layout.suspects.mark(digest, &file);
        let reason = format!(
            "another program wrote it, and {why}; a pull of an image that has it brings it anew"
        );
        Error::Damaged { path: path.clone(), reason }
    };
    if let Err(error) = copy_to(&file, size, &copy, &mut hasher)? {
        return match sys::is_bad_disk(&error) || error.kind() == io::ErrorKind::UnexpectedEof {
            true => Err(damaged(format!("it cannot be read: {error}"))),
            false => Err(error).context("read", path),
        };
    }
    let actual = hasher.digest();
    if actual != *digest {
        return Err(damaged(format!("its bytes are those of {actual}")));
    }
    ingest::finish(&copy)?;
    ingest::replace(layout, copy, dir, digest)?;
    hasher.keep(digest);
    Ok(())
}

/// Copies a file, and hashes it; the inner error is one of reading.
fn copy_to(
    file: &File,
    size: u64,
    copy: &Aside,
    hasher: &mut BlobHasher,
) -> Result<io::Result<()>> {
    // At most a piece, which is a usize.
    let mut buffer = vec![0; size.min(PIECE) as usize];
    let mut at = 0;
    while at < size {
        let piece = &mut buffer[..(size - at).min(PIECE) as usize];
        if let Err(error) = sys::read_at(file, piece, at) {
            return Ok(Err(error));
        }
        sys::write_at(copy.file(), piece, at, &copy.path())?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    Ok(Ok(()))
}
