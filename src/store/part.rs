use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ingest::{place_aside, seal};
use super::layout::Layout;
use super::lease::Pinned;
use super::outboard::BlobHasher;
use super::part_names::PartNames;
use super::part_state::{self, Account, PartState, Version};
use super::pieces;
use super::pulse::{Beats, Pulse};
use super::ranges::Ranges;
use super::seed;
use crate::error::{Error, IoContext, Result};
use crate::sys::{self, Aside, Filesystem, Lock};

/// Write-back of a part is started in pieces of this size, so that the sync at its end is short.
const WRITEBACK: u64 = 8 * 1024 * 1024;
/// Space is set aside in steps of this size: the declared size of a blob is a stranger's word.
const STEP: u64 = 128 * 1024 * 1024;

/// Bytes are read back in pieces of this size.
pub(super) const PIECE: u64 = 1024 * 1024;
/// After so many bytes it is written down which are there: what a killed download may lose.
const NOTE: u64 = 4 * 1024 * 1024;
/// After so long too, so that those who wait see it grow.
const NOTE_TIME: Duration = Duration::from_secs(5);

/// A download under way: the bytes so far of a blob whose digest and size are known.
///
/// It is held by one process at a time. Dropped, or left by a process that died, it stays on disk,
/// and whoever claims the blob next goes on from there.
#[derive(Debug)]
pub struct Part {
    layout: Arc<Layout>,
    pinned: Pinned,
    storage: Storage,
    /// Boxed for its size.
    hasher: Box<BlobHasher>,
    /// Which bytes are there.
    ranges: Ranges,
    /// Up to where they are hashed.
    hashed: u64,
    /// The account of them, once it is needed. Boxed for its size.
    state: Option<Box<PartState>>,
    /// How many bytes came since it was written down last.
    unnoted: u64,
    /// When that was.
    noted: Instant,
    /// The versions of the blob that are written down.
    versions: Vec<Version>,
    /// Up to where write-back was started.
    written_back: u64,
    /// Up to where space was set aside.
    reserved: u64,
}

#[derive(Debug)]
pub(crate) enum Storage {
    /// `parts/ALG-HEX.part`, under the lock of its `.lock`.
    Named { file: File, names: Box<PartNames>, _lock: Lock },
    /// A file of nobody else's, for when the part's holder has stopped moving.
    Private(Aside),
}

impl Part {
    /// A part that nobody else sees, for a blob whose part is held by a process that has stopped.
    pub(crate) fn private(layout: &Arc<Layout>, pinned: &Pinned) -> Result<Part> {
        let dir = layout.make_algorithm(pinned.digest().algorithm())?;
        Ok(Part::new(layout, pinned, Storage::Private(Aside::new(dir)?)))
    }

    /// Takes over what an earlier holder wrote. An error of its writes that the kernel has not
    /// reported yet is reported to the sync of this holder's commit (`docs/protocol.md`).
    pub(crate) fn adopt(layout: &Arc<Layout>, pinned: &Pinned, storage: Storage) -> Result<Part> {
        let mut part = Part::new(layout, pinned, storage);
        let path = part.path();
        let found = sys::Meta::of(part.file()).context("look at", &path)?;
        let noted = match &part.storage {
            Storage::Named { names, .. } => part_state::read(&layout.parts, &names.state)?,
            Storage::Private(_) => Account::default(),
        };
        part.versions = noted.versions;
        part.ranges = match noted.ranges {
            // Whatever it says, there are no bytes beyond the end of the file.
            Some(noted) => {
                part.keep_state()?;
                noted.within(found.len)
            }
            None => Ranges::prefix(found.len),
        };
        // The space that an earlier holder set aside is still this file's.
        part.reserved = part.first_gap().max(found.disk.min(pinned.size()));
        part.written_back = found.len;
        // Of a restart that was broken off the account may say more than is there: what is written
        // now must not make it true.
        part.note()?;
        part.catch_up(u64::MAX)?;
        Ok(part)
    }

    fn new(layout: &Arc<Layout>, pinned: &Pinned, storage: Storage) -> Part {
        Part {
            layout: layout.clone(),
            pinned: pinned.clone(),
            storage,
            state: None,
            hasher: Box::new(BlobHasher::new(pinned.digest().algorithm(), &layout.outboards)),
            ranges: Ranges::default(),
            hashed: 0,
            unnoted: 0,
            noted: Instant::now(),
            versions: Vec::new(),
            written_back: 0,
            reserved: 0,
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.ranges.total()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which bytes are missing, in order.
    pub fn missing(&self) -> Vec<Range<u64>> {
        self.ranges.missing(0..self.pinned.size())
    }

    /// Which versions of the blob the bytes are of, as far as that was written down.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Writes down that bytes of this version come.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn note_version(&mut self, version: &Version) -> Result<()> {
        if self.versions.contains(version) {
            return Ok(());
        }
        self.versions.push(version.clone());
        match &self.storage {
            Storage::Named { names, .. } => {
                part_state::note_version(&self.layout.parts, &names.state, version)
            }
            Storage::Private(_) => Ok(()),
        }
    }

    fn first_gap(&self) -> u64 {
        self.ranges.end_from(0)
    }

    /// Appends the next bytes, at the first place where any are missing.
    ///
    /// # Errors
    ///
    /// As of [`write_at`](Part::write_at).
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_at(self.first_gap(), bytes)
    }

    /// Puts bytes in their place. Of those that are there already nothing is written: a byte that
    /// was hashed never changes.
    ///
    /// # Errors
    ///
    /// [`Error::SizeMismatch`] if they reach beyond the blob's size, and then nothing is written;
    /// [`Error::NoSpace`], after which the part is as it was before or longer, and can be resumed;
    /// [`Error::NotDurable`], after which it must be discarded.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        for new in self.place(offset, &[bytes])? {
            // At most one is next: behind it lies what was there already.
            if new.start == self.hashed {
                // Both lie within `bytes`, whose length is a usize.
                self.hash(&bytes[(new.start - offset) as usize..(new.end - offset) as usize]);
            }
        }
        Ok(())
    }

    /// Puts bytes, which lie in pieces one after the other, in their place, and hashes nothing. The
    /// ranges that were not there before.
    ///
    /// # Errors
    ///
    /// As of [`write_at`](Part::write_at).
    pub(crate) fn place(&mut self, offset: u64, pieces: &[&[u8]]) -> Result<Vec<Range<u64>>> {
        let end = offset.saturating_add(pieces::len(pieces));
        if end > self.pinned.size() {
            return Err(Error::SizeMismatch {
                origin: format!("the download of {}", self.pinned.digest()),
                expected: self.pinned.size(),
                actual: end,
                more: true,
            });
        }
        let missing = self.ranges.missing(offset..end);
        for Range { start, end } in &missing {
            let new = pieces::cut(pieces, start - offset..end - offset);
            self.write_missing(*start..*end, &new)?;
        }
        Ok(missing)
    }

    /// Up to where the bytes are hashed.
    pub(crate) fn hashed(&self) -> u64 {
        self.hashed
    }

    /// Hashes the next bytes, which are in their place.
    pub(crate) fn hash(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.hashed += bytes.len() as u64;
    }

    /// As [`hash`](Part::hash), for two parts, which together take less time than one by one.
    pub(crate) fn hash_both(parts: [&mut Part; 2], bytes: [&[u8]; 2]) {
        let [one, other] = parts;
        BlobHasher::update_both([&mut one.hasher, &mut other.hasher], bytes);
        one.hashed += bytes[0].len() as u64;
        other.hashed += bytes[1].len() as u64;
    }

    fn write_missing(&mut self, place: Range<u64>, pieces: &[&[u8]]) -> Result<()> {
        let path = self.path();
        if place.end > self.reserved {
            self.reserve(place.end, &path)?;
        }
        // Before anything is written beyond a gap: without an account, the whole length counts.
        if place.start != self.first_gap() && self.state.is_none() {
            self.keep_state()?;
            self.note()?;
        }
        sys::write_pieces_at(self.file(), pieces, place.start, &path)
            .map_err(|error| self.with_numbers(error))?;
        self.unnoted += place.end - place.start;
        self.ranges.insert(place);
        if self.unnoted >= NOTE || self.noted.elapsed() >= NOTE_TIME {
            self.note()?;
        }
        let end = self.first_gap();
        if end.saturating_sub(self.written_back) >= WRITEBACK {
            let (start, len) = (self.written_back, end - self.written_back);
            sys::start_writeback(self.file(), start, len, &path)?;
            self.written_back = end;
        }
        Ok(())
    }

    /// Hashes at most `limit` of the bytes that lie, already written, behind those that are hashed.
    /// They are read back; bytes that come in order are hashed as they come.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn catch_up(&mut self, limit: u64) -> Result<()> {
        let end = self.ranges.end_from(self.hashed).min(self.hashed.saturating_add(limit));
        if end == self.hashed {
            return Ok(());
        }
        let (path, mut beats) = (self.path(), Beats::new(self.pulse()));
        // No more than a piece, whatever is missing.
        let mut buffer = vec![0; (end - self.hashed).min(PIECE) as usize];
        while self.hashed < end {
            let piece = &mut buffer[..(end - self.hashed).min(PIECE) as usize];
            sys::read_at(self.file(), piece, self.hashed).context("read", &path)?;
            self.hasher.update(piece);
            self.hashed += piece.len() as u64;
            beats.tick();
        }
        Ok(())
    }

    /// Writes down what is there, where an account is kept.
    pub(super) fn note(&mut self) -> Result<()> {
        (self.unnoted, self.noted) = (0, Instant::now());
        match &mut self.state {
            Some(state) => state.note(&self.ranges),
            None => Ok(()),
        }
    }

    fn keep_state(&mut self) -> Result<()> {
        if let Storage::Named { names, .. } = &self.storage {
            self.state = Some(Box::new(PartState::open(&self.layout.parts, &names.state)?));
        }
        Ok(())
    }

    /// Where space cannot be set aside, only a write meets the full disk, and does not know how much more is
    /// to come.
    fn with_numbers(&self, error: Error) -> Error {
        match error {
            Error::NoSpace { action, path, needed: None, .. } => {
                let needed = Some(self.pinned.size().saturating_sub(self.len()));
                let available = Filesystem::available(self.layout.root.path()).ok();
                Error::NoSpace { action, path, needed, available }
            }
            other => other,
        }
    }

    /// Sets space aside up to `end` at least.
    fn reserve(&mut self, end: u64, path: &std::path::Path) -> Result<()> {
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
        let step = missing.min(STEP.max(end - self.reserved));
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
        if let Storage::Named { names, .. } = &self.storage {
            self.layout.parts.unlink(&names.state)?;
        }
        self.state = None;
        self.versions.clear();
        self.ranges = Ranges::default();
        *self.hasher = BlobHasher::new(self.pinned.digest().algorithm(), &self.layout.outboards);
        (self.hashed, self.unnoted, self.written_back, self.reserved) = (0, 0, 0, 0);
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
        layout.sync_names(algorithm)
    }

    /// As [`commit`](Part::commit), but the name is durable only after a sync of its directory,
    /// which a pull does once for all its blobs.
    pub(crate) fn commit_unsynced(mut self) -> Result<()> {
        self.catch_up(u64::MAX)?;
        let (expected, size) = (*self.pinned.digest(), self.pinned.size());
        let origin = || format!("the download of {expected}");
        if self.hashed != size {
            let (expected, actual) = (size, self.len());
            return Err(Error::SizeMismatch { origin: origin(), expected, actual, more: false });
        }
        let actual = self.hasher.digest();
        if actual != expected {
            seed::forget_wrong_hashes(&self.layout, self.file(), &expected, size);
            self.discard()?;
            let actual = Box::new(actual);
            return Err(Error::DigestMismatch { origin: origin(), expected, actual });
        }
        let dir = self.layout.make_algorithm(expected.algorithm())?.clone();
        let path = self.path();
        match self.storage {
            Storage::Private(aside) => place_aside(&self.layout, aside, &expected, size)?,
            Storage::Named { file, names, _lock } => {
                let parts = &self.layout.parts;
                // Before the sync: from here on whoever takes the part over after a kill knows that
                // it may have failed, and does not sync this file again.
                seal(&file, &path)?;
                if let Err(error) = sys::sync_data(&file, &path) {
                    parts.unlink(&names.part)?;
                    return Err(error);
                }
                let hex = expected.hex();
                if !parts.rename_new(&names.part, &dir, &hex)? {
                    match self.layout.has_own_blob(&expected, size)? {
                        true => {
                            parts.unlink(&names.part)?;
                        }
                        // What has the name is not the blob, or may not be on disk.
                        false => parts.rename(&names.part, &dir, &hex)?,
                    }
                }
                self.layout.suspects.clear(&expected)?;
                names.unlink(&self.layout)?;
            }
        }
        self.hasher.keep(&expected);
        Ok(())
    }

    /// Something that can say, while a thread has the part, that its holder is alive. There is none
    /// for a part that nobody waits for.
    pub fn pulse(&self) -> Option<Pulse> {
        match &self.storage {
            Storage::Named { names, .. } => Some(Pulse::new(&self.layout, &names.lock)),
            Storage::Private(_) => None,
        }
    }

    /// Removes the part.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn discard(self) -> Result<()> {
        match &self.storage {
            Storage::Named { names, .. } => names.unlink(&self.layout),
            Storage::Private(_) => Ok(()),
        }
    }

    fn file(&self) -> &File {
        match &self.storage {
            Storage::Named { file, .. } => file,
            Storage::Private(aside) => aside.file(),
        }
    }

    fn path(&self) -> PathBuf {
        match &self.storage {
            Storage::Named { names, .. } => self.layout.parts.path_of(&names.part),
            Storage::Private(aside) => aside.path(),
        }
    }
}
