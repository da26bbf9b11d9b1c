//! A content-addressable blob store for container images.
mod error;
pub mod oci;
pub use error::{Error, ErrorKind, RegistryMessage, Result};
pub use oci::{Descriptor, Digest, Reference};
