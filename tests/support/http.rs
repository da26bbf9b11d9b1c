//! Requests as read from a socket, and responses before they are sent.

use std::io::{self, Read, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::content::Content;
use super::send::Delivery;

/// A request head larger than this ends the connection.
const MAX_HEAD: usize = 256 * 1024;
/// A request body larger than this ends the connection.
const MAX_BODY: usize = 1024 * 1024;

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, in the client's spelling.
    pub method: String,
    /// Path and query, still encoded.
    pub target: String,
    /// Header fields in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body (token requests by POST have one).
    pub body: Vec<u8>,
    /// Number of the connection it came by, counted from 1.
    pub connection: u64,
}

impl Request {
    /// The first header field of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All header fields of this name, joined with commas (RFC 9110 section 5.3).
    pub fn header_list(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The path without the query, decoded.
    pub fn path(&self) -> String {
        decode(self.target.split('?').next().unwrap_or_default(), false)
    }

    /// Every decoded value of a query parameter.
    pub fn query(&self, name: &str) -> Vec<String> {
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        pairs(query, name)
    }

    /// Every decoded value of a field of a form body.
    pub fn form(&self, name: &str) -> Vec<String> {
        pairs(&String::from_utf8_lossy(&self.body), name)
    }

    pub(super) fn wants_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn pairs(encoded: &str, name: &str) -> Vec<String> {
    encoded
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| decode(key, true) == name)
        .map(|(_, value)| decode(value, true))
        .collect()
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (escaped, bytes[at]) {
            (Some(byte), _) => {
                decoded.push(byte);
                at += 2;
            }
            (None, b'+') if plus_is_space => decoded.push(b' '),
            (None, byte) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Reads requests from one connection; keeps what arrived beyond the current one.
pub(super) struct Reader<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    connection: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(stream: &'a TcpStream, connection: u64) -> Self {
        Self { stream, buffer: Vec::new(), connection }
    }

    /// The next request; `None` when the client closed between requests.
    pub(super) fn next(&mut self) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(invalid("request head too large"));
            }
            // The first byte of TLS: said so at once, as most servers do, and not waited for.
            if self.buffer.first() == Some(&0x16) {
                let mut stream = self.stream;
                stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
                return Err(invalid("TLS"));
            }
            if !self.fill()? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(invalid("cut head")) };
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let mut request = parse(&head, self.connection)?;
        let length = match request.header("content-length") {
            Some(value) => value.parse().map_err(|_| invalid("content-length"))?,
            None => 0,
        };
        if length > MAX_BODY {
            return Err(invalid("request body too large"));
        }
        while self.buffer.len() < length {
            if !self.fill()? {
                return Err(invalid("cut body"));
            }
        }
        request.body = self.buffer.drain(..length).collect();
        Ok(Some(request))
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 8192];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }
}

fn parse(head: &[u8], connection: u64) -> io::Result<Request> {
    let head = std::str::from_utf8(head).map_err(|_| invalid("request head is not UTF-8"))?;
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid("request line"));
    };
    // A client that takes this server for a proxy names the whole address (RFC 9112, section 3.2.2).
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| invalid("header line"))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<io::Result<_>>()?;
    Ok(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: Vec::new(),
        connection,
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// One response; `Content-Length` is added when it is sent.
#[derive(Debug, Clone)]
pub struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Content,
    pub(super) delivery: Delivery,
}

impl Response {
    /// A response without header fields and with an empty body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Content::from(""), delivery: Delivery::default() }
    }

    /// An error as the distribution specification writes it: `{"errors":[{...}]}`.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"errors": [{"code": code, "message": message, "detail": null}]}))
    }

    /// A JSON document.
    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status).header("Content-Type", "application/json").body(value.to_string())
    }

    /// Adds a header field; one of the same name stays.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Replaces the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Content>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}
