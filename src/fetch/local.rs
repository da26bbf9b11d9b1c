//! What of an image is in the store already.

use std::io::Read;

use serde::Deserialize;

use crate::error::{Error, IoContext, Result};
use crate::oci::{Descriptor, Digest, Document, MAX_CONFIG_SIZE, Platform, PlatformChoice};
use crate::store::BlobStore;

/// A stored image that is there as far as it is wanted.
#[derive(Debug)]
pub(super) struct Whole {
    /// All blobs that are wanted of it.
    pub(super) blobs: Vec<Descriptor>,
    /// The foreign layers that are not there, and need not be.
    pub(super) foreign: Vec<Descriptor>,
}

/// What there is of a stored image, or nothing if a blob of it is missing. Its tree must be pinned.
pub(super) fn wanted(
    store: &BlobStore,
    root: &Descriptor,
    choice: &PlatformChoice,
    include_foreign: bool,
) -> Result<Option<Whole>> {
    let nodes = store.closure(root)?;
    let missing =
        |digest: &Digest| nodes.iter().any(|n| n.descriptor.digest == *digest && !n.present);
    let mut wanted = Vec::new();
    let mut documents = vec![root.clone()];
    while let Some(descriptor) = documents.pop() {
        if missing(&descriptor.digest) {
            return Ok(None);
        }
        match store.document(&descriptor)? {
            Document::Index(index) => {
                let selected = choice.select(&index.manifests);
                if selected.is_empty() && !index.manifests.is_empty() {
                    return Ok(None);
                }
                documents.extend(selected.into_iter().cloned());
            }
            Document::Manifest(manifest) => {
                let alone = descriptor.digest == root.digest;
                if alone
                    && !missing(&manifest.config.digest)
                    && let Some(platform) = platform(store, &manifest.config)?
                    && !choice.accepts(&platform)
                {
                    return Ok(None);
                }
                wanted.push(manifest.config);
                wanted.extend(manifest.layers);
            }
        }
        wanted.push(descriptor);
    }
    wanted.sort_by_key(|blob| blob.digest);
    wanted.dedup_by_key(|blob| blob.digest);
    let is_left_out =
        |blob: &Descriptor| !include_foreign && blob.is_foreign() && missing(&blob.digest);
    let (foreign, blobs) = wanted.into_iter().partition::<Vec<_>, _>(is_left_out);
    let complete = !blobs.iter().any(|blob| missing(&blob.digest));
    Ok(complete.then_some(Whole { blobs, foreign }))
}

/// The platform that a config names; nothing for the config of an artifact.
pub(super) fn platform(store: &BlobStore, config: &Descriptor) -> Result<Option<Platform>> {
    #[derive(Deserialize)]
    struct Config {
        os: String,
        architecture: String,
        variant: Option<String>,
    }
    let Descriptor { digest, size, .. } = config;
    if *size > MAX_CONFIG_SIZE {
        return match config.media_type.is_image_config() {
            true => Err(Error::TooLarge {
                what: format!("the config {digest}"),
                limit: MAX_CONFIG_SIZE,
            }),
            // What an artifact has in its place may be of any size.
            false => Ok(None),
        };
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
