//! A content-addressable blob store for container images, and a fetcher that fills it from any
//! registry.
//!
//! A [`BlobStore`] is a directory that any number of processes use at once, with no daemon. It is an
//! OCI image layout at every moment, so other tools read it as it is. What a call has acknowledged
//! survives `kill -9`, a power cut, a full disk and every collection.
//!
//! - [`BlobStore`]: blobs, refs and leases on disk. Synchronous, and without any network; all of the
//!   crate that is left with `default-features = false`.
//! - [`fetch::Puller`] brings images from registries: one download per blob over all processes,
//!   resumed where an earlier one broke off. Asynchronous, on tokio (feature `fetch`).
//! - [`gc::collect`] removes what neither a ref nor a lease needs, beside running pulls.
//! - [`oci`]: digests, descriptors, names and documents.
//!
//! It does not unpack layers, and it does not push. It holds no global state, prints nothing, and
//! reads no environment.
//!
//! # Example
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let root = dir.path().join("store");
//! use std::io::{Read, Write};
//! use layerstore::BlobStore;
//! use layerstore::oci::Algorithm;
//!
//! let store = BlobStore::init(&root)?;
//! let lease = store.lease("an example")?;
//! let mut ingest = store.ingest(&lease, Algorithm::Sha256, 1024)?;
//! ingest.write_all(b"hello").unwrap();
//! let pinned = ingest.commit()?;
//!
//! let mut text = String::new();
//! store.open_blob(pinned.digest())?.read_to_string(&mut text).unwrap();
//! assert_eq!(text, "hello");
//! # Ok::<(), layerstore::Error>(())
//! ```
#![cfg_attr(
    not(feature = "fetch"),
    allow(
        dead_code,
        unused_imports,
        reason = "the transfer needs more of the store than others do"
    )
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::disallowed_methods,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used
    )
)]

mod error;
#[cfg(feature = "fetch")]
pub mod fetch;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gc;
pub mod oci;
mod store;
mod sys;

pub use error::{Cap, Error, ErrorKind, Kept, RegistryMessage, Result, Room};
pub use gc::{DroppedImage, GcOptions, GcReport, RoomReport};
pub use oci::{Descriptor, Digest, Reference};
pub use store::{
    Amount, Blob, BlobInfo, BlobMap, BlobStore, BlobUsage, CheckOptions, CheckProgress,
    CheckReport, Claim, ConfigKey, Damage, DamageKind, Hosts, ImageUsage, Ingest, IngestBatch,
    Lease, LeaseInfo, LeaseState, MissingName, Node, Part, PartWatch, Pinned, Pulse, Queued, Ref,
    RefsRepair, Removal, Role, Slot, SpaceLimits, StoreConfig, Unnamed, Usage, UsageKept,
    UsageKinds, Version, parse_duration, parse_size,
};

/// The README's example is compiled, so that it stays true.
#[cfg(all(doctest, feature = "fetch"))]
#[doc = include_str!("../README.md")]
struct Readme;
