use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use super::access::{self, Sharing};
use super::outboard::Outboards;
use super::present::{self, BLOB_MODE};
use super::refs::ParsedIndex;
use super::suspect::{Marks, Suspects};
use super::used::Used;
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Digest};
use crate::sys::{self, Aside, Dir, Filesystem, Meta};

/// The version of everything below `.layerstore`, in the file `version`.
const VERSION: &str = "1";
/// What `oci-layout` says (image specification, "oci-layout file").
const LAYOUT_VERSION: &str = "1.0.0";
/// The lock files: made with the store and never unlinked.
pub(crate) const LOCKS: [&str; 5] = ["gc", "turn", "gate", "index", "space"];
/// What is set aside so that the collector can run on a full disk.
const RESERVE: u64 = 4 * 1024 * 1024;
/// The largest of the small files that is read.
const SMALL: u64 = 64 * 1024;

/// The store's directories. The only place that knows where things lie.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The root: the OCI image layout.
    pub(crate) root: Dir,
    /// `blobs/`.
    pub(crate) blobs: Dir,
    /// `.layerstore/locks/`.
    pub(crate) locks: Dir,
    /// `.layerstore/leases/`.
    pub(crate) leases: Dir,
    /// `.layerstore/parts/`.
    pub(crate) parts: Dir,
    /// `.layerstore/trash/`.
    pub(crate) trash: Dir,
    /// `.layerstore/quarantine/`.
    pub(crate) quarantine: Dir,
    /// `.layerstore/`.
    pub(crate) private: Dir,
    /// `.layerstore/outboard/`.
    pub(crate) outboards: Outboards,
    /// `.layerstore/suspect/`.
    pub(crate) suspects: Suspects,
    /// `.layerstore/used/`.
    pub(crate) used: Used,
    /// `index.json` as somebody of this process parsed it last.
    pub(crate) parsed_index: ParsedIndex,
    /// `.layerstore/hosts/`, made when it is first needed: the first stores had none.
    hosts: OnceLock<Dir>,
    algorithms: [OnceLock<Dir>; Algorithm::ALL.len()],
    /// Whether their names are known to be durable.
    settled: [OnceLock<()>; Algorithm::ALL.len()],
    /// Whether files keep the mode that they are given.
    keeps_modes: OnceLock<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciLayout {
    image_layout_version: String,
}

impl Layout {
    /// Makes a store, or completes one whose making was interrupted, or makes one of an OCI image
    /// layout that another tool wrote. Several processes may do so at once.
    ///
    /// The file `version` comes last: without it there is no store.
    pub(crate) fn init(path: &Path, sharing: Sharing) -> Result<Layout> {
        if let Some(layout) = Layout::made(path, sharing)? {
            return Ok(layout);
        }
        let root = access::make_root(path, sharing)?;
        let is_new = || -> Result<bool> {
            Ok(root.open_dir(".layerstore")?.is_none() && root.meta("oci-layout")?.is_none())
        };
        // Asked again after the listing: what it showed may be a store that another process is
        // just making, and that begins with `.layerstore`.
        if is_new()?
            && let Some(stranger) = root.names()?.next().transpose()?
            && is_new()?
        {
            return Err(Error::NoStore {
                path: root.path_of(&stranger),
                reason: "the directory has other things in it",
            });
        }
        let private = root.make_dir(".layerstore")?;
        for name in ["leases", "parts", "trash", "quarantine"] {
            private.make_dir(name)?;
        }
        let locks = private.make_dir("locks")?;
        for name in LOCKS {
            drop(locks.open_or_create(name)?);
        }
        locks.sync()?;
        let blobs = root.make_dir("blobs")?;
        blobs.make_dir(Algorithm::Sha256.name())?;
        blobs.sync()?;
        // A store that has lost its refs must not look like one that has none: they keep the blobs.
        if private.meta("version")?.is_none() {
            create(&root, "index.json", &super::index_file::IndexFile::default().to_bytes())?;
        }
        let oci_layout = format!("{{\"imageLayoutVersion\":\"{LAYOUT_VERSION}\"}}");
        create(&root, "oci-layout", oci_layout.as_bytes())?;
        private.sync()?;
        root.sync()?;
        // Whoever finds this relies on all of the above.
        create(&private, "version", format!("{VERSION}\n").as_bytes())?;
        private.sync()?;
        let layout = Layout::open(path, sharing)?;
        layout.fill_reserve();
        Ok(layout)
    }

    /// The store, if it is there and nothing is missing. Whoever made it may not have come to the
    /// last sync yet.
    fn made(path: &Path, sharing: Sharing) -> Result<Option<Layout>> {
        let layout = match Layout::open(path, sharing) {
            Err(Error::NoStore { .. } | Error::Damaged { .. }) => return Ok(None),
            opened => opened?,
        };
        for name in LOCKS {
            if layout.locks.meta(name)?.is_none() {
                return Ok(None);
            }
        }
        layout.private.sync()?;
        Ok(Some(layout))
    }

    /// Opens a store that was made.
    pub(crate) fn open(path: &Path, sharing: Sharing) -> Result<Layout> {
        let no_store = |reason| Error::NoStore { path: path.to_path_buf(), reason };
        let root = match Dir::open_root(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(no_store("the directory does not exist"));
            }
            opened => opened.context("open the store", path)?,
        };
        let private = match root.open_dir(".layerstore")? {
            Some(private) => private,
            None if root.meta("oci-layout")?.is_some() => {
                return Err(no_store("it is an image layout that another tool made"));
            }
            None => return Err(no_store("the directory has no .layerstore folder")),
        };
        let root = access::check_root(root, sharing)?;
        let private = private.shared(root.share());
        access::check(&private, &root)?;
        check_version(&root, &private)?;
        let part = |of: &Dir, name| -> Result<Dir> {
            let dir = of.open_dir(name)?.ok_or_else(|| Error::Damaged {
                path: of.path_of(name),
                reason: "the directory is missing; `store init` makes it again".to_owned(),
            })?;
            access::check(&dir, &root)?;
            Ok(dir)
        };
        let blobs = part(&root, "blobs")?;
        Ok(Layout {
            suspects: Suspects::new(&private, &blobs),
            blobs,
            locks: part(&private, "locks")?,
            leases: part(&private, "leases")?,
            parts: part(&private, "parts")?,
            trash: part(&private, "trash")?,
            quarantine: part(&private, "quarantine")?,
            outboards: Outboards::new(&root, &private),
            used: Used::new(&root, &private),
            parsed_index: ParsedIndex::default(),
            hosts: OnceLock::new(),
            algorithms: Default::default(),
            settled: Default::default(),
            keeps_modes: OnceLock::new(),
            root,
            private,
        })
    }

    /// Whether `oci-layout` and `version` still say what this program understands.
    pub(crate) fn check_version(&self) -> Result<()> {
        check_version(&self.root, &self.private)
    }

    /// The directory of an algorithm's blobs; `None` if no blob of it was ever stored.
    pub(crate) fn algorithm(&self, algorithm: Algorithm) -> Result<Option<&Dir>> {
        let cell = &self.algorithms[algorithm as usize];
        if let Some(dir) = cell.get() {
            return Ok(Some(dir));
        }
        let Some(dir) = self.blobs.open_dir(algorithm.name())? else {
            return Ok(None);
        };
        access::check(&dir, &self.root)?;
        Ok(Some(cell.get_or_init(|| dir)))
    }

    /// The directory of an algorithm's blobs, made if it was not there. Its name is durable when a
    /// name in it [is](Layout::sync_names).
    pub(crate) fn make_algorithm(&self, algorithm: Algorithm) -> Result<&Dir> {
        match self.algorithm(algorithm)? {
            Some(dir) => Ok(dir),
            None => {
                let dir = self.blobs.make_dir(algorithm.name())?;
                Ok(self.algorithms[algorithm as usize].get_or_init(|| dir))
            }
        }
    }

    /// Makes the names of an algorithm's blobs durable, and its own.
    #[cfg_attr(planted_faults, track_caller)]
    pub(crate) fn sync_names(&self, algorithm: Algorithm) -> Result<()> {
        let Some(dir) = self.algorithm(algorithm)? else {
            return Ok(());
        };
        dir.sync()?;
        self.settle(algorithm)
    }

    /// Makes the names of the directories of blobs durable, once: another process may have made them,
    /// and not have come to their sync. They are never removed.
    fn settle(&self, algorithm: Algorithm) -> Result<()> {
        let settled = &self.settled[algorithm as usize];
        if settled.get().is_none() {
            self.blobs.sync()?;
            self.root.sync()?;
            settled.get_or_init(|| ());
        }
        Ok(())
    }

    /// Whether a blob's mode says who wrote it: some file systems that know no modes take one without a
    /// word. Looked at once.
    pub(crate) fn keeps_modes(&self) -> Result<bool> {
        if let Some(known) = self.keeps_modes.get() {
            return Ok(*known);
        }
        let probe = Aside::new(&self.private)?;
        probe.set_mode(BLOB_MODE)?;
        let meta = Meta::of(probe.file()).context("look at", probe.path())?;
        Ok(*self.keeps_modes.get_or_init(|| !present::is_of_others(&meta)))
    }

    /// The directory of what is agreed on about hosts.
    pub(crate) fn hosts(&self) -> Result<&Dir> {
        match self.hosts.get() {
            Some(dir) => Ok(dir),
            None => {
                let dir = self.private.make_dir("hosts")?;
                access::check(&dir, &self.root)?;
                Ok(self.hosts.get_or_init(|| dir))
            }
        }
    }

    /// What lies under a blob's name; `None` if nothing does.
    pub(crate) fn blob_meta(&self, digest: &Digest) -> Result<Option<Meta>> {
        match self.algorithm(digest.algorithm())? {
            Some(dir) => dir.meta(&digest.hex()),
            None => Ok(None),
        }
    }

    /// A blob of this length, if it is there and was not found to be damaged.
    pub(crate) fn find_blob(&self, digest: &Digest, size: u64) -> Result<Option<Meta>> {
        self.find_unmarked(digest, size, || self.suspects.has(digest))
    }

    /// The same, by marks that were asked for before: for who looks for many.
    pub(crate) fn find_among(
        &self,
        marks: &Marks<'_>,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<Meta>> {
        self.find_unmarked(digest, size, || marks.has(digest))
    }

    fn find_unmarked(
        &self,
        digest: &Digest,
        size: u64,
        is_marked: impl FnOnce() -> Result<bool>,
    ) -> Result<Option<Meta>> {
        match self.blob_meta(digest)?.filter(|meta| meta.is_file && meta.len == size) {
            Some(meta) if !is_marked()? => Ok(Some(meta)),
            _ => Ok(None),
        }
    }

    /// Whether there is such a blob.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool> {
        Ok(self.find_blob(digest, size)?.is_some())
    }

    /// Whether there is such a blob that this program committed, so that its bytes are durable.
    pub(crate) fn has_own_blob(&self, digest: &Digest, size: u64) -> Result<bool> {
        let found = self.find_blob(digest, size)?;
        Ok(found.is_some_and(|meta| !present::is_of_others(&meta)))
    }

    /// A blob's file; `None` if there is none.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<(File, Meta)>> {
        match self.algorithm(digest.algorithm())? {
            Some(dir) => dir.open_file_meta(&digest.hex()),
            None => Ok(None),
        }
    }

    /// The file system that the store lies on.
    pub(crate) fn filesystem(&self) -> Result<Filesystem> {
        Filesystem::of(&self.root)
    }

    /// Gives up the reserve, so that a full disk has room for the collector's own needs.
    pub(crate) fn spend_reserve(&self) -> Result<bool> {
        self.private.unlink("reserve")
    }

    /// What is missing of the reserve, in bytes.
    pub(crate) fn missing_reserve(&self) -> Result<u64> {
        let disk = self.private.meta("reserve")?.map_or(0, |meta| meta.disk);
        Ok(RESERVE.saturating_sub(disk))
    }

    /// Sets the reserve aside again; whether that is done, as far as the file system can. A disk that is
    /// too full for it is no error: it is what the reserve is for.
    pub(crate) fn fill_reserve(&self) -> bool {
        let path = self.private.path_of("reserve");
        let filled = self
            .private
            .open_or_create("reserve")
            .and_then(|file| sys::preallocate(&file, 0, RESERVE, &path));
        if let Err(error) = &filled {
            tracing::debug!(%error, "the reserve is not set aside");
        }
        filled.is_ok()
    }
}

fn check_version(root: &Dir, private: &Dir) -> Result<()> {
    let Some(version) = read_small(private, "version", SMALL)? else {
        let path = root.path().to_path_buf();
        return Err(Error::NoStore { path, reason: "its making was interrupted" });
    };
    let unsupported = |path, found: &[u8], supported| {
        let found = String::from_utf8_lossy(&found[..found.len().min(40)]).trim().to_owned();
        Err(Error::UnsupportedVersion { path, found, supported })
    };
    if version.trim_ascii() != VERSION.as_bytes() {
        return unsupported(private.path_of("version"), &version, VERSION);
    }
    let path = root.path_of("oci-layout");
    let Some(text) = read_small(root, "oci-layout", SMALL)? else {
        let reason = "it is missing; `store init` writes it again".to_owned();
        return Err(Error::Damaged { path, reason });
    };
    match serde_json::from_slice::<OciLayout>(&text) {
        Ok(layout) if layout.image_layout_version == LAYOUT_VERSION => Ok(()),
        Ok(layout) => unsupported(path, layout.image_layout_version.as_bytes(), LAYOUT_VERSION),
        Err(error) => Err(Error::Damaged { path, reason: error.to_string() }),
    }
}

/// Writes a file that is not there yet, durable but for its name.
#[cfg_attr(planted_faults, track_caller)]
fn create(dir: &Dir, name: &str, bytes: &[u8]) -> Result<()> {
    if dir.meta(name)?.is_some() {
        return Ok(());
    }
    let aside = Aside::new(dir)?;
    aside.file().write_all(bytes).context("write", dir.path_of(name))?;
    aside.set_mode(0o644)?;
    aside.sync()?;
    aside.name_new(dir, name)?;
    Ok(())
}

/// Reads a file that must not be larger than `limit`; `None` if there is none.
pub(crate) fn read_small(dir: &Dir, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some((file, meta)) = dir.open_file_meta(name)? else {
        return Ok(None);
    };
    // Room for all of it and to see its end; no more than may be read.
    let room = usize::try_from(meta.len.min(limit) + 1).unwrap_or(0);
    let mut bytes = Vec::with_capacity(room);
    file.take(limit + 1).read_to_end(&mut bytes).context("read", dir.path_of(name))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { what: dir.path_of(name).display().to_string(), limit });
    }
    Ok(Some(bytes))
}
