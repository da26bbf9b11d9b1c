//! Puts a response on a socket, with all the ways in which that may go wrong.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::http::{Request, Response};
use super::record::Entry;
use super::signals::{Cut, Signals};

/// Bytes of body generated and written at once.
const CHUNK: u64 = 128 * 1024;

/// How a response travels. The default is what HTTP asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivery {
    /// Wait before the status line.
    pub delay: Duration,
    /// Close instead of answering.
    pub unanswered: bool,
    /// Wait after each byte of the head.
    pub head_pause: Duration,
    pub framing: Framing,
    /// What happens once this many body bytes are sent.
    pub events: Vec<(u64, Event)>,
    /// Offsets in the body of bytes that are inverted.
    pub corrupt: Vec<u64>,
    /// Bytes per second.
    pub throttle: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// A true `Content-Length`.
    #[default]
    Length,
    /// A `Content-Length` of this many bytes, whatever is sent.
    Declared(u64),
    /// No length: the body ends with the connection.
    UntilClose,
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Stall(Duration),
    Hold,
    Close,
    Reset,
}

impl From<Cut> for io::Error {
    fn from(_: Cut) -> Self {
        Self::new(ErrorKind::ConnectionAborted, "the wait was cut short")
    }
}

pub(super) struct Sender<'a> {
    pub stream: &'a TcpStream,
    pub signals: &'a Signals,
    pub entry: &'a Entry,
}

impl Sender<'_> {
    /// Sends the response; returns whether the connection may serve another request.
    pub(super) fn send(&self, request: &Request, response: &Response) -> io::Result<bool> {
        let delivery = &response.delivery;
        if !delivery.delay.is_zero() {
            self.signals.sleep(delivery.delay, self.stream)?;
        }
        if delivery.unanswered {
            return Ok(false);
        }
        let bodiless = request.method == "HEAD" || matches!(response.status, 204 | 304);
        let closes = request.wants_close()
            || match delivery.framing {
                Framing::Length | Framing::Chunked => false,
                Framing::UntilClose => true,
                Framing::Declared(length) => length != response.body.len(),
            };
        self.entry.status(response.status);
        self.head(&head(response, closes), delivery.head_pause)?;
        if bodiless {
            return Ok(!closes);
        }
        let whole = self.body(response)?;
        Ok(whole && !closes)
    }

    fn head(&self, head: &str, pause: Duration) -> io::Result<()> {
        let mut stream = self.stream;
        if pause.is_zero() {
            return stream.write_all(head.as_bytes());
        }
        for byte in head.as_bytes() {
            stream.write_all(&[*byte])?;
            self.signals.sleep(pause, self.stream)?;
        }
        Ok(())
    }

    /// Sends the body up to its end or to the event that cuts it; returns whether it went
    /// out whole.
    fn body(&self, response: &Response) -> io::Result<bool> {
        let delivery = &response.delivery;
        let mut events = delivery.events.clone();
        events.sort_by_key(|(at, _)| *at);
        let mut pace = delivery.throttle.map(Pace::new);
        let mut sent = 0;
        for (at, event) in events {
            let until = at.min(response.body.len());
            self.span(response, &mut sent, until, &mut pace)?;
            match event {
                Event::Stall(duration) => self.signals.sleep(duration, self.stream)?,
                Event::Hold => self.signals.hold(self.stream)?,
                Event::Close => return Ok(false),
                Event::Reset => {
                    // With no linger time, close sends RST instead of FIN.
                    SockRef::from(self.stream).set_linger(Some(Duration::ZERO))?;
                    return Ok(false);
                }
            }
        }
        self.span(response, &mut sent, response.body.len(), &mut pace)?;
        if delivery.framing == Framing::Chunked {
            let mut stream = self.stream;
            stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(true)
    }

    fn span(
        &self,
        response: &Response,
        sent: &mut u64,
        until: u64,
        pace: &mut Option<Pace>,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        while *sent < until {
            let most = pace.as_ref().map_or(CHUNK, |pace| pace.step);
            let length = (until - *sent).min(most);
            buffer.resize(usize::try_from(length).expect("a chunk is small"), 0);
            response.body.read_at(*sent, &mut buffer);
            for at in &response.delivery.corrupt {
                if (*sent..*sent + length).contains(at) {
                    buffer[(at - *sent) as usize] ^= 0xff;
                }
            }
            self.piece(&buffer, response.delivery.framing == Framing::Chunked)?;
            *sent += length;
            if let Some(pace) = pace {
                let wait = pace.wait(length);
                if !wait.is_zero() {
                    self.signals.sleep(wait, self.stream)?;
                }
            }
        }
        Ok(())
    }

    fn piece(&self, mut bytes: &[u8], chunked: bool) -> io::Result<()> {
        let mut stream = self.stream;
        if chunked {
            stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        }
        self.entry.sending(bytes.len() as u64);
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(written) if written > 0 => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => {
                    self.entry.unsent(bytes.len() as u64);
                    return Err(outcome.err().unwrap_or_else(|| ErrorKind::WriteZero.into()));
                }
            }
        }
        if chunked { stream.write_all(b"\r\n") } else { Ok(()) }
    }
}

fn head(response: &Response, closes: bool) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a string takes every write");
    }
    let length = match response.delivery.framing {
        Framing::Length => Some(response.body.len()),
        Framing::Declared(length) => Some(length),
        Framing::UntilClose | Framing::Chunked => None,
    };
    match length {
        Some(length) if !matches!(response.status, 204 | 304) => {
            write!(head, "Content-Length: {length}\r\n").expect("a string takes every write");
        }
        _ => {}
    }
    if response.delivery.framing == Framing::Chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    }
    if closes {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

/// Keeps a body to a rate by saying how long to wait after each step.
struct Pace {
    rate: u64,
    /// Bytes between two waits: a fiftieth of a second's worth.
    step: u64,
    started: Instant,
    sent: u64,
}

impl Pace {
    fn new(rate: u64) -> Self {
        let rate = rate.max(1);
        Self { rate, step: (rate / 50).clamp(1, CHUNK), started: Instant::now(), sent: 0 }
    }

    fn wait(&mut self, bytes: u64) -> Duration {
        self.sent += bytes;
        let due = Duration::from_secs_f64(self.sent as f64 / self.rate as f64);
        due.saturating_sub(self.started.elapsed())
    }
}
