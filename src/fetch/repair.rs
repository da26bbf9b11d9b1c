//! Mending what a check found: each damaged or missing blob is brought anew from where it came.

mod patient;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;

use patient::{Patient, bring, has_no_room};

use super::Puller;
use super::task::blocking;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Reference};
use crate::store::{CheckOptions, CheckReport, Damage, DamageKind, Ref, RefsRepair};

/// How often the images are followed anew, since what was mended leads to more: an index to a manifest
/// to its layers, and once more to see that nothing is left.
const ROUNDS: usize = 12;

/// What became of the damage that a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RepairReport {
    /// What became of the refs.
    pub refs: RefsRepair,
    /// The blobs that are as they should be again, durably.
    pub mended: Vec<Mended>,
    /// How many bytes came from registries for them.
    pub fetched_bytes: u64,
    /// The blobs that could not be mended.
    pub failed: Vec<Unmended>,
    /// What is wrong now.
    pub damage: Vec<Damage>,
}

impl RepairReport {
    /// Whether all damage was mended.
    pub fn is_sound(&self) -> bool {
        let lost_names = self.refs.unnamed.iter().any(|it| it.name.is_some());
        self.failed.is_empty() && self.damage.is_empty() && !lost_names
    }
}

/// A blob that was mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Mended {
    /// The blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The repository that it came from; none where another process has brought it meanwhile.
    pub from: Option<String>,
    /// The servers that sent bytes of it: mirrors of the registry among them.
    pub servers: Vec<String>,
    /// How many bytes came; the others were good, or had come before.
    pub fetched_bytes: u64,
}

/// A blob that could not be mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Unmended {
    /// The blob.
    pub digest: Digest,
    /// Why not.
    pub reason: String,
    /// Whether the damaged file is in quarantine now. It is not where there is none, or where somebody
    /// works with the blob.
    pub quarantined: bool,
    /// The refs that suffer.
    pub refs: Vec<String>,
}

impl Puller {
    /// Mends what a check found, as far as the registries have it: `index.json` from its copy, and
    /// blobs from where they came, or where the refs that lead to them say, by way of the mirrors that
    /// are configured. Of a blob whose bytes are wrong here and there only those groups are fetched
    /// that are wrong. What cannot be had is put in quarantine; no ref is removed for it.
    ///
    /// Pulls and collections may go on meanwhile.
    ///
    /// # Errors
    ///
    /// What keeps the store itself from being read or written. That a registry cannot be reached, or
    /// has a blob no more, is in the report.
    pub async fn repair(&self, found: &CheckReport) -> Result<RepairReport> {
        let store = self.store().clone();
        let refs = blocking(move || store.recover_refs()).await?;
        let mut repair = Repair {
            puller: self,
            report: RepairReport { refs, ..RepairReport::default() },
            seen: HashMap::new(),
            failures: Vec::new(),
            down: Mutex::default(),
        };
        repair.note(&found.damage);
        let damage = repair.mend().await?;
        repair.put_away().await?;
        let report = repair.close(damage).await?;
        Ok(report)
    }
}

struct Repair<'a> {
    puller: &'a Puller,
    report: RepairReport,
    /// The blobs that were found damaged so far, and whether they were tried.
    seen: HashMap<Digest, Seen>,
    failures: Vec<(Digest, Error)>,
    /// The registries that cannot be reached.
    down: Mutex<HashSet<String>>,
}

#[derive(Default)]
struct Seen {
    descriptor: Option<Descriptor>,
    refs: Vec<String>,
    tried: bool,
}

impl Repair<'_> {
    /// Takes note of blobs that have to be brought.
    fn note(&mut self, damage: &[Damage]) {
        for it in damage {
            let is_blob = matches!(
                it.kind,
                DamageKind::MissingBlob
                    | DamageKind::WrongSize
                    | DamageKind::WrongDigest
                    | DamageKind::Unreadable
                    | DamageKind::NoPlatform
            );
            if let Some(digest) = it.digest.filter(|_| is_blob) {
                let seen = self.seen.entry(digest).or_default();
                let known = seen.descriptor.take();
                seen.descriptor = it.descriptor.as_deref().cloned().or(known);
                let new = it.refs.iter().filter(|name| !seen.refs.contains(name)).cloned();
                seen.refs.extend(new.collect::<Vec<_>>());
                // The index is there, and what it leads to is not.
                seen.tried |= it.kind == DamageKind::NoPlatform;
            }
        }
    }

    /// Brings blobs until nothing new is found; what was found last.
    async fn mend(&mut self) -> Result<Vec<Damage>> {
        let mut damage = self.look().await?;
        for _ in 0..ROUNDS {
            let mut patients = self.patients(&damage).await?;
            // Documents first: only they say what the others are.
            if patients.iter().any(Patient::is_document) {
                patients.retain(Patient::is_document);
            }
            if patients.is_empty() {
                break;
            }
            for patient in &patients {
                self.seen.entry(patient.digest).or_default().tried = true;
            }
            self.treat(patients).await?;
            damage = self.look().await?;
        }
        Ok(damage)
    }

    /// Follows the images anew.
    async fn look(&mut self) -> Result<Vec<Damage>> {
        let store = self.puller.store().clone();
        let quick = CheckOptions { quick: true, ..CheckOptions::default() };
        let report = blocking(move || store.check(&quick, |_| {})).await?;
        self.note(&report.damage);
        Ok(report.damage)
    }

    /// The blobs that were not tried yet, and where they may be had.
    async fn patients(&mut self, damage: &[Damage]) -> Result<Vec<Patient>> {
        for it in damage.iter().filter(|it| it.kind == DamageKind::NoPlatform) {
            if let Some(digest) = it.digest {
                self.note_platforms(digest, &it.refs).await?;
            }
        }
        let untried = self.seen.iter().filter(|(_, seen)| !seen.tried);
        let wanted: Vec<(Digest, Option<Descriptor>, Vec<String>)> = untried
            .map(|(digest, seen)| (*digest, seen.descriptor.clone(), seen.refs.clone()))
            .collect();
        let store = self.puller.store().clone();
        blocking(move || {
            let digests = wanted.iter().map(|(digest, ..)| *digest).collect();
            let mut origins = store.origins_of(&digests)?;
            let named = store.refs()?;
            let mut patients = Vec::new();
            for (digest, descriptor, refs) in wanted {
                let mut origins = origins.remove(&digest).unwrap_or_default();
                if origins.is_empty() {
                    origins = by_name(&digest, &refs);
                }
                let suffers = |it: &&Ref| it.name.as_ref().is_some_and(|it| refs.contains(it));
                let roots = named.iter().filter(suffers).map(|it| it.descriptor.clone()).collect();
                patients.push(Patient { digest, descriptor, origins, roots });
            }
            patients.sort_by_key(|it| it.digest);
            Ok(patients)
        })
        .await
    }

    /// Of an index of which nothing is there: the manifests that were pulled once, or else those that
    /// a pull would bring.
    async fn note_platforms(&mut self, index: Digest, refs: &[String]) -> Result<()> {
        let (store, platform) =
            (self.puller.store().clone(), self.puller.platform_choice().clone());
        let children = blocking(move || {
            let Some((_, Document::Index(index))) = store.sniff(&index) else {
                return Ok(Vec::new());
            };
            let digests = index.manifests.iter().map(|child| child.digest).collect();
            let origins = store.origins_of(&digests)?;
            let known = |child: &&Descriptor| origins.contains_key(&child.digest);
            let pulled: Vec<_> = index.manifests.iter().filter(known).cloned().collect();
            Ok(match pulled.is_empty() {
                false => pulled,
                true => platform.select(&index.manifests).into_iter().cloned().collect(),
            })
        })
        .await?;
        for child in children {
            let seen = self.seen.entry(child.digest).or_default();
            seen.descriptor.get_or_insert(child);
            seen.refs = refs.to_vec();
        }
        Ok(())
    }

    /// Brings blobs, several at a time.
    async fn treat(&mut self, patients: Vec<Patient>) -> Result<()> {
        let (puller, down) = (self.puller, &self.down);
        let mut outcomes = stream::iter(patients)
            .map(|patient| async move { (patient.digest, bring(puller, &patient, down).await) })
            .buffer_unordered(puller.blobs_at_once());
        while let Some((digest, outcome)) = outcomes.next().await {
            match outcome {
                Ok(mended) => {
                    self.report.fetched_bytes += mended.fetched_bytes;
                    self.report.mended.push(mended);
                }
                // Nothing else would have room either, and what there is of it stays.
                Err(error) if has_no_room(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%digest, %error, "the blob is not mended");
                    self.failures.push((digest, error));
                }
            }
        }
        Ok(())
    }

    /// Puts damaged blobs out of the way that could not be had.
    async fn put_away(&mut self) -> Result<()> {
        for (digest, error) in std::mem::take(&mut self.failures) {
            let store = self.puller.store().clone();
            let put = blocking(move || store.quarantine(&digest)).await;
            let quarantined = put.unwrap_or_else(|error| {
                tracing::warn!(%digest, %error, "the damaged blob is not put in quarantine");
                false
            });
            let (reason, refs) = (error.to_string(), Vec::new());
            self.report.failed.push(Unmended { digest, reason, quarantined, refs });
        }
        Ok(())
    }

    /// What is wrong in the end, and whom it concerns.
    async fn close(mut self, damage: Vec<Damage>) -> Result<RepairReport> {
        let damage = match self.report.failed.is_empty() {
            true => damage,
            false => self.look().await?,
        };
        let mut report = self.report;
        for it in &mut report.failed {
            it.refs = self.seen.remove(&it.digest).map(|seen| seen.refs).unwrap_or_default();
        }
        report.mended.sort_by_key(|it| it.digest);
        report.failed.sort_by_key(|it| it.digest);
        report.damage = damage;
        Ok(report)
    }
}

/// Where the refs that need a blob say that their image is from: of stores that have not noted more.
fn by_name(digest: &Digest, refs: &[String]) -> Vec<Reference> {
    let mut origins: Vec<Reference> = Vec::new();
    for name in refs {
        let Ok(image) = name.parse::<Reference>() else {
            continue;
        };
        let text = format!("{}/{}@{digest}", image.registry(), image.repository());
        if image.to_string() == *name
            && let Ok(origin) = text.parse()
            && !origins.contains(&origin)
        {
            origins.push(origin);
        }
    }
    origins
}
