use std::collections::{HashMap, HashSet};

use super::live::Live;
use crate::error::{Error, Result};
use crate::oci::{BlobKind, Digest, Document, MAX_DOCUMENT_SIZE, MediaType};
use crate::store::leases::Pin;
use crate::store::{Blob, BlobStore, Ref};

/// What keeps a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// A ref leads to it.
    Ref,
    /// No ref does, but a lease.
    Lease,
}

/// Finds what must stay, from refs and pins on.
#[derive(Debug)]
pub(super) struct Marker<'a> {
    store: &'a BlobStore,
    by_refs: Marked,
    by_leases: Marked,
    /// What refers to a subject that is not live so far, by subject.
    referrers: HashMap<Digest, Vec<Digest>>,
    /// All that refer to a subject, by subject, but for those that something led to before.
    about: HashMap<Digest, Vec<Digest>>,
}

#[derive(Debug, Default)]
struct Marked {
    live: Live,
    /// The documents whose children were marked. Whole digests: a collision here would lose blobs.
    documents: HashSet<Digest>,
}

/// A blob that is about to be marked, and how it is read.
struct Step {
    digest: Digest,
    reading: Reading,
}

enum Reading {
    /// It is made of nothing else.
    Leaf,
    /// A ref says that it is an index or a manifest.
    Root(MediaType),
    /// An index says that it is an index or a manifest.
    Child(MediaType),
    /// It may be either, or neither.
    Unknown,
}

impl<'a> Marker<'a> {
    pub(super) fn new(store: &'a BlobStore) -> Marker<'a> {
        Marker {
            store,
            by_refs: Marked::default(),
            by_leases: Marked::default(),
            referrers: HashMap::new(),
            about: HashMap::new(),
        }
    }

    /// What keeps a blob, as far as was marked.
    pub(super) fn keeper(&self, digest: &Digest) -> Option<Keeper> {
        if self.by_refs.live.contains(digest) {
            Some(Keeper::Ref)
        } else if self.by_leases.live.contains(digest) {
            Some(Keeper::Lease)
        } else {
            None
        }
    }

    /// Whether a lease keeps a blob, be it that a ref does too.
    pub(super) fn is_leased(&self, digest: &Digest) -> bool {
        self.by_leases.live.contains(digest)
    }

    /// What refers to a blob, of what nothing else led to.
    pub(super) fn about(&self, subject: &Digest) -> &[Digest] {
        self.about.get(subject).map_or(&[], |all| all)
    }

    /// Marks what a ref leads to. Its target has to be there: a ref that leads nowhere is damage,
    /// and what it led to is unknown.
    pub(super) fn mark_ref(&mut self, root: &Ref) -> Result<()> {
        let Ref { name, descriptor } = root;
        let digest = descriptor.digest;
        let step = Step { digest, reading: Reading::of(&descriptor.media_type, Reading::Root) };
        let there = match self.store.layout().blob_meta(&digest) {
            Ok(None) => Err(Error::BlobNotFound { digest }),
            // Something other than a file is met when it is read.
            looked_at => looked_at.map(drop),
        };
        there.and_then(|()| self.mark(Keeper::Ref, step)).map_err(|source| {
            let root = match name {
                Some(name) => format!("the ref {name:?}"),
                None => format!("the unnamed ref to {digest}"),
            };
            Error::UnreadableRoot { root, source: Box::new(source) }
        })
    }

    /// Marks what a lease pins, which need not be there.
    pub(super) fn mark_pin(&mut self, pin: Pin) -> Result<()> {
        let (digest, reading) = match pin {
            Pin::Blob(digest) => (digest, Reading::Leaf),
            Pin::Tree(digest) => (digest, Reading::Unknown),
        };
        self.mark(Keeper::Lease, Step { digest, reading }).map_err(|source| {
            let root = match self.lease_that_pins(&digest) {
                Some(id) => format!("{digest}, which the lease {id} pins,"),
                None => format!("{digest}, which a lease pins,"),
            };
            Error::UnreadableRoot { root, source: Box::new(source) }
        })
    }

    /// Takes note of a document that is about another. It stays for as long as that one does.
    pub(super) fn mark_referrer(&mut self, digest: Digest, subject: Digest) -> Result<()> {
        self.about.entry(subject).or_default().push(digest);
        match self.keeper(&subject) {
            None => {
                self.referrers.entry(subject).or_default().push(digest);
                Ok(())
            }
            Some(keeper) => {
                self.mark(keeper, Step { digest, reading: Reading::Unknown }).map_err(|source| {
                    Error::UnreadableRoot {
                        root: format!("{digest}, which refers to {subject},"),
                        source: Box::new(source),
                    }
                })
            }
        }
    }

    /// Marks a blob, what it is made of and what refers to any of these.
    ///
    /// A worklist and not recursion, so that no nesting, however deep, is a reason to give up:
    /// every document is read once at most, and there are only as many as the store holds.
    fn mark(&mut self, keeper: Keeper, root: Step) -> Result<()> {
        let mut work = vec![root];
        while let Some(Step { digest, reading }) = work.pop() {
            self.marked(keeper).live.insert(&digest);
            let referrers = self.referrers.remove(&digest).unwrap_or_default();
            work.extend(referrers.into_iter().map(Step::unknown));
            if matches!(reading, Reading::Leaf) || self.is_followed(keeper, &digest) {
                continue;
            }
            let Some(document) = self.read(&digest, &reading)? else {
                continue;
            };
            self.marked(keeper).documents.insert(digest);
            let is_index = matches!(document, Document::Index(_));
            work.extend(document.children().map(|child| Step {
                digest: child.digest,
                reading: match is_index {
                    true => Reading::of(&child.media_type, Reading::Child),
                    false => Reading::Leaf,
                },
            }));
        }
        Ok(())
    }

    fn marked(&mut self, keeper: Keeper) -> &mut Marked {
        match keeper {
            Keeper::Ref => &mut self.by_refs,
            Keeper::Lease => &mut self.by_leases,
        }
    }

    /// What a ref led to needs no lease; what a lease led to may yet be found by a ref.
    fn is_followed(&self, keeper: Keeper, digest: &Digest) -> bool {
        self.by_refs.documents.contains(digest)
            || keeper == Keeper::Lease && self.by_leases.documents.contains(digest)
    }

    /// Reads a document, its digest verified; `None` if it is absent, as a platform that was not
    /// pulled is, or if it is a blob of another kind.
    ///
    /// What a ref calls an index or a manifest and cannot be read as one is an error, also where the
    /// bytes are those of the digest: another program may know what it is made of. An index, which
    /// anybody may have written, is not trusted to stop every collection so: its child is then
    /// what it looks like.
    fn read(&self, digest: &Digest, reading: &Reading) -> Result<Option<Document>> {
        let blob = match Blob::open(self.store.layout(), digest) {
            Err(Error::BlobNotFound { .. }) => return Ok(None),
            opened => opened?,
        };
        let size = blob.len();
        match reading {
            Reading::Leaf => Ok(None),
            Reading::Unknown if size > MAX_DOCUMENT_SIZE => Ok(None),
            Reading::Unknown => Ok(Document::sniff(&blob.read_small(size)?)),
            Reading::Root(media_type) => {
                let parsed = Document::parse(&blob.read_small(size)?, media_type);
                parsed.map(Some).map_err(|error| error.of_document(digest))
            }
            Reading::Child(_) if size > MAX_DOCUMENT_SIZE => Ok(None),
            Reading::Child(media_type) => {
                let bytes = blob.read_small(size)?;
                Ok(Document::parse(&bytes, media_type).ok().or_else(|| Document::sniff(&bytes)))
            }
        }
    }

    /// Which lease an error is about. Only asked when there is one, so it may take its time.
    fn lease_that_pins(&self, digest: &Digest) -> Option<String> {
        let leases = self.store.leases().ok()?;
        leases.into_iter().find(|lease| lease.trees.contains(digest)).map(|lease| lease.id)
    }
}

impl Step {
    fn unknown(digest: Digest) -> Step {
        Step { digest, reading: Reading::Unknown }
    }
}

impl Reading {
    fn of(media_type: &MediaType, declared: impl Fn(MediaType) -> Reading) -> Reading {
        match media_type.kind() {
            BlobKind::Index | BlobKind::Manifest | BlobKind::Schema1 => {
                declared(media_type.clone())
            }
            // Another tool's word for what may well be a document.
            BlobKind::Other => Reading::Unknown,
        }
    }
}
