//! From a name to the list of blobs that have to be in the store.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::local::check_config;
use super::pull::{Pull, Referrers};
use super::task::blocking;
use super::{RawManifest, retry};
use crate::error::{Error, Result};
use crate::oci::{
    BlobKind, Descriptor, Digest, Document, Index, MAX_DEPTH, MAX_DESCRIPTORS, MAX_DOCUMENT_SIZE,
    PlatformChoice, Reference,
};
use crate::store::Pinned;
use crate::store::suspect::is_of_bad_bytes;

/// How many bytes all documents of an image may have together: what they say is in memory until the plan is
/// made. What an image is made of takes some KiB for each platform.
const MAX_DOCUMENTS_SIZE: u64 = 16 * MAX_DOCUMENT_SIZE;

/// What an image is made of, as far as it is wanted here.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The manifests and indexes. They are in the store.
    pub(super) documents: Vec<Fetched>,
    /// The configs and layers, each once, with what pins them.
    pub(super) blobs: Vec<(Descriptor, Pinned)>,
    /// The config of an image that has no index: only it says for which platform the image is.
    pub(super) only_config: Option<Descriptor>,
    /// The foreign layers that are left out.
    pub(super) foreign: Vec<Descriptor>,
    /// How many of the documents are here because they are about others.
    pub(super) referrers: u64,
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
    let seen = HashSet::from([root.digest]);
    let named = HashMap::from([(root.digest, (root.size, root.media_type.kind()))]);
    let mut planner = Planner { pull, seen, named, read: 0, plan: Plan::default() };
    planner.follow(vec![Step { brought, ..Step::new(root.clone()) }]).await?;
    if *pull.referrers() != Referrers::None {
        planner.follow_referrers().await?;
    }
    Ok(planner.plan)
}

struct Planner<'a> {
    pull: &'a Pull<'a>,
    /// What is in the plan, or left out of it for good.
    seen: HashSet<Digest>,
    /// What the documents lead to, platforms that are not wanted among it: what is counted.
    /// With their sizes and what they are, which must be the same wherever they are named.
    named: HashMap<Digest, (u64, BlobKind)>,
    /// How many bytes the documents have so far.
    read: u64,
    plan: Plan,
}

/// A document that is about to be looked at.
struct Step {
    descriptor: Descriptor,
    /// Its bytes, where they are at hand.
    brought: Option<RawManifest>,
    /// What it was listed as being about.
    about: Option<Digest>,
    /// Whether it is part of something that refers to the image, and not of the image.
    beside: bool,
}

impl Step {
    fn new(descriptor: Descriptor) -> Step {
        Step { descriptor, brought: None, about: None, beside: false }
    }
}

impl Planner<'_> {
    /// Follows documents, level by level, so that all of a level are pinned together.
    async fn follow(&mut self, mut level: Vec<Step>) -> Result<()> {
        let mut depth = 1;
        while !level.is_empty() {
            let roots: Vec<&Descriptor> = level.iter().map(|step| &step.descriptor).collect();
            let pinned = self.pull.pin(&roots).await?;
            let mut wanted = Vec::new();
            for (step, pinned) in level.into_iter().zip(pinned) {
                let Step { descriptor, brought, about, beside } = step;
                self.has_room_for(&descriptor)?;
                let document = self.document(&descriptor, pinned, brought).await?;
                let subject = document.subject().map(|subject| subject.digest);
                if about.is_some_and(|about| subject != Some(about)) {
                    let reason = "it was listed as being about another than it says".to_owned();
                    return Err(Error::document(reason).of_document(&descriptor.digest));
                }
                let children = self.children(&descriptor, document, depth, beside).await?;
                wanted.extend(children);
            }
            level = wanted;
            depth += 1;
        }
        Ok(())
    }

    fn has_room_for(&mut self, document: &Descriptor) -> Result<()> {
        self.read = self.read.saturating_add(document.size);
        if self.read > MAX_DOCUMENTS_SIZE {
            let what = "all that describes the image".to_owned();
            return Err(Error::TooLarge { what, limit: MAX_DOCUMENTS_SIZE });
        }
        Ok(())
    }

    /// Asks for what refers to the documents of the image, then for what refers to those. What was
    /// seen is not followed again, so a circle ends as soon as it is closed.
    async fn follow_referrers(&mut self) -> Result<()> {
        let mut subjects = 0;
        for _ in 1..MAX_DEPTH {
            let documents = self.plan.documents[subjects..].iter();
            let asked: Vec<Digest> = documents.map(|it| *it.pinned.digest()).collect();
            subjects = self.plan.documents.len();
            let listed = self.pull.referrers_of(asked).await?;
            let mut level = Vec::new();
            for (subject, descriptor) in listed {
                self.name(&subject, [&descriptor])?;
                if matches!(descriptor.media_type.kind(), BlobKind::Index | BlobKind::Manifest)
                    && self.seen.insert(descriptor.digest)
                {
                    level.push(Step {
                        about: Some(subject),
                        beside: true,
                        ..Step::new(descriptor)
                    });
                }
            }
            self.plan.referrers += level.len() as u64;
            self.follow(level).await?;
        }
        Ok(())
    }

    /// A document from the store, or else from the registry into the store.
    async fn document(
        &mut self,
        descriptor: &Descriptor,
        pinned: Pinned,
        brought: Option<RawManifest>,
    ) -> Result<Document> {
        if pinned.is_present() {
            let (store, wanted) = (self.pull.store().clone(), descriptor.clone());
            match blocking(move || store.document(&wanted)).await {
                Ok(document) => {
                    self.plan.documents.push(Fetched { pinned, fetched: false });
                    return Ok(document);
                }
                // What is saved below takes its place, whether or not it could be marked.
                Err(error) if is_of_bad_bytes(&error) => {
                    tracing::warn!(%error, "fetching it anew");
                }
                Err(error) => return Err(error),
            }
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
        // A registry may leave the type out, but not call the document something else.
        let (announced, sent) = (&descriptor.media_type, &raw.media_type);
        if !sent.as_str().is_empty() && sent != announced {
            let reason = format!("it was announced as {announced} but is sent as {sent}");
            return Err(Error::document(reason).of_document(digest));
        }
        Ok(raw)
    }

    /// Puts a document's blobs into the plan, and returns its further documents.
    async fn children(
        &mut self,
        descriptor: &Descriptor,
        document: Document,
        depth: usize,
        beside: bool,
    ) -> Result<Vec<Step>> {
        self.name(&descriptor.digest, document.children())?;
        let (documents, blobs) = match document {
            Document::Index(index) => {
                if depth > MAX_DEPTH {
                    let reason = format!("indexes are nested deeper than {MAX_DEPTH}");
                    return Err(Error::document(reason).of_document(&descriptor.digest));
                }
                let selected = if beside { index.manifests } else { self.select(&index)? };
                selected
                    .into_iter()
                    .filter(|child| self.seen.insert(child.digest))
                    .partition(|child| child.media_type.kind() != BlobKind::Other)
            }
            Document::Manifest(manifest) => {
                check_config(&manifest.config)?;
                if depth == 1 && !beside {
                    self.plan.only_config = Some(manifest.config.clone());
                }
                let all = std::iter::once(manifest.config).chain(manifest.layers);
                (Vec::new(), all.filter(|child| self.seen.insert(child.digest)).collect())
            }
        };
        let of = |error: Error| error.of_document(&descriptor.digest);
        self.blobs(blobs).await.map_err(of)?;
        documents.into_iter().map(|child| embedded_step(child, beside).map_err(of)).collect()
    }

    /// Pins blobs, and sorts them into what is wanted and what is left out.
    async fn blobs(&mut self, blobs: Vec<Descriptor>) -> Result<()> {
        let pinned = self.pull.pin(&blobs.iter().collect::<Vec<_>>()).await?;
        for (mut blob, mut pinned) in blobs.into_iter().zip(pinned) {
            // Also where the blob is there: a document that lies is no better for that.
            let data = blob.embedded()?;
            blob.data = None;
            match data {
                Some(data) if !pinned.is_present() => {
                    pinned = self.pull.save(data.into(), blob.digest).await?;
                }
                _ => {}
            }
            let left_out =
                blob.is_foreign() && !pinned.is_present() && !self.pull.includes_foreign();
            match left_out {
                true => self.plan.foreign.push(blob),
                false => self.plan.blobs.push((blob, pinned)),
            }
        }
        Ok(())
    }

    /// Counts what a document leads to, and refuses what is not the same everywhere: whichever is
    /// wrong, the blob cannot be both. What is not wanted counts as well: the store would have to
    /// follow it too.
    fn name<'d>(
        &mut self,
        document: &Digest,
        children: impl IntoIterator<Item = &'d Descriptor>,
    ) -> Result<()> {
        for child in children {
            let said = (child.size, child.media_type.kind());
            let known = *self.named.entry(child.digest).or_insert(said);
            let reason = match (known.0 == said.0, known.1 == said.1) {
                (true, true) => continue,
                (false, _) => format!("with {} bytes here and {} elsewhere", said.0, known.0),
                (true, false) => format!("as {:?} here and as {:?} elsewhere", said.1, known.1),
            };
            let reason = format!("{} is listed {reason}", child.digest);
            return Err(Error::document(reason).of_document(document));
        }
        if self.named.len() > MAX_DESCRIPTORS {
            let reason = format!("it leads to more than {MAX_DESCRIPTORS} blobs");
            return Err(Error::document(reason).of_document(document));
        }
        Ok(())
    }

    fn select(&self, index: &Index) -> Result<Vec<Descriptor>> {
        let choice = self.pull.platform();
        let selected = choice.select(&index.manifests);
        if selected.is_empty() && *choice != PlatformChoice::All {
            return Err(no_platform(self.pull.reference(), self.pull.platform(), &index.manifests));
        }
        Ok(selected.into_iter().cloned().collect())
    }
}

/// The next step to a document, which its descriptor may have in itself.
fn embedded_step(mut descriptor: Descriptor, beside: bool) -> Result<Step> {
    let data = descriptor.embedded()?;
    descriptor.data = None;
    let brought = data.map(|data| RawManifest {
        bytes: data.into(),
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest,
    });
    Ok(Step { brought, beside, ..Step::new(descriptor) })
}

/// The error of an index that has nothing for a platform.
pub(super) fn no_platform(
    reference: &Reference,
    wanted: &PlatformChoice,
    manifests: &[Descriptor],
) -> Error {
    let mut available: Vec<String> = manifests
        .iter()
        .filter(|entry| !entry.is_attestation())
        .filter_map(|entry| entry.platform.as_ref().map(ToString::to_string))
        .collect();
    available.sort();
    available.dedup();
    Error::NoPlatform {
        reference: reference.to_string(),
        wanted: wanted.to_string(),
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

    /// What refers to these documents, as the registry lists it, each with what it is about.
    async fn referrers_of(&self, subjects: Vec<Digest>) -> Result<Vec<(Digest, Descriptor)>> {
        let wanted = match self.referrers() {
            Referrers::OfType(media_type) => Some(media_type),
            Referrers::None | Referrers::All => None,
        };
        let mut lists = stream::iter(subjects)
            .map(|subject| async move {
                let _connection = self.connection().await;
                let listed = retry(
                    self.budget(),
                    |_| self.registry().referrers(self.reference(), &subject, wanted),
                    |retry| self.tell_retry(subject, retry.delay, retry.error),
                );
                let listed = listed.await?.into_iter();
                // Nothing that may be long: it is read where it is wanted.
                let short = |all| Descriptor {
                    annotations: Default::default(),
                    urls: Vec::new(),
                    data: None,
                    ..all
                };
                let each = listed.map(|descriptor| (subject, short(descriptor)));
                Ok::<_, Error>(each.collect::<Vec<_>>())
            })
            .buffered(self.concurrency());
        let mut all = Vec::new();
        while let Some(listed) = lists.try_next().await? {
            all.extend(listed);
            if all.len() > MAX_DESCRIPTORS {
                let reason = format!("more than {MAX_DESCRIPTORS} documents refer to it");
                return Err(Error::document(reason));
            }
        }
        Ok(all)
    }

    /// Puts a document that is in memory into the store, under the digest that it has.
    pub(super) async fn save(&self, bytes: Bytes, digest: Digest) -> Result<Pinned> {
        let (store, lease) = (self.store().clone(), self.lease().clone());
        blocking(move || {
            let mut ingest = store.ingest(&lease, digest.algorithm(), MAX_DOCUMENT_SIZE)?;
            ingest.write_from(&bytes[..], "the manifest")?;
            ingest.commit_as(&digest, "the manifest")
        })
        .await
    }
}
