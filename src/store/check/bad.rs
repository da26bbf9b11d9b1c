use std::collections::{HashMap, HashSet};

use super::structure::finding;
use super::{DamageKind, Finding, Findings};
use crate::error::Result;
use crate::oci::Digest;
use crate::store::layout::Layout;
use crate::store::suspect;

/// The blobs that are there and damaged.
pub(super) struct Bad {
    /// What this check has read.
    pub(super) read: HashMap<Digest, Finding>,
    /// What has a mark: whoever asks for them is told that they are not there.
    pub(super) marked: HashSet<Digest>,
}

impl Bad {
    pub(super) fn find(layout: &Layout, findings: &Findings) -> Result<Bad> {
        let read = findings
            .list
            .iter()
            .filter(|it| matches!(it.kind, DamageKind::WrongDigest | DamageKind::Unreadable))
            .filter_map(|it| {
                let (digest, kind, message) = (it.digest?, it.kind, it.message.clone());
                Some((digest, Finding { kind, digest, message, descriptor: None }))
            })
            .collect();
        let marked = match layout.suspects.dir()? {
            Some(dir) => {
                let names = dir.names()?.map(|name| Ok(suspect::digest_of(&name?)));
                names.filter_map(Result::transpose).collect::<Result<_>>()?
            }
            None => HashSet::new(),
        };
        Ok(Bad { read, marked })
    }

    /// What to say of a blob that is there, if it has a mark still.
    pub(super) fn finding(&self, layout: &Layout, digest: &Digest) -> Option<Finding> {
        if !self.marked.contains(digest) {
            return None;
        }
        match layout.suspects.has(digest) {
            Ok(true) => {
                let message = format!(
                    "the bytes of {digest} were found to be wrong, or could not be read; a pull of an image \
                     that has it brings it anew"
                );
                let (kind, digest) = (DamageKind::WrongDigest, *digest);
                Some(Finding { kind, digest, message, descriptor: None })
            }
            // It was mended a moment ago.
            Ok(false) => None,
            Err(error) => Some(finding(*digest, &error)),
        }
    }

    /// Those that have a mark, and that nobody has told of yet: no image that is named has them.
    pub(super) fn tell_rest(&self, layout: &Layout, findings: &mut Findings) -> Result<()> {
        let told: HashSet<Digest> = findings.list.iter().filter_map(|it| it.digest).collect();
        for digest in self.marked.difference(&told) {
            // A collection takes the mark away after the blob.
            if layout.blob_meta(digest)?.is_some()
                && let Some(found) = self.finding(layout, digest)
            {
                findings.add_blob(found, &[]);
            }
        }
        Ok(())
    }
}
