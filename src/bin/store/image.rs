//! What the blobs of an image say about it.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use layerstore::oci::{Document, MAX_CONFIG_SIZE, MediaType, Platform};
use layerstore::{BlobStore, Descriptor, Digest, Error, Node, Result, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An image: everything that its root leads to, in the order of the closure.
pub(crate) struct Image {
    pub(crate) nodes: Vec<Node>,
    pub(crate) manifests: Vec<Manifest>,
}

/// One of an image's manifests: that of a platform, or of something beside it.
pub(crate) struct Manifest {
    pub(crate) descriptor: Descriptor,
    /// Its config and layers; `None` if the manifest was not pulled.
    pub(crate) content: Option<Content>,
}

pub(crate) struct Content {
    pub(crate) config: Descriptor,
    pub(crate) artifact_type: Option<MediaType>,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) media_type: MediaType,
    pub(crate) size: u64,
    pub(crate) present: bool,
    /// Whether it may be absent for good, and where it may be had then.
    pub(crate) foreign: bool,
    pub(crate) urls: Vec<String>,
}

impl Image {
    /// Reads the documents of an image.
    pub(crate) fn read(store: &BlobStore, root: &Descriptor) -> Result<Image> {
        let (nodes, documents): (Vec<_>, Vec<_>) =
            store.closure_with_documents(root)?.into_iter().unzip();
        let present: HashMap<Digest, bool> =
            nodes.iter().map(|node| (node.descriptor.digest, node.present)).collect();
        let is_present = |digest: &Digest| present.get(digest).copied().unwrap_or_default();
        let mut manifests = Vec::new();
        let read = nodes.iter().zip(documents);
        for (node, document) in read.filter(|(node, _)| node.role == Role::Manifest) {
            let content = match document {
                Some(Document::Manifest(manifest)) => {
                    let layers = manifest.layers.into_iter().map(|layer| Layer {
                        present: is_present(&layer.digest),
                        foreign: layer.is_foreign(),
                        urls: layer.urls,
                        digest: layer.digest,
                        media_type: layer.media_type,
                        size: layer.size,
                    });
                    let (artifact_type, layers) = (manifest.artifact_type, layers.collect());
                    Some(Content { config: manifest.config, artifact_type, layers })
                }
                Some(Document::Index(_)) | None => None,
            };
            manifests.push(Manifest { descriptor: node.descriptor.clone(), content });
        }
        Ok(Image { nodes, manifests })
    }

    /// The bytes of what is there.
    pub(crate) fn size(&self) -> u64 {
        self.nodes.iter().filter(|node| node.present).map(|node| node.descriptor.size).sum()
    }

    /// How many blobs are missing. A platform that was not pulled is not, nor is a foreign layer:
    /// what counts is the root, and what the manifests that are there are made of.
    pub(crate) fn missing(&self) -> u64 {
        let counts =
            |(n, node): &(usize, &Node)| *n == 0 || matches!(node.role, Role::Config | Role::Layer);
        let nodes = self.nodes.iter().enumerate().filter(counts);
        let missing = |node: &Node| !node.present && !node.descriptor.is_foreign();
        nodes.filter(|(_, node)| missing(node)).count() as u64
    }

    /// How many foreign layers are not there.
    pub(crate) fn foreign(&self) -> u64 {
        let left_out = |node: &&Node| !node.present && node.descriptor.is_foreign();
        self.nodes.iter().filter(left_out).count() as u64
    }

    /// The platforms that are there.
    pub(crate) fn platforms(&self, store: &BlobStore) -> Vec<Platform> {
        let there = self
            .manifests
            .iter()
            .filter(|manifest| manifest.content.is_some() && !manifest.descriptor.is_attestation());
        there.filter_map(|manifest| manifest.platform(store)).collect()
    }
}

impl Manifest {
    /// What the index says the manifest is for, else what its config says.
    fn platform(&self, store: &BlobStore) -> Option<Platform> {
        self.descriptor
            .platform
            .clone()
            .or_else(|| Config::read(store, &self.content.as_ref()?.config).ok()??.platform())
    }
}

/// What a config says about running an image (image specification, "OCI Image Configuration").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    pub(crate) digest: Digest,
    pub(crate) os: Option<String>,
    pub(crate) architecture: Option<String>,
    pub(crate) variant: Option<String>,
    pub(crate) created: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) exposed_ports: Vec<String>,
    pub(crate) volumes: Vec<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A config as it is written. Nothing in it is demanded: what one lacks does not hide the rest, as
/// it would with the strict type of `oci_spec`.
#[derive(Deserialize)]
struct Written {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    created: Option<String>,
    config: Option<WrittenRun>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WrittenRun {
    user: Option<String>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    volumes: Option<BTreeMap<String, Value>>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl Config {
    /// Reads a config, checked against its descriptor; `None` if it is not there, or is an
    /// artifact's, which says nothing of the kind.
    pub(crate) fn read(store: &BlobStore, descriptor: &Descriptor) -> Result<Option<Config>> {
        if !descriptor.media_type.is_image_config() {
            return Ok(None);
        }
        let bytes = match read_small(store, descriptor) {
            Err(Error::BlobNotFound { .. }) => return Ok(None),
            read => read?,
        };
        let written = serde_json::from_slice(&bytes).map_err(|error| Error::InvalidDocument {
            digest: Some(descriptor.digest),
            reason: error.to_string(),
        })?;
        Ok(Some(Config::new(descriptor.digest, written)))
    }

    fn new(digest: Digest, written: Written) -> Config {
        let run = written.config.unwrap_or_default();
        // Docker writes an empty text for what is not set.
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        let keys = |map: Option<BTreeMap<String, Value>>| {
            map.unwrap_or_default().into_keys().collect::<Vec<_>>()
        };
        Config {
            digest,
            os: text(written.os),
            architecture: text(written.architecture),
            variant: text(written.variant),
            created: text(written.created),
            user: text(run.user),
            working_dir: text(run.working_dir),
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.unwrap_or_default(),
            exposed_ports: keys(run.exposed_ports),
            volumes: keys(run.volumes),
            stop_signal: text(run.stop_signal),
            labels: run.labels.unwrap_or_default(),
        }
    }

    /// What the image is for, if the config says so.
    pub(crate) fn platform(&self) -> Option<Platform> {
        let (os, architecture) = (self.os.clone()?, self.architecture.clone()?);
        Some(Platform { os, architecture, variant: self.variant.clone() })
    }
}

/// Reads a blob that must be small, and checks its bytes.
fn read_small(store: &BlobStore, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let Descriptor { digest, size, .. } = descriptor;
    let blob = store.open_blob(digest)?;
    let origin = || format!("the stored blob {digest}");
    if *size > MAX_CONFIG_SIZE {
        return Err(Error::TooLarge { what: origin(), limit: MAX_CONFIG_SIZE });
    }
    if blob.len() != *size {
        let (expected, actual) = (*size, blob.len());
        return Err(Error::SizeMismatch { origin: origin(), expected, actual, more: false });
    }
    let mut bytes = Vec::new();
    let read = blob.take(*size).read_to_end(&mut bytes);
    read.map_err(|error| match error.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::Io { action: "read", path: digest.to_string().into(), source },
    })?;
    let actual = digest.algorithm().digest(&bytes);
    if actual != *digest {
        let actual = Box::new(actual);
        return Err(Error::DigestMismatch { origin: origin(), expected: *digest, actual });
    }
    Ok(bytes)
}
