//! The bodies of blobs: what an answer must be to be taken for one, and the count of its bytes.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use reqwest::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG};

use super::answer::{Answer, soon};
use super::origin::{Origin, shown};
use super::range::ContentRange;
use super::traffic::Permit;
use super::{BlobBody, ByteRange};
use crate::error::{Error, Result};
use crate::store::Version;

/// The longest entity tag that is remembered.
const MAX_ETAG: usize = 256;

/// The body of a `200`: the whole blob, whatever was asked for.
pub(super) fn whole(answer: Answer, size: u64) -> Result<BlobBody> {
    check_encoding(&answer)?;
    let total = answer.response.content_length();
    let resumable = answer.header(ACCEPT_RANGES).is_some_and(|it| it.eq_ignore_ascii_case("bytes"));
    if let Some(actual) = total.filter(|total| *total != size) {
        let origin = shown(&answer.url);
        return Err(Error::SizeMismatch { origin, expected: size, actual, more: false });
    }
    Ok(body(answer, 0..size, size, total, resumable))
}

/// The body of a `206`, which must be exactly what was asked for (RFC 9110, section 15.3.7, would
/// let a server send less).
pub(super) fn part(answer: Answer, wanted: Range<u64>, size: u64) -> Result<BlobBody> {
    check_encoding(&answer)?;
    if let Err(reason) = check_range(&answer, &wanted, size) {
        return Err(unusable_range(&answer, wanted, reason));
    }
    Ok(body(answer, wanted, size, Some(size), true))
}

fn body(
    mut answer: Answer,
    range: Range<u64>,
    size: u64,
    total: Option<u64>,
    resumable: bool,
) -> BlobBody {
    let version = version(&answer);
    let permit = answer.permit.take().map(Arc::new);
    let connection = permit.as_ref().map(Arc::downgrade);
    let start = range.start;
    let body = BlobBody::new(start, total, counted(answer, range, size, permit));
    BlobBody { version, connection, resumable, ..body }
}

/// The version that an answer is of, where its entity tag is a strong one (RFC 9110, section 8.8.3):
/// under a weak one the bytes may differ.
fn version(answer: &Answer) -> Option<Version> {
    let etag = answer.header(ETAG)?;
    let inner = etag.strip_prefix('"')?.strip_suffix('"')?;
    let plain = etag.len() <= MAX_ETAG && inner.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    let origin = Origin::of(&answer.url)?.to_string();
    plain.then(|| Version { origin, etag: etag.to_owned() })
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
fn counted(
    answer: Answer,
    range: Range<u64>,
    size: u64,
    permit: Option<Arc<Permit>>,
) -> BoxStream<'static, Result<Bytes>> {
    let url = shown(&answer.url);
    // Of a body whose length is not announced, the end is another thing to be read.
    let framed = answer.response.content_length().is_some();
    let (patience, body) = (answer.patience, answer.response.bytes_stream().boxed());
    // In this order they go: first the connection, then the leave to have it.
    type State = (BoxStream<'static, reqwest::Result<Bytes>>, Option<Arc<Permit>>, u64);
    let step = move |(mut body, permit, at): State| {
        let (url, end) = (url.clone(), range.end);
        async move {
            match soon(patience, &url, body.try_next()).await? {
                None if at == end => {
                    permit.iter().for_each(|permit| permit.is_idle());
                    Ok(None)
                }
                None => Err(cut(url, at, end)),
                Some(chunk) if chunk.len() as u64 > end - at => {
                    let actual = at + chunk.len() as u64;
                    Err(Error::SizeMismatch { origin: url, expected: size, actual, more: true })
                }
                Some(chunk) => {
                    let at = at + chunk.len() as u64;
                    // No more is read than was announced: what comes after it is another answer.
                    permit.iter().filter(|_| at == end && framed).for_each(|it| it.is_idle());
                    Ok(Some((chunk, (body, permit, at))))
                }
            }
        }
    };
    stream::try_unfold((body, permit, range.start), step).boxed()
}

/// The error of a body that ended in good order, but too early.
fn cut(url: String, at: u64, end: u64) -> Error {
    let source = format!("it ended after byte {at} of {end}");
    let source = io::Error::new(io::ErrorKind::UnexpectedEof, source).into();
    Error::Network { action: "read the answer of", url, source }
}
