//! From a name to the list of blobs that have to be in the store.

use std::collections::HashSet;
use std::io::Write;

use bytes::Bytes;

use super::puller::{Pull, blocking};
use super::{RawManifest, retry};
use crate::error::{Error, Result};
use crate::oci::{
    BlobKind, Descriptor, Digest, Document, Index, MAX_DEPTH, MAX_DESCRIPTORS, MAX_DOCUMENT_SIZE,
    PlatformChoice,
};
use crate::store::Pinned;

/// What an image is made of, as far as it is wanted here.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The manifests and indexes. They are in the store.
    pub(super) documents: Vec<Fetched>,
    /// The configs and layers, each once, with what pins them.
    pub(super) blobs: Vec<(Descriptor, Pinned)>,
    /// The config of an image that has no index: only it says for which platform the image is.
    pub(super) only_config: Option<Digest>,
}

/// A document that is in the store.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) pinned: Pinned,
    /// Whether this pull brought it.
    pub(super) fetched: bool,
}

/// Follows an image from its root: brings in the manifests and indexes that are wanted, and pins
/// everything that they lead to before it looks whether it is there.
pub(super) async fn plan(
    pull: &Pull<'_>,
    root: &Descriptor,
    brought: Option<RawManifest>,
) -> Result<Plan> {
    let mut planner = Planner { pull, seen: HashSet::new(), plan: Plan::default() };
    planner.seen.insert(root.digest);
    let pinned = pull.pin(&[root]).await?;
    let mut level = vec![(root.clone(), pinned.into_iter().next(), brought)];
    let mut depth = 1;
    // Level by level, so that the children of one are pinned together.
    while !level.is_empty() {
        let mut wanted = Vec::new();
        for (descriptor, pinned, brought) in level {
            let pinned = pinned.ok_or(Error::BlobNotFound { digest: descriptor.digest })?;
            let document = planner.document(&descriptor, pinned, brought).await?;
            planner.children(&descriptor, document, depth, &mut wanted).await?;
        }
        depth += 1;
        let pinned = pull.pin(&wanted.iter().collect::<Vec<_>>()).await?;
        level = wanted
            .into_iter()
            .zip(pinned)
            .map(|(descriptor, pinned)| (descriptor, Some(pinned), None))
            .collect();
    }
    Ok(planner.plan)
}

struct Planner<'a> {
    pull: &'a Pull<'a>,
    seen: HashSet<Digest>,
    plan: Plan,
}

impl Planner<'_> {
    /// A document from the store, or else from the registry into the store.
    async fn document(
        &mut self,
        descriptor: &Descriptor,
        pinned: Pinned,
        brought: Option<RawManifest>,
    ) -> Result<Document> {
        if pinned.is_present() {
            let (store, wanted) = (self.pull.store().clone(), descriptor.clone());
            let document = blocking(move || store.document(&wanted)).await?;
            self.plan.documents.push(Fetched { pinned, fetched: false });
            return Ok(document);
        }
        let raw = match brought {
            Some(raw) => raw,
            None => self.download(descriptor).await?,
        };
        let document = Document::parse(&raw.bytes, &descriptor.media_type)
            .map_err(|error| error.of_document(&descriptor.digest))?;
        let pinned = self.pull.save(raw.bytes, raw.digest).await?;
        self.plan.documents.push(Fetched { pinned, fetched: true });
        Ok(document)
    }

    async fn download(&self, descriptor: &Descriptor) -> Result<RawManifest> {
        let (pull, digest) = (self.pull, &descriptor.digest);
        if descriptor.size > MAX_DOCUMENT_SIZE {
            let what = format!("the manifest {digest}");
            return Err(Error::TooLarge { what, limit: MAX_DOCUMENT_SIZE });
        }
        let raw = retry(
            pull.budget(),
            |_| pull.registry().manifest(pull.reference(), Some(digest)),
            |retry| pull.tell_retry(*digest, retry.delay, retry.error),
        )
        .await?;
        if raw.bytes.len() as u64 != descriptor.size {
            return Err(Error::SizeMismatch {
                origin: format!("the manifest {digest}"),
                expected: descriptor.size,
                actual: raw.bytes.len() as u64,
                more: false,
            });
        }
        Ok(raw)
    }

    /// Sorts a document's children into further documents, which go to `wanted`, and blobs.
    async fn children(
        &mut self,
        descriptor: &Descriptor,
        document: Document,
        depth: usize,
        wanted: &mut Vec<Descriptor>,
    ) -> Result<()> {
        let blobs: Vec<Descriptor> = match document {
            Document::Index(index) => {
                if depth > MAX_DEPTH {
                    let reason = format!("indexes are nested deeper than {MAX_DEPTH}");
                    return Err(Error::document(reason).of_document(&descriptor.digest));
                }
                let selected = self.select(&index)?;
                let (documents, blobs): (Vec<_>, Vec<_>) = selected
                    .into_iter()
                    .filter(|child| self.seen.insert(child.digest))
                    .partition(|child| child.media_type.kind() != BlobKind::Other);
                wanted.extend(documents);
                blobs
            }
            Document::Manifest(manifest) => {
                if depth == 1 {
                    self.plan.only_config = Some(manifest.config.digest);
                }
                let all = std::iter::once(manifest.config).chain(manifest.layers);
                all.filter(|child| self.seen.insert(child.digest)).collect()
            }
        };
        if self.seen.len() > MAX_DESCRIPTORS {
            let reason = format!("it leads to more than {MAX_DESCRIPTORS} blobs");
            return Err(Error::document(reason).of_document(&descriptor.digest));
        }
        let pinned = self.pull.pin(&blobs.iter().collect::<Vec<_>>()).await?;
        self.plan.blobs.extend(blobs.into_iter().zip(pinned));
        Ok(())
    }

    fn select(&self, index: &Index) -> Result<Vec<Descriptor>> {
        let choice = self.pull.platform();
        let selected = choice.select(&index.manifests);
        if selected.is_empty() && *choice != PlatformChoice::All {
            return Err(no_platform(self.pull, &index.manifests));
        }
        Ok(selected.into_iter().cloned().collect())
    }
}

fn no_platform(pull: &Pull<'_>, manifests: &[Descriptor]) -> Error {
    let mut available: Vec<String> = manifests
        .iter()
        .filter(|entry| !entry.is_attestation())
        .filter_map(|entry| entry.platform.as_ref().map(ToString::to_string))
        .collect();
    available.sort();
    available.dedup();
    Error::NoPlatform {
        reference: pull.reference().to_string(),
        wanted: pull.platform().to_string(),
        available: if available.is_empty() { "none".to_owned() } else { available.join(", ") },
    }
}

impl Pull<'_> {
    /// Pins blobs by their descriptors.
    pub(super) async fn pin(&self, blobs: &[&Descriptor]) -> Result<Vec<Pinned>> {
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        let lease = self.lease().clone();
        let blobs: Vec<_> = blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        blocking(move || lease.pin(&blobs)).await
    }

    /// Puts a document that is in memory into the store, under the digest that it has.
    async fn save(&self, bytes: Bytes, digest: Digest) -> Result<Pinned> {
        let (store, lease) = (self.store().clone(), self.lease().clone());
        blocking(move || {
            let mut ingest = store.ingest(&lease, digest.algorithm(), MAX_DOCUMENT_SIZE)?;
            ingest.write_all(&bytes).map_err(|source| Error::Io {
                action: "write to",
                path: store.root().to_path_buf(),
                source,
            })?;
            ingest.commit_as(&digest, "the manifest")
        })
        .await
    }
}
