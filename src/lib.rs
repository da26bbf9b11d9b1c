//! A content-addressable blob store for container images.
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

pub use error::{Error, ErrorKind, RegistryMessage, Result};
pub use gc::{GcOptions, GcReport};
pub use oci::{Descriptor, Digest, Reference};
pub use store::{
    Amount, Blob, BlobInfo, BlobMap, BlobStore, CheckOptions, CheckProgress, CheckReport, Claim,
    Damage, DamageKind, ImageUsage, Ingest, Lease, LeaseInfo, LeaseState, Node, Part, PartWatch,
    Pinned, Ref, Role, Usage,
};
