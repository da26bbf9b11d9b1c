use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{BlobKind, Descriptor, MAX_DESCRIPTORS, MAX_DOCUMENT_SIZE, MediaType};
use crate::error::Error;

/// A blob that points to other blobs: an image index or an image manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An OCI image index or a Docker manifest list.
    Index(Index),
    /// An OCI or Docker schema 2 image manifest.
    Manifest(Box<Manifest>),
}

/// An image index (image specification, "OCI Image Index Specification").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The document's media type.
    pub media_type: MediaType,
    /// The manifests of the platforms, or further indexes, in the index's order.
    pub manifests: Vec<Descriptor>,
    /// What this document is about, if it is about another.
    pub subject: Option<Box<Descriptor>>,
}

/// An image manifest (image specification, "OCI Image Manifest Specification").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The document's media type.
    pub media_type: MediaType,
    /// The config.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// What kind of artifact this is, where it is no image (image specification, "Guidelines for
    /// Artifact Usage").
    pub artifact_type: Option<MediaType>,
    /// What this document is about, if it is about another.
    pub subject: Option<Box<Descriptor>>,
}

/// The keys whose presence decides what a document is, whatever it calls itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<MediaType>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Parses a document that its parent, or the registry's `Content-Type`, calls `declared`.
    ///
    /// Refused are documents over 4 MiB, of schema 1, with duplicate keys, with more than 10,000
    /// descriptors, with both `layers` and `manifests` (CVE-2021-41190), and those whose own
    /// `mediaType` is not the declared one.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidDocument`], [`Error::UnsupportedMediaType`] or [`Error::Schema1`].
    pub fn parse(bytes: &[u8], declared: &MediaType) -> Result<Document, Error> {
        let shape = Shape::read(bytes)?;
        if let Some(own) = &shape.media_type
            && own != declared
        {
            return Err(Error::document(format!(
                "it was announced as {declared} but calls itself {own}"
            )));
        }
        shape.parse_as(bytes, declared)
    }

    /// What it says that it is, or what it was announced as.
    pub fn media_type(&self) -> &MediaType {
        match self {
            Document::Index(index) => &index.media_type,
            Document::Manifest(manifest) => &manifest.media_type,
        }
    }

    /// Parses a blob that nothing describes, or says that it is neither index nor manifest.
    ///
    /// For pins and for entries of `index.json` by other tools, which carry a digest only.
    pub fn sniff(bytes: &[u8]) -> Option<Document> {
        let shape = Shape::read(bytes).ok()?;
        let media_type = shape.media_type.clone().or_else(|| {
            let guess = match (&shape.manifests, &shape.config) {
                (Some(_), None) => MediaType::OCI_INDEX,
                (None, Some(_)) => MediaType::OCI_MANIFEST,
                _ => return None,
            };
            Some(MediaType::new(guess))
        })?;
        shape.parse_as(bytes, &media_type).ok()
    }

    /// The blobs that this document is made of: an index's manifests, or a manifest's config and
    /// layers. Not its subject, which it only speaks about.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, list) = match self {
            Document::Index(index) => (None, &index.manifests),
            Document::Manifest(manifest) => (Some(&manifest.config), &manifest.layers),
        };
        config.into_iter().chain(list)
    }

    /// What the document is about: the subject of a signature, an attestation or an SBOM.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Document::Index(index) => index.subject.as_deref(),
            Document::Manifest(manifest) => manifest.subject.as_deref(),
        }
    }
}

impl Shape {
    fn read(bytes: &[u8]) -> Result<Shape, Error> {
        if bytes.len() as u64 > MAX_DOCUMENT_SIZE {
            return Err(Error::document(format!("it is larger than {MAX_DOCUMENT_SIZE} bytes")));
        }
        serde_json::from_slice(bytes).map_err(Error::json)
    }

    fn parse_as(&self, bytes: &[u8], media_type: &MediaType) -> Result<Document, Error> {
        if media_type.kind() == BlobKind::Schema1 || self.fs_layers.is_some() {
            return Err(Error::Schema1);
        }
        if self.schema_version != Some(2) {
            return Err(Error::document("its schemaVersion is not 2"));
        }
        if self.manifests.is_some() && (self.layers.is_some() || self.config.is_some()) {
            return Err(Error::document("it claims to be both an index and a manifest"));
        }
        let document = match media_type.kind() {
            BlobKind::Index => Document::Index(parse_index(bytes, media_type)?),
            BlobKind::Manifest => Document::Manifest(Box::new(parse_manifest(bytes, media_type)?)),
            BlobKind::Schema1 | BlobKind::Other => {
                return Err(Error::UnsupportedMediaType { media_type: media_type.to_string() });
            }
        };
        let count = document.children().count();
        if count > MAX_DESCRIPTORS {
            return Err(Error::document(format!(
                "it has {count} descriptors, over the limit of {MAX_DESCRIPTORS}"
            )));
        }
        Ok(document)
    }
}

fn parse_index(bytes: &[u8], media_type: &MediaType) -> Result<Index, Error> {
    let spec: oci_spec::image::ImageIndex = serde_json::from_slice(bytes).map_err(Error::json)?;
    Ok(Index {
        media_type: media_type.clone(),
        manifests: spec.manifests().iter().map(Descriptor::from_spec).collect::<Result<_, _>>()?,
        subject: subject(spec.subject())?,
    })
}

fn parse_manifest(bytes: &[u8], media_type: &MediaType) -> Result<Manifest, Error> {
    let spec: oci_spec::image::ImageManifest =
        serde_json::from_slice(bytes).map_err(Error::json)?;
    Ok(Manifest {
        media_type: media_type.clone(),
        config: Descriptor::from_spec(spec.config())?,
        layers: spec.layers().iter().map(Descriptor::from_spec).collect::<Result<_, _>>()?,
        artifact_type: spec.artifact_type().as_ref().map(|it| MediaType::new(it.as_ref())),
        subject: subject(spec.subject())?,
    })
}

fn subject(spec: &Option<oci_spec::image::Descriptor>) -> Result<Option<Box<Descriptor>>, Error> {
    Ok(spec.as_ref().map(Descriptor::from_spec).transpose()?.map(Box::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{DIGEST}","size":7}}]}}"#
        )
    }

    fn parse(text: &str, media_type: &str) -> Result<Document, Error> {
        Document::parse(text.as_bytes(), &MediaType::new(media_type))
    }

    fn reason(text: &str, media_type: &str) -> String {
        parse(text, media_type).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_of_either_kind() {
        for media_type in [MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST] {
            let text = manifest(&format!(r#""mediaType":"{media_type}","#));
            let document = parse(&text, media_type).unwrap();
            assert_eq!(document.children().map(|d| d.size).collect::<Vec<_>>(), [2, 7]);
            assert_eq!(Document::sniff(text.as_bytes()), Some(document));
        }
        assert!(parse(&manifest(""), MediaType::OCI_MANIFEST).is_ok());
    }

    #[test]
    fn an_index_with_platforms() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[
            {{"mediaType":"{}","digest":"{DIGEST}","size":5,"platform":{{"architecture":"arm","os":"linux","variant":"v7"}}}},
            {{"mediaType":"{}","digest":"{DIGEST}","size":5,"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}},
              "platform":{{"architecture":"unknown","os":"unknown"}}}}]}}"#,
            MediaType::OCI_INDEX,
            MediaType::OCI_MANIFEST,
            MediaType::OCI_MANIFEST
        );
        let Document::Index(index) = parse(&text, MediaType::OCI_INDEX).unwrap() else {
            panic!("not an index");
        };
        let platform = index.manifests[0].platform.as_ref().unwrap();
        assert_eq!(platform.to_string(), "linux/arm/v7");
        assert!(index.manifests[1].is_attestation());
    }

    #[test]
    fn a_document_must_be_one_thing_and_what_it_was_announced_as() {
        let both = manifest(r#""manifests":[],"#);
        assert!(reason(&both, MediaType::OCI_MANIFEST).contains("both"));
        assert!(reason(&both, MediaType::OCI_INDEX).contains("both"));
        let docker = manifest(&format!(r#""mediaType":"{}","#, MediaType::DOCKER_MANIFEST));
        assert!(reason(&docker, MediaType::OCI_MANIFEST).contains("calls itself"));
        assert!(matches!(
            parse(&manifest(""), "text/plain"),
            Err(Error::UnsupportedMediaType { .. })
        ));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let good = manifest("");
        let cases = [
            good.replace(DIGEST, "sha256:../../etc/passwd"),
            good.replace(DIGEST, &DIGEST.to_uppercase()),
            good.replace("\"size\":7", "\"size\":-7"),
            good.replace("\"size\":7", "\"size\":9223372036854775808"),
            good.replace("\"size\":7", "\"size\":7e99"),
            good.replace("\"size\":7", "\"size\":7,\"size\":8"),
            good.replace("\"schemaVersion\":2", "\"schemaVersion\":3"),
            good.replace("\"schemaVersion\":2,", ""),
            manifest(r#""layers":[],"#),
            "[".repeat(100_000),
            String::new(),
            "null".to_owned(),
            good[..good.len() - 1].to_owned(),
        ];
        for text in cases {
            let error = parse(&text, MediaType::OCI_MANIFEST).unwrap_err();
            assert!(
                matches!(error, Error::InvalidDocument { .. } | Error::InvalidDigest { .. }),
                "{error:?}"
            );
        }
    }

    #[test]
    fn schema_1_is_refused_with_advice() {
        let text = r#"{"schemaVersion":1,"name":"old","tag":"v1","fsLayers":[],"history":[]}"#;
        for media_type in [
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            MediaType::DOCKER_MANIFEST,
        ] {
            assert!(matches!(parse(text, media_type), Err(Error::Schema1)));
        }
    }

    #[test]
    fn too_many_descriptors() {
        let one = format!(r#"{{"mediaType":"a/b","digest":"{DIGEST}","size":1}}"#);
        let list = vec![one; MAX_DESCRIPTORS + 1].join(",");
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{list}]}}"#);
        assert!(reason(&text, MediaType::OCI_INDEX).contains("limit"));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>) {
            let _ = Document::parse(&bytes, &MediaType::new(MediaType::OCI_INDEX));
            let _ = Document::sniff(&bytes);
        }
    }
}
