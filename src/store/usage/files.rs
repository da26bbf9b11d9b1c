use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::marks::Marks;
use super::{Amount, DAY, UsageKinds, is_older};
use crate::error::Result;
use crate::oci::{Algorithm, Digest};
use crate::store::collector;
use crate::store::layout::Layout;
use crate::store::part_names::{self, PartNames};
use crate::sys::{Dir, Lock, LockMode, Meta};

/// How deep directories that are nobody's the store knows are followed.
const MAX_FOREIGN_DEPTH: usize = 64;

/// What lies in the store's directories, but for the blobs.
#[derive(Default)]
pub(super) struct Found {
    /// Without blobs, and without the hashes of their groups.
    pub(super) kinds: UsageKinds,
    /// Blobs' group hashes; also those whose blob is gone.
    pub(super) group_hashes: HashMap<Digest, Amount>,
    /// What of all that a collection removes.
    pub(super) left_over: Amount,
}

struct Walk<'a> {
    layout: &'a Layout,
    now: SystemTime,
    found: Found,
    /// Files with several names that were counted: `du` counts their blocks once.
    linked: HashSet<(u64, u64)>,
}

/// Visits every file once; the blobs are given to `marks`.
pub(super) fn find(layout: &Layout, now: SystemTime, marks: &mut Marks<'_>) -> Result<Found> {
    let mut walk = Walk { layout, now, found: Found::default(), linked: HashSet::new() };
    walk.blobs(marks)?;
    walk.root()?;
    walk.private(&marks.ended)?;
    walk.parts()?;
    walk.outboards()?;
    Ok(walk.found)
}

impl Walk<'_> {
    fn amount(&mut self, meta: &Meta) -> Amount {
        let mut amount = Amount::of(meta);
        if !meta.is_dir && meta.links > 1 && !self.linked.insert(meta.id) {
            amount.disk = 0;
        }
        amount
    }

    fn other(&mut self, meta: &Meta) {
        let amount = self.amount(meta);
        self.found.kinds.other += amount;
    }

    fn blobs(&mut self, marks: &mut Marks<'_>) -> Result<()> {
        let blobs = &self.layout.blobs;
        each(blobs, |name, meta| match name.parse::<Algorithm>() {
            Ok(_) => {
                self.other(&meta);
                Ok(())
            }
            Err(_) => self.rest(blobs, name, &meta),
        })?;
        for algorithm in Algorithm::ALL {
            let Some(dir) = self.layout.algorithm(algorithm)? else {
                continue;
            };
            each(dir, |name, mut meta| match Digest::from_hex(algorithm, name) {
                Ok(digest) if meta.is_file => {
                    meta.disk = self.amount(&meta).disk;
                    marks.note(digest, meta);
                    Ok(())
                }
                Ok(_) | Err(_) => self.foreign(dir, name, &meta),
            })?;
        }
        Ok(())
    }

    /// What is in the root, but for `blobs/` and `.layerstore/`.
    fn root(&mut self) -> Result<()> {
        let root = &self.layout.root;
        self.other(&root.meta_of_self()?);
        each(root, |name, meta| match name {
            "blobs" | ".layerstore" => {
                self.other(&meta);
                Ok(())
            }
            _ => self.foreign(root, name, &meta),
        })
    }

    /// What is in `.layerstore`, but for the parts and the group hashes.
    fn private(&mut self, ended: &HashSet<String>) -> Result<()> {
        let private = &self.layout.private;
        each(private, |name, meta| {
            match name {
                "parts" | "outboard" | "trash" | "quarantine" | "leases" if meta.is_dir => {
                    self.other(&meta);
                }
                "reserve" if meta.is_file => {
                    let amount = self.amount(&meta);
                    self.found.kinds.reserve += amount;
                }
                _ => self.rest(private, name, &meta)?,
            }
            Ok(())
        })?;
        let (quarantine, trash) = (&self.layout.quarantine, &self.layout.trash);
        each(quarantine, |name, meta| {
            let amount = self.tree(quarantine, name, &meta, 0)?;
            self.found.kinds.quarantine += amount;
            Ok(())
        })?;
        each(trash, |name, meta| {
            let amount = self.tree(trash, name, &meta, 0)?;
            self.found.kinds.trash += amount;
            self.found.left_over += amount;
            Ok(())
        })?;
        let leases = &self.layout.leases;
        each(leases, |name, meta| {
            if ended.contains(name) {
                self.found.left_over += Amount::of(&meta);
            }
            self.foreign(leases, name, &meta)
        })
    }

    fn parts(&mut self) -> Result<()> {
        let parts = &self.layout.parts;
        each(parts, |name, meta| {
            let Some(digest) = part_names::digest_of(name).filter(|_| meta.is_file) else {
                return self.foreign(parts, name, &meta);
            };
            let amount = self.amount(&meta);
            self.found.kinds.parts += amount;
            if self.is_given_up(&digest)? {
                self.found.left_over += amount;
            }
            Ok(())
        })
    }

    /// Whether a collection removes a part with what belongs to it (`gc::parts`).
    fn is_given_up(&self, digest: &Digest) -> Result<bool> {
        let (parts, names) = (&self.layout.parts, PartNames::of(digest));
        let expired = match parts.meta(&names.part)? {
            Some(part) => {
                is_older(self.now, part.modified, DAY)
                    || self.layout.blob_meta(digest)?.is_some_and(|blob| blob.is_file)
            }
            None => true,
        };
        let held =
            |file| Ok(Lock::try_on(file, LockMode::Shared, &parts.path_of(&names.lock))?.is_none());
        Ok(expired && !parts.open_file(&names.lock)?.map_or(Ok(false), held)?)
    }

    fn outboards(&mut self) -> Result<()> {
        let Some(outboard) = self.layout.private.open_dir("outboard")? else {
            return Ok(());
        };
        each(&outboard, |name, meta| {
            let (Ok(algorithm), true) = (name.parse::<Algorithm>(), meta.is_dir) else {
                return self.rest(&outboard, name, &meta);
            };
            self.other(&meta);
            let Some(dir) = outboard.open_dir(name)? else {
                return Ok(());
            };
            each(&dir, |name, meta| match Digest::from_hex(algorithm, name) {
                Ok(digest) if meta.is_file => {
                    let amount = self.amount(&meta);
                    self.found.group_hashes.insert(digest, amount);
                    Ok(())
                }
                Ok(_) | Err(_) => self.foreign(&dir, name, &meta),
            })
        })
    }

    /// What is none of the kinds that are told apart: the store's small files, and others' things.
    fn rest(&mut self, dir: &Dir, name: &str, meta: &Meta) -> Result<()> {
        let amount = self.tree(dir, name, meta, 0)?;
        self.found.kinds.other += amount;
        Ok(())
    }

    /// The same in a directory in which a collection looks for temporary files that were left.
    fn foreign(&mut self, dir: &Dir, name: &str, meta: &Meta) -> Result<()> {
        let amount = self.tree(dir, name, meta, 0)?;
        self.found.kinds.other += amount;
        if meta.is_file && collector::is_temporary(name) && is_older(self.now, meta.modified, DAY) {
            self.found.left_over += amount;
        }
        Ok(())
    }

    /// A file, or a directory with all that is in it.
    fn tree(&mut self, dir: &Dir, name: &str, meta: &Meta, depth: usize) -> Result<Amount> {
        let mut amount = self.amount(meta);
        if meta.is_dir
            && depth < MAX_FOREIGN_DEPTH
            && let Some(inner) = dir.open_dir(name)?
        {
            each(&inner, |name, meta| {
                amount += self.tree(&inner, name, &meta, depth + 1)?;
                Ok(())
            })?;
        }
        Ok(amount)
    }
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
