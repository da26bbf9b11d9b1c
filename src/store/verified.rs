//! Reading a blob so that no byte is given out that is not the blob's.

use std::fs::File;
use std::io;

use super::groups::{self, GROUP, RECORD, Record};
use super::outboard::{BlobHasher, Outboard, Outboards, SMALL_BLOB};
use super::suspect::Suspects;
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sys;

/// How many records are read at once: those of one MiB of the blob.
const RECORDS: usize = 64;
/// What is read and compared at once, in bytes: little enough to be in the cache still.
const SLICE: usize = 256 * 1024;
/// How much is read ahead for somebody who reads small pieces one after the other.
const AHEAD: usize = 4 * GROUP;
/// The whole of a blob is read in pieces of this size.
const PIECE: usize = 1024 * 1024;

/// What compares the bytes of one open blob.
#[derive(Debug, Default)]
pub(super) struct Guard {
    against: Against,
    /// Records, the first of them that of group `first`.
    records: Vec<Record>,
    first: u64,
    /// Bytes that were compared, from `start` on.
    window: Vec<u8>,
    start: u64,
}

/// What the bytes are compared with.
#[derive(Debug, Default)]
enum Against {
    /// Nothing was read yet.
    #[default]
    Unasked,
    /// Nothing: it is not wanted, or nothing can be kept here, and the whole was compared once.
    Nothing,
    /// The digest: the blob is small, and all of it is in the window.
    Digest,
    /// The hashes of its groups.
    Groups(Outboard),
}

/// The blob that is read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    pub(super) digest: &'a Digest,
    pub(super) len: u64,
    pub(super) outboards: &'a Outboards,
    pub(super) suspects: &'a Suspects,
}

impl Guard {
    /// Fills the buffer from `offset` on, as far as is convenient; 0 only at the end.
    pub(super) fn read(&mut self, of: Source<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = of.len.saturating_sub(offset);
        // No more than the buffer's length, which is a usize.
        let wanted = left.min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        if matches!(self.against, Against::Unasked) {
            self.ask(of)?;
        }
        if matches!(self.against, Against::Nothing) {
            of.read_exact(&mut buffer[..wanted], offset)?;
            return Ok(wanted);
        }
        if let Some(read) = self.take_from_window(&mut buffer[..wanted], offset) {
            return Ok(read);
        }
        let to_end = wanted as u64 == left;
        let whole = if to_end { wanted } else { wanted / GROUP * GROUP };
        if offset.is_multiple_of(GROUP as u64) && whole > 0 {
            let mut done = 0;
            for slice in buffer[..whole].chunks_mut(SLICE) {
                self.compared(of, slice, offset + done)?;
                done += slice.len() as u64;
            }
            return Ok(whole);
        }
        self.fill_window(of, offset)?;
        Ok(self.take_from_window(&mut buffer[..wanted], offset).unwrap_or(0))
    }

    fn take_from_window(&self, buffer: &mut [u8], offset: u64) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let there = self.window.get(at..).filter(|there| !there.is_empty())?;
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        Some(count)
    }

    /// Reads the group at `offset` into the window, and more of them for who reads on and on.
    fn fill_window(&mut self, of: Source<'_>, offset: u64) -> Result<()> {
        let start = offset / GROUP as u64 * GROUP as u64;
        let is_next = start == self.start + self.window.len() as u64;
        let room = if is_next { AHEAD } else { GROUP };
        let mut window = std::mem::take(&mut self.window);
        window.resize((of.len - start).min(room as u64) as usize, 0);
        self.compared(of, &mut window, start)?;
        (self.window, self.start) = (window, start);
        Ok(())
    }

    /// Finds out what there is to compare with.
    fn ask(&mut self, of: Source<'_>) -> Result<()> {
        self.against = if !of.outboards.are_on() {
            Against::Nothing
        } else if of.len <= SMALL_BLOB {
            // At most 64 KiB.
            let mut window = vec![0; of.len as usize];
            of.read_exact(&mut window, 0)?;
            of.is_digest(of.digest.algorithm().digest(&window))?;
            (self.window, self.start) = (window, 0);
            Against::Digest
        } else {
            match of.outboards.open(of.digest, of.len) {
                Some(outboard) => Against::Groups(outboard),
                None => of.renew()?,
            }
        };
        Ok(())
    }

    /// Reads whole groups and compares them. After an error the buffer has no byte that is wrong.
    fn compared(&mut self, of: Source<'_>, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.compare_or_renew(of, buffer, offset).inspect_err(|_| buffer.fill(0))
    }

    fn compare_or_renew(&mut self, of: Source<'_>, buffer: &mut [u8], offset: u64) -> Result<()> {
        let Some(bad) = self.first_bad(of, buffer, offset)? else {
            return Ok(());
        };
        // The hashes may be what is wrong: they are derived, and nothing syncs them.
        self.against = of.renew().map_err(|error| match error {
            Error::DigestMismatch { .. } => of.corrupt(bad),
            other => other,
        })?;
        self.records.clear();
        // The blob is whole on disk, then. If it is not here, something between is at fault.
        self.first_bad(of, buffer, offset)?.map_or(Ok(()), |bad| Err(of.corrupt(bad)))
    }

    /// Reads whole groups; the number of the first that is not what it was, if there is one.
    fn first_bad(&mut self, of: Source<'_>, buffer: &mut [u8], offset: u64) -> Result<Option<u64>> {
        let first = offset / GROUP as u64;
        match of.read_exact(buffer, offset) {
            // Shorter than when it was opened.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Some(first));
            }
            read => read?,
        }
        if let Against::Groups(outboard) = &self.against {
            let records = &mut self.records;
            for (n, group) in (first..).zip(buffer.chunks(GROUP)) {
                let record = Self::record(outboard, records, &mut self.first, of.len, n);
                if record.is_none_or(|record| groups::sum(group) != *groups::sum_of(record)) {
                    return Ok(Some(n));
                }
            }
        }
        Ok(None)
    }

    /// What is kept of the `n`th group; `None` where it cannot be read.
    fn record<'a>(
        outboard: &Outboard,
        records: &'a mut Vec<Record>,
        first: &mut u64,
        len: u64,
        n: u64,
    ) -> Option<&'a Record> {
        if !(*first..*first + records.len() as u64).contains(&n) {
            let rest = len.div_ceil(GROUP as u64).saturating_sub(n);
            records.clear();
            // At most RECORDS, which is a usize.
            records.resize(rest.min(RECORDS as u64) as usize, [0; RECORD]);
            *first = n;
            if let Err(error) = outboard.read(n, records) {
                tracing::debug!(%error, "the group hashes cannot be read");
                records.clear();
            }
        }
        records.get((n - *first) as usize)
    }
}

impl Source<'_> {
    fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let what = || format!("the blob {} from byte {offset} on", self.digest);
        sys::read_at(self.file, buffer, offset).or_else(|error| Err(error).context("read", what()))
    }

    /// Compares the whole with its digest, and keeps the hashes of its groups.
    fn renew(&self) -> Result<Against> {
        let mut hasher = BlobHasher::new(self.digest.algorithm(), self.outboards);
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        loop {
            let read = sys::read_some_at(self.file, &mut buffer, at);
            let read = read.context("read", format!("the blob {}", self.digest))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
        self.is_digest(hasher.digest())?;
        // If they cannot be kept, as on a full disk, what is there may be what was wrong: the whole was
        // compared once, and that has to do.
        let kept = hasher.keep(self.digest).then(|| self.outboards.open(self.digest, self.len));
        Ok(kept.flatten().map_or(Against::Nothing, Against::Groups))
    }

    fn is_digest(&self, actual: Digest) -> Result<()> {
        if actual == *self.digest {
            return Ok(());
        }
        self.suspects.mark(self.digest, self.file);
        let (origin, actual) = (format!("the stored blob {}", self.digest), Box::new(actual));
        Err(Error::DigestMismatch { origin, expected: *self.digest, actual })
    }

    fn corrupt(&self, group: u64) -> Error {
        Error::CorruptBlob { digest: *self.digest, offset: group * GROUP as u64 }
    }
}
