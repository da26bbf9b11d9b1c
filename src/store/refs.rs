use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::BlobStore;
use super::blob::Blob;
use super::closure::{self, closure};
use super::index_file::{IndexFile, Ref};
use super::layout::{Layout, read_small};
use super::lease::{Lease, Pinned};
use super::refs_copy::{self, RefsCopy};
use super::roots::{self, Root};
use super::{adopt, present, recover, used};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Descriptor, Digest};
use crate::sys::{self, Aside, Lock, LockMode};

/// The largest `index.json` that is read: about half a million refs.
pub(super) const MAX_INDEX: u64 = 256 * 1024 * 1024;
/// How much of it is kept in memory with what it says: some 50,000 refs.
const MAX_KEPT: usize = 16 * 1024 * 1024;
/// How long anybody waits to change `index.json`, which takes milliseconds.
const LIMIT: Duration = Duration::from_secs(120);

/// Reads `index.json`.
pub(crate) fn read(layout: &Layout) -> Result<Vec<Ref>> {
    let (_, index) = read_index(layout)?;
    index.refs().map_err(|reason| damaged(layout, reason))
}

/// Reads what of `index.json` is understood: entries that only their writer knows hide no others.
pub(crate) fn read_known(layout: &Layout) -> Result<Vec<Ref>> {
    Ok(read_index(layout)?.1.known_refs())
}

/// Reads the targets of the refs and makes what was read survive a power cut: the collector must not delete
/// what a ref would name again after one.
///
/// In this order. Had a ref been removed between a sync and a read, its removal would be believed
/// and not be durable. That what is synced may be newer than what was read does no harm: a ref that
/// it adds is pinned by its lease.
pub(crate) fn read_durable(layout: &Layout) -> Result<(Vec<Root>, RefsHeading)> {
    let (roots, heading) = roots::read(layout)?;
    sync_index(layout)?;
    layout.root.sync()?;
    Ok((roots, RefsHeading(heading)))
}

/// Which bytes of `index.json` were read: the first line of a copy of them.
pub(crate) struct RefsHeading(String);

/// Makes the bytes of `index.json` durable: another tool may have written it and synced nothing.
fn sync_index(layout: &Layout) -> Result<()> {
    match layout.root.open_file("index.json")? {
        Some(file) => sys::sync_data(&file, &layout.root.path_of("index.json")),
        None => Ok(()),
    }
}

/// Names an image all of whose blobs are in place: the last step of a pull.
///
/// The names of the blobs are made durable, then looked at once more, and only then does the ref
/// appear. It is durable on return.
pub(crate) fn publish(
    layout: &Layout,
    name: &str,
    target: &Descriptor,
    closure: &[Pinned],
) -> Result<()> {
    let incomplete = |digest| Error::Incomplete { name: name.to_owned(), digest };
    if !closure.iter().any(|pinned| *pinned.digest() == target.digest) {
        return Err(incomplete(target.digest));
    }
    for _ in 0..adopt::ROUNDS {
        adopt::adopt(layout, closure)?;
        for algorithm in Algorithm::ALL {
            if closure.iter().any(|pinned| pinned.digest().algorithm() == algorithm) {
                layout.sync_names(algorithm)?;
            }
        }
        match look(layout, closure)? {
            Found::Whole => {
                update(layout, |index| Ok(index.set(name, target)))?;
                layout.used.note(&target.digest);
                return Ok(());
            }
            Found::Lacking(digest) => return Err(incomplete(digest)),
            Found::OfOthers => {}
        }
    }
    Err(adopt::written_again(layout))
}

/// What a last look at an image's blobs finds.
enum Found {
    Whole,
    Lacking(Digest),
    /// Another program wrote one of them just now.
    OfOthers,
}

fn look(layout: &Layout, closure: &[Pinned]) -> Result<Found> {
    let marks = layout.suspects.marks()?;
    let mut found = Found::Whole;
    for pinned in closure {
        match layout.find_among(&marks, pinned.digest(), pinned.size())? {
            None => return Ok(Found::Lacking(*pinned.digest())),
            Some(meta) if present::is_of_others(&meta) && layout.keeps_modes()? => {
                found = Found::OfOthers;
            }
            Some(_) => {}
        }
    }
    Ok(found)
}

/// Pins the image of a name, which is looked up with the collector kept out.
pub(crate) fn pin(layout: &Layout, lease: &Lease, name: &str) -> Result<Descriptor> {
    lease
        .pin_tree(|| {
            let target = find(layout, name)?.descriptor;
            Ok((target.digest, target))
        })
        .inspect(|target| layout.used.note(&target.digest))
}

/// Gives an image a second name.
pub(crate) fn tag(layout: &Layout, lease: &Lease, source: &str, name: &str) -> Result<Descriptor> {
    let target = pin(layout, lease, source)?;
    name_durably(layout, lease, name, target)
}

/// Names an image that has no name: a manifest or an index that is there, and all it is made of.
pub(crate) fn tag_digest(
    layout: &Layout,
    lease: &Lease,
    digest: &Digest,
    name: &str,
) -> Result<Descriptor> {
    let found = lease.pin_tree(|| Ok((*digest, recover::document(layout, digest))))?;
    let Some((target, ..)) = found else {
        // Why it is none. It may be large, and others wait at the gate until it is pinned.
        let blob = Blob::open(layout, digest)?;
        blob.verify()?;
        let reason = "it is neither an index nor a manifest".to_owned();
        return Err(Error::document(reason).of_document(digest));
    };
    closure::whole(layout, digest)?;
    name_durably(layout, lease, name, target)
}

fn name_durably(
    layout: &Layout,
    lease: &Lease,
    name: &str,
    target: Descriptor,
) -> Result<Descriptor> {
    // Another tool may have written the source, and have synced nothing.
    let blobs: Vec<_> = closure(layout, &target)?
        .iter()
        .map(|node| (node.descriptor.digest, node.descriptor.size))
        .collect();
    adopt::settle_found(layout, lease, &blobs)?;
    update(layout, |index| Ok(index.set(name, &target)))?;
    Ok(target)
}

/// The ref of a name.
pub(crate) fn find(layout: &Layout, name: &str) -> Result<Ref> {
    let (bytes, index) = read_index(layout)?;
    let found = index.find(name);
    layout.parsed_index.keep(bytes, index);
    found.ok_or_else(|| Error::RefNotFound { name: name.to_owned() })
}

/// Removes names, durably; for each, whether it was there.
pub(crate) fn remove(layout: &Layout, names: &[String]) -> Result<Vec<bool>> {
    let mut removed = Vec::new();
    update(layout, |index| {
        removed = names.iter().map(|name| index.remove(name)).collect();
        Ok(removed.contains(&true))
    })?;
    Ok(removed)
}

/// What became of a name that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// It was not there.
    NotFound,
    /// It is pinned, and stays.
    Pinned,
}

/// Removes those names that are not pinned, durably.
pub(crate) fn remove_unpinned(layout: &Layout, names: &[String]) -> Result<Vec<Removal>> {
    let mut removed = Vec::new();
    update(layout, |index| {
        let mut remove = |name: &String| match index.is_pinned(name) {
            true => Removal::Pinned,
            false if index.remove(name) => Removal::Removed,
            false => Removal::NotFound,
        };
        removed = names.iter().map(&mut remove).collect();
        Ok(removed.contains(&Removal::Removed))
    })?;
    Ok(removed)
}

/// Removes all names of an image, durably, if nothing has changed since it was chosen: it has just these
/// names, none is pinned, nobody has used it, and no lease keeps it. Whether it did.
pub(crate) fn drop_image(
    layout: &Layout,
    target: &Digest,
    names: &[String],
    last_used: SystemTime,
    is_leased: impl FnOnce() -> Result<bool>,
) -> Result<bool> {
    let mut dropped = false;
    update(layout, |index| {
        let refs = index.refs().map_err(|reason| damaged(layout, reason))?;
        let is_one_of_them = |entry: &Ref| entry.name.as_ref().is_some_and(|it| names.contains(it));
        // A name that other tools gave to two images is none of ours to take from one.
        let is_as_it_was = (refs.iter())
            .filter(|entry| entry.descriptor.digest == *target || is_one_of_them(entry))
            .all(|it| it.descriptor.digest == *target && is_one_of_them(it) && !it.is_pinned());
        let is_there = refs.iter().any(|entry| entry.descriptor.digest == *target);
        let is_unused = || -> Result<bool> { Ok(used::last(layout, target)? == Some(last_used)) };
        dropped = is_as_it_was && is_there && is_unused()? && !is_leased()?;
        if dropped {
            for name in names {
                index.remove(name);
            }
        }
        Ok(dropped)
    })?;
    Ok(dropped)
}

/// Pins a name, or takes its pin away, durably; whether that changed anything.
pub(crate) fn set_pinned(layout: &Layout, name: &str, pinned: bool) -> Result<bool> {
    let mut changed = None;
    update(layout, |index| {
        changed = index.set_pinned(name, pinned);
        Ok(changed == Some(true))
    })?;
    changed.ok_or_else(|| Error::RefNotFound { name: name.to_owned() })
}

/// Changes `index.json` under its lock: written aside, synced, renamed, and the rename synced; and its
/// copy with it.
fn update(layout: &Layout, change: impl FnOnce(&mut IndexFile) -> Result<bool>) -> Result<()> {
    let lock = lock(layout)?;
    let (bytes, mut index) = read_index(layout)?;
    if change(&mut index)? {
        write(layout, &index.to_bytes())?;
    } else {
        // Whoever wrote it so may not have come so far as to sync it, or never does.
        sync_index(layout)?;
        keep_copy(layout, &bytes)?;
    }
    settle(layout)?;
    drop(lock);
    Ok(())
}

impl BlobStore {
    /// Removes names, pinned or not, durably; for each, whether it was there. Their blobs stay until a
    /// collection.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], [`Error::Damaged`], [`Error::NotDurable`], [`Error::Io`].
    pub fn remove_refs(&self, names: &[String]) -> Result<Vec<bool>> {
        remove(self.layout(), names)
    }

    /// As [`remove_refs`](BlobStore::remove_refs), but leaves names that are pinned.
    ///
    /// # Errors
    ///
    /// As of [`remove_refs`](BlobStore::remove_refs).
    pub fn remove_unpinned_refs(&self, names: &[String]) -> Result<Vec<Removal>> {
        remove_unpinned(self.layout(), names)
    }

    /// Pins a name, or takes its pin away, durably; whether that changed anything. What a pinned name
    /// stands for is not dropped to make room.
    ///
    /// # Errors
    ///
    /// [`Error::RefNotFound`], and as of [`remove_refs`](BlobStore::remove_refs).
    pub fn set_pinned(&self, name: &str, pinned: bool) -> Result<bool> {
        set_pinned(self.layout(), name, pinned)
    }
}

/// The lock of `index.json`, and of the settings.
pub(super) fn lock(layout: &Layout) -> Result<Lock> {
    Lock::acquire(&layout.locks, "index", LockMode::Exclusive, "the lock of index.json", LIMIT)
}

/// Replaces `index.json`, the copy first, under the lock. The names are durable after [`settle`].
pub(super) fn write(layout: &Layout, bytes: &[u8]) -> Result<()> {
    let aside = Aside::hidden(&layout.root)?;
    aside.file().write_all(bytes).context("write to", aside.path())?;
    aside.set_mode(0o644)?;
    // On its way to the disk, so that the sync of the copy does most of the work of this one's.
    sys::start_writeback(aside.file(), 0, 0, &aside.path())?;
    RefsCopy::write(layout, bytes)?.put(layout)?;
    aside.sync()?;
    aside.name_over(&layout.root, "index.json").map(drop)
}

/// Makes the name durable, also where nothing changed: whoever wrote it so may not have come this far.
pub(super) fn settle(layout: &Layout) -> Result<()> {
    layout.root.sync()?;
    refs_copy::settle(layout)
}

/// Copies `index.json` as it is, if another tool has changed it since. Under the lock.
fn keep_copy(layout: &Layout, bytes: &[u8]) -> Result<()> {
    match refs_copy::has_heading(layout, &refs_copy::heading(bytes)) {
        true => Ok(()),
        false => RefsCopy::write(layout, bytes)?.put(layout),
    }
}

/// Has the copy say what `index.json` says, for a collection that is going to believe it: a ref that
/// an older copy has must not come back when its blobs are gone. A disk that is too full for it is no
/// reason not to collect.
///
/// # Errors
///
/// [`Error::NotDurable`] if the sync of its name failed: who drops an image later would sync that again,
/// and be told of success.
pub(crate) fn renew_copy(layout: &Layout, read: &RefsHeading) -> Result<()> {
    let renew = || {
        if refs_copy::has_heading(layout, &read.0) {
            return Ok(());
        }
        let _lock = lock(layout)?;
        keep_copy(layout, &roots::read_bytes(layout)?)
    };
    if let Err(error) = renew() {
        tracing::warn!(%error, "the copy of index.json is not renewed");
    }
    // Also where it was the same: whoever wrote it may not have come so far.
    refs_copy::settle(layout)
}

/// Reads `index.json`: its bytes, and what they say.
pub(super) fn read_index(layout: &Layout) -> Result<(Vec<u8>, IndexFile)> {
    let bytes = read_small(&layout.root, "index.json", MAX_INDEX)?
        .ok_or_else(|| damaged(layout, "it is missing".to_owned()))?;
    match layout.parsed_index.take(&bytes).map_or_else(|| IndexFile::parse(&bytes), Ok) {
        Ok(index) => Ok((bytes, index)),
        Err(reason) => Err(damaged(layout, reason)),
    }
}

/// What was parsed when a name was looked up, for whoever reads the same bytes next: a pull of an
/// image that is there looks its name up, and again under the lock. The file is read each time, and
/// compared.
#[derive(Debug, Default)]
pub(crate) struct ParsedIndex(Mutex<Option<(Vec<u8>, IndexFile)>>);

impl ParsedIndex {
    fn keep(&self, bytes: Vec<u8>, index: IndexFile) {
        if bytes.len() <= MAX_KEPT {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((bytes, index));
        }
    }

    fn take(&self, bytes: &[u8]) -> Option<IndexFile> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.filter(|(of, _)| of == bytes).map(|(_, index)| index)
    }
}

pub(super) fn damaged(layout: &Layout, reason: String) -> Error {
    let hint = "`store check --repair` rebuilds it, and nothing is collected before";
    Error::Damaged { path: layout.root.path_of("index.json"), reason: format!("{reason}; {hint}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    #[test]
    fn what_another_process_wrote_since_counts() {
        let temp = tempfile::tempdir().unwrap();
        let one = BlobStore::init(temp.path().join("store")).unwrap();
        let other = BlobStore::open(temp.path().join("store")).unwrap();
        let put = |names: &[&str], text: &[u8]| {
            let media_type = MediaType::new(MediaType::OCI_MANIFEST);
            let target = Descriptor::new(media_type, Algorithm::Sha256.digest(text), 1);
            let mut index = IndexFile::default();
            names.iter().for_each(|name| assert!(index.set(name, &target)));
            write(other.layout(), &index.to_bytes()).unwrap();
            target.digest
        };
        for text in [b"x", b"y", b"y", b"x"] {
            let digest = put(&["a:1"], text);
            for _ in 0..3 {
                assert_eq!(one.find_ref("a:1").unwrap().descriptor.digest, digest);
            }
        }
        put(&["b:1", "c:1"], b"z");
        assert_eq!(one.remove_refs(&["a:1".into(), "b:1".into()]).unwrap(), [false, true]);
        assert_eq!(other.refs().unwrap().len(), 1);
        assert!(one.find_ref("b:1").is_err() && one.find_ref("c:1").is_ok());
    }
}
