use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use super::ingest::{BLOB_MODE, place_aside};
use super::layout::Layout;
use super::lease::Pinned;
use crate::error::{Error, IoContext, Result};
use crate::oci::{Digest, Hasher};
use crate::sys::{self, Aside, Filesystem, Lock, LockMode};

/// Write-back of a part is started in pieces of this size, so that the sync at its end is short.
const WRITEBACK: u64 = 8 * 1024 * 1024;
/// Space is set aside in steps of this size: the declared size of a blob is a stranger's word.
const STEP: u64 = 128 * 1024 * 1024;

/// What came of asking for a blob to be downloaded.
#[derive(Debug)]
#[must_use]
pub enum Claim {
    /// It is there.
    Committed,
    /// It is this caller's to download, from the part's length on.
    Held(Part),
    /// Somebody else downloads it; this shows how far they are.
    Busy(PartWatch),
}

/// A download under way: the bytes so far of a blob whose digest and size are known.
///
/// It is held by one process at a time. Dropped, or left by a process that died, it stays on disk,
/// and whoever claims the blob next goes on where it ends.
#[derive(Debug)]
pub struct Part {
    layout: Arc<Layout>,
    pinned: Pinned,
    storage: Storage,
    /// Boxed for its size.
    hasher: Box<Hasher>,
    len: u64,
    /// Up to where write-back was started.
    written_back: u64,
    /// Up to where space was set aside.
    reserved: u64,
}

#[derive(Debug)]
enum Storage {
    /// `parts/ALG-HEX.part`, under the lock of its `.lock`.
    Named { file: File, name: String, lock_name: String, _lock: Lock },
    /// A file of nobody else's, for when the part's holder has stopped moving.
    Private(Aside),
}

/// The growth of a part that somebody else holds.
#[derive(Clone, Debug)]
pub struct PartWatch {
    layout: Arc<Layout>,
    name: String,
    lock_name: String,
}

impl PartWatch {
    /// How many bytes the part has; `None` where there is none, before its first byte or after its
    /// end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn len(&self) -> Result<Option<u64>> {
        Ok(self.layout.parts.meta(&self.name)?.map(|meta| meta.len))
    }

    /// Who downloads it, as far as can be told.
    pub fn holder(&self) -> String {
        Lock::holder(&self.layout.parts, &self.lock_name)
    }
}

/// The names of a blob's part and of its lock.
pub(crate) fn names(digest: &Digest) -> (String, String) {
    let stem = format!("{}-{}", digest.algorithm(), digest.hex());
    (format!("{stem}.part"), format!("{stem}.lock"))
}

/// Whose part or lock a name in `parts/` is.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    let stem = name.strip_suffix(".part").or_else(|| name.strip_suffix(".lock"))?;
    let (algorithm, hex) = stem.split_once('-')?;
    Digest::from_hex(algorithm.parse().ok()?, hex).ok()
}

/// Takes the part of a blob unless somebody has it. What it holds already is hashed here.
pub(crate) fn claim(layout: &Arc<Layout>, pinned: &Pinned) -> Result<Claim> {
    let (name, lock_name) = names(pinned.digest());
    loop {
        let file = layout.parts.open_or_create(&lock_name)?;
        let path = layout.parts.path_of(&lock_name);
        let Some(lock) = Lock::try_on(file, LockMode::Exclusive, &path)? else {
            return Ok(Claim::Busy(PartWatch { layout: layout.clone(), name, lock_name }));
        };
        // The holder before may have finished and removed the file that was waited for.
        if !lock.is_current(&layout.parts, &lock_name)? {
            continue;
        }
        if pinned.look()? {
            layout.parts.unlink(&name)?;
            layout.parts.unlink(&lock_name)?;
            return Ok(Claim::Committed);
        }
        let file = open_part(layout, &name)?;
        let storage = Storage::Named { file, name, lock_name, _lock: lock };
        return Part::new(layout, pinned, storage)?.adopted().map(Claim::Held);
    }
}

/// A crash between the change of mode and the rename leaves a part that cannot be written.
fn open_part(layout: &Layout, name: &str) -> Result<File> {
    if layout.parts.meta(name)?.is_some_and(|meta| meta.mode & 0o600 != 0o600) {
        layout.parts.make_writable(name)?;
    }
    layout.parts.open_or_create(name)
}

impl Part {
    /// A part that nobody else sees, for a blob whose part is held by a process that has stopped.
    pub(crate) fn private(layout: &Arc<Layout>, pinned: &Pinned) -> Result<Part> {
        let dir = layout.make_algorithm(pinned.digest().algorithm())?;
        Part::new(layout, pinned, Storage::Private(Aside::new(dir)?))
    }

    fn new(layout: &Arc<Layout>, pinned: &Pinned, storage: Storage) -> Result<Part> {
        Ok(Part {
            layout: layout.clone(),
            pinned: pinned.clone(),
            storage,
            hasher: Box::new(pinned.digest().algorithm().hasher()),
            len: 0,
            written_back: 0,
            reserved: 0,
        })
    }

    /// Takes over what an earlier holder wrote. It is synced first: an error that the kernel has
    /// not reported yet would be lost with the holder.
    fn adopted(mut self) -> Result<Part> {
        let path = self.path();
        if let Err(error) = sys::sync_data(self.file(), &path) {
            self.discard()?;
            return Err(error);
        }
        let found = sys::Meta::of(self.file()).context("look at", &path)?;
        if found.len > self.pinned.size() {
            self.restart()?;
            return Ok(self);
        }
        let mut buffer = vec![0; 1024 * 1024];
        loop {
            match self.file().read(&mut buffer).context("read", &path)? {
                0 => break,
                read => {
                    self.hasher.update(&buffer[..read]);
                    self.len += read as u64;
                }
            }
        }
        // The space that an earlier holder set aside is still this file's.
        self.reserved = self.len.max(found.disk.min(self.pinned.size()));
        self.written_back = self.len;
        Ok(self)
    }

    /// How many bytes there are: where the download goes on.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes are missing.
    pub fn missing(&self) -> u64 {
        self.pinned.size() - self.len
    }

    /// Appends the next bytes.
    ///
    /// # Errors
    ///
    /// [`Error::SizeMismatch`] if there are more than the blob's size, of which nothing is written;
    /// [`Error::NoSpace`], after which the part is as it was before or longer, and can be resumed;
    /// [`Error::NotDurable`], after which it must be discarded.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let path = self.path();
        let end = self.len + bytes.len() as u64;
        if end > self.pinned.size() {
            return Err(Error::SizeMismatch {
                origin: format!("the download of {}", self.pinned.digest()),
                expected: self.pinned.size(),
                actual: end,
                more: true,
            });
        }
        if end > self.reserved {
            self.reserve(&path)?;
        }
        // At its place, not where the last write ended: of one that failed some bytes may be there.
        sys::write_at(self.file(), bytes, self.len, &path)?;
        self.hasher.update(bytes);
        self.len = end;
        if self.len - self.written_back >= WRITEBACK {
            let (start, len) = (self.written_back, self.len - self.written_back);
            sys::start_writeback(self.file(), start, len, &path)?;
            self.written_back = self.len;
        }
        Ok(())
    }

    fn reserve(&mut self, path: &std::path::Path) -> Result<()> {
        let missing = self.pinned.size() - self.reserved;
        let available = Filesystem::available(self.layout.root.path()).ok();
        if available.is_some_and(|available| available < missing) {
            return Err(Error::NoSpace {
                action: "download to",
                path: path.to_path_buf(),
                needed: Some(missing),
                available,
            });
        }
        let step = missing.min(STEP);
        sys::preallocate(self.file(), self.reserved, step, path)?;
        self.reserved += step;
        Ok(())
    }

    /// Empties the part, to begin from its first byte.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<()> {
        let path = self.path();
        sys::empty(self.file()).context("empty", &path)?;
        *self.hasher = self.pinned.digest().algorithm().hasher();
        (self.len, self.written_back, self.reserved) = (0, 0, 0);
        Ok(())
    }

    /// Checks length and digest and puts the blob in place. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::SizeMismatch`] if bytes are missing; the part stays. [`Error::DigestMismatch`] or
    /// [`Error::NotDurable`]: the part is gone, for it can never become the blob.
    pub fn commit(self) -> Result<()> {
        let (layout, algorithm) = (self.layout.clone(), self.pinned.digest().algorithm());
        self.commit_unsynced()?;
        layout.make_algorithm(algorithm)?.sync()
    }

    /// As [`commit`](Part::commit), but the name is durable only after a sync of its directory,
    /// which a pull does once for all its blobs.
    pub(crate) fn commit_unsynced(self) -> Result<()> {
        let (expected, size) = (*self.pinned.digest(), self.pinned.size());
        let origin = || format!("the download of {expected}");
        if self.len != size {
            let (expected, actual) = (size, self.len);
            return Err(Error::SizeMismatch { origin: origin(), expected, actual, more: false });
        }
        let actual = self.hasher.clone().finish();
        if actual != expected {
            self.discard()?;
            let actual = Box::new(actual);
            return Err(Error::DigestMismatch { origin: origin(), expected, actual });
        }
        let dir = self.layout.make_algorithm(expected.algorithm())?.clone();
        let path = self.path();
        match self.storage {
            Storage::Private(aside) => place_aside(aside, &dir, &expected, size),
            Storage::Named { file, name, lock_name, _lock } => {
                let parts = &self.layout.parts;
                sys::set_mode(&file, BLOB_MODE, &path)?;
                if let Err(error) = sys::sync_data(&file, &path) {
                    parts.unlink(&name)?;
                    return Err(error);
                }
                let hex = expected.hex();
                if !parts.rename_new(&name, &dir, &hex)? {
                    match dir.meta(&hex)? {
                        Some(meta) if meta.is_file && meta.len == size => {
                            parts.unlink(&name)?;
                        }
                        // What has the name is not the blob: it is healed.
                        _ => parts.rename(&name, &dir, &hex)?,
                    }
                }
                parts.unlink(&lock_name)?;
                Ok(())
            }
        }
    }

    /// Removes the part.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn discard(self) -> Result<()> {
        if let Storage::Named { name, lock_name, .. } = &self.storage {
            self.layout.parts.unlink(name)?;
            self.layout.parts.unlink(lock_name)?;
        }
        Ok(())
    }

    fn file(&self) -> &File {
        match &self.storage {
            Storage::Named { file, .. } => file,
            Storage::Private(aside) => aside.file(),
        }
    }

    fn path(&self) -> PathBuf {
        match &self.storage {
            Storage::Named { name, .. } => self.layout.parts.path_of(name),
            Storage::Private(aside) => aside.path(),
        }
    }
}
