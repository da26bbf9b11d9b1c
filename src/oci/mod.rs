//! The vocabulary of the OCI and Docker image formats: pure values, no I/O.
//!
//! Everything that reaches this module comes from a network or a disk and is taken to be hostile:
//! parsers are strict, every document has a cap, and only a parsed [`Digest`] can become a path.

mod descriptor;
mod digest;
mod document;
mod media_type;
mod platform;
mod reference;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use document::{Document, Index, Manifest};
pub use media_type::{BlobKind, MediaType};
pub use platform::{Platform, PlatformChoice};
pub use reference::Reference;

/// The largest manifest or index that is read, in bytes: 4 MiB, the least that the distribution
/// specification ("Pushing Manifests") asks a registry to take.
pub const MAX_DOCUMENT_SIZE: u64 = 4 * 1024 * 1024;

/// How deep indexes may be nested in one another, the root counted as 1.
pub const MAX_DEPTH: usize = 4;

/// How many descriptors one closure may have.
pub const MAX_DESCRIPTORS: usize = 10_000;

/// The largest config that is read, in bytes.
pub const MAX_CONFIG_SIZE: u64 = 8 * 1024 * 1024;
