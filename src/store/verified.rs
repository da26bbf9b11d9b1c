//! Reading a blob so that no byte is given out that is not the blob's.

use std::fs::File;
use std::io;

use super::groups::{self, PAGE};
use super::outboard::{BlobHasher, Outboards, SMALL_BLOB};
use super::sums::Sums;
use super::suspect::Suspects;
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sys;

/// What is read and compared at once, in bytes: little enough to be in the cache still.
const SLICE: usize = 256 * 1024;
/// How much is read ahead for somebody who reads small pieces one after the other, and how much at
/// most where a read does not begin with a page.
const AHEAD: usize = 64 * 1024;
/// Up to this length, in bytes, a piece is small: one call for several outweighs that they are copied.
const SMALL: usize = 16 * 1024;
/// The whole of a blob is read in pieces of this size.
const PIECE: usize = 1024 * 1024;

/// What compares the bytes of one open blob.
#[derive(Debug, Default)]
pub(super) struct Guard {
    against: Against,
    /// Bytes that were compared, from `start` on.
    window: Vec<u8>,
    start: u64,
    /// Where the last read ended.
    next: u64,
    /// The page in whose middle a read begins.
    edge: Vec<u8>,
}

/// What the bytes are compared with.
#[derive(Debug, Default)]
enum Against {
    /// Nothing was read yet.
    #[default]
    Unasked,
    /// Nothing: it is not wanted.
    Nothing,
    /// The digest: the blob is small, and all of it is in the window.
    Digest,
    /// The sums of its pages.
    Sums(Sums),
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
        let read = self.read_from(of, buffer, offset)?;
        self.next = offset + read as u64;
        Ok(read)
    }

    fn read_from(&mut self, of: Source<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = of.len.saturating_sub(offset);
        // No more than the buffer's length, which is a usize.
        let wanted = left.min(buffer.len() as u64) as usize;
        if buffer.is_empty() {
            return Ok(0);
        }
        // That it ends here is something to compare too.
        if matches!(self.against, Against::Unasked) {
            self.ask(of)?;
        }
        if wanted == 0 {
            return Ok(0);
        }
        if matches!(self.against, Against::Nothing) {
            of.read_exact(&mut [&mut buffer[..wanted]], offset)?;
            return Ok(wanted);
        }
        if let Some(read) = self.take_from_window(&mut buffer[..wanted], offset) {
            return Ok(read);
        }
        let to_end = wanted as u64 == left;
        let reads_on = offset == self.next;
        // Less than a page.
        let before = (offset.next_multiple_of(PAGE as u64) - offset) as usize;
        let has_page = wanted >= before + PAGE || to_end && wanted > before;
        if has_page && !(reads_on && wanted <= SMALL) {
            self.read_pages(of, &mut buffer[..wanted], offset, to_end)?;
            return Ok(wanted);
        }
        let ahead = if reads_on { AHEAD } else { 0 };
        self.fill_window(of, offset, wanted.min(AHEAD).max(ahead))?;
        Ok(self.take_from_window(&mut buffer[..wanted], offset).unwrap_or(0))
    }

    fn take_from_window(&self, buffer: &mut [u8], offset: u64) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let there = self.window.get(at..).filter(|there| !there.is_empty())?;
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        Some(count)
    }

    /// Reads the pages into the window that have these bytes, as far as they are good.
    fn fill_window(&mut self, of: Source<'_>, offset: u64, len: usize) -> Result<()> {
        let start = offset / PAGE as u64 * PAGE as u64;
        // Less than a page.
        let before = (offset - start) as usize;
        let room = (before + len).next_multiple_of(PAGE);
        let mut window = std::mem::take(&mut self.window);
        window.resize((of.len - start).min(room as u64) as usize, 0);
        match self.first_bad(of, &mut [&mut window], start)? {
            None => {}
            // What nobody has asked for yet is no reason to fail.
            Some(bad) if bad * PAGE as u64 > offset => {
                window.truncate((bad * PAGE as u64 - start) as usize);
            }
            Some(_) => self.compared(of, &mut [&mut window], start)?,
        }
        (self.window, self.start) = (window, start);
        Ok(())
    }

    /// Fills the buffer, in which one page at least is whole: those that are go straight there, and what
    /// it has of the pages before and after them by way of a page aside, with the same call.
    fn read_pages(
        &mut self,
        of: Source<'_>,
        buffer: &mut [u8],
        offset: u64,
        to_end: bool,
    ) -> Result<()> {
        // Less than a page.
        let before = (offset.next_multiple_of(PAGE as u64) - offset) as usize;
        let (first, rest) = buffer.split_at_mut(before);
        let whole = if to_end { rest.len() } else { rest.len() / PAGE * PAGE };
        let (pages, last) = rest.split_at_mut(whole);
        let (mut edge, mut window) =
            (std::mem::take(&mut self.edge), std::mem::take(&mut self.window));
        edge.resize(if before > 0 { PAGE } else { 0 }, 0);
        let end = offset + (before + whole) as u64;
        let after = if last.is_empty() { 0 } else { (of.len - end).min(PAGE as u64) as usize };
        window.resize(after, 0);
        let mut at = offset - offset % PAGE as u64;
        let mut slices = pages.chunks_mut(SLICE).peekable();
        let mut head = &mut edge[..];
        while let Some(slice) = slices.next() {
            let tail = if slices.peek().is_none() { &mut window[..] } else { &mut [] };
            let mut pieces = [std::mem::take(&mut head), slice, tail];
            self.compared(of, &mut pieces, at)?;
            at += pieces[..2].iter().map(|piece| piece.len() as u64).sum::<u64>();
        }
        first.copy_from_slice(&edge[edge.len() - before..]);
        last.copy_from_slice(&window[..last.len()]);
        (self.window, self.start, self.edge) = (window, end, edge);
        Ok(())
    }

    /// Finds out what there is to compare with.
    fn ask(&mut self, of: Source<'_>) -> Result<()> {
        self.against = if !of.outboards.are_on() {
            Against::Nothing
        } else if of.len <= SMALL_BLOB {
            // At most 64 KiB.
            let mut window = vec![0; of.len as usize];
            of.read_exact(&mut [&mut window], 0)?;
            of.is_digest(of.digest.algorithm().digest(&window))?;
            (self.window, self.start) = (window, 0);
            Against::Digest
        } else {
            match of.outboards.open(of.digest, of.len) {
                Some(outboard) => Against::Sums(Sums::new(outboard, of.len)),
                None => of.renew()?,
            }
        };
        Ok(())
    }

    /// Reads pieces of whole pages and compares them. After an error they have no byte that is wrong.
    fn compared(&mut self, of: Source<'_>, pieces: &mut [&mut [u8]], offset: u64) -> Result<()> {
        let outcome = self.compare_or_renew(of, pieces, offset);
        if outcome.is_err() {
            pieces.iter_mut().for_each(|piece| piece.fill(0));
        }
        outcome
    }

    fn compare_or_renew(
        &mut self,
        of: Source<'_>,
        pieces: &mut [&mut [u8]],
        offset: u64,
    ) -> Result<()> {
        let Some(bad) = self.first_bad(of, pieces, offset)? else {
            return Ok(());
        };
        // The sums may be what is wrong: they are derived, and nothing syncs them.
        self.against = of.renew().map_err(|error| match error {
            Error::DigestMismatch { .. } => of.corrupt(bad),
            other => other,
        })?;
        // The blob is whole on disk, then. If it is not here, something between is at fault.
        self.first_bad(of, pieces, offset)?.map_or(Ok(()), |bad| Err(of.corrupt(bad)))
    }

    /// Reads whole pages; the number of the first that is not what it was, if there is one.
    fn first_bad(
        &mut self,
        of: Source<'_>,
        pieces: &mut [&mut [u8]],
        offset: u64,
    ) -> Result<Option<u64>> {
        let mut n = offset / PAGE as u64;
        match of.read_exact(pieces, offset) {
            // Shorter than when it was opened.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Some(n));
            }
            read => read?,
        }
        let Against::Sums(sums) = &mut self.against else {
            return Ok(None);
        };
        for piece in pieces {
            let mut pages = piece.chunks(PAGE).peekable();
            while pages.peek().is_some() {
                let kept = sums.from(n);
                if kept.is_empty() {
                    return Ok(Some(n));
                }
                for (kept, page) in kept.iter().zip(&mut pages) {
                    if groups::sum(page) != *kept {
                        return Ok(Some(n));
                    }
                    n += 1;
                }
            }
        }
        Ok(None)
    }
}

impl Source<'_> {
    fn read_exact(&self, pieces: &mut [&mut [u8]], offset: u64) -> Result<()> {
        let what = || format!("the blob {} from byte {offset} on", self.digest);
        let read = match pieces {
            [piece] | [[], piece, []] => sys::read_at(self.file, piece, offset),
            pieces => sys::read_pieces_at(self.file, pieces, offset),
        };
        read.inspect_err(|error| self.suspects.mark_unread(self.digest, self.file, error))
            .or_else(|error| Err(error).context("read", what()))
    }

    /// Compares the whole with its digest, and keeps the hashes of its groups. Where they cannot be kept, as on
    /// a full disk, the sums of its pages stay in memory.
    fn renew(&self) -> Result<Against> {
        let mut hasher = BlobHasher::new(self.digest.algorithm(), self.outboards);
        self.read_whole(|bytes| hasher.update(bytes))?;
        self.is_digest(hasher.digest())?;
        // What is there may be what was wrong, if it is not what was kept now.
        let kept = hasher.keep(self.digest).then(|| self.outboards.open(self.digest, self.len));
        if let Some(outboard) = kept.flatten() {
            return Ok(Against::Sums(Sums::new(outboard, self.len)));
        }
        let (mut hasher, mut sums) = (self.digest.algorithm().hasher(), Vec::new());
        self.read_whole(|bytes| {
            hasher.update(bytes);
            sums.extend(bytes.chunks(PAGE).map(groups::sum));
        })?;
        self.is_digest(hasher.finish())?;
        Ok(Against::Sums(Sums::in_memory(&sums)))
    }

    /// Gives out the whole blob, in pieces of which all but the last are of whole pages.
    fn read_whole(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        loop {
            let read = self.suspects.fill(self.digest, self.file, &mut buffer, at)?;
            take(&buffer[..read]);
            at += read as u64;
            if read < PIECE {
                return Ok(());
            }
        }
    }

    fn is_digest(&self, actual: Digest) -> Result<()> {
        if actual == *self.digest {
            return Ok(());
        }
        self.suspects.mark(self.digest, self.file);
        let (origin, actual) = (format!("the stored blob {}", self.digest), Box::new(actual));
        Err(Error::DigestMismatch { origin, expected: *self.digest, actual })
    }

    fn corrupt(&self, page: u64) -> Error {
        Error::CorruptBlob { digest: *self.digest, offset: page * PAGE as u64 }
    }
}
