//! A content-addressable blob store for container images.

mod error;
pub mod gc;
pub mod oci;
mod store;
mod sys;

pub use error::{Error, ErrorKind, RegistryMessage, Result};
pub use gc::{GcOptions, GcReport};
pub use oci::{Descriptor, Digest, Reference};
pub use store::{
    Blob, BlobInfo, BlobMap, BlobStore, Claim, Ingest, Lease, LeaseInfo, LeaseState, Node, Part,
    PartWatch, Pinned, Ref, Role,
};
