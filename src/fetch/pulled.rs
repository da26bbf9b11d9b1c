use std::collections::HashSet;

use serde::Serialize;

use super::transfer::Arrival;
use crate::oci::{Descriptor, Digest, MediaType, Reference};

/// What a pull did. All sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pulled {
    /// The ref that names the image now.
    #[serde(rename = "ref")]
    pub name: String,
    /// The digest of the image's index or manifest.
    pub digest: Digest,
    /// What of the two it is.
    pub media_type: MediaType,
    /// The size of everything the image is made of, as far as it was wanted.
    pub size: u64,
    /// How many blobs this pull downloaded, manifests and indexes among them.
    pub fetched_blobs: u64,
    /// How many bytes it downloaded.
    pub fetched_bytes: u64,
    /// How many blobs were there, came inside their manifest, or were brought by another process
    /// meanwhile.
    pub reused_blobs: u64,
    /// Their sizes.
    pub reused_bytes: u64,
    /// How many bytes earlier, broken downloads had left.
    pub resumed_bytes: u64,
    /// How many of the reused blobs another process brought while this one waited.
    pub waited_blobs: u64,
    /// How many foreign layers were left out, and are not there.
    pub foreign_blobs: u64,
    /// Their sizes, which are no part of `size`.
    pub foreign_bytes: u64,
    /// How many manifests that are about the image, or about such a one, were brought or reused
    /// with it.
    pub referrers: u64,
    /// How many requests were repeated.
    pub retries: u64,
    /// How long it took.
    pub seconds: f64,
    /// The blobs that are counted as reused.
    #[serde(skip)]
    reused: HashSet<Digest>,
}

impl Pulled {
    pub(super) fn new(reference: &Reference, root: &Descriptor) -> Pulled {
        Pulled {
            name: reference.to_string(),
            digest: root.digest,
            media_type: root.media_type.clone(),
            size: 0,
            fetched_blobs: 0,
            fetched_bytes: 0,
            reused_blobs: 0,
            reused_bytes: 0,
            resumed_bytes: 0,
            waited_blobs: 0,
            foreign_blobs: 0,
            foreign_bytes: 0,
            referrers: 0,
            retries: 0,
            seconds: 0.0,
            reused: HashSet::new(),
        }
    }

    pub(super) fn count(&mut self, digest: &Digest, size: u64, fetched: bool) {
        let (blobs, bytes) = match fetched {
            true => (&mut self.fetched_blobs, &mut self.fetched_bytes),
            false => (&mut self.reused_blobs, &mut self.reused_bytes),
        };
        *blobs += 1;
        *bytes += size;
        if !fetched {
            self.reused.insert(*digest);
        }
    }

    /// What was counted as there comes after all.
    pub(super) fn take_back(&mut self, digest: &Digest, size: u64) {
        if self.reused.remove(digest) {
            self.reused_blobs -= 1;
            self.reused_bytes -= size;
        }
    }

    pub(super) fn arrived(&mut self, digest: &Digest, size: u64, arrival: Arrival) {
        match arrival {
            Arrival::Fetched { resumed } => {
                self.count(digest, size - resumed, true);
                self.resumed_bytes += resumed;
            }
            Arrival::Waited => {
                self.count(digest, size, false);
                self.waited_blobs += 1;
            }
        }
    }
}
