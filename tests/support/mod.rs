//! An OCI registry inside the test process, real images to put in it, and faults to make
//! it misbehave.
//!
//! It serves the read side of the OCI distribution specification over HTTP/1.1 on
//! loopback, from plain threads, and knows nothing of the crate under test, so that what
//! a test learns from it (which bytes were sent, how often, on how many connections) is a
//! second opinion. Every socket has a timeout and every wait ends when the registry is
//! dropped: a wrong client fails its test, it does not hang it.
//!
//! ```ignore
//! #[path = "support/mod.rs"]
//! mod support;
//! use support::{Action, Fault, Image, Layer, Registry};
//!
//! let registry = Registry::start();
//! let image = Image::of(&[Layer::files(&[("etc/motd", b"hello")])]);
//! registry.push("demo", "1", &image);
//! registry.fault(Fault::on("GET", &image.layers[0].digest).times(1).then(Action::ResetAfter(100)));
//! // pull registry.reference("demo:1"), then:
//! assert_eq!(registry.blob_sends(&image.layers[0].digest), 2);
//! ```
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary and the example include this module whole and use a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "test support: a panic here is a failed test, and the example is compiled outside cfg(test)"
)]

mod actions;
mod auth;
pub mod connections;
mod content;
mod faults;
mod http;
pub mod images;
pub mod media_type;
pub mod raw;
mod record;
mod registry;
mod routes;
mod send;
mod server;
mod signals;

pub use actions::Action;
pub use auth::Bearer;
pub use content::{Content, sha256};
pub use faults::{Fault, FaultHandle};
pub use http::{Request, Response};
pub use images::{Image, Layer};
pub use record::Recorded;
pub use registry::{Builder, Registry};
