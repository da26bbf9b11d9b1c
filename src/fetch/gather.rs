//! What comes over a connection, until it is worth being handed to the writing thread.

use std::time::{Duration, Instant};

use bytes::Bytes;

/// Bytes are handed over in batches of about this size: two reads of a fast connection, for whom
/// handing over takes longer than reading.
const BATCH: usize = 512 * 1024;
/// And they end where the kernel's pages do, by many of them: of what begins in the midst of a page it
/// makes small ones.
const ALIGNED: u64 = 128 * 1024;
/// Nothing waits longer than this, however slowly it comes: it is lost where the process is killed.
const LONGEST: Duration = Duration::from_millis(250);

/// Chunks as they come, one after the other.
pub(super) struct Gather {
    offset: u64,
    chunks: Vec<Bytes>,
    len: usize,
    /// Since when the first of them waits.
    since: Instant,
}

/// What is handed over, and its place in the blob.
pub(super) struct Gathered {
    pub(super) offset: u64,
    pub(super) chunks: Vec<Bytes>,
    pub(super) len: usize,
}

impl Gather {
    pub(super) fn at(offset: u64) -> Gather {
        Gather { offset, chunks: Vec::new(), len: 0, since: Instant::now() }
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.chunks.is_empty() {
            self.since = Instant::now();
        }
        self.len += chunk.len();
        self.chunks.push(chunk);
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.len as u64
    }

    /// How long it may wait for more.
    pub(super) fn patience(&self) -> Duration {
        match self.chunks.is_empty() {
            true => Duration::MAX,
            false => LONGEST.saturating_sub(self.since.elapsed()),
        }
    }

    /// What is worth being handed over, if anything is.
    pub(super) fn take_due(&mut self) -> Gathered {
        if self.len >= BATCH {
            self.take(ALIGNED)
        } else if self.patience().is_zero() {
            self.take_all()
        } else {
            Gathered { offset: self.offset, chunks: Vec::new(), len: 0 }
        }
    }

    pub(super) fn take_all(&mut self) -> Gathered {
        self.take(1)
    }

    /// What lies before the last multiple of `aligned`, if that is in the last chunk, else all.
    fn take(&mut self, aligned: u64) -> Gathered {
        let beyond = usize::try_from(self.end() % aligned).unwrap_or(0);
        let rest = match self.chunks.last_mut() {
            Some(last) if beyond < last.len() => last.split_off(last.len() - beyond),
            _ => Bytes::new(),
        };
        let (offset, len) = (self.offset, self.len - rest.len());
        let chunks = std::mem::take(&mut self.chunks);
        *self = Gather::at(offset + len as u64);
        self.push(rest);
        Gathered { offset, chunks, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_ends_at_a_multiple_where_that_is_in_the_last_chunk() {
        let mut batch = Gather::at(100);
        let taken = |batch: &mut Gather, aligned| {
            let Gathered { offset, chunks, len } = batch.take(aligned);
            assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), len);
            assert_eq!(batch.offset, offset + len as u64);
            (offset, len)
        };
        batch.push(Bytes::from(vec![1; 1000]));
        assert_eq!(taken(&mut batch, 512), (100, 924), "up to 1024");
        assert_eq!(batch.end(), 1100);
        batch.push(Bytes::from(vec![2; 10]));
        assert_eq!(taken(&mut batch, 1024), (1024, 86), "the last chunk has no such place");
        batch.push(Bytes::from(vec![3; 2000]));
        assert_eq!(taken(&mut batch, 1), (1110, 2000), "the rest");
        assert_eq!(taken(&mut batch, 512), (3110, 0));
    }

    #[test]
    fn what_has_waited_is_due_however_little_it_is() {
        let mut batch = Gather::at(0);
        assert_eq!((batch.patience(), batch.take_due().len), (Duration::MAX, 0));
        batch.push(Bytes::from(vec![1; 10]));
        assert!(batch.patience() <= LONGEST);
        batch.since -= LONGEST;
        assert_eq!((batch.patience(), batch.take_due().len), (Duration::ZERO, 10));
        assert_eq!(batch.patience(), Duration::MAX, "nothing waits");
    }
}
