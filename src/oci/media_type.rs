use std::fmt;

/// A media type, compared without its parameters.
///
/// Kept as text, since a store must hold types that it has never heard of.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MediaType(String);

/// What a media type says about a blob's role in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// An image index or a Docker manifest list.
    Index,
    /// An image manifest, OCI or Docker schema 2.
    Manifest,
    /// A Docker schema 1 manifest, which is refused.
    Schema1,
    /// Anything else: configs, layers, and what artifacts are made of.
    Other,
}

impl MediaType {
    /// `application/vnd.oci.image.index.v1+json`.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// `application/vnd.oci.image.manifest.v1+json`.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// `application/vnd.docker.distribution.manifest.list.v2+json`.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// `application/vnd.docker.distribution.manifest.v2+json`.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

    /// What the configs of images are called: those that say how to run one.
    const CONFIGS: [&str; 2] = [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    ];

    /// What the media types of layers begin with that may not be handed on by everybody: Docker's
    /// "foreign" ones, and OCI's "non-distributable" ones, which have the same use.
    const FOREIGN: [&str; 2] = [
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ];

    /// What a registry is asked for, best first.
    pub const ACCEPTED: [&str; 4] =
        [Self::OCI_INDEX, Self::OCI_MANIFEST, Self::DOCKER_LIST, Self::DOCKER_MANIFEST];

    /// Takes a media type as found in a document or a `Content-Type` header: parameters and
    /// surrounding white space are dropped, letters are made lower-case (RFC 9110, section 8.3.1).
    pub fn new(text: &str) -> MediaType {
        let essence = text.split(';').next().unwrap_or_default();
        MediaType(essence.trim().to_ascii_lowercase())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The role that the type stands for.
    pub fn kind(&self) -> BlobKind {
        match self.as_str() {
            Self::OCI_INDEX | Self::DOCKER_LIST => BlobKind::Index,
            Self::OCI_MANIFEST | Self::DOCKER_MANIFEST => BlobKind::Manifest,
            "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws" => BlobKind::Schema1,
            _ => BlobKind::Other,
        }
    }

    /// Whether it is that of an image's config, and not of what an artifact has in its place.
    pub fn is_image_config(&self) -> bool {
        Self::CONFIGS.contains(&self.as_str())
    }

    /// Whether it is that of a foreign layer: one that its maker alone may distribute, so that the
    /// registry need not have it (image specification, "Non-Distributable Layers").
    pub fn is_foreign(&self) -> bool {
        Self::FOREIGN.iter().any(|prefix| self.as_str().starts_with(prefix))
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for MediaType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for MediaType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(MediaType::new(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_count() {
        let media_type = MediaType::new(" Application/vnd.OCI.image.index.v1+json; charset=utf-8");
        assert_eq!(media_type.as_str(), MediaType::OCI_INDEX);
        assert_eq!(media_type.kind(), BlobKind::Index);
    }

    #[test]
    fn foreign_layers_are_told_by_their_types() {
        for (text, foreign) in [
            ("application/vnd.docker.image.rootfs.foreign.diff.tar", true),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar", true),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", true),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", false),
            ("application/vnd.oci.image.layer.v1.tar+zstd", false),
        ] {
            assert_eq!(MediaType::new(text).is_foreign(), foreign, "{text}");
        }
    }
}
