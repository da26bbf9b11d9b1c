use std::ops::Range;

use reqwest::header::{HeaderMap, HeaderValue, RANGE};

use super::answer::Answer;
use super::http::unexpected;
use super::origin::Origin;
use super::transport::Errand;
use super::{BlobBody, ByteRange, body};
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::store::Version;

/// An answer of more than so many bytes may hold its connection for long.
const SMALL: u64 = 1024 * 1024;

/// What is wanted of a blob.
pub(super) struct BlobRequest {
    size: u64,
    pub(super) errand: Errand,
    /// The bytes that are asked for, where that is not all of them.
    bytes: Option<Range<u64>>,
}

impl BlobRequest {
    pub(super) fn new(blob: &Descriptor, range: Option<ByteRange>) -> Result<BlobRequest> {
        let size = blob.size;
        let mut errand = Errand::new(HeaderMap::new());
        let Some(range) = range else {
            errand.large = size > SMALL;
            return Ok(BlobRequest { size, errand, bytes: None });
        };
        let text = range.to_string();
        let Some(bytes) = range.within(size) else {
            let (url, reason) = (blob.digest.to_string(), format!("the blob has {size} bytes"));
            return Err(Error::UnusableRange { url, range: text, reason });
        };
        // A range is made of digits, which every header may have.
        errand.headers.extend(HeaderValue::try_from(text).map(|value| (RANGE, value)));
        errand.large = bytes.end - bytes.start > SMALL;
        Ok(BlobRequest { size, errand, bytes: Some(bytes) })
    }

    /// Wants a range of these versions only; a server that has another sends the whole instead
    /// (RFC 9110, section 13.1.5).
    pub(super) fn of_versions(&mut self, versions: &[Version]) {
        if self.bytes.is_none() {
            return;
        }
        let known = versions.iter().filter_map(|version| {
            let origin = Origin::of(&version.origin.parse().ok()?)?;
            Some((origin, HeaderValue::try_from(&version.etag).ok()?))
        });
        self.errand.if_range.extend(known);
    }

    /// The body of the answer, where it is what was asked for.
    pub(super) async fn body(&self, answer: Answer) -> Result<BlobBody> {
        match (answer.status().as_u16(), self.bytes.clone()) {
            (200, _) => body::whole(answer, self.size),
            (206, Some(wanted)) => body::part(answer, wanted, self.size),
            (416, Some(wanted)) => {
                Err(body::unusable_range(&answer, wanted, "it answered 416, no such range"))
            }
            _ => Err(unexpected(answer).await),
        }
    }
}
