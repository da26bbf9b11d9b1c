//! What the blobs of an image say about it.

use std::collections::{BTreeMap, HashMap};

use layerstore::oci::{Document, MediaType, Platform};
use layerstore::{BlobStore, Descriptor, Digest, Error, Node, Result, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An image: everything that its root leads to, in the order of the closure, with the documents
/// that are there.
pub(crate) struct Image {
    nodes: Vec<(Node, Option<Document>)>,
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
        Ok(Image { nodes: store.closure_with_documents(root)? })
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(|(node, _)| node)
    }

    /// How many blobs are there.
    pub(crate) fn blobs(&self) -> u64 {
        self.nodes().filter(|node| node.present).count() as u64
    }

    /// The bytes of what is there.
    pub(crate) fn size(&self) -> u64 {
        self.nodes().filter(|node| node.present).map(|node| node.descriptor.size).sum()
    }

    /// How many blobs are missing. A platform that was not pulled is not, nor is a foreign layer:
    /// what counts is the root, and what the manifests that are there are made of.
    pub(crate) fn missing(&self) -> u64 {
        let counts =
            |(n, node): &(usize, &Node)| *n == 0 || matches!(node.role, Role::Config | Role::Layer);
        let nodes = self.nodes().enumerate().filter(counts);
        let missing = |node: &Node| !node.present && !node.descriptor.is_foreign();
        nodes.filter(|(_, node)| missing(node)).count() as u64
    }

    /// How many foreign layers are not there.
    pub(crate) fn foreign(&self) -> u64 {
        let left_out = |node: &&Node| !node.present && node.descriptor.is_foreign();
        self.nodes().filter(left_out).count() as u64
    }

    /// The platforms that are there: what the index says that a manifest is for, else what the
    /// manifest's config says.
    pub(crate) fn platforms(&self, store: &BlobStore) -> Vec<Platform> {
        let by_config = |config: &Descriptor| Config::read(store, config).ok()??.platform();
        let platform = |(Node { descriptor, .. }, document): &(Node, Option<Document>)| {
            let Some(Document::Manifest(manifest)) = document else {
                return None;
            };
            match descriptor.is_attestation() {
                true => None,
                false => descriptor.platform.clone().or_else(|| by_config(&manifest.config)),
            }
        };
        self.nodes.iter().filter_map(platform).collect()
    }

    /// Its manifests, those too that were not pulled.
    pub(crate) fn into_manifests(self) -> Vec<Manifest> {
        let present: HashMap<Digest, bool> =
            self.nodes().map(|node| (node.descriptor.digest, node.present)).collect();
        let is_present = |digest: &Digest| present.get(digest).copied().unwrap_or_default();
        let content = |document| match document {
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
        let manifests = self.nodes.into_iter().filter(|(node, _)| node.role == Role::Manifest);
        let manifest = |(node, document): (Node, _)| Manifest {
            descriptor: node.descriptor,
            content: content(document),
        };
        manifests.map(manifest).collect()
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
        let bytes = match store.image_config(descriptor) {
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
