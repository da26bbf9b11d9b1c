use std::collections::HashSet;

use super::blob::Blob;
use super::layout::Layout;
use super::reading;
use crate::error::{Error, Result};
use crate::oci::{BlobKind, Descriptor, Digest, Document, MAX_DEPTH, MAX_DESCRIPTORS};

/// What a blob is to the image that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// An index of manifests.
    Index,
    /// A manifest.
    Manifest,
    /// A manifest's config.
    Config,
    /// One of a manifest's layers, or of an artifact's files.
    Layer,
}

/// One blob of a closure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// The blob.
    pub descriptor: Descriptor,
    /// What it is.
    pub role: Role,
    /// Whether a file of its size lies under its name. Of an index's platforms those that were not
    /// pulled are absent, and that is no damage; nor is it that a
    /// [foreign](Descriptor::is_foreign) layer is.
    pub present: bool,
}

/// All blobs that a root leads to, each once: the root first, every parent before its children.
pub(crate) fn closure(layout: &Layout, root: &Descriptor) -> Result<Vec<Node>> {
    Ok(walk(layout, root)?.into_iter().map(|(node, _)| node).collect())
}

/// The same, with the documents among them that are there.
pub(crate) fn walk(layout: &Layout, root: &Descriptor) -> Result<Vec<(Node, Option<Document>)>> {
    let mut walk = Walk { layout, seen: HashSet::new(), nodes: Vec::new() };
    walk.visit(root, Walk::role_of(root, Role::Layer), 1)?;
    Ok(walk.nodes)
}

/// The blobs that a root leads to, itself among them; fails if something is missing of what it is made
/// of, be it an index, a manifest or neither. Platforms of an index that were not pulled are not missing, but one of them has to be there: of
/// an index that is just being pulled there is none, and to keep that would be to keep nothing.
///
/// Each with the size that it should have.
pub(crate) fn whole(layout: &Layout, root: &Digest) -> Result<Vec<(Digest, u64)>> {
    let Some(target) = reading::descriptor_of(layout, root)? else {
        let found = layout.blob_meta(root)?;
        return Ok(found.into_iter().map(|meta| (*root, meta.len)).collect());
    };
    let needed = |node: &&Node| {
        matches!(node.role, Role::Config | Role::Layer) && !node.descriptor.is_foreign()
    };
    let nodes = closure(layout, &target)?;
    let mut below = nodes.iter().skip(1).peekable();
    if let Some(first) = below.peek().map(|node| node.descriptor.digest)
        && !below.any(|node| node.present)
    {
        return Err(Error::BlobNotFound { digest: first });
    }
    match nodes.iter().filter(needed).find(|node| !node.present) {
        Some(node) => Err(Error::BlobNotFound { digest: node.descriptor.digest }),
        None => Ok(nodes.iter().map(|it| (it.descriptor.digest, it.descriptor.size)).collect()),
    }
}

struct Walk<'a> {
    layout: &'a Layout,
    seen: HashSet<Digest>,
    nodes: Vec<(Node, Option<Document>)>,
}

impl Walk<'_> {
    fn role_of(descriptor: &Descriptor, other: Role) -> Role {
        match descriptor.media_type.kind() {
            BlobKind::Index => Role::Index,
            BlobKind::Manifest => Role::Manifest,
            BlobKind::Schema1 | BlobKind::Other => other,
        }
    }

    fn visit(&mut self, descriptor: &Descriptor, role: Role, depth: usize) -> Result<()> {
        if !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        if self.nodes.len() >= MAX_DESCRIPTORS {
            return Err(Error::document(format!("it leads to more than {MAX_DESCRIPTORS} blobs"))
                .of_document(&descriptor.digest));
        }
        let is_document = matches!(role, Role::Index | Role::Manifest);
        let blob = if is_document { open(self.layout, descriptor)? } else { None };
        let present = blob.is_some() || !is_document && is_there(self.layout, descriptor)?;
        let at = self.nodes.len();
        self.nodes.push((Node { descriptor: descriptor.clone(), role, present }, None));
        let Some(blob) = blob else {
            return Ok(());
        };
        if role == Role::Index && depth > MAX_DEPTH {
            return Err(Error::document(format!("indexes are nested deeper than {MAX_DEPTH}"))
                .of_document(&descriptor.digest));
        }
        let document = blob.into_document(descriptor)?;
        match &document {
            Document::Index(index) => {
                for child in &index.manifests {
                    self.visit(child, Walk::role_of(child, Role::Layer), depth + 1)?;
                }
            }
            Document::Manifest(manifest) => {
                self.visit(&manifest.config, Role::Config, depth + 1)?;
                for layer in &manifest.layers {
                    self.visit(layer, Role::Layer, depth + 1)?;
                }
            }
        }
        self.nodes[at].1 = Some(document);
        Ok(())
    }
}

/// Whether a file of its size lies under a blob's name.
fn is_there(layout: &Layout, descriptor: &Descriptor) -> Result<bool> {
    let meta = layout.blob_meta(&descriptor.digest)?;
    Ok(meta.is_some_and(|meta| meta.is_file && meta.len == descriptor.size))
}

/// Opens what has to be read if it is there: its file says so, and is not looked for first.
fn open(layout: &Layout, descriptor: &Descriptor) -> Result<Option<Blob>> {
    match Blob::open(layout, &descriptor.digest) {
        Ok(blob) => Ok(Some(blob).filter(|blob| blob.len() == descriptor.size)),
        Err(Error::BlobNotFound { .. }) => Ok(None),
        // It may be no file, or another one, and then it is as good as none.
        Err(error) => match is_there(layout, descriptor)? {
            true => Err(error),
            false => Ok(None),
        },
    }
}
