use super::{CheckReport, DamageKind, Finding, Findings, blob_path, kind_of};
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Digest};
use crate::store::layout::{LOCKS, Layout};
use crate::store::part_names::{self, PartNames};
use crate::store::{
    collector, hosts, leases, origins, quarantine, recover, refs, refs_copy, suspect,
};
use crate::sys::{Aside, Dir, Meta, Share, current_user};

/// Blobs of at least this length are read first, so that no thread is left alone with one at the
/// end while the others have nothing to do.
const LARGE: u64 = 64 * 1024 * 1024;

/// What may lie in the root and in `.layerstore`: files, then directories.
const IN_ROOT: (&[&str], &[&str]) = (&["oci-layout", "index.json"], &["blobs", ".layerstore"]);
const PRIVATE: (&[&str], &[&str]) = (
    &["version", "reserve", refs_copy::NAME, "config.toml", "usage"],
    &[
        "locks",
        "leases",
        "parts",
        "trash",
        "quarantine",
        "outboard",
        "suspect",
        "origins",
        "used",
        "hosts",
    ],
);

/// Looks at every name in the store, and at no byte of a blob. The large blobs.
pub(super) fn look(
    layout: &Layout,
    report: &mut CheckReport,
    findings: &mut Findings,
) -> Result<Vec<Digest>> {
    let mut look = Look { layout, report, findings, large: Vec::new() };
    look.versions();
    look.known(&layout.root, "", IN_ROOT)?;
    look.known(&layout.private, ".layerstore/", PRIVATE)?;
    look.refs_copy();
    look.locks()?;
    look.leases()?;
    look.parts()?;
    look.folder("hosts", hosts::is_name)?;
    look.folder(origins::FOLDER, origins::is_name)?;
    look.folder("suspect", |name| suspect::digest_of(name).is_some())?;
    look.folder("used", |name| suspect::digest_of(name).is_some())?;
    look.outboards()?;
    look.quarantine()?;
    look.blobs()?;
    let mut large = look.large;
    large.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
    Ok(large.into_iter().map(|(_, digest)| digest).collect())
}

struct Look<'a> {
    layout: &'a Layout,
    report: &'a mut CheckReport,
    findings: &'a mut Findings,
    large: Vec<(u64, Digest)>,
}

impl Look<'_> {
    fn versions(&mut self) {
        if let Err(error) = self.layout.check_version() {
            let path = match &error {
                Error::UnsupportedVersion { path, .. } | Error::Damaged { path, .. }
                    if path.ends_with("oci-layout") =>
                {
                    "oci-layout"
                }
                _ => ".layerstore/version",
            };
            self.findings.add(DamageKind::Layout, path.to_owned(), error.to_string());
        }
    }

    fn known(&mut self, dir: &Dir, prefix: &str, (files, dirs): (&[&str], &[&str])) -> Result<()> {
        self.permissions(prefix.trim_end_matches('/'), &dir.meta_of_self()?);
        for name in dir.names()? {
            let name = name?;
            let path = format!("{prefix}{name}");
            let is_dir = dirs.contains(&name.as_str());
            if !is_dir && !files.contains(&name.as_str()) {
                self.unknown(prefix, &name);
                continue;
            }
            match dir.meta(&name)? {
                Some(meta) if !is_dir => self.file(&path, &meta),
                Some(meta) if meta.is_dir => self.permissions(&path, &meta),
                Some(_) => {
                    let message = "it is not a directory; `store init` makes it once it is removed";
                    self.findings.add(DamageKind::WrongType, path, message.to_owned());
                }
                None => {}
            }
        }
        Ok(())
    }

    fn refs_copy(&mut self) {
        if let Err(error) = refs_copy::read(self.layout, refs::MAX_INDEX) {
            let path = format!(".layerstore/{}", refs_copy::NAME);
            let message = format!("{error}; `store check --repair` copies it anew");
            self.findings.add(DamageKind::RefsCopy, path, message);
        }
    }

    fn locks(&mut self) -> Result<()> {
        for name in LOCKS {
            let path = format!(".layerstore/locks/{name}");
            match self.layout.locks.meta(name)? {
                Some(meta) => self.file(&path, &meta),
                None => {
                    let message = "the lock file is missing; `store init` makes it again";
                    self.findings.add(DamageKind::MissingFile, path, message.to_owned());
                }
            }
        }
        for name in self.layout.locks.names()? {
            let name = name?;
            if !LOCKS.contains(&name.as_str()) {
                self.unknown(".layerstore/locks/", &name);
            }
        }
        Ok(())
    }

    fn leases(&mut self) -> Result<()> {
        for name in self.layout.leases.names()? {
            let name = name?;
            if !leases::is_id(&name) {
                self.unknown(".layerstore/leases/", &name);
                continue;
            }
            let path = format!(".layerstore/leases/{name}");
            // It may go at any moment.
            let Some(meta) = self.layout.leases.meta(&name)? else {
                continue;
            };
            self.report.leases += 1;
            self.file(&path, &meta);
            if meta.is_file
                && let Err(error) = leases::is_readable(self.layout, &name)
            {
                let message =
                    format!("{error}; no collection runs until `store lease rm {name}` removes it");
                self.findings.add(DamageKind::Lease, path, message);
            }
        }
        Ok(())
    }

    fn parts(&mut self) -> Result<()> {
        for name in self.layout.parts.names()? {
            let name = name?;
            if part_names::digest_of(&name).is_none() {
                self.unknown(".layerstore/parts/", &name);
            } else if let Some(meta) = self.layout.parts.meta(&name)? {
                if name.ends_with(".part") {
                    self.report.parts += 1;
                    self.lost_part(&name, &meta)?;
                }
                self.file(&format!(".layerstore/parts/{name}"), &meta);
            }
        }
        Ok(())
    }

    /// The lock is held for no longer than it takes to get it; who tries it meanwhile tries again.
    fn lost_part(&mut self, name: &str, meta: &Meta) -> Result<()> {
        let Some(digest) = part_names::digest_of(name) else {
            return Ok(());
        };
        let lock = self.layout.parts.meta(&PartNames::of(&digest).lock)?;
        let is_held = lock.is_some_and(|lock| lock.is_file)
            && collector::lock_idle_part(self.layout, &digest, false)?.is_none();
        if !is_held {
            self.report.lost_parts += 1;
            self.report.lost_part_bytes += meta.disk;
        }
        Ok(())
    }

    /// Files of a folder that the store makes when it is first needed.
    fn folder(&mut self, folder: &str, is_name: fn(&str) -> bool) -> Result<()> {
        // What else may have its name is told where that is looked at.
        match self.layout.private.open_dir(folder).ok().flatten() {
            Some(dir) => self.files(&dir, &format!(".layerstore/{folder}/"), is_name),
            None => Ok(()),
        }
    }

    fn files(&mut self, dir: &Dir, prefix: &str, is_name: impl Fn(&str) -> bool) -> Result<()> {
        for name in dir.names()? {
            let name = name?;
            match dir.meta(&name)? {
                Some(meta) if is_name(&name) => self.file(&format!("{prefix}{name}"), &meta),
                Some(_) => self.unknown(prefix, &name),
                None => {}
            }
        }
        Ok(())
    }

    fn outboards(&mut self) -> Result<()> {
        let Some(outboard) = self.layout.private.open_dir("outboard").ok().flatten() else {
            return Ok(());
        };
        for name in outboard.names()? {
            let name = name?;
            let prefix = ".layerstore/outboard/";
            let Ok(algorithm) = name.parse::<Algorithm>() else {
                self.unknown(prefix, &name);
                continue;
            };
            let dir = match outboard.open_dir(&name) {
                Ok(Some(dir)) => dir,
                Ok(None) => continue,
                Err(error) => {
                    let path = format!("{prefix}{name}");
                    self.findings.add(DamageKind::WrongType, path, error.to_string());
                    continue;
                }
            };
            self.permissions(&format!("{prefix}{name}"), &dir.meta_of_self()?);
            let is_hash = |name: &str| Digest::from_hex(algorithm, name).is_ok();
            self.files(&dir, &format!("{prefix}{name}/"), is_hash)?;
        }
        Ok(())
    }

    fn quarantine(&mut self) -> Result<()> {
        for name in self.layout.quarantine.names()? {
            let name = name?;
            self.report.quarantined += 1;
            if quarantine::digest_of(&name).is_none() && !recover::is_kept_for_people(&name) {
                self.unknown(".layerstore/quarantine/", &name);
            }
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for name in self.layout.blobs.names()? {
            let name = name?;
            match name.parse::<Algorithm>() {
                Ok(algorithm) => match self.layout.algorithm(algorithm) {
                    Ok(dir) => self.blobs_of(algorithm, dir)?,
                    Err(error) => {
                        let kind = match error {
                            Error::Unsafe { .. } => DamageKind::Permissions,
                            _ => DamageKind::WrongType,
                        };
                        self.findings.add(kind, format!("blobs/{name}"), error.to_string());
                    }
                },
                Err(_) => self.unknown("blobs/", &name),
            }
        }
        Ok(())
    }

    fn blobs_of(&mut self, algorithm: Algorithm, dir: Option<&Dir>) -> Result<()> {
        let Some(dir) = dir else {
            return Ok(());
        };
        self.permissions(&format!("blobs/{algorithm}"), &dir.meta_of_self()?);
        for name in dir.names()? {
            let name = name?;
            let Ok(digest) = Digest::from_hex(algorithm, &name) else {
                self.unknown(&format!("blobs/{algorithm}/"), &name);
                continue;
            };
            // One that went since it was listed was collected.
            let Some(meta) = dir.meta(&name)? else {
                continue;
            };
            self.file(&blob_path(&digest), &meta);
            if meta.is_file {
                self.report.blobs += 1;
                self.report.blob_bytes += meta.len;
                if meta.len >= LARGE {
                    self.large.push((meta.len, digest));
                }
            }
        }
        Ok(())
    }

    fn unknown(&mut self, prefix: &str, name: &str) {
        if Aside::is_leftover(name) {
            self.report.temporary += 1;
            return;
        }
        let message = "nothing in a store has this name; look at what it is and remove it";
        self.findings.add(DamageKind::Stray, format!("{prefix}{name}"), message.to_owned());
    }

    fn file(&mut self, path: &str, meta: &Meta) {
        if !meta.is_file {
            let message = "it is not a regular file; look at what it is and remove it";
            self.findings.add(DamageKind::WrongType, path.to_owned(), message.to_owned());
            return;
        }
        self.permissions(path, meta);
    }

    /// Nobody may write to blobs of our own. To those that another tool put there their owner may,
    /// which harms nobody else. In a shared store anybody may have made anything, and those may
    /// write to it who may write to its root.
    fn permissions(&mut self, path: &str, meta: &Meta) {
        let (user, share) = (current_user(), self.layout.root.share());
        let others = !Share::of(meta.mode).is_within(share);
        let message = if meta.owner != user && share.is_none() {
            format!("it belongs to user {}, and the store to user {user}", meta.owner)
        } else if others && (meta.is_file || meta.is_dir) {
            format!("others may write to it (mode {:03o}); use `chmod go-w`", meta.mode)
        } else if meta.mode & 0o400 == 0 {
            format!("its owner may not read it (mode {:03o}); use `chmod u+r`", meta.mode)
        } else {
            return;
        };
        let path = if path.is_empty() { "." } else { path };
        self.findings.add(DamageKind::Permissions, path.to_owned(), message);
    }
}

/// What an error at a blob says.
pub(super) fn finding(digest: Digest, error: &Error) -> Finding {
    let message = match suspect::is_of_bad_bytes(error) {
        true => format!("{error}; a pull of an image that has it brings it anew"),
        false => error.to_string(),
    };
    Finding { kind: kind_of(error), digest, message, descriptor: None }
}
