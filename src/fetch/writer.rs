//! The threads that write and hash what comes.
//!
//! A pull has one for every two processors, and not one for each blob: two blobs that are hashed
//! together take little more time than one, so bytes wait a while for company; and a thread that has
//! always something to do need not be woken up for each batch.
//!
//! They are threads of their own. A runtime has only so many for what blocks, and one that was taken for
//! the life of a pull would be missing for what the pull waits for: many pulls could have them all.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::desk::{Batch, Desk};
use crate::error::{Error, IoContext, Result};
use crate::store::{Part, Version};

/// How many batches may be under way to a thread, of all its blobs. With what each connection
/// gathers, it bounds the memory of a pull.
const BATCHES: usize = 12;
/// More threads than this would only wait for the disk.
const MOST: usize = 3;
/// So many batches of a blob may wait to be hashed together with bytes of another.
const COMPANY: usize = 3;

/// The writing threads of a pull, which start when they are needed.
#[derive(Default)]
pub(super) struct Writers(Mutex<Vec<Writer>>);

struct Writer {
    messages: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
    /// How many blobs it has, and had.
    blobs: Arc<AtomicUsize>,
    begun: u64,
    thread: Ending,
}

/// A thread that is waited for when this is dropped. It ends when nobody can say anything to it any more.
struct Ending(Option<JoinHandle<()>>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // That it died is seen at the outlets.
            let _ = thread.join();
        }
    }
}

/// What a thread is told of a blob, by its number.
enum Message {
    Begin(u64, Box<Desk>),
    Version(u64, Version),
    Bytes(u64, Batch),
    End(u64),
}

/// Where the bytes of one blob go in. When it is dropped, what went in is written, and the part
/// comes out.
pub(super) struct Inlet {
    blob: u64,
    messages: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
    failed: Arc<AtomicBool>,
    blobs: Arc<AtomicUsize>,
}

/// Where the part comes out, with the first error.
pub(super) struct Outlet(oneshot::Receiver<(Part, Result<()>)>);

impl Writers {
    /// Begins to write to a part.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if no thread is to be had.
    pub(super) fn begin(&self, part: Part) -> Result<(Inlet, Outlet)> {
        let most = thread::available_parallelism().map_or(1, NonZeroUsize::get) / 2;
        // Nothing that holds this lock can leave the list half changed.
        let mut writers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writers.sort_by_key(|writer| writer.blobs.load(Ordering::Relaxed));
        let idle = writers.first().is_some_and(|it| it.blobs.load(Ordering::Relaxed) == 0);
        if !idle && writers.len() < most.clamp(1, MOST) {
            match Writer::start() {
                Ok(writer) => writers.insert(0, writer),
                Err(error) if writers.is_empty() => return Err(error),
                Err(error) => tracing::debug!(%error, "it goes on with fewer threads"),
            }
        }
        Ok(writers[0].begin(part))
    }
}

impl Drop for Writers {
    /// What the threads were given is written when a runtime ends, which waits for this: a pull that was
    /// dropped holds no lock then. The task that dropped it does not wait.
    fn drop(&mut self) {
        let writers = std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        // Only their threads are left: with the last sender gone, these come to their end.
        let threads: Vec<_> = writers.into_iter().map(|writer| writer.thread).collect();
        // Where there is no runtime, or one that is ending, they are waited for here.
        if let Ok(runtime) = Handle::try_current()
            && !threads.is_empty()
        {
            runtime.spawn_blocking(move || drop(threads));
        }
    }
}

impl Writer {
    fn start() -> Result<Writer> {
        let (messages, queue) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Writing::default().run(queue))
            .context("start a thread for", "the pull")?;
        Ok(Writer {
            messages,
            room: Arc::new(Semaphore::new(BATCHES)),
            blobs: Arc::default(),
            begun: 0,
            thread: Ending(Some(thread)),
        })
    }

    fn begin(&mut self, part: Part) -> (Inlet, Outlet) {
        self.begun += 1;
        let (done, outlet) = oneshot::channel();
        let failed = Arc::<AtomicBool>::default();
        let desk = Desk::new(part, failed.clone(), done);
        self.blobs.fetch_add(1, Ordering::Relaxed);
        let inlet = Inlet {
            blob: self.begun,
            messages: self.messages.clone(),
            room: self.room.clone(),
            failed,
            blobs: self.blobs.clone(),
        };
        // A thread that has died is noticed at the outlet.
        let _ = self.messages.send(Message::Begin(self.begun, Box::new(desk)));
        (inlet, Outlet(outlet))
    }
}

impl Inlet {
    /// Gives bytes to the thread, and waits for room; whether it still takes any.
    pub(super) async fn bytes(&self, offset: u64, chunks: Vec<Bytes>) -> bool {
        // It is never closed, so this never fails.
        let Ok(room) = self.room.clone().acquire_owned().await else { return false };
        let batch = Batch { offset, chunks, room };
        self.is_open() && self.messages.send(Message::Bytes(self.blob, batch)).is_ok()
    }

    /// Has it written down that bytes of this version come.
    pub(super) fn version(&self, version: Version) {
        // That the thread has ended is seen with the first bytes.
        let _ = self.messages.send(Message::Version(self.blob, version));
    }

    /// Whether bytes wait to be written, and more of them would only wait longer.
    pub(super) fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }

    pub(super) fn is_open(&self) -> bool {
        !self.failed.load(Ordering::Relaxed) && !self.messages.is_closed()
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.blobs.fetch_sub(1, Ordering::Relaxed);
        let _ = self.messages.send(Message::End(self.blob));
    }
}

impl Outlet {
    /// The part, once its inlet is dropped and everything is written.
    pub(super) async fn part(self) -> Result<(Part, Result<()>)> {
        self.0.await.map_err(|source| Error::Io {
            action: "go on with",
            path: "the pull".into(),
            source: std::io::Error::other(source),
        })
    }
}

/// The blobs of a thread.
#[derive(Default)]
struct Writing(HashMap<u64, Desk>);

impl Writing {
    /// Until nobody can say anything any more.
    fn run(mut self, mut queue: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Begin(blob, desk) => {
                self.0.insert(blob, *desk);
            }
            Message::Version(blob, version) => {
                if let Some(desk) = self.0.get_mut(&blob) {
                    desk.note_version(&version);
                }
            }
            Message::Bytes(blob, batch) => {
                if let Some(desk) = self.0.get_mut(&blob) {
                    desk.write(batch);
                    self.hash(blob);
                }
            }
            Message::End(blob) => {
                if let Some(desk) = self.0.remove(&blob) {
                    desk.end();
                }
            }
        }
    }

    /// Hashes what was written of a blob, together with what another one has: then at most one of all has
    /// anything that waits, and not much.
    fn hash(&mut self, blob: u64) {
        let other = self.0.iter().find(|(other, desk)| **other != blob && desk.waits());
        if let Some(other) = other.map(|(other, _)| *other)
            && let [Some(one), Some(other)] = self.0.get_disjoint_mut([&blob, &other])
        {
            Desk::hash_both(one, other);
        }
        let most = if self.0.len() > 1 { COMPANY } else { 0 };
        if let Some(desk) = self.0.get_mut(&blob) {
            desk.hash_down_to(most);
            desk.catch_up();
        }
    }
}

#[cfg(test)]
mod schedules;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::store::{BlobStore, Claim};

    /// What waits for company keeps room; were it all, nobody could bring the company.
    #[tokio::test]
    async fn many_small_batches_do_not_wait_for_a_blob_that_brings_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        let lease = store.lease("test").unwrap();
        let blobs = [vec![1; 100_000], vec![2; 70_000]];
        let part = |bytes: &Vec<u8>| {
            let digest = Algorithm::Sha256.digest(bytes);
            let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
            let Claim::Held(part) = store.claim(&pinned).unwrap() else { panic!("not held") };
            part
        };
        let writers = Writers(Mutex::new(vec![Writer::start().unwrap()]));
        let (inlet, outlet) = writers.0.lock().unwrap()[0].begin(part(&blobs[0]));
        let (other_inlet, other_outlet) = writers.0.lock().unwrap()[0].begin(part(&blobs[1]));
        for (n, bytes) in blobs[0].chunks(1000).enumerate() {
            let (half, rest) = bytes.split_at(500);
            let chunks = [half, rest].map(Bytes::copy_from_slice).to_vec();
            assert!(inlet.bytes(1000 * n as u64, chunks).await);
        }
        // Then the other one, the last piece first: that is read back.
        let bytes = Bytes::from(blobs[1].clone());
        for (from, to) in [(50_000, 70_000), (0, 10), (10, 50_000)] {
            assert!(other_inlet.bytes(from as u64, vec![bytes.slice(from..to)]).await);
        }
        drop((inlet, other_inlet));
        for outlet in [outlet, other_outlet] {
            let (part, result) = outlet.part().await.unwrap();
            result.unwrap();
            part.commit().unwrap();
        }
    }
}
