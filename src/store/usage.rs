//! What a store takes on disk, and what for.

use std::collections::HashMap;
use std::ops::AddAssign;

use serde::Serialize;

use super::closure::{Role, closure};
use super::index_file::Ref;
use super::layout::Layout;
use super::refs;
use crate::error::Result;
use crate::oci::{Algorithm, Descriptor, Digest};
use crate::sys::{Dir, Meta};

/// How deep directories that are nobody's the store knows are followed.
const MAX_FOREIGN_DEPTH: usize = 16;

/// A number of files and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Amount {
    /// How many files.
    pub count: u64,
    /// Their lengths together, in bytes.
    pub size: u64,
    /// What they take on disk, in bytes: the blocks that the file system gave them.
    pub disk: u64,
}

/// What a store takes on disk, by what it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Usage {
    /// The layers of images.
    pub layers: Amount,
    /// Configs, manifests and indexes of images.
    pub metadata: Amount,
    /// Blobs that no ref leads to: pinned by a lease, about a blob that a ref leads to, young, or
    /// for the next collection.
    pub unreferenced: Amount,
    /// Downloads under way or left off.
    pub parts: Amount,
    /// What was computed from blobs and can be computed again.
    pub derived: Amount,
    /// Everything else: the store's own files and directories, its reserve, what waits in the trash
    /// and in quarantine, and what others put into the root.
    pub other: Amount,
    /// All of it together: what `du` says.
    pub total: Amount,
    /// The images, in the order of their first name in `index.json`.
    pub images: Vec<ImageUsage>,
}

/// What one image takes.
///
/// An image is a root digest. Its names are one image however many they are, as with Docker and
/// podman: a second name shares nothing and adds nothing, and `unique` is what goes when the last
/// name goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageUsage {
    /// The root: an index or a manifest.
    pub digest: Digest,
    /// Its names; an entry of `index.json` without one is not listed here.
    pub refs: Vec<String>,
    /// Its blobs that are there.
    pub total: Amount,
    /// Those of them that another image has too.
    pub shared: Amount,
    /// Those of them that no other image has.
    pub unique: Amount,
    /// Why the image could not be followed to its end; the amounts are then too small, and the
    /// rest counts as unreferenced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        self.count += other.count;
        self.size = self.size.saturating_add(other.size);
        self.disk = self.disk.saturating_add(other.disk);
    }
}

impl Amount {
    fn of(meta: &Meta) -> Amount {
        // A directory's length says nothing.
        let size = if meta.is_dir { 0 } else { meta.len };
        Amount { count: 1, size, disk: meta.disk }
    }
}

/// A blob of some image.
struct Used {
    amount: Amount,
    role: Role,
    /// The image that has it, or that had it first.
    image: usize,
    shared: bool,
}

/// Adds everything up. Pulls and collections may go on meanwhile; the sum is then that of no single
/// moment.
pub(crate) fn usage(layout: &Layout) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut used = HashMap::new();
    let mut members = Vec::new();
    for (n, (root, refs)) in images(refs::read(layout)?).into_iter().enumerate() {
        let problem = follow(layout, &root, n, &mut used, &mut members)?;
        let (total, shared, unique) = Default::default();
        let digest = root.digest;
        usage.images.push(ImageUsage { digest, refs, total, shared, unique, problem });
    }
    for (n, digest) in members {
        let blob = &used[&digest];
        let image = &mut usage.images[n];
        image.total += blob.amount;
        *(if blob.shared { &mut image.shared } else { &mut image.unique }) += blob.amount;
    }
    add_blobs(layout, &used, &mut usage)?;
    add_rest(layout, &mut usage)?;
    for part in [usage.layers, usage.metadata, usage.unreferenced, usage.parts, usage.derived] {
        usage.total += part;
    }
    usage.total += usage.other;
    Ok(usage)
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

/// Notes the blobs of an image that are there. Why it could not be followed, if it could not.
fn follow(
    layout: &Layout,
    root: &Descriptor,
    image: usize,
    used: &mut HashMap<Digest, Used>,
    members: &mut Vec<(usize, Digest)>,
) -> Result<Option<String>> {
    let (blobs, problem) = match closure(layout, root) {
        Ok(nodes) => {
            let blobs = nodes.into_iter().map(|node| (node.descriptor.digest, node.role));
            (blobs.collect(), None)
        }
        Err(error) => (vec![(root.digest, Role::Manifest)], Some(error.to_string())),
    };
    for (digest, role) in blobs {
        let Some(meta) = layout.blob_meta(&digest)?.filter(|meta| meta.is_file) else {
            continue;
        };
        let new = Used { amount: Amount::of(&meta), role, image, shared: false };
        let blob = used.entry(digest).or_insert(new);
        blob.shared |= blob.image != image;
        members.push((image, digest));
    }
    Ok(problem)
}

fn add_blobs(layout: &Layout, used: &HashMap<Digest, Used>, usage: &mut Usage) -> Result<()> {
    for blob in used.values() {
        match blob.role {
            Role::Layer => usage.layers += blob.amount,
            Role::Index | Role::Manifest | Role::Config => usage.metadata += blob.amount,
        }
    }
    for algorithm in Algorithm::ALL {
        let Some(dir) = layout.algorithm(algorithm)? else {
            continue;
        };
        each(dir, |name, meta| {
            match Digest::from_hex(algorithm, name) {
                Ok(digest) if used.contains_key(&digest) => {}
                Ok(_) => usage.unreferenced += Amount::of(&meta),
                Err(_) => usage.other += foreign(dir, name, &meta, 0)?,
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Adds what is not under `blobs/ALGORITHM`.
fn add_rest(layout: &Layout, usage: &mut Usage) -> Result<()> {
    let Layout { root, private, parts, blobs, .. } = layout;
    usage.other += Amount::of(&root.meta_of_self()?);
    each(root, |name, meta| {
        usage.other += match name {
            "blobs" | ".layerstore" => Amount::of(&meta),
            _ => foreign(root, name, &meta, 0)?,
        };
        Ok(())
    })?;
    each(blobs, |name, meta| {
        usage.other += match name.parse::<Algorithm>() {
            Ok(_) => Amount::of(&meta),
            Err(_) => foreign(blobs, name, &meta, 0)?,
        };
        Ok(())
    })?;
    each(private, |name, meta| {
        usage.other += match name {
            "parts" => Amount::of(&meta),
            "outboard" if meta.is_dir => Amount::of(&meta),
            _ => foreign(private, name, &meta, 0)?,
        };
        Ok(())
    })?;
    add_outboards(layout, usage)?;
    each(parts, |name, meta| {
        match name.ends_with(".part") {
            true => usage.parts += Amount::of(&meta),
            false => usage.other += foreign(parts, name, &meta, 0)?,
        }
        Ok(())
    })
}

fn add_outboards(layout: &Layout, usage: &mut Usage) -> Result<()> {
    let Some(outboard) = layout.private.open_dir("outboard")? else {
        return Ok(());
    };
    each(&outboard, |name, meta| {
        let (Ok(_), Some(dir)) = (name.parse::<Algorithm>(), outboard.open_dir(name)?) else {
            usage.other += foreign(&outboard, name, &meta, 0)?;
            return Ok(());
        };
        usage.other += Amount::of(&meta);
        each(&dir, |_, meta| {
            usage.derived += Amount::of(&meta);
            Ok(())
        })
    })
}

/// A file, or a directory with all that is in it.
fn foreign(dir: &Dir, name: &str, meta: &Meta, depth: usize) -> Result<Amount> {
    let mut amount = Amount::of(meta);
    if meta.is_dir
        && depth < MAX_FOREIGN_DEPTH
        && let Some(inner) = dir.open_dir(name)?
    {
        each(&inner, |name, meta| {
            amount += foreign(&inner, name, &meta, depth + 1)?;
            Ok(())
        })?;
    }
    Ok(amount)
}

/// Visits the entries of a directory, but for those that go meanwhile.
fn each(dir: &Dir, mut visit: impl FnMut(&str, Meta) -> Result<()>) -> Result<()> {
    for name in dir.names()? {
        let name = name?;
        if let Some(meta) = dir.meta(&name)? {
            visit(&name, meta)?;
        }
    }
    Ok(())
}
