//! The files that keep the hashes of blobs' groups: `.layerstore/outboard/ALGORITHM/HEX`.
//!
//! ```text
//! 0    magic                16 bytes
//! 16   length of the blob   u64, little-endian
//! 24   length of a group    u32, little-endian
//! 28   CRC-32               u32, little-endian: of the rest of the header, and the blob's digest
//! 32   BLAKE3 of the blob   32 bytes
//! 64   a record per group   leaf (32 bytes), sums of its four pages (8 bytes each)
//! ```
//!
//! They are derived: nothing of them is synced, and a power cut may leave one empty, torn, or gone.
//! So what they say against a blob is only a reason to ask the blob's digest, and where that holds,
//! the file is written anew. They speak for a blob only in what was hashed in the same pass in which
//! its digest held.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::access;
use super::groups::{self, GROUP, Groups, RECORD, Record, Tree};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::sys::{self, Aside, Dir, Meta, Sha256};

const MAGIC: &[u8; 16] = b"layerstore-grp2\n";
const HEADER: u64 = 64;
/// Records are written in pieces of about this size, so that the memory of an ingest is bounded.
const SPILL: usize = 64 * 1024;

/// Blobs of at most this length, in bytes, have no such file: they are small enough to be read and
/// compared with their digest whole.
pub(crate) const SMALL_BLOB: u64 = 64 * 1024;

/// How long the file of a blob of this length is.
pub(crate) fn size_for(len: u64) -> u64 {
    match len > SMALL_BLOB {
        true => len.div_ceil(GROUP as u64).saturating_mul(RECORD as u64).saturating_add(HEADER),
        false => 0,
    }
}

/// The directories of these files, and whether they are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Outboards(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: Dir,
    private: Dir,
    on: AtomicBool,
    dirs: [OnceLock<Dir>; Algorithm::ALL.len()],
}

impl Outboards {
    pub(crate) fn new(root: &Dir, private: &Dir) -> Outboards {
        let (root, private, on) = (root.clone(), private.clone(), AtomicBool::new(true));
        Outboards(Arc::new(Inner { root, private, on, dirs: Default::default() }))
    }

    /// Whether group hashes are kept and compared.
    pub(crate) fn are_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    pub(crate) fn set_on(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
    }

    /// The directory of an algorithm's files; `None` if there is none yet.
    pub(crate) fn dir(&self, algorithm: Algorithm) -> Result<Option<Dir>> {
        let cell = &self.0.dirs[algorithm as usize];
        if let Some(dir) = cell.get() {
            return Ok(Some(dir.clone()));
        }
        let Some(outboard) = self.0.private.open_dir("outboard")? else {
            return Ok(None);
        };
        let Some(dir) = outboard.open_dir(algorithm.name())? else {
            return Ok(None);
        };
        access::check(&outboard, &self.0.root)?;
        access::check(&dir, &self.0.root)?;
        Ok(Some(cell.get_or_init(|| dir).clone()))
    }

    /// When a blob was last hashed whole and found good: the time of its file. What cannot be looked
    /// at says nothing.
    pub(crate) fn checked(&self, digest: &Digest) -> Option<SystemTime> {
        let dir = self.dir(digest.algorithm()).ok()??;
        dir.meta(&digest.hex()).ok()?.map(|meta| meta.modified)
    }

    /// Notes that a blob was compared with its hashes, all of it. That this fails costs no more than
    /// that it is compared again.
    pub(crate) fn set_checked(&self, digest: &Digest) {
        let touched = self.dir(digest.algorithm()).and_then(|dir| match dir {
            Some(dir) => dir.touch(&digest.hex()).map(drop),
            None => Ok(()),
        });
        if let Err(error) = touched {
            tracing::debug!(%digest, %error, "the time of the check is not kept");
        }
    }

    fn make_dir(&self, algorithm: Algorithm) -> Result<Dir> {
        match self.dir(algorithm)? {
            Some(dir) => Ok(dir),
            None => {
                let dir = self.0.private.make_dir("outboard")?.make_dir(algorithm.name())?;
                Ok(self.0.dirs[algorithm as usize].get_or_init(|| dir).clone())
            }
        }
    }

    /// The hashes of a blob of `len` bytes; `None` if there are none that could be its, or none that
    /// can be read: they are derived, and the blob's digest is asked instead.
    pub(crate) fn open(&self, digest: &Digest, len: u64) -> Option<Outboard> {
        self.try_open(digest, len).unwrap_or_else(|error| {
            tracing::debug!(%digest, %error, "the group hashes cannot be opened");
            None
        })
    }

    fn try_open(&self, digest: &Digest, len: u64) -> Result<Option<Outboard>> {
        let Some(dir) = self.dir(digest.algorithm())? else {
            return Ok(None);
        };
        let name = digest.hex();
        let Some(file) = dir.open_file(&name)? else {
            return Ok(None);
        };
        let expected = HEADER + len.div_ceil(GROUP as u64) * RECORD as u64;
        if Meta::of(&file).context("look at", dir.path_of(&name))?.len != expected {
            return Ok(None);
        }
        let mut found = [0; HEADER as usize];
        sys::read_at(&file, &mut found, 0).context("read", dir.path_of(&name))?;
        let mut root = [0; 32];
        root.copy_from_slice(&found[32..]);
        let good = found == header(digest, len, &root);
        Ok(good.then_some(Outboard { file, root }))
    }

    /// How long the blob is that a file speaks of, if the file is not as good as none.
    #[cfg(feature = "fetch")]
    pub(crate) fn len_of(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(dir) = self.dir(digest.algorithm())? else {
            return Ok(None);
        };
        let Ok(Some(file)) = dir.open_file(&digest.hex()) else {
            return Ok(None);
        };
        let mut len = [0; 8];
        if sys::read_at(&file, &mut len, 16).is_err() {
            return Ok(None);
        }
        let len = u64::from_le_bytes(len);
        // A length that is made up has no file of its length.
        let is_possible = len
            <= Meta::of(&file).context("look at", dir.path_of(&digest.hex()))?.len / RECORD as u64
                * GROUP as u64;
        match is_possible {
            true => Ok(self.open(digest, len).map(|_| len)),
            false => Ok(None),
        }
    }

    /// Removes a file that was found to be wrong.
    pub(crate) fn forget(&self, digest: &Digest) -> Result<()> {
        match self.dir(digest.algorithm())? {
            Some(dir) => dir.unlink(&digest.hex()).map(drop),
            None => Ok(()),
        }
    }
}

/// The hashes of one blob's groups.
#[derive(Debug)]
pub(crate) struct Outboard {
    file: File,
    /// The BLAKE3 hash of the blob.
    root: [u8; 32],
}

impl Outboard {
    /// Reads the records from the `first` group on, as many as `records` has room for.
    pub(crate) fn read(&self, first: u64, records: &mut [Record]) -> Result<()> {
        let at = HEADER + first * RECORD as u64;
        sys::read_at(&self.file, records.as_flattened_mut(), at).context("read", "group hashes")
    }

    /// Whether the leaves make the hash of a blob of `len` bytes that is in the header: then none of
    /// them was changed since they were written together.
    pub(crate) fn is_sound(&self, len: u64) -> bool {
        let (mut tree, count) = (Tree::default(), len.div_ceil(GROUP as u64));
        let mut records = [[0; RECORD]; SPILL / RECORD];
        let mut first = 0;
        while first < count {
            // No more than there is room for.
            let some = (count - first).min(records.len() as u64) as usize;
            if self.read(first, &mut records[..some]).is_err() {
                return false;
            }
            for record in &records[..some] {
                let mut leaf = [0; 32];
                leaf.copy_from_slice(groups::leaf_of(record));
                tree.push(leaf);
            }
            first += some as u64;
        }
        tree.root() == Some(self.root)
    }
}

fn header(digest: &Digest, len: u64, root: &[u8; 32]) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..16].copy_from_slice(MAGIC);
    header[16..24].copy_from_slice(&len.to_le_bytes());
    // 16 KiB, which is a u32.
    header[24..28].copy_from_slice(&(GROUP as u32).to_le_bytes());
    header[32..].copy_from_slice(root);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header);
    crc.update(digest.to_string().as_bytes());
    header[28..32].copy_from_slice(&crc.finalize().to_le_bytes());
    header
}

/// Of two blobs that are hashed together, so much of each in turn: what was just hashed is in the
/// cache still when the groups are.
const STRETCH: usize = 128 * 1024;

/// Hashes a blob as its bytes come: for its digest, and for the hashes of its groups.
#[derive(Debug)]
pub(crate) struct BlobHasher {
    whole: Whole,
    groups: Option<GroupWriter>,
}

impl BlobHasher {
    pub(crate) fn new(algorithm: Algorithm, outboards: &Outboards) -> BlobHasher {
        let groups = outboards.are_on().then(|| GroupWriter::new(algorithm, outboards));
        BlobHasher { whole: Whole::new(algorithm), groups }
    }

    /// For its digest only.
    pub(crate) fn of_digest(algorithm: Algorithm) -> BlobHasher {
        BlobHasher { whole: Whole::new(algorithm), groups: None }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        let Some(groups) = &mut self.groups else {
            return self.whole.update(bytes);
        };
        // Group by group: what was just hashed once is in the nearest cache for the second time.
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(groups.groups.room()));
            self.whole.update(now);
            groups.update(now);
            bytes = later;
        }
    }

    /// Takes in the next bytes of two blobs, which together are hashed faster than one by one.
    pub(crate) fn update_both(blobs: [&mut BlobHasher; 2], bytes: [&[u8]; 2]) {
        let ([one, other], [mut ones, mut others]) = (blobs, bytes);
        while let both @ 1.. = ones.len().min(others.len()).min(STRETCH) {
            let ((now_of_one, later_of_one), (now_of_other, later_of_other)) =
                (ones.split_at(both), others.split_at(both));
            Whole::update_both([&mut one.whole, &mut other.whole], [now_of_one, now_of_other]);
            one.update_groups(now_of_one);
            other.update_groups(now_of_other);
            (ones, others) = (later_of_one, later_of_other);
        }
        one.update(ones);
        other.update(others);
    }

    fn update_groups(&mut self, bytes: &[u8]) {
        if let Some(groups) = &mut self.groups {
            groups.update(bytes);
        }
    }

    /// The digest of what came so far.
    pub(crate) fn digest(&self) -> Digest {
        self.whole.digest()
    }

    /// Keeps the hashes of the groups of a blob that is in place, and whose digest held in this
    /// very pass; whether that went well. That it fails takes nothing from the blob, but older
    /// hashes that are there are not to be believed then.
    pub(crate) fn keep(self, digest: &Digest) -> bool {
        let kept = self.groups.map(|groups| groups.keep(digest));
        if let Some(Err(error)) = &kept {
            tracing::debug!(%digest, %error, "the group hashes are not kept");
        }
        matches!(kept, Some(Ok(())))
    }
}

/// The running hash of a whole blob.
#[derive(Debug)]
enum Whole {
    Sha256(Sha256),
    Other(Hasher),
}

impl Whole {
    fn new(algorithm: Algorithm) -> Whole {
        match algorithm {
            Algorithm::Sha256 => Whole::Sha256(Sha256::new()),
            Algorithm::Sha512 | Algorithm::Blake3 => Whole::Other(algorithm.hasher()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Whole::Sha256(hash) => hash.update(bytes),
            Whole::Other(hash) => hash.update(bytes),
        }
    }

    fn update_both(hashes: [&mut Whole; 2], bytes: [&[u8]; 2]) {
        match hashes {
            [Whole::Sha256(one), Whole::Sha256(other)] => Sha256::update_both([one, other], bytes),
            [one, other] => {
                one.update(bytes[0]);
                other.update(bytes[1]);
            }
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Whole::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.clone().finish()),
            Whole::Other(hash) => hash.clone().finish(),
        }
    }
}

/// The hashes of a blob's groups, being written.
#[derive(Debug)]
struct GroupWriter {
    algorithm: Algorithm,
    outboards: Outboards,
    groups: Groups,
    tree: Tree,
    /// How many bytes of the blob are hashed.
    len: u64,
    /// Records that are not in the file yet.
    pending: Vec<u8>,
    /// Nameless, and made only when there is too much for memory.
    aside: Option<Aside>,
    /// Where the next records go.
    end: u64,
    /// What went wrong on the way.
    failed: Option<Error>,
}

impl GroupWriter {
    fn new(algorithm: Algorithm, outboards: &Outboards) -> GroupWriter {
        GroupWriter {
            algorithm,
            outboards: outboards.clone(),
            groups: Groups::default(),
            tree: Tree::default(),
            len: 0,
            pending: Vec::new(),
            aside: None,
            end: HEADER,
            failed: None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let GroupWriter { groups, tree, pending, .. } = self;
        groups.update(bytes, |group, n| add(tree, pending, group, n));
        self.len += bytes.len() as u64;
        if self.pending.len() >= SPILL {
            self.failed = self.spill().err();
        }
    }

    fn spill(&mut self) -> Result<()> {
        let aside = match self.aside.take() {
            Some(aside) => aside,
            None => Aside::new(&self.outboards.make_dir(self.algorithm)?)?,
        };
        sys::write_at(aside.file(), &self.pending, self.end, &aside.path())?;
        self.end += self.pending.len() as u64;
        self.pending.clear();
        self.aside = Some(aside);
        Ok(())
    }

    fn keep(mut self, digest: &Digest) -> Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.len <= SMALL_BLOB {
            return Ok(());
        }
        let (groups, tree) = (std::mem::take(&mut self.groups), &mut self.tree);
        groups.finish(|group, n| add(tree, &mut self.pending, group, n));
        let Some(root) = std::mem::take(&mut self.tree).root() else {
            return Ok(());
        };
        self.spill()?;
        let Some(aside) = self.aside else { return Ok(()) };
        sys::write_at(aside.file(), &header(digest, self.len, &root), 0, &aside.path())?;
        let dir = self.outboards.make_dir(self.algorithm)?;
        aside.set_mode(dir.file_mode())?;
        aside.name_over(&dir, &digest.hex()).map(drop)
    }
}

fn add(tree: &mut Tree, records: &mut Vec<u8>, group: &[u8], n: u64) {
    let record = groups::record(group, n);
    let mut leaf = [0; 32];
    leaf.copy_from_slice(groups::leaf_of(&record));
    tree.push(leaf);
    records.extend_from_slice(&record);
}
