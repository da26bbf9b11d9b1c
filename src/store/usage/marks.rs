use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::{BlobUsage, ImageUsage};
use crate::error::{Error, Result};
use crate::oci::{BlobKind, Descriptor, Digest, Document, MediaType};
use crate::store::closure::Role;
use crate::store::layout::Layout;
use crate::store::leases::{self, LeaseState};
use crate::store::reading::{self, Found, Reading};
use crate::store::{Ref, refs};
use crate::sys::Meta;

/// Which images and leases each blob belongs to, by the rules of a collection (`gc::mark`), which
/// only wants to know whether there is one.
pub(super) struct Marks<'a> {
    layout: &'a Layout,
    marks: HashMap<Digest, Mark>,
    documents: HashMap<Digest, Option<Rc<Parsed>>>,
    images: Vec<ImageUsage>,
    problems: Vec<String>,
    /// The leases that have ended, which a collection removes.
    pub(super) ended: HashSet<String>,
}

/// What is known of a blob.
#[derive(Default)]
pub(super) struct Mark {
    /// The file; `None` if there is none, or not yet.
    pub(super) there: Option<Meta>,
    pub(super) role: Option<Role>,
    pub(super) media_type: Option<MediaType>,
    /// In rising order.
    pub(super) images: Vec<usize>,
    pub(super) leased: bool,
}

/// What of a document counts here.
struct Parsed {
    role: Role,
    media_type: MediaType,
    children: Vec<(Digest, MediaType, Option<Role>)>,
    subject: Option<Digest>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Image(usize),
    Lease,
}

impl Mark {
    fn has(&self, keeper: Keeper) -> bool {
        match keeper {
            Keeper::Image(n) => self.images.binary_search(&n).is_ok(),
            Keeper::Lease => self.leased,
        }
    }

    fn add(&mut self, keeper: Keeper) {
        match keeper {
            Keeper::Image(n) => {
                if let Err(at) = self.images.binary_search(&n) {
                    self.images.insert(at, n);
                }
            }
            Keeper::Lease => self.leased = true,
        }
    }

    fn describe(&mut self, role: Option<Role>, media_type: &MediaType) {
        self.role = self.role.or(role);
        self.media_type.get_or_insert_with(|| media_type.clone());
    }
}

impl Parsed {
    fn of(document: &Document) -> Parsed {
        let role = match document {
            Document::Index(_) => Role::Index,
            Document::Manifest(_) => Role::Manifest,
        };
        let media_type = document.media_type().clone();
        let role_of = |n: usize, child: &Descriptor| match (role, child.media_type.kind()) {
            (Role::Index, BlobKind::Index) => Some(Role::Index),
            (Role::Index, BlobKind::Manifest) => Some(Role::Manifest),
            (Role::Index, _) => None,
            _ if n == 0 => Some(Role::Config),
            _ => Some(Role::Layer),
        };
        let children = document.children().enumerate();
        let children = children
            .map(|(n, child)| (child.digest, child.media_type.clone(), role_of(n, child)))
            .collect();
        Parsed { role, media_type, children, subject: document.subject().map(|it| it.digest) }
    }
}

impl<'a> Marks<'a> {
    /// Follows the refs, and the leases that have not ended.
    pub(super) fn of_roots(layout: &'a Layout) -> Result<Marks<'a>> {
        let mut marks = Marks {
            layout,
            marks: HashMap::new(),
            documents: HashMap::new(),
            images: Vec::new(),
            problems: Vec::new(),
            ended: HashSet::new(),
        };
        // Leases first: the owner of one that has ended published its ref before.
        match leases::list(layout) {
            Ok(leases) => leases.into_iter().for_each(|lease| marks.mark_lease(lease)),
            Err(error) => marks.problems.push(error.to_string()),
        }
        for (n, (root, refs)) in images(refs::read(layout)?).into_iter().enumerate() {
            let problem = marks.mark_image(n, &root).err().map(|error| error.to_string());
            let (total, shared, unique, frees) = Default::default();
            let digest = root.digest;
            let image = ImageUsage { digest, refs, total, shared, unique, frees, problem };
            marks.images.push(image);
        }
        Ok(marks)
    }

    fn mark_lease(&mut self, lease: leases::LeaseInfo) {
        if lease.state == LeaseState::Ended {
            self.ended.insert(lease.id);
            return;
        }
        for digest in &lease.blobs {
            self.marks.entry(*digest).or_default().add(Keeper::Lease);
        }
        for digest in lease.trees {
            if let Err(error) = self.mark(Keeper::Lease, digest, Reading::Unknown) {
                self.problems.push(format!("the lease {}: {error}", lease.id));
            }
        }
    }

    fn mark_image(&mut self, n: usize, root: &Descriptor) -> Result<()> {
        let Descriptor { digest, media_type, .. } = root;
        if self.layout.blob_meta(digest)?.is_none() {
            return Err(Error::BlobNotFound { digest: *digest });
        }
        let role = match media_type.kind() {
            BlobKind::Index => Some(Role::Index),
            BlobKind::Manifest => Some(Role::Manifest),
            BlobKind::Schema1 | BlobKind::Other => None,
        };
        self.marks.entry(*digest).or_default().describe(role, media_type);
        self.mark(Keeper::Image(n), *digest, Reading::of_root(media_type)).map(drop)
    }

    /// Takes note of a blob that is there.
    pub(super) fn note(&mut self, digest: Digest, meta: Meta) {
        self.marks.entry(digest).or_default().there = Some(meta);
    }

    /// Marks a blob and what it is made of; all of these.
    fn mark(&mut self, keeper: Keeper, root: Digest, reading: Reading) -> Result<Vec<Digest>> {
        let (mut work, mut followed) = (vec![(root, reading)], HashSet::new());
        let mut marked = Vec::new();
        while let Some((digest, reading)) = work.pop() {
            self.marks.entry(digest).or_default().add(keeper);
            marked.push(digest);
            if matches!(reading, Reading::Leaf) || followed.contains(&digest) {
                continue;
            }
            let Some(document) = self.read(&digest, &reading)? else {
                continue;
            };
            followed.insert(digest);
            self.describe(&digest, &document);
            work.extend(document.children.iter().map(|(child, media_type, _)| {
                (*child, Reading::of_child(media_type, document.role == Role::Index))
            }));
        }
        Ok(marked)
    }

    /// A document says what it is, and what the blobs are that it leads to.
    fn describe(&mut self, digest: &Digest, document: &Parsed) {
        let mark = self.marks.entry(*digest).or_default();
        mark.role = Some(document.role);
        mark.describe(None, &document.media_type);
        for (child, media_type, role) in &document.children {
            self.marks.entry(*child).or_default().describe(*role, media_type);
        }
    }

    /// Reads a document once; `None` if it is absent or a blob of another kind.
    fn read(&mut self, digest: &Digest, reading: &Reading) -> Result<Option<Rc<Parsed>>> {
        // What a ref calls a document has to be one, whatever it was taken for before.
        if !matches!(reading, Reading::Root(_))
            && let Some(known) = self.documents.get(digest)
        {
            return Ok(known.clone());
        }
        let document = match reading::read(self.layout, digest, reading)? {
            Found::Absent => return Ok(None),
            Found::Other => None,
            Found::Document(document) => Some(document),
        };
        let parsed = document.map(|document| Rc::new(Parsed::of(&document)));
        self.documents.insert(*digest, parsed.clone());
        Ok(parsed)
    }

    /// Gives signatures, attestations and the like to those whose subjects they are about.
    pub(super) fn find_referrers(&mut self) -> Result<()> {
        let unmarked = |mark: &Mark| mark.images.is_empty() && !mark.leased;
        let unmarked: Vec<_> = self.marks.iter().filter(|(_, mark)| unmarked(mark)).collect();
        let unmarked: Vec<Digest> = unmarked.into_iter().map(|(digest, _)| *digest).collect();
        for digest in unmarked {
            if let Some(document) = self.look_into(&digest)? {
                self.describe(&digest, &document);
            }
        }
        let mut referrers: HashMap<Digest, Vec<Digest>> = HashMap::new();
        for (digest, document) in &self.documents {
            if let Some(subject) = document.as_ref().and_then(|document| document.subject) {
                referrers.entry(subject).or_default().push(*digest);
            }
        }
        let mut work: Vec<Digest> = referrers.keys().copied().collect();
        while let Some(subject) = work.pop() {
            let Some(about) = referrers.get(&subject) else {
                continue;
            };
            for keeper in self.keepers(&subject) {
                for referrer in about {
                    if !self.marks.entry(*referrer).or_default().has(keeper) {
                        match self.mark(keeper, *referrer, Reading::Unknown) {
                            Ok(marked) => work.extend(marked),
                            Err(error) => self.problems.push(format!("{referrer}: {error}")),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn keepers(&self, digest: &Digest) -> Vec<Keeper> {
        let Some(mark) = self.marks.get(digest) else {
            return Vec::new();
        };
        let images = mark.images.iter().copied().map(Keeper::Image);
        images.chain(mark.leased.then_some(Keeper::Lease)).collect()
    }

    /// Reads a blob that nothing leads to, if it may be a document. A damaged one is none.
    fn look_into(&mut self, digest: &Digest) -> Result<Option<Rc<Parsed>>> {
        if let Some(known) = self.documents.get(digest) {
            return Ok(known.clone());
        }
        let found = reading::sniff(self.layout, digest)?;
        let parsed = found.map(|(_, document)| Rc::new(Parsed::of(&document)));
        self.documents.insert(*digest, parsed.clone());
        Ok(parsed)
    }

    /// The images without their amounts, what could not be read, and the blobs.
    pub(super) fn report(
        self,
        blobs: &mut Vec<BlobUsage>,
        of: impl Fn(&Digest, Mark) -> Option<BlobUsage>,
    ) -> (Vec<ImageUsage>, Vec<String>) {
        blobs.extend(self.marks.into_iter().filter_map(|(digest, mark)| of(&digest, mark)));
        (self.images, self.problems)
    }
}

/// The distinct images among the refs, with their names.
fn images(refs: Vec<Ref>) -> Vec<(Descriptor, Vec<String>)> {
    let mut images: Vec<(Descriptor, Vec<String>)> = Vec::new();
    let mut known = HashMap::new();
    for Ref { name, descriptor } in refs {
        let at = *known.entry(descriptor.digest).or_insert_with(|| {
            images.push((descriptor, Vec::new()));
            images.len() - 1
        });
        images[at].1.extend(name);
    }
    images
}
