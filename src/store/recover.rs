//! Rebuilding `index.json` when it is lost or broken.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::index_file::IndexFile;
use super::layout::Layout;
use super::reading;
use super::refs;
use super::refs_copy::{self, RefsCopy};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Document};
use crate::sys::{self, Dir};

/// What a rebuilt `index.json` calls images whose names are lost, with the first 64 digits of the
/// digest as the tag: a name keeps them from the collector, and can be moved and removed like any.
const RECOVERED: &str = "localhost/recovered";
/// What the names begin with under which `index.json` is kept, as it was found, in `quarantine/`.
const BROKEN: &str = "index.json-";
/// And its copy.
const BROKEN_COPY: &str = "refs-";

/// What became of the refs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RefsRepair {
    /// Whether `index.json` was rebuilt, or entries of it were.
    pub rebuilt: bool,
    /// Whether the names came from the copy that is kept of it. Without it they are lost.
    pub from_copy: bool,
    /// The names that were restored.
    pub restored: Vec<String>,
    /// The manifests and indexes that no name leads to, if `index.json` was rebuilt.
    pub unnamed: Vec<Unnamed>,
    /// Names that the copy has, and `index.json` has not: another tool has removed them, or has
    /// written `index.json` at the same moment as somebody else. They are not restored.
    pub missing: Vec<MissingName>,
}

/// A manifest or an index to which nothing leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Unnamed {
    /// The blob.
    pub digest: Digest,
    /// Whether all that it is made of is there, of an index for one platform at least.
    pub whole: bool,
    /// The name that keeps it from the collector, if it got one.
    pub name: Option<String>,
    /// The repositories that it was pulled from.
    pub origins: Vec<String>,
}

/// A name that `index.json` had when it was last copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MissingName {
    /// The name.
    pub name: String,
    /// What it stood for.
    pub digest: Digest,
}

/// Rebuilds `index.json` if it is lost or broken, from its copy; and else only the copy, if need be.
///
/// Without a copy the names are lost: then everything that can be an image gets a name that says so,
/// for a store without names would have all of it collected. What is found broken is kept in
/// `quarantine/`.
pub(crate) fn recover(layout: &Layout) -> Result<RefsRepair> {
    let lock = refs::lock(layout)?;
    let copy = match refs_copy::read(layout, refs::MAX_INDEX) {
        Err(error) if is_no_copy(&error) => {
            keep(layout, &layout.private, refs_copy::NAME, BROKEN_COPY)?;
            None
        }
        copy => copy?,
    };
    let repair = match refs::read_index(layout) {
        Ok((bytes, index)) => mend(layout, &bytes, index, copy)?,
        Err(error) if is_damage(&error) => rebuild(layout, copy)?,
        Err(error) => return Err(error),
    };
    refs::settle(layout)?;
    drop(lock);
    Ok(repair)
}

/// Whether it is what lies there that is wrong, and not that this process may not read it.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Damaged { .. } | Error::TooLarge { .. } => true,
        // A symbolic link in its place, or bytes that the disk does not give back.
        Error::Io { source, .. } => sys::is_link(source) || sys::is_bad_disk(source),
        _ => false,
    }
}

/// Whether what lies in the place of the copy is none. One that could only not be read, for want of
/// memory or by a fault of the disk that may pass, is not given up: nothing else has the names.
fn is_no_copy(error: &Error) -> bool {
    match error {
        Error::Damaged { .. } | Error::TooLarge { .. } => true,
        Error::Io { source, .. } => sys::is_link(source),
        _ => false,
    }
}

/// Moves what is broken to `quarantine/`, for people.
fn keep(layout: &Layout, dir: &Dir, name: &str, prefix: &str) -> Result<()> {
    let random = sys::random_name().context("keep", dir.path_of(name))?;
    dir.rename(name, &layout.quarantine, &format!("{prefix}{random}"))
}

/// Whether what lies in `quarantine/` by this name was put there so.
pub(super) fn is_kept_for_people(name: &str) -> bool {
    name.starts_with(BROKEN) || name.starts_with(BROKEN_COPY)
}

/// Puts the copy's entries in the place of those that make no sense any more. Other tools may
/// have changed all others, and their changes stay.
fn mend(
    layout: &Layout,
    bytes: &[u8],
    mut index: IndexFile,
    copy: Option<(Vec<u8>, IndexFile)>,
) -> Result<RefsRepair> {
    let mut repair = RefsRepair::default();
    if let Some((_, copy)) = &copy {
        for entry in copy.known_refs() {
            let Some(name) = entry.name else {
                continue;
            };
            match (index.find(&name), index.has(&name)) {
                (Some(_), _) => {}
                (None, true) => {
                    index.set(&name, &entry.descriptor);
                    repair.restored.push(name);
                }
                (None, false) => {
                    repair.missing.push(MissingName { name, digest: entry.descriptor.digest });
                }
            }
        }
    }
    repair.rebuilt = !repair.restored.is_empty();
    repair.from_copy = repair.rebuilt;
    match repair.rebuilt {
        true => refs::write(layout, &index.to_bytes())?,
        // Also where only the first line of the copy is good.
        false if copy.is_none_or(|(copied, _)| copied != bytes) => {
            RefsCopy::write(layout, bytes)?.put(layout)?;
        }
        false => {}
    }
    Ok(repair)
}

fn rebuild(layout: &Layout, copy: Option<(Vec<u8>, IndexFile)>) -> Result<RefsRepair> {
    let mut repair = RefsRepair { rebuilt: true, from_copy: copy.is_some(), ..Default::default() };
    let (mut bytes, mut index) = copy.unwrap_or_default();
    repair.restored = index.known_refs().into_iter().filter_map(|entry| entry.name).collect();
    let named: HashSet<Digest> =
        index.known_refs().into_iter().map(|entry| entry.descriptor.digest).collect();
    for target in roots(layout)?.into_iter().filter(|target| !named.contains(&target.digest)) {
        let whole = super::closure::whole(layout, &target.digest).is_ok();
        let name = (!repair.from_copy).then(|| recovered_name(&target.digest));
        if let Some(name) = &name {
            index.set(name, &target);
        }
        let digest = target.digest;
        repair.unnamed.push(Unnamed { digest, whole, name, origins: Vec::new() });
    }
    if !repair.from_copy {
        bytes = index.to_bytes();
    }
    // Until the new one has its place there is none, which is what there was before.
    if layout.root.meta("index.json")?.is_some() {
        keep(layout, &layout.root, "index.json", BROKEN)?;
    }
    refs::write(layout, &bytes)?;
    let wanted = repair.unnamed.iter().map(|it| it.digest).collect();
    let mut origins = super::origins::of(layout, &wanted)?;
    for it in &mut repair.unnamed {
        let found = origins.remove(&it.digest).unwrap_or_default();
        it.origins = found.iter().map(super::origins::repository_of).collect();
    }
    Ok(repair)
}

fn recovered_name(digest: &Digest) -> String {
    let mut tag = digest.hex();
    tag.truncate(64);
    format!("{RECOVERED}:{tag}")
}

/// Documents that lead to all others, or are what those are about, so that to name them keeps all.
fn roots(layout: &Layout) -> Result<Vec<Descriptor>> {
    let mut graph = Graph::default();
    for algorithm in Algorithm::ALL {
        let Some(dir) = layout.algorithm(algorithm)? else {
            continue;
        };
        for name in dir.names()? {
            let Ok(digest) = Digest::from_hex(algorithm, &name?) else {
                continue;
            };
            if let Some((descriptor, document)) = document(layout, &digest) {
                graph.add(layout, descriptor, document)?;
            }
        }
    }
    Ok(graph.roots())
}

/// The documents of a store, and what leads from one to another.
#[derive(Default)]
struct Graph {
    documents: BTreeMap<Digest, (Descriptor, Document)>,
    /// What is about a blob that is there.
    about: HashMap<Digest, Vec<Digest>>,
    /// What indexes lead to. What a manifest leads to is not read as a document.
    children: HashSet<Digest>,
    /// What would be kept, and whether as a document.
    kept: HashSet<(Digest, bool)>,
}

impl Graph {
    fn add(&mut self, layout: &Layout, descriptor: Descriptor, document: Document) -> Result<()> {
        let digest = descriptor.digest;
        if let Some(subject) = document.subject()
            && layout.blob_meta(&subject.digest)?.is_some()
        {
            self.about.entry(subject.digest).or_default().push(digest);
        }
        if let Document::Index(index) = &document {
            self.children.extend(index.manifests.iter().map(|child| child.digest));
        }
        self.documents.insert(digest, (descriptor, document));
        Ok(())
    }

    /// Those first that nothing keeps; then what is about others, or part of these, whose own subject
    /// nothing has kept by then.
    fn roots(mut self) -> Vec<Descriptor> {
        let about: HashSet<Digest> = self.about.values().flatten().copied().collect();
        let mut order: Vec<Digest> = self.documents.keys().copied().collect();
        order.sort_by_key(|it| (about.contains(it), self.children.contains(it), *it));
        order.retain(|digest| {
            let is_kept = self.kept.contains(&(*digest, true));
            if !is_kept {
                self.keep(digest);
            }
            !is_kept
        });
        order.sort();
        order.iter().filter_map(|it| self.documents.remove(it)).map(|(it, _)| it).collect()
    }

    /// Follows a document as a collection does.
    fn keep(&mut self, root: &Digest) {
        let mut work = vec![(*root, true)];
        while let Some((digest, as_document)) = work.pop() {
            let found = self.documents.get(&digest).filter(|_| as_document);
            if !self.kept.insert((digest, found.is_some())) {
                continue;
            }
            if let Some((_, document)) = found {
                let is_index = matches!(document, Document::Index(_));
                work.extend(document.children().map(|child| (child.digest, is_index)));
            }
            let about = self.about.get(&digest).into_iter().flatten();
            work.extend(about.map(|digest| (*digest, true)));
        }
    }
}

/// A blob that is a document. What cannot be read is none that a name could be given to.
pub(super) fn document(layout: &Layout, digest: &Digest) -> Option<(Descriptor, Document)> {
    reading::sniff(layout, digest).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_copy_that_could_not_be_read_is_not_given_up() {
        let io = |code| Error::Io {
            action: "open",
            path: "refs".into(),
            source: io::Error::from_raw_os_error(code),
        };
        // EIO, ENOMEM, EACCES, ENFILE, EMFILE; and ELOOP, a symbolic link.
        for code in [5, 12, 13, 23, 24] {
            assert!(!is_no_copy(&io(code)), "{code}");
        }
        assert!(is_no_copy(&io(40)));
        assert!(is_no_copy(&Error::TooLarge { what: "refs".to_owned(), limit: 1 }));
    }
}
