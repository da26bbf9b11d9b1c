//! An HTTP answer: its headers as far as they are understood, its body as far as it may go, and
//! what it says where it is an error.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::Secret;
use super::origin::shown;
use super::retry::{http_date, retry_after};
use super::traffic::Permit;
use crate::error::{Error, RegistryMessage, Result};

/// The most that is read of the body of an error, in bytes.
const MAX_ERROR_BODY: u64 = 64 * 1024;
/// How long the body of an error is waited for: what it says is a courtesy.
const ERROR_BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a document, of a few MiB at most, may take to arrive.
const DOCUMENT_DEADLINE: Duration = Duration::from_secs(120);
/// The most headers that are taken, names and values together, in bytes.
const MAX_HEADERS: usize = 64 * 1024;
/// How many errors of one answer are kept, and how many characters of each text.
const MAX_MESSAGES: usize = 8;
const MAX_CODE: usize = 64;
const MAX_MESSAGE: usize = 512;
/// In the place of a text that has a secret in it.
const REPEATED: &str = "[not shown: it repeats the credentials]";

/// An answer, and the address that gave it after all redirects.
pub(super) struct Answer {
    pub(super) url: Url,
    pub(super) response: Response,
    /// Leave to have the connection; after the response, whose connection it is.
    pub(super) permit: Option<Permit>,
    /// How long the next bytes of its body may take.
    pub(super) patience: Duration,
    /// What it was shown to prove who we are: see [`Answer::into_messages`].
    secrets: Vec<Secret>,
}

impl Answer {
    pub(super) fn new(
        url: Url,
        response: Response,
        permit: Option<Permit>,
        patience: Duration,
    ) -> Result<Answer> {
        if response.content_length() == Some(0) {
            permit.iter().for_each(Permit::is_idle);
        }
        let answer = Answer { url, response, permit, patience, secrets: Vec::new() };
        let size = |(name, value): (&HeaderName, &reqwest::header::HeaderValue)| {
            name.as_str().len() + value.len()
        };
        if answer.headers().iter().map(size).sum::<usize>() > MAX_HEADERS {
            return Err(answer.unusable(format!("its headers exceed {MAX_HEADERS} bytes")));
        }
        Ok(answer)
    }

    /// The same, to a request that had these secrets in it.
    pub(super) fn keeping(self, secrets: Vec<Secret>) -> Answer {
        Answer { secrets, ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The text of a header, where there is one and it is text.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The values of `WWW-Authenticate`.
    pub(super) fn challenges(&self) -> impl Iterator<Item = &str> {
        self.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok())
    }

    /// The time by the server's clock, else by ours.
    pub(super) fn date(&self) -> jiff::Timestamp {
        self.header(DATE).and_then(http_date).unwrap_or_else(jiff::Timestamp::now)
    }

    /// An error about this answer.
    pub(super) fn unusable(&self, reason: impl Into<String>) -> Error {
        Error::BadResponse { url: shown(&self.url), reason: reason.into() }
    }

    /// The body of a document, of at most `limit` bytes.
    pub(super) async fn document(mut self, limit: u64) -> Result<Bytes> {
        let url = shown(&self.url);
        within(DOCUMENT_DEADLINE, &url, self.read(limit)).await
    }

    async fn read(&mut self, limit: u64) -> Result<Bytes> {
        let url = shown(&self.url);
        let mut body = BytesMut::new();
        loop {
            let chunk = soon(self.patience, &url, self.response.chunk()).await?;
            match chunk {
                None => {
                    self.permit.iter().for_each(Permit::is_idle);
                    return Ok(body.freeze());
                }
                Some(chunk) if (body.len() + chunk.len()) as u64 > limit => {
                    return Err(Error::TooLarge { what: format!("the answer of {url}"), limit });
                }
                Some(chunk) => body.extend_from_slice(&chunk),
            }
        }
    }

    /// What an answer that is an error says.
    pub(super) async fn into_error(self) -> Error {
        let (status, url) = (self.status().as_u16(), shown(&self.url));
        let retry_after =
            self.header(RETRY_AFTER).and_then(|value| retry_after(value, self.date()));
        if let (429 | 503, Some(wish), Some(permit)) = (status, retry_after, &self.permit) {
            permit.leave_alone(wish).await;
        }
        let errors = self.into_messages().await;
        Error::Registry { url, status, errors, retry_after }
    }

    /// What the body of an error says, as far as it can be had and understood. A server that
    /// repeats the secret that it was shown is not given the word: what it says ends in logs.
    pub(super) async fn into_messages(mut self) -> Vec<RegistryMessage> {
        let url = shown(&self.url);
        let body = within(ERROR_BODY_DEADLINE, &url, self.read(MAX_ERROR_BODY)).await;
        body.map(|body| messages(&body, &self.secrets)).unwrap_or_default()
    }

    /// Reads to the end what nobody needs, if that is little, so that the connection can serve
    /// the next request.
    pub(super) async fn discard(mut self) {
        let url = shown(&self.url);
        // A connection that is lost over this is only a connection.
        let _ = within(ERROR_BODY_DEADLINE, &url, self.read(MAX_ERROR_BODY)).await;
    }
}

async fn within<T>(
    deadline: Duration,
    url: &str,
    read: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(deadline, read).await.unwrap_or_else(|_| {
        let late = format!("it did not all arrive within {} s", deadline.as_secs());
        Err(Error::Network {
            action: "read the answer of",
            url: url.to_owned(),
            source: io::Error::new(io::ErrorKind::TimedOut, late).into(),
        })
    })
}

/// Waits for the next bytes of a body, for so long at most.
///
/// The client's own timer runs on while nobody asks for bytes, and is looked at before they are: who
/// takes them slowly would lose the connection. This one finds first what has come.
pub(super) async fn soon<T>(
    patience: Duration,
    url: &str,
    next: impl Future<Output = reqwest::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(patience, next).await {
        Ok(next) => next.map_err(|error| broken(url, error)),
        Err(_) => Err(Error::Network {
            action: "read the answer of",
            url: url.to_owned(),
            source: silence(patience).into(),
        }),
    }
}

/// Nothing came for so long.
pub(super) fn silence(time: Duration) -> io::Error {
    let reason = format!("timed out: nothing came for {} s", time.as_secs_f64());
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

/// The error of a body that broke off.
fn broken(url: &str, error: reqwest::Error) -> Error {
    // The library's own text would show the address with its query.
    let source = error.without_url().into();
    Error::Network { action: "read the answer of", url: url.to_owned(), source }
}

/// An error as the distribution specification has it ("Error Codes"), or as token servers write
/// it: RFC 6749, section 5.2, and Docker Hub's own way.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    error: Option<String>,
    error_description: Option<String>,
    details: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: Option<String>,
    message: Option<String>,
}

fn messages(body: &[u8], secrets: &[Secret]) -> Vec<RegistryMessage> {
    let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else {
        return Vec::new();
    };
    let alone = ErrorEntry { code: body.error, message: body.error_description.or(body.details) };
    let alone = (alone.code.is_some() || alone.message.is_some()).then_some(alone);
    let repeats = |text: &str| {
        secrets.iter().map(Secret::expose).any(|it| !it.is_empty() && text.contains(it))
    };
    let text = |text: Option<String>, limit| match text {
        Some(text) if repeats(&text) => REPEATED.to_owned(),
        text => tame(&text.unwrap_or_default(), limit),
    };
    body.errors
        .into_iter()
        .chain(alone)
        .take(MAX_MESSAGES)
        .map(|ErrorEntry { code, message }| RegistryMessage {
            code: Some(text(code, MAX_CODE)).filter(|c| !c.is_empty()).unwrap_or("UNKNOWN".into()),
            message: text(message, MAX_MESSAGE),
        })
        .collect()
}

/// A text from elsewhere without what would steer a terminal, and of bearable length.
fn tame(text: &str, limit: usize) -> String {
    let tame = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut kept: String = text.chars().take(limit).map(tame).collect();
    if kept.len() < text.len() && text.chars().nth(limit).is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Vec<(String, String)> {
        messages(body.as_bytes(), &[]).into_iter().map(|it| (it.code, it.message)).collect()
    }

    fn one(code: &str, message: &str) -> Vec<(String, String)> {
        vec![(code.to_owned(), message.to_owned())]
    }

    #[test]
    fn errors_as_registries_write_them() {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no","detail":{"Tag":"x"}},
            {"code":"DENIED"}]}"#;
        let expected = vec![("MANIFEST_UNKNOWN".into(), "no".into()), ("DENIED".into(), "".into())];
        assert_eq!(texts(body), expected);
        assert_eq!(texts(r#"{"errors":[{}]}"#), one("UNKNOWN", ""));
    }

    #[test]
    fn errors_as_token_servers_write_them() {
        assert_eq!(
            texts(r#"{"error":"invalid_grant","error_description":"expired"}"#),
            one("invalid_grant", "expired")
        );
        assert_eq!(
            texts(r#"{"details":"incorrect password"}"#),
            one("UNKNOWN", "incorrect password")
        );
    }

    #[test]
    fn other_bodies_say_nothing() {
        for body in ["", "<html>", "[]", "{}", r#"{"errors":7}"#, r#"{"errors":[{"code":7}]}"#] {
            assert_eq!(texts(body), [], "{body}");
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        let body = br#"{"errors":[{"code":"A","message":"not hunter2"},{"message":"no"}]}"#;
        let said = messages(body, &[Secret::new(""), Secret::new("hunter2")]);
        let texts: Vec<_> = said.iter().map(|it| it.message.as_str()).collect();
        assert_eq!(texts, [REPEATED, "no"]);
    }

    #[test]
    fn messages_are_tamed() {
        let entry = |n: usize| format!(r#"{{"code":"C{n}","message":"m"}}"#);
        let many: Vec<_> = (0..100).map(entry).collect();
        assert_eq!(texts(&format!(r#"{{"errors":[{}]}}"#, many.join(","))).len(), MAX_MESSAGES);

        let long = "é".repeat(10_000);
        let body = format!(r#"{{"errors":[{{"code":"{long}","message":"{long}"}}]}}"#);
        let (code, message) = texts(&body).remove(0);
        assert_eq!(code.chars().count(), MAX_CODE + 1);
        assert_eq!(message.chars().count(), MAX_MESSAGE + 1);

        let (_, message) = texts(r#"{"errors":[{"message":"\u001b[2Ja\nb"}]}"#).remove(0);
        assert_eq!(message, "\u{fffd}[2Ja\u{fffd}b");
    }
}
