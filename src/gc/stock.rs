//! The images of a store as what takes room, and which of them to drop for so many bytes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::Cycle;
use crate::error::Result;
use crate::oci::{Digest, Document};
use crate::store::reading::{self, Found, Reading};
use crate::store::{BlobStore, Layout, Ref, refs, used};

/// Why an image is not dropped. The first that holds is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    Pinned,
    Leased,
    /// Nobody could be told which image it was.
    Unnamed,
    Recent,
}

/// An image: a root digest and all its names.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) digest: Digest,
    pub(super) names: Vec<String>,
    pub(super) pinned_names: Vec<String>,
    pub(super) last_used: SystemTime,
    pub(super) held: Option<Held>,
    /// What it leads to, and what is about that: all that goes when it goes, unless others have it.
    pub(super) blobs: Vec<Digest>,
}

/// What a blob takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) len: u64,
    /// On disk, with what is derived from it.
    pub(super) disk: u64,
    /// Whether a lease keeps it, so that dropping its images frees nothing.
    leased: bool,
}

#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) images: Vec<Image>,
    pub(super) sizes: HashMap<Digest, Size>,
    users: HashMap<Digest, u32>,
}

/// What is to be dropped, the longest unused first: places in the stock, and what goes with each.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) victims: Vec<usize>,
    pub(super) freed: u64,
}

impl Stock {
    /// Takes stock after a marking. Images used within `keep` are held.
    pub(super) fn take(cycle: &Cycle<'_>, keep: Option<Duration>) -> Result<Stock> {
        let mut stock = Stock::default();
        for (digest, refs) in by_target(cycle.layout)? {
            let named = |pinned_only: bool| {
                let wanted = refs.iter().filter(move |it| !pinned_only || it.is_pinned());
                wanted.filter_map(|it| it.name.clone()).collect::<Vec<_>>()
            };
            let last_used = used::last(cycle.layout, &digest)?.unwrap_or(SystemTime::UNIX_EPOCH);
            let is_recent = keep.is_some_and(|keep| !cycle.is_older(last_used, keep));
            let pinned_names = named(true);
            let held = if !pinned_names.is_empty() {
                Some(Held::Pinned)
            } else if cycle.marker.is_leased(&digest) {
                Some(Held::Leased)
            } else if refs.iter().any(|it| it.name.is_none()) {
                Some(Held::Unnamed)
            } else {
                is_recent.then_some(Held::Recent)
            };
            let blobs = blobs_of(cycle, &refs)?;
            let names = named(false);
            stock.add(cycle, Image { digest, names, pinned_names, last_used, held, blobs })?;
        }
        Ok(stock)
    }

    fn add(&mut self, cycle: &Cycle<'_>, mut image: Image) -> Result<()> {
        let mut there = Vec::with_capacity(image.blobs.len());
        for digest in std::mem::take(&mut image.blobs) {
            if let Entry::Vacant(new) = self.sizes.entry(digest) {
                let Some(mut size) = size_of(cycle.layout, &digest)? else {
                    continue;
                };
                size.leased = cycle.marker.is_leased(&digest);
                new.insert(size);
            }
            *self.users.entry(digest).or_default() += 1;
            there.push(digest);
        }
        image.blobs = there;
        self.images.push(image);
        Ok(())
    }

    fn frees(&self, digest: &Digest) -> u64 {
        self.sizes.get(digest).filter(|size| !size.leased).map_or(0, |size| size.disk)
    }

    /// Chooses what to drop for so many bytes: the longest unused first, and of these only those
    /// whose going frees something. If all is not enough, it is all.
    pub(super) fn plan(&self, wanted: u64) -> Plan {
        let mut order: Vec<usize> =
            (0..self.images.len()).filter(|n| self.images[*n].held.is_none()).collect();
        order.sort_by_key(|n| (self.images[*n].last_used, self.images[*n].digest));
        let mut users = self.users.clone();
        let mut plan = Plan::default();
        for n in order {
            if plan.freed >= wanted {
                break;
            }
            for digest in &self.images[n].blobs {
                let left = users.entry(*digest).or_insert(1);
                *left -= 1;
                if *left == 0 {
                    plan.freed += self.frees(digest);
                }
            }
            plan.victims.push(n);
        }
        // What was passed on the way, and shares all that it has with what stays, may stay too.
        let wanted = wanted.min(plan.freed);
        for at in (0..plan.victims.len()).rev() {
            let blobs = &self.images[plan.victims[at]].blobs;
            let alone = blobs.iter().filter(|digest| users.get(*digest) == Some(&0));
            let loss: u64 = alone.map(|digest| self.frees(digest)).sum();
            if plan.freed - loss >= wanted {
                blobs.iter().for_each(|digest| *users.entry(*digest).or_default() += 1);
                plan.freed -= loss;
                plan.victims.remove(at);
            }
        }
        plan
    }

    /// What goes with an image after those before it went, in bytes on disk, and the blobs.
    pub(super) fn unshare(&mut self, n: usize) -> (u64, Vec<Digest>) {
        let mut gone = Vec::new();
        for digest in &self.images[n].blobs {
            let left = self.users.entry(*digest).or_insert(1);
            *left -= 1;
            if *left == 0 && !self.sizes.get(digest).is_some_and(|size| size.leased) {
                gone.push(*digest);
            }
        }
        (gone.iter().map(|digest| self.frees(digest)).sum(), gone)
    }
}

/// What a blob takes, with what is derived from it; `None` if it is not there.
fn size_of(layout: &Layout, digest: &Digest) -> Result<Option<Size>> {
    let Some(meta) = layout.blob_meta(digest)?.filter(|meta| meta.is_file) else {
        return Ok(None);
    };
    let disk = meta.disk.saturating_add(derived(layout, digest)?);
    Ok(Some(Size { len: meta.len, disk, leased: false }))
}

/// What is derived from a blob, in bytes on disk.
pub(super) fn derived(layout: &Layout, digest: &Digest) -> Result<u64> {
    match layout.outboards.dir(digest.algorithm())? {
        Some(dir) => Ok(dir.meta(&digest.hex())?.map_or(0, |meta| meta.disk)),
        None => Ok(0),
    }
}

fn by_target(layout: &Layout) -> Result<BTreeMap<Digest, Vec<Ref>>> {
    let mut images: BTreeMap<Digest, Vec<_>> = BTreeMap::new();
    for entry in refs::read(layout)? {
        images.entry(entry.descriptor.digest).or_default().push(entry);
    }
    Ok(images)
}

/// What an image leads to, and what is about any of that: all that its refs alone keep marked.
fn blobs_of(cycle: &Cycle<'_>, refs: &[Ref]) -> Result<Vec<Digest>> {
    let roots = refs.iter().map(|Ref { descriptor, .. }| {
        (descriptor.digest, Reading::of_root(&descriptor.media_type))
    });
    walk(cycle.layout, roots.collect(), |digest| cycle.marker.about(digest))
}

/// A blob and what it is made of, if it is a document.
pub(super) fn tree(store: &BlobStore, root: &Digest) -> Result<Vec<Digest>> {
    walk(store.layout(), vec![(*root, Reading::Unknown)], |_| &[])
}

/// What these lead to, as the marker reads it: what it can follow is nothing to give up for here.
fn walk<'a>(
    layout: &Layout,
    mut work: Vec<(Digest, Reading)>,
    about: impl Fn(&Digest) -> &'a [Digest],
) -> Result<Vec<Digest>> {
    let (mut blobs, mut seen, mut followed) = (Vec::new(), HashSet::new(), HashSet::new());
    while let Some((digest, reading)) = work.pop() {
        if seen.insert(digest) {
            blobs.push(digest);
            work.extend(about(&digest).iter().map(|it| (*it, Reading::Unknown)));
        }
        if !followed.contains(&digest)
            && let Found::Document(document) = reading::read(layout, &digest, &reading)?
        {
            followed.insert(digest);
            let is_index = matches!(document, Document::Index(_));
            work.extend(
                document
                    .children()
                    .map(|child| (child.digest, Reading::of_child(&child.media_type, is_index))),
            );
        }
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    /// Images by their ages and blobs; a blob's letter says its size: a is 1, b is 2, c is 4.
    fn stock(images: &[(u64, &str, Option<Held>)]) -> Stock {
        let mut stock = Stock::default();
        for (n, (age, blobs, held)) in images.iter().enumerate() {
            let blobs: Vec<_> =
                blobs.bytes().map(|letter| Algorithm::Sha256.digest(&[letter])).collect();
            for (digest, letter) in blobs.iter().zip(images[n].1.bytes()) {
                let disk = 1 << (letter.to_ascii_lowercase() - b'a');
                // A capital is kept by a lease.
                let leased = letter.is_ascii_uppercase();
                stock.sizes.insert(*digest, Size { len: disk, disk, leased });
                *stock.users.entry(*digest).or_default() += 1;
            }
            stock.images.push(Image {
                digest: Algorithm::Sha256.digest(&n.to_le_bytes()),
                names: vec![format!("{n}")],
                pinned_names: Vec::new(),
                last_used: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age),
                held: *held,
                blobs,
            });
        }
        stock
    }

    #[test]
    fn the_longest_unused_go_first_and_only_as_many_as_must() {
        let of = |images: &[(u64, &str, Option<Held>)], wanted| {
            let plan = stock(images).plan(wanted);
            (plan.victims, plan.freed)
        };
        let three = [(1, "a", None), (3, "b", None), (2, "c", None)];
        assert_eq!(of(&three, 0), (vec![], 0));
        assert_eq!(of(&three, 1), (vec![1], 2));
        assert_eq!(of(&three, 3), (vec![2], 4), "the last that was needed is enough alone");
        assert_eq!(of(&three, 5), (vec![1, 2], 6));
        assert_eq!(of(&three, 99), (vec![1, 2, 0], 7), "all of it, if it is not enough");
        let held = [(9, "c", Some(Held::Pinned)), (2, "a", None), (1, "b", None)];
        assert_eq!(of(&held, 2), (vec![2], 2));
        assert_eq!(of(&held, 99), (vec![1, 2], 3));
    }

    #[test]
    fn what_is_shared_or_leased_is_not_freed() {
        let of = |images: &[(u64, &str, Option<Held>)], wanted| {
            let plan = stock(images).plan(wanted);
            (plan.victims, plan.freed)
        };
        let shared = [(3, "ac", None), (2, "bc", None), (1, "d", None)];
        assert_eq!(of(&shared, 1), (vec![0], 1));
        assert_eq!(of(&shared, 7), (vec![0, 1], 7));
        // The oldest shares everything with a pinned one: its name may stay.
        let kept = [(3, "c", None), (2, "c", Some(Held::Pinned)), (1, "b", None)];
        assert_eq!(of(&kept, 2), (vec![2], 2));
        assert_eq!(of(&kept, 99), (vec![2], 2));
        // Two that share everything go together.
        let twins = [(3, "c", None), (2, "c", None), (1, "b", None)];
        assert_eq!(of(&twins, 4), (vec![0, 1], 4));
        let leased = [(3, "aC", None), (1, "b", None)];
        assert_eq!(of(&leased, 2), (vec![1], 2));
        assert_eq!(of(&leased, 99), (vec![0, 1], 3));
    }
}
