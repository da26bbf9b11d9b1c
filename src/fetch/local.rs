//! What of an image is in the store already.

use std::collections::HashSet;
use std::io::Read;

use serde::Deserialize;

use crate::error::{Error, IoContext, Result};
use crate::oci::{
    BlobKind, Descriptor, Document, MAX_CONFIG_SIZE, Manifest, Platform, PlatformChoice,
};
use crate::store::suspect::is_of_bad_bytes;
use crate::store::{BlobStore, Lease, Pinned};

/// A stored image that is there as far as it is wanted.
#[derive(Debug)]
pub(super) struct Whole {
    /// All blobs that are wanted of it.
    pub(super) blobs: Vec<Descriptor>,
    /// The foreign layers that are not there, and need not be.
    pub(super) foreign: Vec<Descriptor>,
    /// What keeps the blobs.
    pub(super) pinned: Vec<Pinned>,
}

/// What there is of a stored image, or nothing if a blob of it is missing or a document of it is
/// damaged. What is wanted of it is pinned on return.
///
/// Only what is selected is followed, and each document once: an index may name another as often as
/// it likes.
pub(super) fn wanted(
    store: &BlobStore,
    lease: &Lease,
    root: &Descriptor,
    choice: &PlatformChoice,
    include_foreign: bool,
) -> Result<Option<Whole>> {
    let mut wanted = Vec::new();
    let mut seen = HashSet::from([root.digest]);
    let mut documents = vec![root.clone()];
    while let Some(descriptor) = documents.pop() {
        match store.document(&descriptor) {
            Ok(Document::Index(index)) => {
                let selected = choice.select(&index.manifests);
                if selected.is_empty() && !index.manifests.is_empty() {
                    return Ok(None);
                }
                for child in selected.into_iter().filter(|child| seen.insert(child.digest)) {
                    match child.media_type.kind() {
                        BlobKind::Other => wanted.push(child.clone()),
                        _ => documents.push(child.clone()),
                    }
                }
            }
            Ok(Document::Manifest(manifest)) => {
                if descriptor.digest == root.digest && !is_accepted(store, &manifest, choice)? {
                    return Ok(None);
                }
                let children = std::iter::once(manifest.config).chain(manifest.layers);
                wanted.extend(children.filter(|child| seen.insert(child.digest)));
            }
            Err(error) if is_no_document(&error) => {
                warn_of_damage(&error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        wanted.push(descriptor);
    }
    let names: Vec<_> = wanted.iter().map(|blob| (blob.digest, blob.size)).collect();
    let pinned = lease.pin(&names)?;
    let mut whole = Whole { blobs: Vec::new(), foreign: Vec::new(), pinned: Vec::new() };
    for (blob, pinned) in wanted.into_iter().zip(pinned) {
        match pinned.is_present() {
            true => {
                whole.blobs.push(blob);
                whole.pinned.push(pinned);
            }
            false if blob.is_foreign() && !include_foreign => whole.foreign.push(blob),
            false => return Ok(None),
        }
    }
    Ok(Some(whole))
}

/// Whether a document is absent or damaged, rather than not to be read by this process.
fn is_no_document(error: &Error) -> bool {
    is_of_bad_bytes(error)
        || matches!(
            error,
            Error::BlobNotFound { .. }
                | Error::SizeMismatch { .. }
                | Error::TooLarge { .. }
                | Error::InvalidDocument { .. }
                | Error::InvalidDigest { .. }
                | Error::UnsupportedMediaType { .. }
                | Error::Schema1
        )
}

/// What is only absent is what a pull is for.
fn warn_of_damage(error: &Error) {
    if is_of_bad_bytes(error) {
        tracing::warn!(%error, "the image is not whole here");
    }
}

/// Whether an image that no index describes is for a platform that is wanted.
fn is_accepted(store: &BlobStore, manifest: &Manifest, choice: &PlatformChoice) -> Result<bool> {
    match platform(store, &manifest.config) {
        Ok(platform) => Ok(platform.is_none_or(|platform| choice.accepts(&platform))),
        Err(error) if is_no_document(&error) => {
            warn_of_damage(&error);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Refuses the config of an image that is larger than may be read. What an artifact has in its
/// place may be of any size.
pub(super) fn check_config(config: &Descriptor) -> Result<()> {
    match config.size > MAX_CONFIG_SIZE && config.media_type.is_image_config() {
        true => {
            let what = format!("the config {}", config.digest);
            Err(Error::TooLarge { what, limit: MAX_CONFIG_SIZE })
        }
        false => Ok(()),
    }
}

/// The platform that a config names; nothing for the config of an artifact.
pub(super) fn platform(store: &BlobStore, config: &Descriptor) -> Result<Option<Platform>> {
    #[derive(Deserialize)]
    struct Config {
        os: String,
        architecture: String,
        variant: Option<String>,
    }
    check_config(config)?;
    let Descriptor { digest, size, .. } = config;
    if *size > MAX_CONFIG_SIZE {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let blob = store.open_blob(digest)?;
    blob.take(MAX_CONFIG_SIZE).read_to_end(&mut bytes).context("read", digest.to_string())?;
    let Ok(config) = serde_json::from_slice::<Config>(&bytes) else {
        return Ok(None);
    };
    let text = match config.variant.filter(|variant| !variant.is_empty()) {
        Some(variant) => format!("{}/{}/{variant}", config.os, config.architecture),
        None => format!("{}/{}", config.os, config.architecture),
    };
    Ok(text.parse().ok())
}
