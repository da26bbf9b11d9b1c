use std::ops::Range;

use reqwest::header::{HeaderMap, HeaderValue, RANGE};

use super::answer::Answer;
use super::http::unexpected;
use super::{BlobBody, ByteRange, body};
use crate::error::{Error, Result};
use crate::oci::Descriptor;

/// What is wanted of a blob.
pub(super) struct BlobRequest {
    size: u64,
    pub(super) headers: HeaderMap,
    /// The bytes that are asked for, where that is not all of them.
    bytes: Option<Range<u64>>,
}

impl BlobRequest {
    pub(super) fn new(blob: &Descriptor, range: Option<ByteRange>) -> Result<BlobRequest> {
        let (size, mut headers) = (blob.size, HeaderMap::new());
        let Some(range) = range else {
            return Ok(BlobRequest { size, headers, bytes: None });
        };
        let text = range.to_string();
        let Some(bytes) = range.within(size) else {
            let (url, reason) = (blob.digest.to_string(), format!("the blob has {size} bytes"));
            return Err(Error::UnusableRange { url, range: text, reason });
        };
        // A range is made of digits, which every header may have.
        headers.extend(HeaderValue::try_from(text).map(|value| (RANGE, value)));
        Ok(BlobRequest { size, headers, bytes: Some(bytes) })
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
