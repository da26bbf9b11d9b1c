use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::mark::{Keeper, Marker};
use super::{Cycle, stock, threads, unreadable_lease};
use crate::error::Result;
use crate::oci::{Algorithm, Digest};
use crate::store::{Layout, collector, gate};
use crate::sys::{Dir, Meta};

/// How many names are looked at together.
const LISTED: usize = 8192;
/// How many candidates are gathered before the gate is shut for them. It is shut again for what is
/// left of them when `SHUT` is over.
const BATCH: usize = 1024;
/// How long the gate stays shut at a time, and then as long as the last unlink takes. Who wants to
/// pin waits that long, and a disk that is slow or busy makes no difference to it.
const SHUT: Duration = Duration::from_millis(1);
/// The same where there are no leases, so that nobody is about to pin.
const SHUT_ALONE: Duration = Duration::from_millis(8);
/// How many times as long it then stays open, where there are leases and processors are busy: the
/// collection has no more than a small part of what pulls run on.
const OPEN: u32 = 10;
/// How long it is kept open at most.
const LONGEST_OPEN: Duration = Duration::from_millis(100);
/// How long it is kept open at most for each blob that was removed. Where all is slow and processors are
/// never idle, garbage must not come faster than it goes.
const OPEN_EACH: Duration = Duration::from_millis(1);
/// From this length on, in bytes, unlinking a blob takes long enough to be done outside the gate.
const LARGE: u64 = 1024 * 1024;
/// After this time nobody is still writing to a temporary file.
pub(super) const TEMPORARY: Duration = Duration::from_secs(24 * 60 * 60);

/// A blob that nothing kept when it was listed.
struct Candidate {
    digest: Digest,
    size: u64,
    disk: u64,
    /// Which file it was, and its time.
    found: ((u64, u64), SystemTime),
}

impl Cycle<'_> {
    /// Lists every directory of blobs, and removes what is not kept, batch by batch.
    ///
    /// Names that are no digest's are none of the collector's business, except the store's own
    /// temporary ones. Removing names from a directory while it is listed may make the listing miss
    /// others; they are garbage for the next collection.
    pub(super) fn sweep(&mut self) -> Result<()> {
        self.remove_temporaries()?;
        for algorithm in Algorithm::ALL {
            let layout = self.layout;
            let Some(dir) = layout.algorithm(algorithm)? else {
                continue;
            };
            let mut batch = Vec::with_capacity(BATCH);
            let mut names = dir.names()?;
            loop {
                let some = names.by_ref().take(LISTED).collect::<Result<Vec<_>>>()?;
                if some.is_empty() {
                    break;
                }
                let marker = &self.marker;
                let found = threads::map_giving_way(&some, |name| {
                    Found::look(algorithm, dir, name, marker)
                });
                self.sort_out(dir, some.iter().zip(found), &mut batch)?;
            }
            self.remove(&mut batch)?;
        }
        Ok(())
    }

    /// Counts what stays, and removes what does not.
    fn sort_out<'a>(
        &mut self,
        dir: &Dir,
        found: impl Iterator<Item = (&'a String, Result<Option<Found>>)>,
        batch: &mut Vec<Candidate>,
    ) -> Result<()> {
        for (name, found) in found {
            let Some(Found { meta, digest, keeper }) = found? else {
                continue;
            };
            let Some(digest) = digest else {
                if collector::is_temporary(name) && self.is_older(meta.modified, TEMPORARY) {
                    self.report.temporaries_removed += 1;
                    self.unlink(dir, name)?;
                }
                continue;
            };
            match keeper {
                Some(Keeper::Ref) => {
                    self.report.live += 1;
                    self.report.live_bytes += meta.len;
                }
                Some(Keeper::Lease) => self.report.kept_leased += 1,
                None if self.is_older(meta.modified, self.options.grace)
                    // Somebody may have put it anew since it was dropped.
                    || self.dropped.contains(&digest)
                        && self.is_older(meta.modified, Duration::ZERO) =>
                {
                    let (found, size) = ((meta.id, meta.modified), meta.len);
                    batch.push(Candidate { digest, size, disk: meta.disk, found });
                }
                None => {
                    self.report.kept_young += 1;
                    self.young_disk.set(self.young_disk.get().saturating_add(meta.disk));
                }
            }
            if batch.len() == BATCH {
                self.remove(batch)?;
            }
        }
        Ok(())
    }

    /// Removes those candidates that nobody has pinned meanwhile.
    ///
    /// No sync follows: if a power cut brings a name back, it is that of a whole blob, which was
    /// synced before it got the name and is never truncated, and the next collection removes it.
    fn remove(&mut self, batch: &mut Vec<Candidate>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.options.dry_run {
            for candidate in batch.drain(..) {
                self.count_removed(&candidate);
                if self.measures_room {
                    let derived = stock::derived(self.layout, &candidate.digest)?;
                    let disk = candidate.disk.saturating_add(derived);
                    self.would_free.set(self.would_free.get().saturating_add(disk));
                }
            }
            return Ok(());
        }
        while !batch.is_empty() {
            // What is known before is not waited for.
            self.mark_new_pins()?;
            self.leases.find_ownerless(self.layout).map_err(unreadable_lease)?;
            let gate = gate::shut(&self.layout.locks)?;
            let shut = Instant::now();
            self.look_again()?;
            let all = batch.len();
            batch.retain(|candidate| self.marker.keeper(&candidate.digest).is_none());
            let unkept = batch.len();
            self.report.kept_leased += (all - unkept) as u64;
            let time = if self.leases.found_any() { SHUT } else { SHUT_ALONE };
            // At least as long as it took to begin, or it would be shut for that alone.
            let fates = remove_in_time(self.layout, batch, time.max(shut.elapsed()));
            drop(gate);
            let shut = shut.elapsed();
            tracing::debug!(microseconds = shut.as_micros(), "the gate was shut");
            self.settle(batch, fates)?;
            if self.leases.found_any() {
                stay_open(shut, unkept - batch.len());
            }
        }
        Ok(())
    }

    /// With the gate shut, reads what leases have gained since.
    #[cfg_attr(planted_faults, track_caller)]
    fn look_again(&mut self) -> Result<()> {
        #[cfg(planted_faults)]
        if crate::sys::omits_look(self.layout.leases.path()) {
            return Ok(());
        }
        self.mark_new_pins()?;
        self.marker.follow_late()
    }

    /// Counts what was removed, and leaves in the batch what there was no time for.
    fn settle(&mut self, batch: &mut Vec<Candidate>, fates: Vec<Result<Fate>>) -> Result<()> {
        let mut outcome = Ok(());
        for (candidate, fate) in std::mem::take(batch).into_iter().zip(fates) {
            match fate {
                Ok(Fate::Later) => batch.push(candidate),
                Ok(Fate::Absent) => {}
                Ok(Fate::Renewed) => self.report.kept_young += 1,
                Ok(Fate::Unlinked) => self.count_removed(&candidate),
                Ok(Fate::Trashed(name)) => {
                    self.count_removed(&candidate);
                    self.layout.trash.unlink(&name)?;
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    fn count_removed(&mut self, candidate: &Candidate) {
        self.report.removed += 1;
        self.report.removed_bytes += candidate.size;
        tracing::debug!(digest = %candidate.digest, dry_run = self.options.dry_run, "removed");
    }

    /// Empties the trash, in which a collection that was killed may have left what it took out of
    /// the blobs' directories already.
    pub(super) fn empty_trash(&mut self) -> Result<()> {
        for name in self.layout.trash.names()? {
            self.report.trash_removed += 1;
            self.unlink(&self.layout.trash, &name?)?;
        }
        Ok(())
    }

    /// Unlinks a file unless this is a dry run.
    pub(super) fn unlink(&self, dir: &Dir, name: &str) -> Result<()> {
        if !self.options.dry_run {
            dir.unlink(name)?;
        } else if let Some(meta) = dir.meta(name)? {
            self.would_free.set(self.would_free.get().saturating_add(meta.disk));
        }
        Ok(())
    }

    /// Removes what writers that were killed left beside `index.json` and among the parts.
    fn remove_temporaries(&mut self) -> Result<()> {
        let Layout { root, private, parts, leases, .. } = self.layout;
        for dir in [root, private, parts, leases] {
            for name in dir.names()? {
                let name = name?;
                if collector::is_temporary(&name)
                    && let Some(meta) = dir.meta(&name)?
                    && meta.is_file
                    && self.is_older(meta.modified, TEMPORARY)
                {
                    self.report.temporaries_removed += 1;
                    self.unlink(dir, &name)?;
                }
            }
        }
        Ok(())
    }
}

/// A file that was listed.
struct Found {
    meta: Meta,
    /// Of which blob it is; `None` if of none.
    digest: Option<Digest>,
    /// What kept it by then.
    keeper: Option<Keeper>,
}

impl Found {
    fn look(
        algorithm: Algorithm,
        dir: &Dir,
        name: &str,
        marker: &Marker<'_>,
    ) -> Result<Option<Found>> {
        let found = |meta| {
            let digest = Digest::from_hex(algorithm, name).ok();
            let keeper = digest.as_ref().and_then(|digest| marker.keeper(digest));
            Found { meta, digest, keeper }
        };
        Ok(dir.meta(name)?.filter(|meta| meta.is_file).map(found))
    }
}

/// What became of a candidate.
enum Fate {
    /// It was not there any more.
    Absent,
    /// Another file has its name now, or it has another time: somebody has just put it.
    Renewed,
    Unlinked,
    /// It has this name in the trash.
    Trashed(String),
    /// Time was up.
    Later,
}

/// Lets others pass the gate, and do what they want to, after it was shut for so long to remove so much.
fn stay_open(shut: Duration, removed: usize) {
    // A lock has no queue: who waits for the gate has to find it open.
    std::thread::sleep(Duration::from_millis(1));
    if !threads::is_idle() {
        let for_all = OPEN_EACH.saturating_mul(u32::try_from(removed).unwrap_or(u32::MAX));
        std::thread::sleep((OPEN * shut).min(LONGEST_OPEN).min(for_all));
    }
}

/// Removes candidates under the shut gate, at least one and as many as there is time for.
fn remove_in_time(layout: &Layout, batch: &[Candidate], time: Duration) -> Vec<Result<Fate>> {
    let (shut, begun) = (Instant::now(), AtomicBool::new(false));
    threads::map(batch, |candidate| {
        if shut.elapsed() > time && begun.swap(true, Ordering::Relaxed) {
            return Ok(Fate::Later);
        }
        begun.store(true, Ordering::Relaxed);
        remove_one(layout, candidate)
    })
}

fn remove_one(layout: &Layout, candidate: &Candidate) -> Result<Fate> {
    let Candidate { digest, size, found, .. } = candidate;
    let Some(dir) = layout.algorithm(digest.algorithm())? else {
        return Ok(Fate::Absent);
    };
    let name = digest.hex();
    // Those who know of no leases have the grace time only, and may have put it since it was listed.
    match dir.meta(&name)? {
        None => return Ok(Fate::Absent),
        Some(meta) if (meta.id, meta.modified) != *found => return Ok(Fate::Renewed),
        Some(_) => {}
    }
    if *size >= LARGE {
        let trashed = format!("{}-{name}", digest.algorithm());
        match dir.rename(&name, &layout.trash, &trashed) {
            Ok(()) => return Ok(Fate::Trashed(trashed)),
            // A full disk has no room for a name in the trash; then the gate stays shut longer.
            Err(error) => tracing::debug!(%digest, %error, "a blob is not moved to the trash"),
        }
    }
    Ok(match dir.unlink(&name)? {
        true => Fate::Unlinked,
        false => Fate::Absent,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::io::Write as _;

    use super::*;
    use crate::gc::{GcOptions, GcReport};
    use crate::oci::{Descriptor, MediaType};
    use crate::store::BlobStore;
    use crate::store::leases::LeaseReader;

    fn store() -> (tempfile::TempDir, BlobStore) {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        (temp, store)
    }

    fn put(store: &BlobStore, bytes: &[u8]) -> Digest {
        let lease = store.lease("put").unwrap();
        let mut ingest = store.ingest(&lease, Algorithm::Sha256, 4096).unwrap();
        ingest.write_all(bytes).unwrap();
        *ingest.commit().unwrap().digest()
    }

    /// A lease says nothing new where a document comes that it keeps already.
    #[test]
    fn what_a_pinned_tree_is_made_of_stays_if_its_root_comes_late() {
        let (_temp, store) = store();
        let (layer, garbage) = (put(&store, b"layer"), put(&store, b"garbage"));
        let manifest = manifest_of(&layer);
        let root = Algorithm::Sha256.digest(manifest.as_bytes());
        let lease = store.lease("test").unwrap();
        lease.pin_tree(|| Ok((root, ()))).unwrap();
        let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
        let mut cycle = cycle(&store, &options);
        cycle.mark_new_pins().unwrap();
        assert_eq!(put(&store, manifest.as_bytes()), root);
        cycle.sweep().unwrap();
        assert!(store.open_blob(&root).is_ok() && store.open_blob(&layer).is_ok());
        assert!(store.open_blob(&garbage).is_err());
    }

    fn cycle<'a>(store: &'a BlobStore, options: &'a GcOptions) -> Cycle<'a> {
        Cycle {
            store,
            layout: store.layout(),
            options,
            now: SystemTime::now() + Duration::from_secs(1),
            marker: Marker::new(store),
            leases: LeaseReader::default(),
            report: GcReport::default(),
            dropped: HashSet::new(),
            would_go: HashSet::new(),
            measures_room: false,
            would_free: Cell::new(0),
            young_disk: Cell::new(0),
        }
    }

    /// A ref keeps an index whatever of it is there; a lease is given for what is there.
    #[test]
    fn what_a_lease_keeps_below_a_named_index_stays_if_its_manifest_comes_late() {
        let (_temp, store) = store();
        let (layer, garbage) = (put(&store, b"layer"), put(&store, b"garbage"));
        let manifest = manifest_of(&layer);
        let child = Algorithm::Sha256.digest(manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{child}","size":{}}}]}}"#,
            manifest.len()
        );
        let root = put(&store, index.as_bytes());
        let target =
            Descriptor::new(MediaType::new(MediaType::OCI_INDEX), root, index.len() as u64);
        let lease = store.lease("test").unwrap();
        store.publish("a:1", &target, &[lease.pin_one(root, target.size).unwrap()]).unwrap();
        let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
        let mut cycle = cycle(&store, &options);
        cycle.mark_refs().unwrap();
        cycle.mark_new_pins().unwrap();
        assert_eq!(put(&store, manifest.as_bytes()), child);
        store.lasting_lease("test", &[root], None).unwrap();
        cycle.sweep().unwrap();
        assert!(store.open_blob(&child).is_ok() && store.open_blob(&layer).is_ok());
        assert!(store.open_blob(&garbage).is_err());
    }

    fn manifest_of(layer: &Digest) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{layer}","size":5}},
            "layers":[{{"mediaType":"application/octet-stream","digest":"{layer}","size":5}}]}}"#
        )
    }

    /// skopeo and its like write a blob anew without a lease: what they put has its grace time.
    #[test]
    fn what_was_put_since_it_was_listed_stays() {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        let layout = store.layout();
        let (digest, other) = (Algorithm::Sha256.digest(b"x"), Algorithm::Sha256.digest(b"y"));
        let dir = layout.make_algorithm(Algorithm::Sha256).unwrap();
        let list = || {
            drop(dir.open_or_create(&digest.hex()).unwrap());
            let meta = dir.meta(&digest.hex()).unwrap().unwrap();
            Candidate { digest, size: meta.len, disk: meta.disk, found: (meta.id, meta.modified) }
        };
        let listed = list();
        assert!(dir.touch(&digest.hex()).unwrap());
        assert!(matches!(remove_one(layout, &listed).unwrap(), Fate::Renewed), "another time");
        let listed = list();
        drop(dir.open_or_create(&other.hex()).unwrap());
        dir.rename(&other.hex(), dir, &digest.hex()).unwrap();
        assert!(matches!(remove_one(layout, &listed).unwrap(), Fate::Renewed), "another file");
        assert!(matches!(remove_one(layout, &list()).unwrap(), Fate::Unlinked));
        assert!(matches!(remove_one(layout, &listed).unwrap(), Fate::Absent));
    }
}
