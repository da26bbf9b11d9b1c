use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
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
    /// What kind of artifact a manifest is of: a signature, an SBOM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The blob itself in base 64, as it was found: [`Descriptor::embedded`] checks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
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
            artifact_type: None,
            data: None,
        }
    }

    /// Whether the blob is a foreign layer: one that is left out of a pull unless it is asked for,
    /// and whose absence is no damage.
    pub fn is_foreign(&self) -> bool {
        self.media_type.is_foreign()
    }

    /// The blob, where the descriptor has it in itself (image specification, "Embedded Content").
    ///
    /// # Errors
    ///
    /// [`Error::InvalidDocument`] where `data` is no base 64, [`Error::SizeMismatch`] and
    /// [`Error::DigestMismatch`] where it is another blob than the descriptor's.
    pub fn embedded(&self) -> Result<Option<Vec<u8>>, Error> {
        let Some(data) = &self.data else {
            return Ok(None);
        };
        let digest = &self.digest;
        let bytes = BASE64_STANDARD.decode(data).map_err(|_| {
            Error::document(format!("the data that it embeds for {digest} is not base 64"))
        })?;
        let origin = || format!("the embedded data of {digest}");
        if bytes.len() as u64 != self.size {
            let (expected, actual) = (self.size, bytes.len() as u64);
            return Err(Error::SizeMismatch { origin: origin(), expected, actual, more: false });
        }
        let actual = digest.algorithm().digest(&bytes);
        if actual != *digest {
            let (expected, actual) = (*digest, Box::new(actual));
            return Err(Error::DigestMismatch { origin: origin(), expected, actual });
        }
        Ok(Some(bytes))
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
            digest: AsRef::<str>::as_ref(spec.digest()).parse()?,
            size,
            platform: spec.platform().as_ref().map(Platform::from_spec),
            urls: spec.urls().clone().unwrap_or_default(),
            annotations: spec.annotations().iter().flatten().map(own).collect(),
            artifact_type: spec.artifact_type().as_ref().map(|it| MediaType::new(it.as_ref())),
            data: spec.data().clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn embedded_data_is_the_descriptors_or_an_error() {
        let with = |data: &str, of: &[u8], size| Descriptor {
            data: Some(data.to_owned()),
            ..Descriptor::new(MediaType::new("a/b"), Algorithm::Sha256.digest(of), size)
        };
        assert_eq!(with("e30=", b"{}", 2).embedded().unwrap().unwrap(), b"{}");
        assert_eq!(with("", b"", 0).embedded().unwrap().unwrap(), b"");
        assert_eq!(Descriptor { data: None, ..with("", b"", 0) }.embedded().unwrap(), None);
        for text in ["e30", "e30=\n", "*", "e31="] {
            let error = with(text, b"{}", 2).embedded().unwrap_err();
            assert!(matches!(error, Error::InvalidDocument { .. }), "{text:?}: {error:?}");
        }
        let error = with("e30=", b"{}", 3).embedded().unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { expected: 3, actual: 2, .. }), "{error:?}");
        let error = with("e30=", b"[]", 2).embedded().unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    }
}
