use std::collections::{HashMap, HashSet};

use super::bad::Bad;
use super::structure::finding;
use super::{CheckReport, DamageKind, Finding, Findings};
use crate::error::Result;
use crate::oci::{BlobKind, Descriptor, Digest, Document, MAX_DEPTH, MAX_DESCRIPTORS, MediaType};
use crate::store::blob::read_document;
use crate::store::layout::Layout;
use crate::store::{Ref, refs};

/// How often refs are read again because they changed while an image seemed damaged.
const ROUNDS: usize = 20;

/// Follows every ref to the blobs that it needs.
///
/// A ref that is removed meanwhile may lose its blobs to a collection. Hence a verdict of damage
/// counts only if `index.json` did not change from before the ref was read until after it was
/// followed: then the ref protected all of its blobs for all that time.
pub(super) fn follow(
    layout: &Layout,
    bad: &Bad,
    report: &mut CheckReport,
    findings: &mut Findings,
    notes: &mut Findings,
) -> Result<()> {
    let mut suspects: Option<HashSet<Digest>> = None;
    for round in 1..=ROUNDS {
        let before = stamp(layout)?;
        let read = match refs::read(layout) {
            Ok(read) => read,
            Err(error) => {
                findings.add(DamageKind::Index, "index.json".to_owned(), error.to_string());
                return Ok(());
            }
        };
        report.refs = read.len() as u64;
        let walks: Vec<_> = images(read)
            .into_iter()
            .filter(|image| suspects.as_ref().is_none_or(|set| set.contains(&image.root.digest)))
            .map(|image| (Walk::all(layout, bad, &image.root), image))
            .filter(|(walk, _)| !walk.damage.is_empty() || !walk.notes.is_empty())
            .collect();
        if round < ROUNDS && !walks.is_empty() && stamp(layout)? != before {
            suspects = Some(walks.iter().map(|(_, image)| image.root.digest).collect());
            continue;
        }
        for (walk, image) in walks {
            walk.damage.into_iter().for_each(|found| findings.add_blob(found, &image.names));
            walk.notes.into_iter().for_each(|found| notes.add_blob(found, &image.names));
        }
        return Ok(());
    }
    Ok(())
}

/// What differs after any change of `index.json`: every writer replaces the file.
fn stamp(layout: &Layout) -> Result<impl PartialEq + use<>> {
    Ok(layout.root.meta("index.json")?.map(|meta| (meta.id, meta.modified, meta.len)))
}

/// An image and all its names.
struct Image {
    root: Descriptor,
    names: Vec<String>,
}

fn images(refs: Vec<Ref>) -> Vec<Image> {
    let mut images: Vec<Image> = Vec::new();
    let mut known = HashMap::new();
    for Ref { name, descriptor } in refs {
        let name = name.unwrap_or_else(|| descriptor.digest.to_string());
        // Two entries may give one digest different types or sizes, of which one is then wrong.
        let key = (descriptor.digest, descriptor.media_type.clone(), descriptor.size);
        let at = *known.entry(key).or_insert_with(|| {
            images.push(Image { root: descriptor, names: Vec::new() });
            images.len() - 1
        });
        images[at].names.push(name);
    }
    images
}

/// What was found below a blob.
struct Below {
    /// Whether anything has its name.
    present: bool,
    /// Whether it, and all that it needs, is there.
    whole: bool,
    /// What is missing. Whether that is damage is for the index above to say, if there is one.
    missing: Vec<Finding>,
}

/// Follows one image.
pub(super) struct Walk<'a> {
    layout: &'a Layout,
    bad: &'a Bad,
    seen: HashMap<Digest, (bool, bool)>,
    pub(super) damage: Vec<Finding>,
    pub(super) notes: Vec<Finding>,
}

impl<'a> Walk<'a> {
    pub(super) fn all(layout: &'a Layout, bad: &'a Bad, root: &Descriptor) -> Walk<'a> {
        let (seen, damage, notes) = (HashMap::new(), Vec::new(), Vec::new());
        let mut walk = Walk { layout, bad, seen, damage, notes };
        let below = walk.visit(root, "image", 1);
        walk.damage.extend(below.missing);
        walk
    }

    fn visit(&mut self, descriptor: &Descriptor, what: &str, depth: usize) -> Below {
        let digest = descriptor.digest;
        if let Some((present, whole)) = self.seen.get(&digest) {
            // What is missing of it was said where it was first met.
            return Below { present: *present, whole: *whole, missing: Vec::new() };
        }
        let below = self.visit_new(descriptor, what, depth);
        self.seen.insert(digest, (below.present, below.whole));
        below
    }

    /// A config or a layer: made of nothing else, whatever its media type says.
    fn visit_leaf(&mut self, descriptor: &Descriptor, what: &str) -> Below {
        if descriptor.media_type.kind() == BlobKind::Other {
            return self.visit(descriptor, what, 1);
        }
        let leaf = Descriptor::new(MediaType::new(""), descriptor.digest, descriptor.size);
        self.visit(&leaf, what, 1)
    }

    fn visit_new(&mut self, descriptor: &Descriptor, what: &str, depth: usize) -> Below {
        let digest = descriptor.digest;
        let broken = Below { present: true, whole: false, missing: Vec::new() };
        if let Some(found) = self.bad.read.get(&digest) {
            let descriptor = Some(Box::new(descriptor.clone()));
            self.damage.push(Finding { descriptor, ..found.clone() });
            return broken;
        }
        let problem = match self.layout.blob_meta(&digest) {
            // Its registry need not have it, so an image is whole without.
            Ok(None) if descriptor.is_foreign() => {
                return Below { present: false, whole: true, missing: Vec::new() };
            }
            Ok(None) => {
                let size = descriptor.size;
                let message =
                    format!("the {what} {digest} of {size} bytes is missing; pull the image again");
                let descriptor = Some(Box::new(descriptor.clone()));
                let found = Finding { kind: DamageKind::MissingBlob, digest, message, descriptor };
                return Below { present: false, whole: false, missing: vec![found] };
            }
            Ok(Some(meta)) if !meta.is_file => {
                let message = "it is not a regular file; remove it and pull again".to_owned();
                Some(Finding { kind: DamageKind::WrongType, digest, message, descriptor: None })
            }
            Ok(Some(meta)) if meta.len != descriptor.size => {
                let (len, size) = (meta.len, descriptor.size);
                let message = format!(
                    "the {what} {digest} has {len} bytes, and its descriptor says {size}; pull the \
                     image again"
                );
                Some(Finding { kind: DamageKind::WrongSize, digest, message, descriptor: None })
            }
            Ok(Some(_)) if self.bad.marked.contains(&digest) => self
                .bad
                .finding(self.layout, &digest)
                .or_else(|| self.over_limit(descriptor, depth)),
            Ok(Some(_)) => self.over_limit(descriptor, depth),
            Err(error) => Some(finding(digest, &error)),
        };
        if let Some(problem) = problem {
            let descriptor = Some(Box::new(descriptor.clone()));
            self.damage.push(Finding { descriptor, ..problem });
            return broken;
        }
        match descriptor.media_type.kind() {
            BlobKind::Index | BlobKind::Manifest => {}
            BlobKind::Schema1 | BlobKind::Other => {
                return Below { present: true, whole: true, missing: Vec::new() };
            }
        }
        match read_document(self.layout, descriptor) {
            Ok(document) => self.children(digest, &document, depth),
            Err(error) => {
                let descriptor = Some(Box::new(descriptor.clone()));
                self.damage.push(Finding { descriptor, ..finding(digest, &error) });
                broken
            }
        }
    }

    fn over_limit(&self, descriptor: &Descriptor, depth: usize) -> Option<Finding> {
        let message = if self.seen.len() >= MAX_DESCRIPTORS {
            format!("the image leads to more than {MAX_DESCRIPTORS} blobs")
        } else if depth > MAX_DEPTH && descriptor.media_type.kind() == BlobKind::Index {
            format!("indexes are nested deeper than {MAX_DEPTH}")
        } else {
            return None;
        };
        let (kind, digest) = (DamageKind::BadDocument, descriptor.digest);
        Some(Finding { kind, digest, message, descriptor: None })
    }

    fn children(&mut self, digest: Digest, document: &Document, depth: usize) -> Below {
        match document {
            Document::Index(index) => self.index(digest, &index.manifests, depth),
            Document::Manifest(manifest) => {
                let mut below = Below { present: true, whole: true, missing: Vec::new() };
                let layers = manifest.layers.iter().map(|layer| (layer, "layer"));
                for (child, what) in std::iter::once((&manifest.config, "config")).chain(layers) {
                    let child = self.visit_leaf(child, what);
                    below.whole &= child.whole;
                    below.missing.extend(child.missing);
                }
                below
            }
        }
    }

    /// Of an index at least one child must be whole. Then children that are there in part are
    /// remarkable, but what a killed pull of another platform leaves.
    fn index(&mut self, digest: Digest, children: &[Descriptor], depth: usize) -> Below {
        let mut missing = Vec::new();
        let (mut any_present, mut any_whole) = (false, children.is_empty());
        for child in children {
            let child = self.visit(child, "manifest", depth + 1);
            any_present |= child.present;
            any_whole |= child.whole;
            if child.present {
                missing.extend(child.missing);
            }
        }
        if any_whole {
            self.notes.append(&mut missing);
        } else if !any_present && !children.is_empty() {
            let count = children.len();
            let message = format!(
                "the index {digest} is there, but none of its {count} manifests is; pull the image \
                 again"
            );
            missing.push(Finding {
                kind: DamageKind::NoPlatform,
                digest,
                message,
                descriptor: None,
            });
        }
        Below { present: true, whole: any_whole, missing }
    }
}
