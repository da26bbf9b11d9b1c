//! What a store takes on disk, what for, and who keeps it.

mod files;
mod marks;

use std::collections::HashSet;
use std::ops::AddAssign;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::closure::Role;
use super::layout::Layout;
use crate::error::Result;
use crate::oci::{Digest, MediaType};
use crate::sys::Meta;
use files::Found;
use marks::{Mark, Marks};

/// How old what nothing keeps must be before a collection takes it, where it is not told otherwise.
const GRACE: Duration = Duration::from_secs(60 * 60);
/// The same of parts, and of temporary files.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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

/// What a store takes on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Usage {
    /// By what it is. Together they are `total`.
    pub kinds: UsageKinds,
    /// All of it together: what `du` says.
    pub total: Amount,
    /// The blobs, by what keeps them from being collected.
    pub kept: UsageKept,
    /// What a collection with its default options would free now: blobs that nothing keeps with
    /// the hashes of their groups, parts that were given up, and what collections and writers that
    /// were killed have left. Nothing, where an image or a lease cannot be read: then a collection
    /// refuses to guess what they keep.
    pub reclaimable: Amount,
    /// Leases that could not be read or followed to their end.
    pub problems: Vec<String>,
    /// The images, in the order of their first name in `index.json`.
    pub images: Vec<ImageUsage>,
    /// Every blob that is there, the largest first.
    #[serde(skip)]
    pub blobs: Vec<BlobUsage>,
}

/// What a store takes, by what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct UsageKinds {
    /// Indexes of images for several platforms.
    pub indexes: Amount,
    /// Manifests.
    pub manifests: Amount,
    /// Configs.
    pub configs: Amount,
    /// Layers, and the files of artifacts.
    pub layers: Amount,
    /// Blobs that no index and no manifest in the store leads to.
    pub blobs: Amount,
    /// Downloads under way or left off.
    pub parts: Amount,
    /// The hashes of blobs' groups, which can be computed again.
    pub group_hashes: Amount,
    /// Blobs that are being unlinked.
    pub trash: Amount,
    /// Damaged blobs that were set aside.
    pub quarantine: Amount,
    /// What is set aside so that a collection can run on a full disk.
    pub reserve: Amount,
    /// Everything else: directories, refs, locks, leases and the like, and what others put into
    /// the root.
    pub other: Amount,
}

/// Blobs, by what keeps them. Those that nothing keeps are [reclaimable](Usage::reclaimable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct UsageKept {
    /// Refs lead to them, or they are about something that refs lead to.
    pub refs: Amount,
    /// Only leases keep them.
    pub leases: Amount,
    /// Nothing keeps them but that they are younger than an hour.
    pub young: Amount,
}

/// What one image takes.
///
/// An image is a root digest. Its names are one image however many they are, as with Docker and
/// podman: a second name shares nothing and adds nothing, and `frees` is what goes when the last
/// name goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageUsage {
    /// The root: an index or a manifest.
    pub digest: Digest,
    /// Its names; an entry of `index.json` without one is not listed here.
    pub refs: Vec<String>,
    /// Its blobs that are there, and those that are about it: signatures and the like.
    pub total: Amount,
    /// Those of them that another image has too.
    pub shared: Amount,
    /// Those of them that no other image has.
    pub unique: Amount,
    /// What collections free once its last name is removed: what is unique and no lease keeps,
    /// with the hashes of its groups.
    pub frees: Amount,
    /// Why the image could not be followed to its end; the amounts are then too small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What one blob takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobUsage {
    /// The blob.
    pub digest: Digest,
    /// What it is to the documents that lead to it; `None` if none does.
    pub role: Option<Role>,
    /// What they, or it itself, say that it is.
    pub media_type: Option<MediaType>,
    /// Its length in bytes.
    pub size: u64,
    /// What it takes on disk, in bytes.
    pub disk: u64,
    /// What the hashes of its groups take on disk, in bytes.
    pub group_hashes: u64,
    /// When it was written.
    pub modified: SystemTime,
    /// The images that have it: places in [`Usage::images`], in rising order.
    pub images: Vec<usize>,
    /// Whether a lease keeps it.
    pub leased: bool,
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

impl UsageKinds {
    /// Each with its name in JSON, in a fixed order.
    pub fn named(&self) -> [(&'static str, Amount); 11] {
        [
            ("layers", self.layers),
            ("configs", self.configs),
            ("manifests", self.manifests),
            ("indexes", self.indexes),
            ("blobs", self.blobs),
            ("parts", self.parts),
            ("groupHashes", self.group_hashes),
            ("trash", self.trash),
            ("quarantine", self.quarantine),
            ("reserve", self.reserve),
            ("other", self.other),
        ]
    }

    fn of_blob(&mut self, role: Option<Role>) -> &mut Amount {
        match role {
            Some(Role::Index) => &mut self.indexes,
            Some(Role::Manifest) => &mut self.manifests,
            Some(Role::Config) => &mut self.configs,
            Some(Role::Layer) => &mut self.layers,
            None => &mut self.blobs,
        }
    }
}

/// Adds everything up. Pulls and collections may go on meanwhile; the sum is then that of no single
/// moment.
pub(crate) fn usage(layout: &Layout) -> Result<Usage> {
    let now = SystemTime::now();
    // Roots before blobs: what a ref leads to was there before the ref.
    let mut marks = Marks::of_roots(layout)?;
    let found = files::find(layout, now, &mut marks)?;
    marks.find_referrers()?;
    let mut usage = Usage { kinds: found.kinds, reclaimable: found.left_over, ..Usage::default() };
    let (images, problems) = marks.report(&mut usage.blobs, |digest, mark| {
        let hashes = found.group_hashes.get(digest).copied().unwrap_or_default();
        blob(digest, mark, hashes)
    });
    (usage.images, usage.problems) = (images, problems);
    add_blobs(&mut usage, &found, now);
    usage.blobs.sort_unstable_by(|a, b| (b.disk, a.digest).cmp(&(a.disk, b.digest)));
    for (_, amount) in usage.kinds.named() {
        usage.total += amount;
    }
    if !usage.problems.is_empty() || usage.images.iter().any(|image| image.problem.is_some()) {
        usage.reclaimable = Amount::default();
    }
    Ok(usage)
}

/// What is known of a blob that is there.
fn blob(digest: &Digest, mark: Mark, hashes: Amount) -> Option<BlobUsage> {
    let there = mark.there?;
    Some(BlobUsage {
        digest: *digest,
        role: mark.role,
        media_type: mark.media_type,
        size: there.len,
        disk: there.disk,
        group_hashes: hashes.disk,
        modified: there.modified,
        images: mark.images,
        leased: mark.leased,
    })
}

/// Adds the blobs to their kinds, to who keeps them, and to their images.
fn add_blobs(usage: &mut Usage, found: &Found, now: SystemTime) {
    let mut seen = HashSet::with_capacity(found.group_hashes.len());
    for blob in &usage.blobs {
        let amount = Amount { count: 1, size: blob.size, disk: blob.disk };
        let hashes = found.group_hashes.get(&blob.digest).copied().unwrap_or_default();
        seen.insert(blob.digest);
        *usage.kinds.of_blob(blob.role) += amount;
        usage.kinds.group_hashes += hashes;
        for n in &blob.images {
            let image = &mut usage.images[*n];
            image.total += amount;
            match blob.images.len() {
                1 => image.unique += amount,
                _ => image.shared += amount,
            }
            if blob.images.len() == 1 && !blob.leased {
                image.frees += amount;
                image.frees += hashes;
            }
        }
        if !blob.images.is_empty() {
            usage.kept.refs += amount;
        } else if blob.leased {
            usage.kept.leases += amount;
        } else if is_older(now, blob.modified, GRACE) {
            usage.reclaimable += amount;
            usage.reclaimable += hashes;
        } else {
            usage.kept.young += amount;
        }
    }
    for (_, hashes) in found.group_hashes.iter().filter(|(digest, _)| !seen.contains(digest)) {
        usage.kinds.group_hashes += *hashes;
        usage.reclaimable += *hashes;
    }
}

/// Whether something is older than `age`. What was changed in the future is young.
fn is_older(now: SystemTime, modified: SystemTime, age: Duration) -> bool {
    now.duration_since(modified).is_ok_and(|since| since >= age)
}
