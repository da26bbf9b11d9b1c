use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::ingest::{Ingest, name_synced, replace};
use super::layout::Layout;
use super::lease::{Lease, Pinned};
use crate::error::{Error, Result};
use crate::oci::Algorithm;
use crate::sys::{self, Aside};

/// How many files are synced together. Twice as many are open at a time, far below the least limit of a process.
const PENDING: usize = 128;
/// How many bytes are left to one sync. A large blob is not kept waiting for 127 others.
const PENDING_BYTES: u64 = 64 * 1024 * 1024;

/// Many blobs whose digests are known when they end.
///
/// They are made durable together, which for small ones is many times faster than one
/// [`Ingest`] after another: a sync costs the disk about the same for one file as for hundreds.
/// Each blob gets its name when its bytes are on disk, as always.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = layerstore::BlobStore::init(dir.path()).unwrap();
/// use layerstore::oci::Algorithm;
///
/// let lease = store.lease("example")?;
/// let mut batch = store.ingest_batch(&lease, Algorithm::Sha256, 1 << 20)?;
/// for text in ["one", "two", "three"] {
///     batch.put(text.as_bytes(), "a text")?;
/// }
/// let pinned = batch.commit()?; // all of them are durable
/// assert_eq!(pinned.len(), 3);
/// # Ok::<(), layerstore::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "what was put last is in the store only when the batch is committed"]
pub struct IngestBatch {
    layout: Arc<Layout>,
    lease: Lease,
    algorithm: Algorithm,
    limit: u64,
    pending: Vec<Ingest>,
    pending_bytes: u64,
    done: Vec<Pinned>,
    /// What puts those in place that were put before the pending ones.
    naming: Option<JoinHandle<Result<Vec<Pinned>>>>,
    /// Some blobs could not be put in place.
    is_broken: bool,
}

impl IngestBatch {
    pub(crate) fn new(
        layout: &Arc<Layout>,
        lease: &Lease,
        algorithm: Algorithm,
        limit: u64,
    ) -> Result<IngestBatch> {
        layout.make_algorithm(algorithm)?;
        Ok(IngestBatch {
            layout: layout.clone(),
            lease: lease.clone(),
            algorithm,
            limit,
            pending: Vec::new(),
            pending_bytes: 0,
            done: Vec::new(),
            naming: None,
            is_broken: false,
        })
    }

    /// Reads a blob to its end. It is not in the store yet when this returns; some that were put
    /// before may be.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`](crate::Error::TooLarge) over the limit,
    /// [`Error::Io`](crate::Error::Io) naming `origin` if it cannot be read: then it is left out.
    /// Errors as of [`commit`](IngestBatch::commit) are of blobs that were put before, and the batch
    /// cannot be used after them.
    pub fn put(&mut self, reader: impl Read, origin: &str) -> Result<()> {
        if self.is_broken {
            return Err(Error::BrokenBatch);
        }
        let mut ingest = Ingest::new(&self.layout, &self.lease, self.algorithm, self.limit)?;
        self.pending_bytes += ingest.write_from(reader, origin)?;
        self.pending.push(ingest);
        if self.pending.len() == PENDING || self.pending_bytes >= PENDING_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Puts what is left in place; all blobs, in the order in which they were put. They are durable
    /// when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NotDurable`](crate::Error::NotDurable) if a sync failed,
    /// [`Error::NoSpace`](crate::Error::NoSpace), [`Error::Io`](crate::Error::Io). Some of the
    /// blobs may then be in the store. [`Error::BrokenBatch`](crate::Error::BrokenBatch) if that was
    /// told of a [`put`](IngestBatch::put) before.
    pub fn commit(mut self) -> Result<Vec<Pinned>> {
        self.whole(|batch| {
            batch.settle()?;
            let last = batch.take_pending().name()?;
            batch.done.extend(last);
            Ok(())
        })?;
        // Once, and also where every blob was there: see `Ingest::commit`.
        self.layout.sync_names(self.algorithm)?;
        Ok(std::mem::take(&mut self.done))
    }

    /// Has what is pending put in place, beside those that are put next.
    fn flush(&mut self) -> Result<()> {
        self.whole(|batch| {
            batch.settle()?;
            let pending = Arc::new(Mutex::new(Some(batch.take_pending())));
            let theirs = Arc::clone(&pending);
            let named = move || take(&theirs).map_or_else(|| Ok(Vec::new()), Pending::name);
            match thread::Builder::new().name("store-batch".to_owned()).spawn(named) {
                Ok(thread) => batch.naming = Some(thread),
                // Where no thread is to be had, this one does it.
                Err(_) => {
                    if let Some(pending) = take(&pending) {
                        batch.done.extend(pending.name()?);
                    }
                }
            }
            Ok(())
        })
    }

    /// Does something after which the batch is of no use if it fails: what fails of it is gone, and the
    /// rest must not pass for all.
    fn whole(&mut self, work: impl FnOnce(&mut IngestBatch) -> Result<()>) -> Result<()> {
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(Error::BrokenBatch);
        }
        work(self)?;
        self.is_broken = false;
        Ok(())
    }

    /// Waits for what is being put in place.
    fn settle(&mut self) -> Result<()> {
        if let Some(naming) = self.naming.take() {
            let named = naming.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.done.extend(named?);
        }
        Ok(())
    }

    fn take_pending(&mut self) -> Pending {
        self.pending_bytes = 0;
        Pending {
            layout: self.layout.clone(),
            lease: self.lease.clone(),
            algorithm: self.algorithm,
            blobs: std::mem::take(&mut self.pending),
        }
    }
}

impl Drop for IngestBatch {
    /// Nothing goes on in the store once it is dropped.
    fn drop(&mut self) {
        if let Some(naming) = self.naming.take() {
            drop(naming.join());
        }
    }
}

fn take(pending: &Mutex<Option<Pending>>) -> Option<Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Blobs that are written, and have neither a sync nor a name.
struct Pending {
    layout: Arc<Layout>,
    lease: Lease,
    algorithm: Algorithm,
    blobs: Vec<Ingest>,
}

impl Pending {
    /// Names them: pins, then mode, sync and name, as for one blob.
    fn name(self) -> Result<Vec<Pinned>> {
        let Pending { layout, lease, algorithm, blobs } = self;
        let names: Vec<_> = blobs.iter().map(Ingest::identity).collect();
        let pinned = lease.pin(&names)?;
        let dir = layout.make_algorithm(algorithm)?;
        let mut new = Vec::new();
        for (ingest, pinned) in blobs.into_iter().zip(&pinned) {
            if !pinned.is_present() || !ingest.is_kept(dir, pinned.digest())? {
                let (aside, hasher) = ingest.finished()?;
                new.push((aside, hasher, pinned));
            }
        }
        let files: Vec<_> = new.iter().map(|(aside, ..): &(Aside, _, _)| aside.file()).collect();
        sys::sync_together(&files, dir.path())?;
        for (aside, hasher, pinned) in new {
            match pinned.is_present() {
                true => replace(&layout, aside, dir, pinned.digest())?,
                false => name_synced(&layout, aside, pinned.digest(), pinned.size())?,
            }
            hasher.keep(pinned.digest());
        }
        Ok(pinned)
    }
}
