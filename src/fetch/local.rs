//! What of an image is in the store already.

use std::io::Read;

use serde::Deserialize;

use crate::error::{IoContext, Result};
use crate::oci::{Descriptor, Digest, Document, Platform, PlatformChoice};
use crate::store::BlobStore;

/// The largest config that is read to learn an image's platform, in bytes.
const MAX_CONFIG: u64 = 8 * 1024 * 1024;

/// All blobs that are wanted of a stored image, or nothing if one of them is missing. Its tree must
/// be pinned.
pub(super) fn wanted(
    store: &BlobStore,
    root: &Descriptor,
    choice: &PlatformChoice,
) -> Result<Option<Vec<Descriptor>>> {
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
                    && let Some(platform) = platform(store, &manifest.config.digest)?
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
    let complete = !wanted.iter().any(|blob| missing(&blob.digest));
    Ok(complete.then_some(wanted))
}

/// The platform that a config names; nothing for the config of an artifact.
pub(super) fn platform(store: &BlobStore, config: &Digest) -> Result<Option<Platform>> {
    #[derive(Deserialize)]
    struct Config {
        os: String,
        architecture: String,
        variant: Option<String>,
    }
    let mut bytes = Vec::new();
    let blob = store.open_blob(config)?;
    blob.take(MAX_CONFIG).read_to_end(&mut bytes).context("read", config.to_string())?;
    let Ok(config) = serde_json::from_slice::<Config>(&bytes) else {
        return Ok(None);
    };
    let text = match config.variant.filter(|variant| !variant.is_empty()) {
        Some(variant) => format!("{}/{}/{variant}", config.os, config.architecture),
        None => format!("{}/{}", config.os, config.architecture),
    };
    Ok(text.parse().ok())
}
