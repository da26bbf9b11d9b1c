//! The threads that write and hash what comes.
//!
//! A pull has one for every two processors, and not one for each blob: two blobs that are hashed
//! together take little more time than one, and a thread that has always something to do need not
//! be woken up for each batch.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::{Error, Result};
use crate::store::{Part, Version};

/// How many batches may be under way to a thread, of all its blobs. With what each connection
/// gathers, it bounds the memory of a pull.
const BATCHES: usize = 12;
/// More threads than this would only wait for the disk.
const MOST: usize = 3;
/// After each batch, so much is hashed of what lies behind.
const CATCH_UP: u64 = 1024 * 1024;

/// The writing threads of a pull, which start when they are needed.
#[derive(Default)]
pub(super) struct Writers(Mutex<Vec<Writer>>);

struct Writer {
    messages: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
    /// How many blobs it has, and had.
    blobs: Arc<AtomicUsize>,
    begun: u64,
}

/// What a thread is told of a blob, by its number.
enum Message {
    Begin(u64, Box<Desk>),
    Version(u64, Version),
    Bytes(u64, Batch),
    End(u64),
}

/// Bytes, which lie one after the other, and their place in the blob.
struct Batch {
    offset: u64,
    chunks: Vec<Bytes>,
    /// Given back when they are written.
    _room: OwnedSemaphorePermit,
}

/// A blob that is being written.
struct Desk {
    part: Part,
    result: Result<()>,
    failed: Arc<AtomicBool>,
    done: oneshot::Sender<(Part, Result<()>)>,
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
    pub(super) fn begin(&self, part: Part) -> (Inlet, Outlet) {
        let most = thread::available_parallelism().map_or(1, NonZeroUsize::get) / 2;
        // Nothing that holds this lock can leave the list half changed.
        let mut writers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writers.sort_by_key(|writer| writer.blobs.load(Ordering::Relaxed));
        let idle = writers.first().is_some_and(|it| it.blobs.load(Ordering::Relaxed) == 0);
        if !idle && writers.len() < most.clamp(1, MOST) {
            writers.insert(0, Writer::start());
        }
        writers[0].begin(part)
    }
}

impl Writer {
    fn start() -> Writer {
        let (messages, queue) = mpsc::unbounded_channel();
        tokio::task::spawn_blocking(move || Writing::default().run(queue));
        Writer {
            messages,
            room: Arc::new(Semaphore::new(BATCHES)),
            blobs: Arc::default(),
            begun: 0,
        }
    }

    fn begin(&mut self, part: Part) -> (Inlet, Outlet) {
        self.begun += 1;
        let (done, outlet) = oneshot::channel();
        let failed = Arc::<AtomicBool>::default();
        let desk = Desk { part, result: Ok(()), failed: failed.clone(), done };
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
        let batch = Batch { offset, chunks, _room: room };
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

/// What a thread has to do.
#[derive(Default)]
struct Writing {
    desks: HashMap<u64, Desk>,
    waiting: VecDeque<Message>,
}

impl Writing {
    /// Until nobody can say anything any more.
    fn run(mut self, mut queue: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = self.waiting.pop_front().or_else(|| queue.blocking_recv()) {
            while let Ok(next) = queue.try_recv() {
                self.waiting.push_back(next);
            }
            self.follow(message);
        }
    }

    fn follow(&mut self, message: Message) {
        match message {
            Message::Begin(blob, desk) => {
                self.desks.insert(blob, *desk);
            }
            Message::Version(blob, version) => {
                if let Some(desk) = self.desks.get_mut(&blob) {
                    desk.attempt(|part| part.note_version(&version));
                }
            }
            Message::Bytes(blob, batch) => match self.company(blob) {
                None => self.write(blob, batch),
                Some((other, others)) => self.write_both([blob, other], [batch, others]),
            },
            Message::End(blob) => {
                if let Some(Desk { part, result, done, .. }) = self.desks.remove(&blob) {
                    // If nobody waits for it, the part is let go.
                    let _ = done.send((part, result));
                }
            }
        }
    }

    /// The next bytes of another blob, if they come before anything else of it.
    fn company(&mut self, blob: u64) -> Option<(u64, Batch)> {
        let mut passed = vec![blob];
        let at = self.waiting.iter().position(|message| match message {
            Message::Bytes(other, _) => !passed.contains(other),
            Message::Begin(other, _) | Message::Version(other, _) | Message::End(other) => {
                passed.push(*other);
                false
            }
        })?;
        match self.waiting.remove(at)? {
            Message::Bytes(other, batch) => Some((other, batch)),
            _ => None,
        }
    }

    fn write(&mut self, blob: u64, batch: Batch) {
        if let Some(desk) = self.desks.get_mut(&blob) {
            desk.write(&batch);
        }
    }

    fn write_both(&mut self, blobs: [u64; 2], batches: [Batch; 2]) {
        let desks = self.desks.get_disjoint_mut([&blobs[0], &blobs[1]]);
        if let [Some(one), Some(other)] = desks
            && one.result.is_ok()
            && other.result.is_ok()
        {
            let pieces = batches.each_ref().map(Batch::pieces);
            let parts = [&mut one.part, &mut other.part];
            let offsets = batches.each_ref().map(|batch| batch.offset);
            let [ended, other_ended] = Part::write_both(parts, offsets, [&pieces[0], &pieces[1]]);
            for (desk, ended) in [(one, ended), (other, other_ended)] {
                desk.note(ended);
                desk.catch_up();
            }
        } else {
            for (blob, batch) in blobs.into_iter().zip(batches) {
                self.write(blob, batch);
            }
        }
    }
}

impl Batch {
    fn pieces(&self) -> Vec<&[u8]> {
        self.chunks.iter().map(|chunk| &chunk[..]).collect()
    }
}

impl Desk {
    /// Writes a batch. After an error nothing is written any more.
    fn write(&mut self, batch: &Batch) {
        self.attempt(|part| part.write_pieces(batch.offset, &batch.pieces()));
        self.catch_up();
    }

    fn catch_up(&mut self) {
        self.attempt(|part| part.catch_up(CATCH_UP));
    }

    fn attempt(&mut self, work: impl FnOnce(&mut Part) -> Result<()>) {
        if self.result.is_ok() {
            let ended = work(&mut self.part);
            self.note(ended);
        }
    }

    fn note(&mut self, ended: Result<()>) {
        if ended.is_err() {
            self.failed.store(true, Ordering::Relaxed);
            self.result = ended;
        }
    }
}
