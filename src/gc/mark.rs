use std::collections::{HashMap, HashSet};

use super::live::Live;
use super::threads;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document};
use crate::store::leases::Pin;
use crate::store::reading::{self, Found, Reading};
use crate::store::roots::Root;
use crate::store::{BlobStore, Ref, refs};

/// How many targets of refs are read at a time, by all threads together: what they are made of is
/// in memory until it is marked.
const AT_ONCE: usize = 1024;

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
    /// Documents below pins that were not there when they were looked for.
    absent: HashMap<Digest, Reading>,
    /// What refers to a subject that is not live so far, by subject.
    referrers: HashMap<Digest, Vec<Digest>>,
    /// All that refer to a subject, by subject, but for those that something led to before.
    about: HashMap<Digest, Vec<Digest>>,
}

#[derive(Debug, Default)]
struct Marked {
    live: Live,
    documents: Documents,
}

/// The documents whose children were marked, by 32 bytes of each hash: all, or half of SHA-512. Fewer
/// might be made to collide, and a collision here would lose blobs.
#[derive(Debug, Default)]
struct Documents(HashSet<[u8; 32]>);

impl Documents {
    fn insert(&mut self, digest: &Digest) {
        self.0.extend(digest.as_bytes().first_chunk());
    }

    fn contains(&self, digest: &Digest) -> bool {
        digest.as_bytes().first_chunk().is_some_and(|hash| self.0.contains(hash))
    }
}

/// A blob that is about to be marked, and how it is read.
struct Step {
    digest: Digest,
    reading: Reading,
}

impl<'a> Marker<'a> {
    pub(super) fn new(store: &'a BlobStore) -> Marker<'a> {
        Marker {
            store,
            by_refs: Marked::default(),
            by_leases: Marked::default(),
            absent: HashMap::new(),
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

    /// Marks what refs lead to. Their targets have to be there: a ref that leads nowhere is damage,
    /// and what it led to is unknown.
    ///
    /// The targets are read and parsed on a few threads, which is most of the work of marking.
    pub(super) fn mark_refs(&mut self, roots: &[Root]) -> Result<()> {
        for roots in roots.chunks(AT_ONCE) {
            let this = &*self;
            let read = threads::map_giving_way(roots, |root| this.read_root(root));
            for (root, children) in roots.iter().zip(read) {
                let mut work = Vec::new();
                let found =
                    children.map(|read| self.enter(Keeper::Ref, root.digest, read, &mut work));
                found.and_then(|()| self.mark(Keeper::Ref, work)).map_err(|source| {
                    let root = self.ref_to(root);
                    Error::UnreadableRoot { root, source: Box::new(source) }
                })?;
            }
        }
        self.by_refs.live.settle();
        Ok(())
    }

    fn read_root(&self, root: &Root) -> Result<Content> {
        let Root { digest, media_type } = root;
        if self.by_refs.documents.contains(digest) {
            return Ok(Content::Leaf);
        }
        match self.read(digest, &Reading::of_root(media_type))? {
            Content::Absent => Err(Error::BlobNotFound { digest: *digest }),
            content => Ok(content),
        }
    }

    /// Which ref an error is about. Only asked when there is one, so it may take its time.
    fn ref_to(&self, Root { digest, media_type }: &Root) -> String {
        let is_it =
            |it: &Ref| it.descriptor.digest == *digest && it.descriptor.media_type == **media_type;
        let refs = refs::read(self.store.layout());
        match refs.ok().and_then(|refs| refs.into_iter().find(is_it)).map(|it| it.name) {
            Some(Some(name)) => format!("the ref {name:?}"),
            Some(None) => format!("the unnamed ref to {digest}"),
            // It was removed meanwhile, or cannot be read any more.
            None => format!("a ref to {digest}"),
        }
    }

    /// Marks what a lease pins, which need not be there.
    pub(super) fn mark_pin(&mut self, pin: Pin) -> Result<()> {
        let (digest, reading) = match pin {
            Pin::Blob(digest) => (digest, Reading::Leaf),
            Pin::Tree(digest) => (digest, Reading::Unknown),
        };
        self.mark(Keeper::Lease, vec![Step { digest, reading }]).map_err(|source| {
            let root = match self.lease_that_pins(&digest) {
                Some(id) => format!("{digest}, which the lease {id} pins,"),
                None => format!("{digest}, which a lease pins,"),
            };
            Error::UnreadableRoot { root, source: Box::new(source) }
        })
    }

    /// Follows those documents below pins that were not there before: whoever pinned what leads to them
    /// may have found them since, and what they are made of.
    pub(super) fn follow_late(&mut self) -> Result<()> {
        for (digest, reading) in std::mem::take(&mut self.absent) {
            self.mark(Keeper::Lease, vec![Step { digest, reading }]).map_err(|source| {
                let root = format!("{digest}, which a lease keeps,");
                Error::UnreadableRoot { root, source: Box::new(source) }
            })?;
        }
        Ok(())
    }

    /// Takes note of a document that is about another. It stays for as long as that one does.
    pub(super) fn mark_referrer(&mut self, digest: Digest, subject: Digest) -> Result<()> {
        self.about.entry(subject).or_default().push(digest);
        match self.keeper(&subject) {
            None => {
                self.referrers.entry(subject).or_default().push(digest);
                Ok(())
            }
            Some(keeper) => self.mark(keeper, vec![Step::unknown(digest)]).map_err(|source| {
                Error::UnreadableRoot {
                    root: format!("{digest}, which refers to {subject},"),
                    source: Box::new(source),
                }
            }),
        }
    }

    /// Marks blobs, what they are made of and what refers to any of these.
    ///
    /// A worklist and not recursion, so that no nesting, however deep, is a reason to give up:
    /// every document is read once at most, and there are only as many as the store holds.
    fn mark(&mut self, keeper: Keeper, mut work: Vec<Step>) -> Result<()> {
        while let Some(Step { digest, reading }) = work.pop() {
            let content = match self.is_followed(keeper, &digest) {
                true => Content::Leaf,
                false => self.read(&digest, &reading)?,
            };
            if keeper == Keeper::Lease && matches!(content, Content::Absent) {
                self.absent.insert(digest, reading);
            }
            self.enter(keeper, digest, content, &mut work);
        }
        Ok(())
    }

    /// Marks one blob; what it leads to is added to the work.
    fn enter(&mut self, keeper: Keeper, digest: Digest, content: Content, work: &mut Vec<Step>) {
        let marked = self.marked(keeper);
        marked.live.insert(&digest);
        if let Content::Parent(children) = content {
            marked.documents.insert(&digest);
            work.extend(children);
        }
        let referrers = self.referrers.remove(&digest).unwrap_or_default();
        work.extend(referrers.into_iter().map(Step::unknown));
    }

    fn marked(&mut self, keeper: Keeper) -> &mut Marked {
        match keeper {
            Keeper::Ref => &mut self.by_refs,
            Keeper::Lease => &mut self.by_leases,
        }
    }

    /// What a ref led to is followed for a lease too: of what is not there yet only a lease is promised
    /// that it stays once it is.
    fn is_followed(&self, keeper: Keeper, digest: &Digest) -> bool {
        let marked = match keeper {
            Keeper::Ref => &self.by_refs,
            Keeper::Lease => &self.by_leases,
        };
        marked.documents.contains(digest)
    }

    fn read(&self, digest: &Digest, reading: &Reading) -> Result<Content> {
        Ok(match reading::read(self.store.layout(), digest, reading)? {
            Found::Absent => Content::Absent,
            Found::Other => Content::Leaf,
            Found::Document(document) => Content::Parent(Step::below(&document)),
        })
    }

    /// Which lease an error is about. Only asked when there is one, so it may take its time.
    fn lease_that_pins(&self, digest: &Digest) -> Option<String> {
        let leases = self.store.leases().ok()?;
        leases.into_iter().find(|lease| lease.trees.contains(digest)).map(|lease| lease.id)
    }
}

/// What a blob turned out to be.
enum Content {
    Absent,
    /// Nothing is below it, or that is marked already.
    Leaf,
    /// These are below it.
    Parent(Vec<Step>),
}

impl Step {
    fn below(document: &Document) -> Vec<Step> {
        let is_index = matches!(document, Document::Index(_));
        let step = |child: &Descriptor| Step {
            digest: child.digest,
            reading: Reading::of_child(&child.media_type, is_index),
        };
        document.children().map(step).collect()
    }

    fn unknown(digest: Digest) -> Step {
        Step { digest, reading: Reading::Unknown }
    }
}
