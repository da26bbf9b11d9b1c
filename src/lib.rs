//! A content-addressable blob store for container images.

mod error;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod oci;
mod store;
mod sys;

pub use error::{Error, ErrorKind, RegistryMessage, Result};
pub use oci::{Descriptor, Digest, Reference};
pub use store::{
    Blob, BlobInfo, BlobMap, BlobStore, Claim, Ingest, Lease, LeaseInfo, LeaseState, Node, Part,
    PartWatch, Pinned, Ref, Role,
};
