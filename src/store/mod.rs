//! The store on disk: synchronous, without any network.
//!
//! ```text
//! ROOT/                     an OCI image layout at every moment
//!   oci-layout
//!   index.json              the refs: the roots of the collector
//!   blobs/ALGORITHM/HEX     immutable: layers, configs, manifests, indexes alike
//!   .layerstore/
//!     version               of everything below here; written last when a store is made
//!     locks/{gc,turn,gate,index,space}
//!     leases/ID             what is pinned, by live processes or until a time
//!     parts/ALGORITHM-HEX.{part,state,lock}
//!     outboard/ALGORITHM/HEX  the hashes of a blob's groups: derived, may be lost
//!     suspect/ALGORITHM-HEX   marks on blobs whose bytes were found to be wrong
//!     used/ALGORITHM-HEX    when an image was used last: the time of an empty file
//!     origins/              which repositories have a blob, for its repair
//!     refs                  a copy of index.json, in case that is lost
//!     hosts/                who is connected to where, and who is to be left alone
//!     config.toml usage trash/ quarantine/ reserve
//! ```
//!
//! Locks are taken in this order, and never against it: own lease, `space`, `gc`, a part's (one a task),
//! `index`, `turn`, `gate`. A name under `blobs/` stands for bytes that are on disk; a ref stands
//! for a closure whose names are. `docs/format.md` and `docs/protocol.md` have the whole of it.

mod access;
mod adopt;
mod batch;
mod blob;
mod check;
mod claim;
mod closure;
pub(crate) mod collector;
pub(crate) mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod gate;
mod groups;
pub(crate) mod hosts;
mod index_file;
mod ingest;
mod lasting;
mod layout;
mod lease;
mod lease_record;
pub(crate) mod leases;
mod line;
pub(crate) mod origins;
pub(crate) mod outboard;
mod part;
pub(crate) mod part_names;
mod part_state;
mod pieces;
mod present;
mod pulse;
pub(crate) mod quarantine;
mod ranges;
pub(crate) mod reading;
mod recover;
pub(crate) mod refs;
mod refs_copy;
mod repair;
pub(crate) mod roots;
mod seed;
pub(crate) mod space;
mod sums;
pub(crate) mod suspect;
mod units;
mod usage;
pub(crate) mod used;
mod verified;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use batch::IngestBatch;
pub use blob::{Blob, BlobMap};
pub use check::{CheckOptions, CheckProgress, CheckReport, Damage, DamageKind};
pub use claim::{Claim, PartWatch};
pub use closure::{Node, Role};
pub use config::{ConfigKey, SpaceLimits, StoreConfig};
pub use hosts::{Hosts, Queued, Slot};
pub use index_file::Ref;
pub use ingest::Ingest;
pub use lease::{Lease, Pinned};
pub use leases::{LeaseInfo, LeaseState};
pub use part::Part;
pub use part_state::Version;
pub use pulse::Pulse;
pub use recover::{MissingName, RefsRepair, Unnamed};
pub use refs::Removal;
pub use units::{parse_duration, parse_size};
pub use usage::{Amount, BlobUsage, ImageUsage, Usage, UsageKept, UsageKinds};

use access::Sharing;
pub(crate) use layout::Layout;

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::oci::{Algorithm, Descriptor, Digest, Document};

/// A store of blobs and refs in a directory, shared by any number of processes.
///
/// Clones are the same store. Nothing is held open but a few directories, so a process may keep one
/// for as long as it lives.
#[derive(Clone, Debug)]
pub struct BlobStore {
    layout: Arc<Layout>,
}

/// A blob as the directory lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobInfo {
    /// The blob's name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What it takes on disk, in bytes.
    pub disk: u64,
    /// When it was written.
    pub modified: SystemTime,
}

impl BlobStore {
    /// Makes a store at `root`, or completes one whose making was interrupted, or opens the one
    /// that is there. An OCI image layout that another tool wrote becomes a store with its refs.
    ///
    /// # Errors
    ///
    /// [`Error::NoStore`] if other things lie there, [`Error::Unsafe`] if others may write there,
    /// [`Error::UnsupportedVersion`], [`Error::Io`].
    pub fn init(root: impl AsRef<Path>) -> Result<BlobStore> {
        BlobStore::made(Layout::init(root.as_ref(), Sharing::Private)?)
    }

    /// As [`init`](BlobStore::init), for a store that several users share: those who may write to
    /// its root. A root that is new is its group's.
    ///
    /// They are one trust domain: each can change everything in the store, and read every blob
    /// whose digest they know.
    ///
    /// # Errors
    ///
    /// As of [`init`](BlobStore::init).
    pub fn init_shared(root: impl AsRef<Path>) -> Result<BlobStore> {
        BlobStore::made(Layout::init(root.as_ref(), Sharing::Shared)?)
    }

    /// Opens the store at `root`.
    ///
    /// # Errors
    ///
    /// [`Error::NoStore`], [`Error::Unsafe`] if it is another user's or others may write to it,
    /// [`Error::UnsupportedVersion`] if a newer program made it, [`Error::Damaged`], [`Error::Io`].
    pub fn open(root: impl AsRef<Path>) -> Result<BlobStore> {
        BlobStore::made(Layout::open(root.as_ref(), Sharing::Private)?)
    }

    /// As [`open`](BlobStore::open), also where others may write to the root: the caller trusts
    /// them. A store that is nobody else's is opened as by [`open`](BlobStore::open).
    ///
    /// # Errors
    ///
    /// As of [`open`](BlobStore::open).
    pub fn open_shared(root: impl AsRef<Path>) -> Result<BlobStore> {
        BlobStore::made(Layout::open(root.as_ref(), Sharing::Shared)?)
    }

    fn made(layout: Layout) -> Result<BlobStore> {
        // Settings that make no sense are told to those who need one of them.
        if let Ok(StoreConfig { group_hashes: Some(on), .. }) = config::read(&layout) {
            layout.outboards.set_on(on);
        }
        Ok(BlobStore { layout: Arc::new(layout) })
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Whether the hashes of blobs' groups are computed as blobs come, kept, and compared when blobs
    /// are read; for this value and its clones. They are unless this, or the store's
    /// [`config`](BlobStore::config), says otherwise: without them
    /// a put takes less processor time, and nothing notices what a disk did to a blob until the
    /// next check.
    pub fn set_group_hashes(&self, on: bool) {
        self.layout.outboards.set_on(on);
    }

    /// The root directory, as it was opened.
    pub fn root(&self) -> &Path {
        self.layout.root.path()
    }

    /// The name of the file system, if it is one whose locks do not hold between machines. A pull
    /// to such a store should be warned about; a collection is refused.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn network_filesystem(&self) -> Result<Option<&'static str>> {
        Ok(self.layout.filesystem()?.network)
    }

    /// A lease that lives as long as this process. `holder` tells people what for.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn lease(&self, holder: &str) -> Result<Lease> {
        Lease::new(&self.layout, holder)
    }

    /// All leases, those too that have ended and that the next collection removes.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if one cannot be read, [`Error::Io`].
    pub fn leases(&self) -> Result<Vec<LeaseInfo>> {
        leases::list(&self.layout)
    }

    /// Ends a lease that no process holds.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseNotFound`]; [`Error::Locked`] if a process holds it, or a collection runs.
    pub fn remove_lease(&self, id: &str) -> Result<()> {
        leases::remove(&self.layout, id)
    }

    /// Begins a blob whose digest is not known yet, of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn ingest(&self, lease: &Lease, algorithm: Algorithm, limit: u64) -> Result<Ingest> {
        Ingest::new(&self.layout, lease, algorithm, limit)
    }

    /// Begins many blobs whose digests are not known yet, each of at most `limit` bytes, to be made
    /// durable together.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn ingest_batch(
        &self,
        lease: &Lease,
        algorithm: Algorithm,
        limit: u64,
    ) -> Result<IngestBatch> {
        IngestBatch::new(&self.layout, lease, algorithm, limit)
    }

    /// Asks to download a blob: one process at a time holds its part. What an earlier holder left
    /// in it is read and hashed before this returns, and what is good of a damaged blob is taken over.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn claim(&self, pinned: &Pinned) -> Result<Claim> {
        claim::claim(&self.layout, pinned)
    }

    /// A part of this caller's alone, for a blob whose part is held by a process that has stopped
    /// moving. It cannot be resumed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn private_part(&self, pinned: &Pinned) -> Result<Part> {
        Part::private(&self.layout, pinned)
    }

    /// What processes agree on about the hosts that they fetch from.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Unsafe`].
    pub fn hosts(&self) -> Result<Hosts> {
        Hosts::new(&self.layout)
    }

    /// Opens a blob. It stays readable even if it is collected. To open what a ref stands for is to
    /// use the image.
    ///
    /// # Errors
    ///
    /// [`Error::BlobNotFound`], [`Error::Io`].
    pub fn open_blob(&self, digest: &Digest) -> Result<Blob> {
        self.layout.used.note_opened(digest);
        Blob::open(&self.layout, digest)
    }

    /// Reads a manifest or an index, checked against its descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::BlobNotFound`], [`Error::DigestMismatch`], [`Error::SizeMismatch`], and those of
    /// [`Document::parse`].
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        blob::read_document(&self.layout, descriptor)
    }

    /// The blobs that are there, in no order. Names that are none of a blob's are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn blobs(&self) -> Result<impl Iterator<Item = Result<BlobInfo>> + '_> {
        let mut listings = Vec::new();
        for algorithm in Algorithm::ALL {
            if let Some(dir) = self.layout.algorithm(algorithm)? {
                listings.push((algorithm, dir, dir.names()?));
            }
        }
        Ok(listings.into_iter().flat_map(|(algorithm, dir, names)| {
            names.filter_map(move |name| {
                let name = match name {
                    Ok(name) => name,
                    Err(error) => return Some(Err(error)),
                };
                let digest = Digest::from_hex(algorithm, &name).ok()?;
                let info = dir.meta(&name).transpose()?.map(|meta| BlobInfo {
                    digest,
                    size: meta.len,
                    disk: meta.disk,
                    modified: meta.modified,
                });
                Some(info)
            })
        }))
    }

    /// The refs, in the order of `index.json`. Entries of other tools that are not understood are
    /// left out; a check reports them, and a collection refuses to guess what they keep.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if `index.json` is missing or makes no sense, [`Error::Io`].
    pub fn refs(&self) -> Result<Vec<Ref>> {
        refs::read_known(&self.layout)
    }

    /// The ref of a name, whose image counts as used now.
    ///
    /// # Errors
    ///
    /// [`Error::RefNotFound`], and as of [`refs`](BlobStore::refs).
    pub fn find_ref(&self, name: &str) -> Result<Ref> {
        let found = refs::find(&self.layout, name)?;
        self.layout.used.note(&found.descriptor.digest);
        Ok(found)
    }

    /// Pins the image of a name with all that it is made of, and says what the name stands for.
    ///
    /// # Errors
    ///
    /// [`Error::RefNotFound`], and as of [`refs`](BlobStore::refs) and [`Lease::pin`].
    pub fn pin_ref(&self, lease: &Lease, name: &str) -> Result<Descriptor> {
        refs::pin(&self.layout, lease, name)
    }

    /// Names an image whose blobs are all in place and pinned: `closure` must have the target and
    /// everything that was fetched for it. The name is durable when this returns; one that was
    /// there before is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Incomplete`] if one of the blobs is not there; [`Error::NotDurable`];
    /// [`Error::Locked`]; [`Error::Damaged`]; [`Error::NoSpace`]; [`Error::Io`].
    pub fn publish(&self, name: &str, target: &Descriptor, closure: &[Pinned]) -> Result<()> {
        refs::publish(&self.layout, name, target, closure)
    }

    /// Gives the image of one name a second one, durably; its descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::RefNotFound`], and as of [`publish`](BlobStore::publish).
    pub fn tag(&self, lease: &Lease, source: &str, name: &str) -> Result<Descriptor> {
        refs::tag(&self.layout, lease, source, name)
    }

    /// All blobs that a root leads to, each once, parents before children.
    ///
    /// # Errors
    ///
    /// As of [`document`](BlobStore::document), for the documents that are there.
    pub fn closure(&self, root: &Descriptor) -> Result<Vec<Node>> {
        closure::closure(&self.layout, root)
    }

    /// As [`closure`](BlobStore::closure), with the documents that were read for it: of every index
    /// and every manifest that is there, its content.
    ///
    /// # Errors
    ///
    /// As of [`closure`](BlobStore::closure).
    pub fn closure_with_documents(
        &self,
        root: &Descriptor,
    ) -> Result<Vec<(Node, Option<Document>)>> {
        closure::walk(&self.layout, root)
    }

    /// Looks for damage, beside whatever else goes on in the store. Nothing is changed but what is
    /// derived: blobs that have no hashes of their groups get them, and those that are damaged a mark,
    /// with which they count as missing to the next pull.
    ///
    /// `progress` is called now and then on this thread while the bytes of blobs are read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a directory cannot be listed, so that there is no telling what it holds.
    /// Whatever else is wrong, an unreadable `index.json` too, is in the report.
    pub fn check(
        &self,
        options: &CheckOptions,
        progress: impl FnMut(CheckProgress),
    ) -> Result<CheckReport> {
        check::check(&self.layout, options, progress)
    }

    /// What the store takes on disk: by kind, by what keeps it, by image and by blob.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if `index.json` cannot be read, [`Error::Io`].
    pub fn usage(&self) -> Result<Usage> {
        usage::usage(&self.layout)
    }
}
