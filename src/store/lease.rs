use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::gate;
use super::layout::Layout;
use super::lease_record::Record;
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::sys::{self, Aside, Lock, LockMode};

/// What keeps blobs from being collected while they are worked with.
///
/// A lease is a file that its process holds locked: when the process dies, by whatever means, the
/// kernel lets the lock go and the lease is known to be dead without a clock. What it pins may be
/// collected from then on, unless a ref has come to name it.
///
/// Clones are the same lease; it ends when the last of them, and the last [`Pinned`] of it, is
/// dropped.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = layerstore::BlobStore::init(dir.path()).unwrap();
/// use std::io::Write;
/// use layerstore::oci::Algorithm;
///
/// let lease = store.lease("example")?;
/// let mut ingest = store.ingest(&lease, Algorithm::Sha256, 1 << 20)?;
/// ingest.write_all(b"hello").unwrap();
/// let pinned = ingest.commit()?; // durable, and safe from the collector while `pinned` lives
/// assert_eq!(store.open_blob(pinned.digest())?.len(), 5);
/// # Ok::<(), layerstore::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Arc<Layout>,
    id: String,
    file: Mutex<Records>,
    /// Whether the lease goes with its process.
    ends: bool,
}

/// The file of a lease, which stays locked until the lease ends.
#[derive(Debug)]
struct Records {
    file: File,
    /// An append has failed: a torn line must stay the last one. What was pinned before is pinned still.
    is_torn: bool,
}

/// A digest that the collector leaves alone, and what was known of its blob when that began.
///
/// Only of such a digest can it be asked whether its blob exists: of any other, the answer could be
/// outdated by the collector before it is used.
#[derive(Clone, Debug)]
pub struct Pinned {
    lease: Lease,
    digest: Digest,
    size: u64,
    present: bool,
}

impl Lease {
    /// A lease that lives as long as this process; `holder` says to people what for.
    pub(crate) fn new(layout: &Arc<Layout>, holder: &str) -> Result<Lease> {
        Lease::born_locked(layout, holder, true)
    }

    /// A lease that ends with its owner, or not.
    pub(super) fn born_locked(layout: &Arc<Layout>, holder: &str, ends: bool) -> Result<Lease> {
        let id = sys::random_name().context("name a lease in", layout.leases.path())?;
        let aside = Aside::new(&layout.leases)?;
        aside.lock(LockMode::Exclusive)?;
        // The collector must be able to read it, whatever the umask.
        aside.set_mode(layout.leases.file_mode())?;
        let line = Record::Holder(format!("process {}: {holder}", std::process::id())).to_line();
        aside.file().write_all(line.as_bytes()).context("write", layout.leases.path_of(&id))?;
        let file = aside.name_new(&layout.leases, &id)?.ok_or_else(|| Error::Damaged {
            path: layout.leases.path_of(&id),
            reason: "a name of 128 random bits was taken".to_owned(),
        })?;
        let file = Mutex::new(Records { file, is_torn: false });
        let inner = Inner { layout: layout.clone(), id, file, ends };
        Ok(Lease(Arc::new(inner)))
    }

    /// Makes what it says durable, and its name.
    pub(super) fn settle(&self) -> Result<()> {
        let layout = &self.0.layout;
        let records = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        sys::sync_data(&records.file, &layout.leases.path_of(&self.0.id))?;
        layout.leases.sync()?;
        // Its own name: who made it anew may not have come so far.
        layout.private.sync()
    }

    /// The lease's id: its file name, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Pins blobs, given with their sizes in bytes, and says of each whether it is there.
    ///
    /// Both happen while the collector is kept out, in this order, which is why the answer holds
    /// for as long as the lease does.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if the gate stays shut for two minutes, [`Error::Io`], [`Error::NoSpace`].
    pub fn pin(&self, blobs: &[(Digest, u64)]) -> Result<Vec<Pinned>> {
        let records: Vec<_> = blobs.iter().map(|(digest, _)| Record::Blob(*digest)).collect();
        let gate = gate::enter(&self.0.layout.locks)?;
        self.append(&records)?;
        let layout = &self.0.layout;
        let marks = layout.suspects.marks()?;
        let pinned = blobs.iter().map(|(digest, size)| {
            let present = layout.find_among(&marks, digest, *size)?.is_some();
            Ok(Pinned { lease: self.clone(), digest: *digest, size: *size, present })
        });
        let pinned = pinned.collect();
        drop(gate);
        pinned
    }

    /// Says that this process is going to write these blobs, of these sizes, so that others leave it the
    /// room. Under the lock of that.
    pub(crate) fn want(&self, blobs: &[(Digest, u64)]) -> Result<()> {
        let records: Vec<_> = blobs.iter().map(|(it, size)| Record::Want(*it, *size)).collect();
        self.append(&records)
    }

    /// Says that this process is going to write blobs that take so much on disk, and whose digests it
    /// does not know yet. Under the lock of room.
    pub(crate) fn want_room(&self, bytes: u64) -> Result<()> {
        self.append(&[Record::Room(bytes)])
    }

    /// Pins one blob; see [`Lease::pin`].
    ///
    /// # Errors
    ///
    /// As of [`Lease::pin`].
    pub fn pin_one(&self, digest: Digest, size: u64) -> Result<Pinned> {
        let mut pinned = self.pin(&[(digest, size)])?;
        // One was asked for, and `pin` gives as many as it was asked for.
        pinned.pop().ok_or(Error::BlobNotFound { digest })
    }

    /// Pins the tree below whatever `find` names, with the collector kept out from before `find`
    /// looks until the pin is written.
    pub(crate) fn pin_tree<T>(&self, find: impl FnOnce() -> Result<(Digest, T)>) -> Result<T> {
        let gate = gate::enter(&self.0.layout.locks)?;
        let (root, found) = find()?;
        self.append(&[Record::Tree(root)])?;
        drop(gate);
        Ok(found)
    }

    pub(super) fn append(&self, records: &[Record]) -> Result<()> {
        let lines: String = records.iter().map(Record::to_line).collect();
        let path = self.0.layout.leases.path_of(&self.0.id);
        let mut to = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        if to.is_torn {
            let reason = "an earlier write to this lease failed; begin again".to_owned();
            return Err(Error::Damaged { path, reason });
        }
        let written = sys::append(&to.file, lines.as_bytes(), &path);
        to.is_torn = written.is_err();
        written
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.ends {
            return;
        }
        // Not under a running collection: it may have taken note of this lease, and only of it, as
        // what keeps a blob whose ref it read too early to see. Then the next one removes the file.
        let no_collection = Lock::try_acquire(&self.layout.locks, "gc", LockMode::Shared);
        if let Ok(Some(_held)) = no_collection {
            let _ = self.layout.leases.unlink(&self.id);
        }
    }
}

impl Pinned {
    /// The digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size that the blob should have, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether a blob of that size was there when it was pinned, and not known to be damaged.
    pub fn is_present(&self) -> bool {
        self.present
    }

    /// Looks again: another process may have committed the blob meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn look(&self) -> Result<bool> {
        self.lease.0.layout.has_blob(&self.digest, self.size)
    }
}

/// Seconds of Unix time.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::store::BlobStore;

    #[test]
    fn what_was_pinned_before_an_append_failed_is_pinned_until_the_lease_ends() {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        let layout = store.layout();
        let lease = store.lease("test").unwrap();
        let (first, second) = (Algorithm::Sha256.digest(b"1"), Algorithm::Sha256.digest(b"2"));
        let pinned = lease.pin_one(first, 1).unwrap();
        let path = layout.leases.path_of(lease.id());
        // Of this file alone is the lock from now on, and it cannot be written to.
        let unwritable = File::open(&path).unwrap();
        lease.0.file.lock().unwrap().file = unwritable.try_clone().unwrap();
        drop(Lock::try_on(unwritable, LockMode::Exclusive, &path).unwrap().unwrap());
        let is_free = || {
            let other = File::open(&path).unwrap();
            Lock::try_on(other, LockMode::Exclusive, &path).unwrap().is_some()
        };
        assert!(!is_free());
        assert!(matches!(lease.pin_one(second, 1), Err(Error::Io { .. })));
        assert!(matches!(lease.pin_one(second, 1), Err(Error::Damaged { .. })), "it stays so");
        assert!(!is_free(), "its owner still works with {}", pinned.digest());
        drop((lease, pinned));
        assert!(!path.exists());
    }
}
