//! A content-addressable blob store for container images.
mod error;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod oci;
pub use error::{Error, ErrorKind, RegistryMessage, Result};
pub use oci::{Descriptor, Digest, Reference};
