//! What connections share that one client makes.

use std::sync::Arc;

use super::peer::Reach;
use super::settings::Tls;

/// How a server is connected to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// How TLS is spoken; nothing for connections without it.
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) reach: Reach,
}
