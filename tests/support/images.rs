//! Real images, small and the same at every build: gzipped tar layers, a config with
//! their diff_ids, a manifest, an index over several platforms.

use std::collections::BTreeSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::content::{Content, sha256};
use super::media_type as media;

const CREATED: &str = "2024-02-29T12:00:00Z";

/// A layer or a config: a blob and what its descriptor says.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The media type in an OCI manifest.
    pub media_type: String,
    /// Digest of the bytes as they are served.
    pub digest: String,
    /// Length in bytes as they are served.
    pub size: u64,
    /// Digest of the uncompressed tar (for a config: the digest again).
    pub diff_id: String,
    /// The bytes as they are served.
    pub content: Content,
}

impl Layer {
    /// A gzipped tar of these files (paths without a leading slash), with their folders.
    pub fn files(files: &[(&str, &[u8])]) -> Self {
        let tar = tar(files);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&tar).expect("memory takes every write");
        let bytes = gzip.finish().expect("memory takes every write");
        Self { diff_id: sha256(&tar), ..Self::blob(media::LAYER_GZIP, bytes) }
    }

    /// The same as a plain tar.
    pub fn plain_files(files: &[(&str, &[u8])]) -> Self {
        Self::blob(media::LAYER, tar(files))
    }

    /// A gzipped tar of one file of `size` bytes that do not compress.
    pub fn random_file(path: &str, seed: u64, size: u64) -> Self {
        Self::files(&[(path, &Content::generated(seed, size).to_vec())])
    }

    /// Exactly `size` bytes, made as they are sent: for sizes that matter where contents
    /// do not. It is labelled a plain tar and is none.
    pub fn generated(seed: u64, size: u64) -> Self {
        Self::blob(media::LAYER, Content::generated(seed, size))
    }

    /// Any bytes under any media type.
    pub fn blob(media_type: &str, content: impl Into<Content>) -> Self {
        let content = content.into();
        let digest = content.digest();
        Self {
            media_type: media_type.to_owned(),
            diff_id: digest.clone(),
            digest,
            size: content.len(),
            content,
        }
    }

    fn descriptor(&self, docker: bool) -> Value {
        let media_type = match (docker, self.media_type.as_str()) {
            (true, media::LAYER) => media::DOCKER_LAYER,
            (true, media::LAYER_GZIP) => media::DOCKER_LAYER_GZIP,
            (_, other) => other,
        };
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size})
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for (path, bytes) in files {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..=end];
            if folders.insert(folder) {
                append(&mut archive, folder, tar::EntryType::Directory, 0o755, &[]);
            }
        }
        append(&mut archive, path, tar::EntryType::Regular, 0o644, bytes);
    }
    archive.into_inner().expect("memory takes every write")
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).expect("memory takes every write");
}

/// An image of one platform, or an index over several such images.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's or index's media type.
    pub media_type: String,
    /// Its bytes.
    pub manifest: Vec<u8>,
    /// Its digest.
    pub digest: String,
    /// `os/architecture[/variant]`; none for an index.
    pub platform: Option<String>,
    /// The config; none for an index.
    pub config: Option<Layer>,
    /// The layers, lowest first; none for an index.
    pub layers: Vec<Layer>,
    /// The images of an index, in its order.
    pub children: Vec<Image>,
    /// Annotations of this image's descriptor in an index.
    pub annotations: Option<Value>,
}

impl Image {
    /// An OCI image for `linux/amd64`.
    pub fn of(layers: &[Layer]) -> Self {
        Self::for_platform("linux/amd64", layers)
    }

    /// An OCI image for `os/architecture[/variant]`.
    pub fn for_platform(platform: &str, layers: &[Layer]) -> Self {
        Self::build(platform, layers, false)
    }

    /// The same image as Docker writes it: its media types, and JSON with line breaks.
    /// Attestations are left out.
    pub fn docker(&self) -> Self {
        match &self.platform {
            Some(platform) => Self::build(platform, &self.layers, true),
            None => {
                let images = self.children.iter().filter(|child| child.annotations.is_none());
                Self::listed(images.map(Self::docker).collect(), true)
            }
        }
    }

    /// An OCI index over these images.
    pub fn index(children: &[Self]) -> Self {
        Self::listed(children.to_vec(), false)
    }

    /// An index over these images, with an attestation manifest for each behind them, as
    /// BuildKit writes it.
    pub fn index_with_attestations(children: &[Self]) -> Self {
        let attested = children.iter().map(Self::attestation);
        Self::listed(children.iter().cloned().chain(attested).collect(), false)
    }

    /// An artifact of one file: a manifest with the empty config, about `subject` if there is one.
    pub fn artifact(artifact_type: &str, subject: Option<&Self>, file: &[u8]) -> Self {
        let config = Layer::blob(media::EMPTY, b"{}");
        let file = Layer::blob(artifact_type, file);
        let artifact = Self::assemble(media::MANIFEST, false, "", config, &[file]);
        let artifact = Self { platform: None, ..artifact };
        artifact.edited(|manifest| {
            manifest["artifactType"] = json!(artifact_type);
            if let Some(subject) = subject {
                manifest["subject"] = subject.listing();
            }
        })
    }

    /// The same blobs under a manifest or index that was changed.
    pub fn edited(&self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = serde_json::from_slice(&self.manifest).expect("it was written as JSON");
        edit(&mut manifest);
        let manifest = encode(&manifest, false);
        let media_type = self.media_type.clone();
        Self { digest: sha256(&manifest), manifest, media_type, ..self.clone() }
    }

    fn build(platform: &str, layers: &[Layer], docker: bool) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let history: Vec<_> = (1..=layers.len())
            .map(|number| json!({"created": CREATED, "created_by": format!("layer {number}")}))
            .collect();
        let mut config = json!({
            "created": CREATED,
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["/bin/sh"],
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        for (key, value) in platform_fields(platform) {
            config[key] = json!(value);
        }
        let (kind, config_kind) = if docker {
            (media::DOCKER_MANIFEST, media::DOCKER_CONFIG)
        } else {
            (media::MANIFEST, media::CONFIG)
        };
        let config = Layer::blob(config_kind, encode(&config, docker));
        Self::assemble(kind, docker, platform, config, layers)
    }

    fn assemble(
        media_type: &str,
        docker: bool,
        platform: &str,
        config: Layer,
        layers: &[Layer],
    ) -> Self {
        let descriptors: Vec<_> = layers.iter().map(|layer| layer.descriptor(docker)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config.descriptor(docker),
            "layers": descriptors,
        });
        Self {
            platform: Some(platform.to_owned()),
            config: Some(config),
            layers: layers.to_vec(),
            ..Self::bare(media_type, encode(&manifest, docker))
        }
    }

    fn listed(children: Vec<Self>, docker: bool) -> Self {
        let media_type = if docker { media::DOCKER_LIST } else { media::INDEX };
        let manifests: Vec<_> = children.iter().map(Self::listing).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        Self { children, ..Self::bare(media_type, encode(&index, docker)) }
    }

    fn bare(media_type: &str, manifest: Vec<u8>) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: sha256(&manifest),
            manifest,
            platform: None,
            config: None,
            layers: Vec::new(),
            children: Vec::new(),
            annotations: None,
        }
    }

    /// This image's descriptor in an index.
    fn listing(&self) -> Value {
        let mut descriptor = json!({
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.manifest.len(),
        });
        if let Some(annotations) = &self.annotations {
            descriptor["annotations"] = annotations.clone();
        }
        if let Some(platform) = &self.platform {
            descriptor["platform"] = platform_fields(platform).into_iter().collect();
        }
        descriptor
    }

    fn attestation(&self) -> Self {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://spdx.dev/Document",
            "subject": [{"name": "_", "digest": {"sha256": self.digest["sha256:".len()..]}}],
            "predicate": {},
        });
        let layer = Layer::blob(media::IN_TOTO, encode(&statement, false));
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        let config = Layer::blob(media::CONFIG, encode(&config, false));
        let annotations = json!({
            "vnd.docker.reference.digest": self.digest,
            "vnd.docker.reference.type": "attestation-manifest",
        });
        Self {
            annotations: Some(annotations),
            ..Self::assemble(media::MANIFEST, false, "unknown/unknown", config, &[layer])
        }
    }

    /// Everything the image consists of, itself included, by digest and in the order
    /// manifest, config, layers, children; what appears twice is listed once.
    pub fn closure(&self) -> Vec<(String, Content)> {
        let mut all = Vec::new();
        self.collect(&mut all);
        let mut seen = BTreeSet::new();
        all.retain(|(digest, _)| seen.insert(digest.clone()));
        all
    }

    fn collect(&self, all: &mut Vec<(String, Content)>) {
        all.push((self.digest.clone(), self.manifest.clone().into()));
        for blob in self.config.iter().chain(&self.layers) {
            all.push((blob.digest.clone(), blob.content.clone()));
        }
        for child in &self.children {
            child.collect(all);
        }
    }
}

fn platform_fields(platform: &str) -> Vec<(String, Value)> {
    ["os", "architecture", "variant"]
        .into_iter()
        .zip(platform.split('/'))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect()
}

/// Docker indents by three spaces. Whoever parses and writes such a document anew gets
/// another digest.
fn encode(value: &Value, docker: bool) -> Vec<u8> {
    if !docker {
        return value.to_string().into_bytes();
    }
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    serde::Serialize::serialize(value, &mut writer).expect("a JSON value is written to memory");
    bytes
}

/// `count` images of three layers: the base is common to all, the runtime to two in
/// succession, the application is each one's own.
pub fn series(count: u64) -> Vec<Image> {
    series_of_sizes(count, [40_000, 20_000, 10_000])
}

/// The same with the sizes in bytes of base, runtime and application, before compression
/// that gains nothing.
pub fn series_of_sizes(count: u64, [base, runtime, application]: [u64; 3]) -> Vec<Image> {
    let base = Layer::random_file("usr/lib/base", 1, base);
    (0..count)
        .map(|number| {
            let runtime_number = number / 2;
            Image::of(&[
                base.clone(),
                Layer::random_file("usr/lib/runtime", 1_000 + runtime_number, runtime),
                Layer::random_file("srv/application", 1_000_000 + number, application),
            ])
        })
        .collect()
}

/// An image of generated layers of these sizes in bytes.
pub fn synthetic(sizes: &[u64]) -> Image {
    let layers: Vec<_> =
        (1..).zip(sizes).map(|(seed, size)| Layer::generated(seed, *size)).collect();
    Image::of(&layers)
}

/// An index over one small image for each platform, each with its attestation.
pub fn multi_platform(platforms: &[&str]) -> Image {
    let shared = Layer::files(&[("etc/os-release", b"ID=test\n")]);
    let images: Vec<_> = platforms
        .iter()
        .map(|platform| {
            let own = Layer::files(&[("etc/platform", platform.as_bytes())]);
            Image::for_platform(platform, &[shared.clone(), own])
        })
        .collect();
    Image::index_with_attestations(&images)
}
