//! What a name stands for, without a store.

use super::plan::no_platform;
use super::{RegistryPull, RetryBudget, RetryPolicy, retry};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Document, Index, MAX_DEPTH, PlatformChoice, Reference};

/// What a name stands for: with one `HEAD` the index or manifest itself, or, where a platform is
/// named, that platform's manifest in the index.
///
/// An image that has no index stands for itself whatever the platform, since only its config could
/// say which one it is for.
///
/// # Errors
///
/// [`Error::NoPlatform`] where no entry, or more than one, serves; those of [`RegistryPull`].
pub async fn digest_of(
    registry: &dyn RegistryPull,
    reference: &Reference,
    platform: Option<&PlatformChoice>,
    patience: RetryPolicy,
) -> Result<Descriptor> {
    let budget = RetryBudget::new(patience);
    let Some(platform) = platform else {
        return retry(&budget, |_| registry.resolve(reference), |_| {}).await;
    };
    let mut wanted: Option<Descriptor> = None;
    for _ in 0..=MAX_DEPTH {
        let digest = wanted.as_ref().map(|it| it.digest);
        let get = |_| registry.manifest(reference, digest.as_ref());
        let raw = retry(&budget, get, |_| {}).await?;
        let found = wanted.unwrap_or_else(|| raw.descriptor());
        let document = Document::parse(&raw.bytes, &found.media_type)
            .map_err(|error| error.of_document(&found.digest))?;
        match document {
            Document::Manifest(_) => return Ok(found),
            Document::Index(index) => wanted = Some(only(reference, platform, &index)?),
        }
    }
    Err(Error::document(format!("indexes are nested deeper than {MAX_DEPTH}")))
}

fn only(reference: &Reference, platform: &PlatformChoice, index: &Index) -> Result<Descriptor> {
    match platform.select(&index.manifests)[..] {
        [entry] => Ok(entry.clone()),
        _ => Err(no_platform(reference, platform, &index.manifests)),
    }
}
