//! HTTP by hand, to look at a server without a client library's opinions in between.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::registry::Registry;

/// A read that takes longer fails the test.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One connection.
pub struct Client {
    stream: TcpStream,
    host: String,
    /// Received and not yet asked for.
    buffer: Vec<u8>,
}

/// One answer, as far as it came.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
    /// Why the body ended before its framing said so; none when it came whole.
    pub cut: Option<ErrorKind>,
}

impl Reply {
    /// The first header field of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

impl Client {
    /// A new connection to this registry.
    pub fn connect(registry: &Registry) -> Self {
        let host = registry.address();
        let stream = TcpStream::connect(&host).expect("the registry listens");
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self { stream, host, buffer: Vec::new() }
    }

    /// Asks, and waits for the whole answer.
    pub fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Reply> {
        self.send(method, target, headers)?;
        self.receive(method)
    }

    /// A GET that must be answered.
    pub fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, &[]).expect("an answer")
    }

    /// Sends a request without a body.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        self.send_with_body(method, target, headers, "")
    }

    /// Sends a request.
    pub fn send_with_body(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<()> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.stream.write_all(text.as_bytes())
    }

    /// Waits for the whole answer to a request of this method. An error means that there
    /// was no head; a body that was cut is no error.
    pub fn receive(&mut self, method: &str) -> io::Result<Reply> {
        let mut reply = self.head()?;
        if method == "HEAD" || matches!(reply.status, 204 | 304) {
            return Ok(reply);
        }
        let read = if reply.header("transfer-encoding") == Some("chunked") {
            self.chunks(&mut reply.body)
        } else if let Some(length) = reply.header("content-length") {
            let length = length.parse().expect("a length");
            self.exactly(length, &mut reply.body)
        } else {
            self.rest(&mut reply.body)
        };
        reply.cut = read.err().map(|error| error.kind());
        Ok(reply)
    }

    /// Waits for the head of an answer only.
    pub fn head(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            match self.line()? {
                line if line.is_empty() => break,
                line => lines.push(line),
            }
        }
        let status = lines[0].split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let status = status.expect("a status line");
        Ok(Reply { status, headers, body: Vec::new(), cut: None })
    }

    /// Waits for this many bytes of body.
    pub fn exactly(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let end = into.len() + length;
        loop {
            let taken = self.buffer.len().min(end - into.len());
            into.extend(self.buffer.drain(..taken));
            if into.len() == end {
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        into.append(&mut self.buffer);
        self.stream.read_to_end(into).map(drop)
    }

    /// Ends the sending direction; what is under way still comes in.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }

    fn chunks(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).expect("a chunk size");
            self.exactly(size, into)?;
            assert_eq!(self.line()?, "", "a chunk ends with a line break");
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.drain(..at + 2).take(at).collect();
                return Ok(String::from_utf8(line).expect("a head in UTF-8"));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}
