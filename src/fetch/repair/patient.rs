//! One damaged blob, and how it is brought anew.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Mended;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::pull::Pull;
use crate::fetch::task::blocking;
use crate::fetch::transfer::{Arrival, fetch};
use crate::fetch::{Puller, retry};
use crate::oci::{BlobKind, Descriptor, Digest, MAX_DOCUMENT_SIZE, MediaType, Reference};

/// A blob to be brought anew.
#[derive(Clone)]
pub(super) struct Patient {
    pub(super) digest: Digest,
    /// What is known of it: without a manifest that leads to it, no more than a likely length.
    pub(super) descriptor: Option<Descriptor>,
    pub(super) origins: Vec<Reference>,
    /// What the refs stand for that suffer: no room is made for it of these.
    pub(super) roots: Vec<Descriptor>,
}

impl Patient {
    pub(super) fn is_document(&self) -> bool {
        self.descriptor.as_ref().is_some_and(|it| is_document(&it.media_type))
    }
}

fn is_document(media_type: &MediaType) -> bool {
    matches!(media_type.kind(), BlobKind::Index | BlobKind::Manifest)
}

/// Brings one blob from the first origin that has it.
pub(super) async fn bring(
    puller: &Puller,
    patient: &Patient,
    down: &Mutex<HashSet<String>>,
) -> Result<Mended> {
    let (store, digest) = (puller.store().clone(), patient.digest);
    let known = patient.descriptor.clone();
    let descriptor = blocking(move || {
        store.condemn(&digest)?;
        let likely = || Ok(store.likely_size(&digest)?.unwrap_or(0));
        Ok(match known {
            Some(known) => known,
            None => Descriptor::new(MediaType::new(""), digest, likely()?),
        })
    })
    .await?;
    let mut errors = Vec::new();
    for origin in &patient.origins {
        let is_down = || down.lock().unwrap_or_else(PoisonError::into_inner);
        if is_down().contains(origin.registry()) {
            let source = std::io::Error::other("it could not be reached a moment ago").into();
            let url = origin.registry().to_owned();
            errors.push(Error::Network { action: "connect to", url, source });
            continue;
        }
        match bring_from(puller, origin, &descriptor, &patient.roots).await {
            Ok(mended) => return Ok(mended),
            Err(error) if has_no_room(&error) => return Err(error),
            // Another registry makes this disk no better, and the next sync would say that all is well.
            Err(error @ Error::NotDurable { .. }) => return Err(error),
            Err(error) if is_unreachable(&error) => {
                is_down().insert(origin.registry().to_owned());
                errors.push(error);
            }
            Err(error) => errors.push(error),
        }
    }
    Err(match (errors.pop(), errors.is_empty()) {
        (None, _) => Error::BlobNotFound { digest },
        (Some(only), true) => only,
        (Some(last), false) => {
            errors.push(last);
            Error::Endpoints { errors }
        }
    })
}

fn is_unreachable(error: &Error) -> bool {
    match error {
        Error::Network { .. } => true,
        Error::Endpoints { errors } => errors.iter().all(is_unreachable),
        _ => false,
    }
}

pub(super) fn has_no_room(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::OverCap)
}

/// Has room for a blob beside the damaged one. While some image's manifest is damaged nothing can be
/// collected to make it: then the blob is brought all the same.
async fn find_room(pull: &Pull<'_>, blob: &Descriptor, roots: &[Descriptor]) -> Result<()> {
    pull.pin(&roots.iter().collect::<Vec<_>>()).await?;
    match pull.make_room(vec![(blob.digest, blob.size)]).await {
        Err(error) if error.kind() == ErrorKind::Damage => {
            tracing::warn!(digest = %blob.digest, %error, "no room is made for the blob");
            Ok(())
        }
        made => made,
    }
}

/// Brings one blob from one repository. It is durable when this returns.
async fn bring_from(
    puller: &Puller,
    origin: &Reference,
    blob: &Descriptor,
    roots: &[Descriptor],
) -> Result<Mended> {
    let pull = puller.begin(origin, "repair from").await?;
    let (digest, size) = (blob.digest, blob.size);
    let pinned = match is_document(&blob.media_type) {
        true => None,
        false => pull.pin(&[blob]).await?.pop(),
    };
    if pinned.as_ref().is_some_and(|it| !it.is_present()) {
        find_room(&pull, blob, roots).await?;
    }
    let arrival = match pinned {
        Some(pinned) if pinned.is_present() => Ok(Arrival::Waited),
        Some(pinned) => match fetch(&pull, blob, pinned).await {
            // Nothing says what kind of blob it is, and some registries keep documents apart.
            Err(error) if is_unknown(blob) && error.kind() == ErrorKind::NotFound => {
                bring_document(&pull, blob).await.map_err(|_| error)
            }
            arrival => arrival,
        },
        None => bring_document(&pull, blob).await,
    }?;
    let (store, lease) = (puller.store().clone(), pull.lease().clone());
    blocking(move || {
        store.settle_blob(&lease, &digest, size)?;
        store.release(&digest)
    })
    .await?;
    let from = format!("{}/{}", origin.registry(), origin.repository());
    Ok(match arrival {
        Arrival::Waited => {
            Mended { digest, size, from: None, servers: Vec::new(), fetched_bytes: 0 }
        }
        Arrival::Fetched { resumed } => {
            let servers = pull.registry().origins(origin, blob);
            let servers = servers.iter().map(ToString::to_string).collect();
            let fetched_bytes = size.saturating_sub(resumed);
            Mended { digest, size, from: Some(from), servers, fetched_bytes }
        }
    })
}

fn is_unknown(blob: &Descriptor) -> bool {
    blob.media_type.as_str().is_empty() && blob.size <= MAX_DOCUMENT_SIZE
}

async fn bring_document(pull: &Pull<'_>, blob: &Descriptor) -> Result<Arrival> {
    let digest = blob.digest;
    let raw = retry(
        pull.budget(),
        |_| pull.registry().manifest(pull.reference(), Some(&digest)),
        |retry| pull.tell_retry(digest, retry.delay, retry.error),
    )
    .await?;
    pull.save(raw.bytes, digest).await?;
    Ok(Arrival::Fetched { resumed: 0 })
}
