//! A blob that is being written, and what of it is still to be hashed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Result;
use crate::store::{Part, Version};

/// After each batch, so much is hashed of what lies behind.
const CATCH_UP: u64 = 1024 * 1024;

/// Bytes, which lie one after the other, and their place in the blob.
pub(super) struct Batch {
    pub(super) offset: u64,
    pub(super) chunks: Vec<Bytes>,
    /// Given back when they are hashed, or will be read back for that.
    pub(super) room: OwnedSemaphorePermit,
}

pub(super) struct Desk {
    part: Part,
    result: Result<()>,
    failed: Arc<AtomicBool>,
    done: oneshot::Sender<(Part, Result<()>)>,
    /// What is in its place and next to be hashed: a few batches at most.
    unhashed: VecDeque<Unhashed>,
}

struct Unhashed {
    bytes: Bytes,
    /// Of the last ones of a batch.
    room: Option<OwnedSemaphorePermit>,
}

impl Desk {
    pub(super) fn new(
        part: Part,
        failed: Arc<AtomicBool>,
        done: oneshot::Sender<(Part, Result<()>)>,
    ) -> Desk {
        Desk { part, result: Ok(()), failed, done, unhashed: VecDeque::new() }
    }

    pub(super) fn note_version(&mut self, version: &Version) {
        self.attempt(|part| part.note_version(version));
    }

    /// Writes a batch. After an error nothing is written any more.
    pub(super) fn write(&mut self, batch: Batch) {
        let pieces: Vec<&[u8]> = batch.chunks.iter().map(|chunk| &chunk[..]).collect();
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let place = batch.offset..batch.offset + len as u64;
        let waiting: usize = self.unhashed.iter().map(|it| it.bytes.len()).sum();
        let next = self.part.hashed() + waiting as u64;
        let new = self.attempt(|part| part.place(place.start, &pieces)).unwrap_or_default();
        // What is not next, or was there in part, is read back in its turn.
        if place.start == next && new == [place] {
            let mut room = Some(batch.room);
            let last = batch.chunks.len() - 1;
            let with_room = |(n, bytes)| {
                let room = if n == last { room.take() } else { None };
                Unhashed { bytes, room }
            };
            self.unhashed.extend(batch.chunks.into_iter().enumerate().map(with_room));
        }
    }

    /// Whether anything waits to be hashed.
    pub(super) fn waits(&self) -> bool {
        !self.unhashed.is_empty()
    }

    /// Hashes together what two have, as long as both have any.
    pub(super) fn hash_both(one: &mut Desk, other: &mut Desk) {
        while let [Some(first), Some(second)] = [one.unhashed.front(), other.unhashed.front()] {
            let len = first.bytes.len().min(second.bytes.len());
            let parts = [&mut one.part, &mut other.part];
            Part::hash_both(parts, [&first.bytes[..len], &second.bytes[..len]]);
            one.has_hashed(len);
            other.has_hashed(len);
        }
    }

    /// Hashes until no more than so many batches wait. They keep the room of others, who might be
    /// what they wait for: so it is batches that count, and not their bytes.
    pub(super) fn hash_down_to(&mut self, most: usize) {
        while self.batches() > most
            && let Some(first) = self.unhashed.front()
        {
            self.part.hash(&first.bytes);
            self.has_hashed(first.bytes.len());
        }
    }

    fn batches(&self) -> usize {
        self.unhashed.iter().filter(|it| it.room.is_some()).count()
    }

    fn has_hashed(&mut self, len: usize) {
        if let Some(first) = self.unhashed.front_mut() {
            let _ = first.bytes.split_to(len);
            if first.bytes.is_empty() {
                self.unhashed.pop_front();
            }
        }
    }

    /// Hashes some of what did not come in order, unless what did is next.
    pub(super) fn catch_up(&mut self) {
        if self.unhashed.is_empty() {
            self.attempt(|part| part.catch_up(CATCH_UP));
        }
    }

    /// Gives the part back, with the first error.
    pub(super) fn end(mut self) {
        self.hash_down_to(0);
        // If nobody waits for it, the part is let go.
        let _ = self.done.send((self.part, self.result));
    }

    fn attempt<T>(&mut self, work: impl FnOnce(&mut Part) -> Result<T>) -> Option<T> {
        if self.result.is_err() {
            return None;
        }
        let error = match work(&mut self.part) {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        self.failed.store(true, Ordering::Relaxed);
        self.result = Err(error);
        // Others need the room. What is not hashed is read back, should anybody go on with the part.
        self.unhashed.clear();
        None
    }
}
