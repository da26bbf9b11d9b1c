use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Origin;
use crate::oci::Digest;

/// Something that happened during a pull.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The name was found to stand for this manifest or index.
    Resolved {
        /// Its digest.
        digest: Digest,
    },
    /// It is known what the image is made of.
    Planned {
        /// How many blobs it has.
        blobs: u64,
        /// Their sizes together, in bytes.
        bytes: u64,
    },
    /// A foreign layer is left out: it is not there, and was not asked for.
    Foreign {
        /// The layer.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Where it may be had, as its manifest says.
        urls: Vec<String>,
    },
    /// Another image was dropped, all of its names, to make room for this one.
    Dropped {
        /// What the names stood for.
        digest: Digest,
        /// The names.
        names: Vec<String>,
        /// What it took, in bytes on disk.
        freed: u64,
    },
    /// A blob was there already.
    Reused {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A download begins.
    Started {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many of them were there from an earlier download.
        resumed: u64,
    },
    /// A download has come further.
    Advanced {
        /// The blob.
        digest: Digest,
        /// How many bytes there are now.
        done: u64,
    },
    /// Another process downloads the blob, and this one follows.
    Waiting {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many bytes the other has.
        done: u64,
        /// Who it is, as far as can be told.
        holder: String,
    },
    /// All connections to a host that there may be are taken, and one is waited for.
    Queued {
        /// The host.
        host: String,
        /// Who has them, as far as can be told.
        holder: String,
    },
    /// A host asked, this process or another, to be left alone, and is asked again after that.
    Paused {
        /// The host.
        host: String,
        /// For how long.
        delay: Duration,
    },
    /// It is known which servers a blob came from.
    Served {
        /// The blob.
        digest: Digest,
        /// The servers, in the order they were asked: more than one where one broke off.
        origins: Vec<Origin>,
    },
    /// A blob is in place.
    Finished {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// Something failed and is going to be tried again.
    Retrying {
        /// What is tried.
        what: String,
        /// When.
        delay: Duration,
        /// Why.
        reason: String,
    },
}

/// Who is told of [`Event`]s. It is called from the tasks of the pull and must not block.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Event) + Send + Sync>);

impl Observer {
    /// An observer that calls a function.
    pub fn new(observe: impl Fn(Event) + Send + Sync + 'static) -> Observer {
        Observer(Arc::new(observe))
    }

    pub(super) fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl Default for Observer {
    /// Nobody.
    fn default() -> Observer {
        Observer::new(|_| {})
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
