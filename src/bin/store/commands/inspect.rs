//! `store inspect`.

use layerstore::oci::{MediaType, Platform};
use layerstore::{BlobStore, Descriptor, Digest};
use serde::Serialize;

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::image::{Config, Content, Image, Layer, Manifest};
use crate::names;
use crate::output::{Output, Report};

/// All that the store knows of an image.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspection {
    name: Option<String>,
    descriptor: Descriptor,
    /// Bytes of what is there.
    size: u64,
    missing: u64,
    /// Foreign layers that are not there, which is no damage.
    foreign: u64,
    manifests: Vec<Platformed>,
}

/// One of its manifests. Of one that was not pulled only what its descriptor says is known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Platformed {
    digest: Digest,
    media_type: MediaType,
    platform: Option<Platform>,
    attestation: bool,
    present: bool,
    artifact_type: Option<MediaType>,
    config: Option<Config>,
    layers: Vec<Layer>,
}

pub(super) fn run(store: &BlobStore, name: &str, out: &mut Output) -> Outcome {
    let entry = names::find(store, name)?;
    let image = Image::read(store, &entry.descriptor)?;
    let (size, missing, foreign) = (image.size(), image.missing(), image.foreign());
    let mut exit = Exit::Ok;
    let mut manifests = Vec::new();
    for manifest in image.into_manifests() {
        let config = manifest.content.as_ref().map(|content| Config::read(store, &content.config));
        let config = config.unwrap_or(Ok(None)).unwrap_or_else(|error| {
            out.error(&error);
            exit = Exit::of(&error);
            None
        });
        manifests.push(Platformed::new(manifest, config));
    }
    out.report(&Inspection {
        name: entry.name,
        descriptor: entry.descriptor,
        size,
        missing,
        foreign,
        manifests,
    })?;
    Ok(exit)
}

impl Platformed {
    fn new(manifest: Manifest, config: Option<Config>) -> Platformed {
        let Manifest { descriptor, content } = manifest;
        let present = content.is_some();
        let (artifact_type, layers) = match content {
            Some(Content { artifact_type, layers, .. }) => (artifact_type, layers),
            None => (descriptor.artifact_type.clone(), Vec::new()),
        };
        Platformed {
            attestation: descriptor.is_attestation(),
            digest: descriptor.digest,
            media_type: descriptor.media_type,
            platform: descriptor.platform,
            present,
            artifact_type,
            config,
            layers,
        }
    }

    fn title(&self) -> String {
        if self.attestation {
            return "attestation".to_owned();
        }
        let by_config = || self.config.as_ref().and_then(Config::platform);
        let platform = self.platform.clone().or_else(by_config);
        match (platform, &self.artifact_type) {
            (Some(platform), _) => platform.to_string(),
            (None, Some(artifact_type)) => format!("artifact {artifact_type}"),
            (None, None) => "manifest".to_owned(),
        }
    }
}

impl Report for Inspection {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.field(0, "name", self.name.as_deref().unwrap_or("<none>"))?;
        out.field(0, "digest", self.descriptor.digest)?;
        out.field(0, "media type", &self.descriptor.media_type)?;
        out.field(0, "size", human::size(self.size))?;
        if self.missing > 0 {
            let missing = human::count(self.missing, "blob");
            out.field(0, "incomplete", format!("{missing} missing; pull it again"))?;
        }
        if self.foreign > 0 {
            let foreign = human::count(self.foreign, "foreign layer");
            out.field(0, "without", format!("{foreign}; `store pull --include-foreign` has it"))?;
        }
        for manifest in &self.manifests {
            out.line("")?;
            manifest.text(out)?;
        }
        Ok(())
    }
}

impl Platformed {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let absent = if self.present { "" } else { " (not pulled)" };
        out.heading(&format!("{}{absent}", self.title()))?;
        out.field(1, "digest", self.digest)?;
        if let Some(config) = &self.config {
            config.text(out)?;
        }
        let layers = self.layers.iter().map(|layer| {
            let missing = match (layer.present, layer.foreign) {
                (true, _) => "",
                (false, false) => "  missing",
                (false, true) => "  foreign, not fetched",
            };
            format!("{}  {}{missing}", layer.digest, human::size(layer.size))
        });
        out.items(1, "layers", layers)
    }
}

impl Config {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let optional = [
            ("created", &self.created),
            ("user", &self.user),
            ("working dir", &self.working_dir),
            ("stop signal", &self.stop_signal),
        ];
        out.field(1, "config", self.digest)?;
        for (name, value) in optional {
            if let Some(value) = value {
                out.field(1, name, value)?;
            }
        }
        // As JSON, so that one argument can be told from two.
        for (name, words) in [("entrypoint", &self.entrypoint), ("cmd", &self.cmd)] {
            if !words.is_empty() {
                out.field(1, name, serde_json::json!(words))?;
            }
        }
        out.items(1, "env", &self.env)?;
        out.items(1, "ports", &self.exposed_ports)?;
        out.items(1, "volumes", &self.volumes)?;
        out.items(1, "labels", self.labels.iter().map(|(key, value)| format!("{key}={value}")))
    }
}
