//! Ways to misbehave.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::content::Content;
use super::http::{Request, Response};
use super::send::{Event, Framing};

type Answer = dyn Fn(&Request) -> Response + Send + Sync;

/// What the registry does wrong. Offsets and counts are of body bytes sent, so with a
/// Range they count from its start.
///
/// The actions after [`Action::Run`] bend the honest answer, so they pass over requests
/// that would not have succeeded (a 401 before the login, say).
#[derive(Clone)]
pub enum Action {
    /// Answers this instead; see [`Action::status`] and [`Action::redirect`].
    Respond(Response),
    /// Closes the connection without a byte of answer.
    Close,
    /// Waits before the answer begins.
    Delay(Duration),
    /// Answers what the function says; see [`Action::run`].
    Run(Arc<Answer>),

    /// Announces the whole body, sends `n` bytes, closes.
    CloseAfter(u64),
    /// Announces the whole body, sends `n` bytes, resets (the client may lose bytes that
    /// were under way).
    ResetAfter(u64),
    /// Sends `n` bytes, then nothing for a time, then the rest.
    StallAfter(u64, Duration),
    /// Sends `n` bytes, then waits for [`Registry::release`](super::Registry::release).
    Hold(u64),
    /// Inverts the byte at this offset.
    Corrupt(u64),
    /// Ends the body after `n` bytes, with a `Content-Length` to match.
    Short(u64),
    /// Adds `n` bytes to the body, with a `Content-Length` to match.
    Long(u64),
    /// Sends `n` bytes more than the `Content-Length` says.
    Trailing(u64),
    /// Announces this `Content-Length`, whatever is sent, and closes.
    Declare(u64),
    /// Announces no length and closes at the end.
    NoLength,
    /// Sends the body in chunks.
    Chunked,
    /// Sends `n` bytes in chunks, and closes without the last chunk.
    ChunkedAbort(u64),
    /// Sends the whole blob with 200 where a Range was asked for.
    IgnoreRange,
    /// Answers a Range with 206 for a range that starts one byte earlier (later when it
    /// starts at 0), truly labelled.
    WrongOffset,
    /// Answers a Range with a total length that is one too large.
    WrongTotal,
    /// Answers a Range with `multipart/byteranges` of one part.
    Multipart,
    /// Answers a Range with its first `n` bytes only, truly labelled, as a server may.
    PartialRange(u64),
    /// Compresses the body and says so in `Content-Encoding`.
    Gzip,
    /// Waits after each byte of the head.
    SlowHeaders(Duration),
    /// Adds a header field of `n` bytes.
    HugeHeader(usize),
    /// Replaces a header field, or adds it.
    SetHeader(String, String),
    /// Adds a header field beside those of the same name.
    AddHeader(String, String),
    /// Leaves a header field out.
    DropHeader(String),
    /// Sends the body at this many bytes per second.
    Throttle(u64),
}

impl Action {
    /// Answers with this status, these header fields and this body.
    pub fn status(status: u16, headers: &[(&str, &str)], body: impl Into<Content>) -> Self {
        let response = Response::new(status).body(body);
        Self::Respond(headers.iter().fold(response, |all, (name, value)| all.header(name, *value)))
    }

    /// Answers with an `errors` document of the distribution specification.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Respond(Response::error(status, code, message))
    }

    /// Sends the client to another URL.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::Respond(Response::new(status).header("Location", location))
    }

    /// Answers what `answer` returns.
    pub fn run(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::Run(Arc::new(answer))
    }

    /// Names another digest in `Docker-Content-Digest`.
    pub fn wrong_digest() -> Self {
        let other = format!("sha256:{}", "0123456789abcdef".repeat(4));
        Self::SetHeader("Docker-Content-Digest".to_owned(), other)
    }

    /// Names another `Content-Type`.
    pub fn content_type(media_type: &str) -> Self {
        Self::SetHeader("Content-Type".to_owned(), media_type.to_owned())
    }

    /// Answers a Range with 206 and no `Content-Range`.
    pub fn no_content_range() -> Self {
        Self::DropHeader("Content-Range".to_owned())
    }

    pub(super) fn needs_success(&self) -> bool {
        !matches!(self, Self::Respond(_) | Self::Close | Self::Delay(_) | Self::Run(_))
    }

    /// Does this to the answer `to`; `honest` gives the answer to another request.
    pub(super) fn apply(
        &self,
        request: &Request,
        honest: &dyn Fn(&Request) -> Response,
        to: &mut Response,
    ) {
        match self {
            Self::Respond(response) => *to = response.clone(),
            Self::Run(answer) => *to = answer(request),
            Self::Close => to.delivery.unanswered = true,
            Self::Delay(time) => to.delivery.delay += *time,
            Self::CloseAfter(n) => to.delivery.events.push((*n, Event::Close)),
            Self::ResetAfter(n) => to.delivery.events.push((*n, Event::Reset)),
            Self::StallAfter(n, time) => to.delivery.events.push((*n, Event::Stall(*time))),
            Self::Hold(n) => to.delivery.events.push((*n, Event::Hold)),
            Self::Corrupt(offset) => to.delivery.corrupt.push(*offset),
            Self::Throttle(rate) => to.delivery.throttle = Some(*rate),
            Self::SlowHeaders(pause) => to.delivery.head_pause = *pause,
            Self::Short(n) => to.body = to.body.slice(0, *n),
            Self::Long(n) => to.body = to.body.padded(*n),
            Self::Trailing(n) => {
                to.delivery.framing = Framing::Declared(to.body.len());
                to.body = to.body.padded(*n);
            }
            Self::Declare(n) => to.delivery.framing = Framing::Declared(*n),
            Self::NoLength => to.delivery.framing = Framing::UntilClose,
            Self::Chunked => to.delivery.framing = Framing::Chunked,
            Self::ChunkedAbort(n) => {
                to.delivery.framing = Framing::Chunked;
                to.delivery.events.push((*n, Event::Close));
            }
            Self::IgnoreRange => {
                let mut whole = request.clone();
                whole.headers.retain(|(name, _)| name != "range");
                let delivery = to.delivery.clone();
                *to = Response { delivery, ..honest(&whole) };
            }
            Self::Gzip => {
                to.body = gzip(&to.body.to_vec()).into();
                to.set("Content-Encoding", "gzip");
            }
            Self::HugeHeader(n) => to.set("X-Padding", "p".repeat(*n)),
            Self::SetHeader(name, value) => to.set(name, value),
            Self::AddHeader(name, value) => to.headers.push((name.clone(), value.clone())),
            Self::DropHeader(name) => to.remove(name),
            Self::WrongOffset | Self::WrongTotal | Self::Multipart | Self::PartialRange(_) => {
                self.bend_range(request, honest, to);
            }
        }
    }

    fn bend_range(
        &self,
        request: &Request,
        honest: &dyn Fn(&Request) -> Response,
        to: &mut Response,
    ) {
        let Some((first, last, total)) = to.get("Content-Range").and_then(content_range) else {
            return;
        };
        match self {
            Self::WrongOffset => {
                let mut other = request.clone();
                let first = if first == 0 { 1 } else { first - 1 };
                other.headers.retain(|(name, _)| name != "range");
                other.headers.push(("range".to_owned(), format!("bytes={first}-{last}")));
                let delivery = to.delivery.clone();
                *to = Response { delivery, ..honest(&other) };
            }
            Self::WrongTotal => {
                to.set("Content-Range", format!("bytes {first}-{last}/{}", total + 1));
            }
            Self::PartialRange(n) => {
                to.body = to.body.slice(0, (*n).max(1));
                let last = first + to.body.len() - 1;
                to.set("Content-Range", format!("bytes {first}-{last}/{total}"));
            }
            Self::Multipart => {
                let mut body = format!(
                    "--cut\r\nContent-Type: application/octet-stream\r\n\
                     Content-Range: bytes {first}-{last}/{total}\r\n\r\n"
                )
                .into_bytes();
                body.extend(to.body.to_vec());
                body.extend(b"\r\n--cut--\r\n");
                to.body = body.into();
                to.remove("Content-Range");
                to.set("Content-Type", "multipart/byteranges; boundary=cut");
            }
            _ => unreachable!("only range actions come here"),
        }
    }
}

fn content_range(value: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.parse().ok()?))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes every write");
    encoder.finish().expect("memory takes every write")
}
