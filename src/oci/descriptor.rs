use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, MediaType, Platform};
use crate::error::Error;

/// What points to a blob: its digest, its size and what it is
/// (image specification, "OCI Content Descriptors").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the blob.
    pub media_type: MediaType,
    /// The blob's name.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// The platform an index entry is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Where else the blob may be had (foreign layers).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text by key; empty where there is none.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor of a blob with nothing optional.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Whether this index entry is an attestation that BuildKit put beside an image, not an image.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").map(String::as_str)
            == Some("attestation-manifest")
    }

    /// Checks what serde cannot and takes over what this crate uses.
    pub(super) fn from_spec(spec: &oci_spec::image::Descriptor) -> Result<Descriptor, Error> {
        let size = spec.size();
        if i64::try_from(size).is_err() {
            // The specification's `int64`: a larger figure is an attack on somebody's arithmetic.
            return Err(Error::document(format!("a descriptor declares {size} bytes")));
        }
        Ok(Descriptor {
            media_type: MediaType::new(spec.media_type().as_ref()),
            digest: spec.digest().to_string().parse()?,
            size,
            platform: spec.platform().as_ref().map(Platform::from_spec),
            urls: spec.urls().clone().unwrap_or_default(),
            annotations: spec.annotations().iter().flatten().map(own).collect(),
        })
    }
}

/// Go writes what is empty as `null`.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn own((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}
