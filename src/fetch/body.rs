//! The bodies of blobs: what an answer must be to be taken for one, and the count of its bytes.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE};

use super::answer::{Answer, broken};
use super::origin::shown;
use super::range::ContentRange;
use super::{BlobBody, ByteRange};
use crate::error::{Error, Result};

/// The body of a `200`: the whole blob, whatever was asked for.
pub(super) fn whole(answer: Answer, size: u64) -> Result<BlobBody> {
    check_encoding(&answer)?;
    let total = answer.response.content_length();
    if let Some(actual) = total.filter(|total| *total != size) {
        let origin = shown(&answer.url);
        return Err(Error::SizeMismatch { origin, expected: size, actual, more: false });
    }
    Ok(BlobBody::new(0, total, counted(answer, 0..size, size)))
}

/// The body of a `206`, which must be exactly what was asked for (RFC 9110, section 15.3.7, would
/// let a server send less).
pub(super) fn part(answer: Answer, wanted: Range<u64>, size: u64) -> Result<BlobBody> {
    check_encoding(&answer)?;
    if let Err(reason) = check_range(&answer, &wanted, size) {
        return Err(unusable_range(&answer, wanted, reason));
    }
    Ok(BlobBody::new(wanted.start, Some(size), counted(answer, wanted, size)))
}

pub(super) fn unusable_range(
    answer: &Answer,
    wanted: Range<u64>,
    reason: impl Into<String>,
) -> Error {
    let range = ByteRange::from(wanted).to_string();
    Error::UnusableRange { url: shown(&answer.url), range, reason: reason.into() }
}

/// Refuses a body that was packed on its way: its bytes are not those that the digest names.
pub(super) fn check_encoding(answer: &Answer) -> Result<()> {
    let values = answer.headers().get_all(CONTENT_ENCODING);
    let plain = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"identity");
    match values.iter().all(|value| plain(value.as_bytes())) {
        true => Ok(()),
        false => {
            Err(answer.unusable("it is packed with a Content-Encoding that was not asked for"))
        }
    }
}

fn check_range(answer: &Answer, wanted: &Range<u64>, size: u64) -> Result<(), String> {
    let multipart = |text: &str| text.trim_start().to_ascii_lowercase().starts_with("multipart/");
    if answer.header(CONTENT_TYPE).is_some_and(multipart) {
        return Err("it sent several parts".to_owned());
    }
    if answer.headers().get_all(CONTENT_RANGE).iter().count() != 1 {
        return Err("it sent a part without saying which".to_owned());
    }
    let Some(sent) = answer.header(CONTENT_RANGE).and_then(ContentRange::parse) else {
        return Err("its Content-Range cannot be read".to_owned());
    };
    if sent.range != *wanted {
        return Err(format!("it sent {} instead", ByteRange::from(sent.range)));
    }
    if sent.total != size {
        return Err(format!("it has {} bytes in all, its descriptor says {size}", sent.total));
    }
    match answer.response.content_length() {
        Some(length) if length != wanted.end - wanted.start => {
            Err(format!("its Content-Length of {length} is not that of its Content-Range"))
        }
        _ => Ok(()),
    }
}

/// Passes the bytes `range` of a blob of `size` bytes on, and fails when there are fewer or more.
/// What is one byte too much fails before anything of its chunk is passed on.
fn counted(answer: Answer, range: Range<u64>, size: u64) -> BoxStream<'static, Result<Bytes>> {
    let url = shown(&answer.url);
    let body = answer.response.bytes_stream().boxed();
    let step = move |(mut body, at): (BoxStream<'static, reqwest::Result<Bytes>>, u64)| {
        let (url, end) = (url.clone(), range.end);
        async move {
            match body.next().await {
                None if at == end => Ok(None),
                None => Err(cut(url, at, end)),
                Some(Err(error)) => Err(broken(&url, error)),
                Some(Ok(chunk)) if chunk.len() as u64 > end - at => {
                    let actual = at + chunk.len() as u64;
                    Err(Error::SizeMismatch { origin: url, expected: size, actual, more: true })
                }
                Some(Ok(chunk)) => {
                    let at = at + chunk.len() as u64;
                    Ok(Some((chunk, (body, at))))
                }
            }
        }
    };
    stream::try_unfold((body, range.start), step).boxed()
}

/// The error of a body that ended in good order, but too early.
fn cut(url: String, at: u64, end: u64) -> Error {
    let source = format!("it ended after byte {at} of {end}");
    let source = io::Error::new(io::ErrorKind::UnexpectedEof, source).into();
    Error::Network { action: "read the answer of", url, source }
}
