use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::layout::Layout;
use super::lease::{Lease, Pinned};
use super::outboard::BlobHasher;
use super::present::{self, BLOB_MODE};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Digest};
use crate::sys::{self, Aside, Dir};

/// How much of a reader is read at once, in bytes: little at first, for most of many small blobs' time would go
/// into zeros for them.
const FIRST_PIECE: usize = 8 * 1024;
const PIECE: usize = 256 * 1024;

/// A blob that is being written, whose digest is known when it ends.
///
/// Bytes are hashed as they come. Nothing of it is to be seen in the store until
/// [`commit`](Ingest::commit); dropped before, it leaves nothing.
#[derive(Debug)]
pub struct Ingest {
    layout: Arc<Layout>,
    lease: Lease,
    aside: Aside,
    hasher: BlobHasher,
    written: u64,
    limit: u64,
}

impl Ingest {
    pub(crate) fn new(
        layout: &Arc<Layout>,
        lease: &Lease,
        algorithm: Algorithm,
        limit: u64,
    ) -> Result<Ingest> {
        let dir = layout.make_algorithm(algorithm)?;
        Ok(Ingest {
            aside: Aside::new(dir)?,
            hasher: BlobHasher::new(algorithm, &layout.outboards),
            layout: layout.clone(),
            lease: lease.clone(),
            written: 0,
            limit,
        })
    }

    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the blob in place under its digest. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NotDurable`] if a sync failed, [`Error::NoSpace`], [`Error::Io`].
    pub fn commit(self) -> Result<Pinned> {
        let digest = self.hasher.digest();
        let pinned = self.lease.pin_one(digest, self.written)?;
        let dir = self.layout.make_algorithm(digest.algorithm())?;
        match pinned.is_present() {
            true if self.is_kept(dir, &digest)? => {}
            true => {
                finish(&self.aside)?;
                replace(&self.layout, self.aside, dir, &digest)?;
            }
            false => place_aside(&self.layout, self.aside, &digest, self.written)?,
        }
        // Also where the blob was there: another process may have named it and not synced yet.
        self.layout.sync_names(digest.algorithm())?;
        self.hasher.keep(&digest);
        Ok(pinned)
    }

    /// Puts the blob in place if its digest is the expected one; see [`commit`](Ingest::commit).
    ///
    /// # Errors
    ///
    /// [`Error::DigestMismatch`], and as of [`commit`](Ingest::commit).
    pub fn commit_as(self, expected: &Digest, origin: &str) -> Result<Pinned> {
        let actual = self.hasher.digest();
        if actual != *expected {
            let origin = origin.to_owned();
            let actual = Box::new(actual);
            return Err(Error::DigestMismatch { origin, expected: *expected, actual });
        }
        self.commit()
    }
}

impl Write for Ingest {
    /// Fails with [`io::ErrorKind::FileTooLarge`] once more than the limit was written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.limit - self.written;
        if bytes.len() as u64 > room {
            let limit = self.limit;
            let error = Error::TooLarge { what: "the blob".to_owned(), limit };
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        let written = self.aside.file().write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives a whole file its digest's name: mode, sync, name, in this order, so that a name never
/// stands for bytes that are not on disk. The name itself is not yet durable.
pub(crate) fn place_aside(layout: &Layout, aside: Aside, digest: &Digest, size: u64) -> Result<()> {
    finish(&aside)?;
    name_synced(layout, aside, digest, size)
}

/// The last step of [`place_aside`], for a file that has its mode and is synced.
pub(crate) fn name_synced(layout: &Layout, aside: Aside, digest: &Digest, size: u64) -> Result<()> {
    let name = digest.hex();
    let dir = layout.make_algorithm(digest.algorithm())?;
    if layout.has_own_blob(digest, size)? {
        return Ok(());
    }
    match dir.meta(&name)? {
        // What has the name is not the blob, whoever put it there, or may not be on disk.
        Some(_) => replace(layout, aside, dir, digest),
        // If the name is taken between these two, it is by the same bytes.
        None => {
            aside.name_new(dir, &name).map(drop)?;
            layout.suspects.clear(digest)
        }
    }
}

/// Puts good bytes, which have their mode and are synced, in the place of what has a blob's name.
pub(crate) fn replace(layout: &Layout, aside: Aside, dir: &Dir, digest: &Digest) -> Result<()> {
    aside.name_over(dir, &digest.hex()).map(drop)?;
    layout.suspects.clear(digest)
}

/// What comes before the name.
pub(crate) fn finish(aside: &Aside) -> Result<()> {
    seal(aside.file(), &aside.path())?;
    aside.sync()
}

/// Makes a whole file one of a blob. Its time is that of the commit, not of the last write: whoever
/// looks how old a blob is means how long it has been there. The mode comes last, for it says that a
/// sync may have been tried.
pub(crate) fn seal(file: &File, path: &Path) -> Result<()> {
    sys::set_time(file, path)?;
    sys::set_mode(file, BLOB_MODE, path)
}

impl Ingest {
    /// Whether the blob that is there stays, and has the time of now: it is new to whoever puts it,
    /// and is kept for as long as if it were. It does not if it has other bytes, which nobody has
    /// noticed yet, if another program wrote it, or if it is another user's, who alone may set its
    /// time.
    pub(crate) fn is_kept(&self, dir: &Dir, digest: &Digest) -> Result<bool> {
        let name = digest.hex();
        Ok(present::can_stay(dir, &name, self.aside.file()) && dir.touch(&name)?)
    }

    /// What it will be: its digest, and its length in bytes.
    pub(crate) fn identity(&self) -> (Digest, u64) {
        (self.hasher.digest(), self.written)
    }

    /// The file, whole and with the mode of a blob, to be synced and named; and what is known of its
    /// groups.
    pub(crate) fn finished(self) -> Result<(Aside, BlobHasher)> {
        seal(self.aside.file(), &self.aside.path())?;
        Ok((self.aside, self.hasher))
    }

    /// Writes all bytes of a reader; how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] over the limit, [`Error::NoSpace`], [`Error::Io`] naming `origin` if it
    /// cannot be read.
    pub fn write_from(&mut self, mut reader: impl io::Read, origin: &str) -> Result<u64> {
        let mut buffer = vec![0; FIRST_PIECE];
        let before = self.written;
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(self.written - before),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read", origin),
            };
            if (self.limit - self.written) < read as u64 {
                return Err(Error::TooLarge { what: origin.to_owned(), limit: self.limit });
            }
            self.write_all(&buffer[..read]).context("write to", self.aside.path())?;
            if read == buffer.len() && read < PIECE {
                buffer = vec![0; PIECE];
            }
        }
    }
}
