use std::collections::HashMap;
use std::time::{Duration, Instant};

use layerstore::Digest;
use layerstore::fetch::Event;
use serde::Serialize;

use super::pull::Show;
use super::sum::Sum;
use crate::output::Messages;

/// How often the same is told of a blob: each blob's progress at most ten times a second.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is told how far all has come.
const SUM_PAUSE: Duration = Duration::from_secs(1);

/// A JSON object a line.
pub(super) struct Lines {
    messages: Messages,
    told: HashMap<Digest, Instant>,
    sum: Sum,
    summed: Instant,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "ref")]
    image: &'a str,
    #[serde(flatten)]
    event: Told,
}

/// The events, as programs read them: sizes in bytes, times in seconds.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Told {
    Resolved { digest: Digest },
    Planned { blobs: u64, bytes: u64 },
    Foreign { digest: Digest, size: u64, urls: Vec<String> },
    Dropped { digest: Digest, names: Vec<String>, freed: u64 },
    Reused { digest: Digest, size: u64 },
    Started { digest: Digest, size: u64, resumed: u64 },
    Advanced { digest: Digest, done: u64 },
    Waiting { digest: Digest, size: u64, done: u64, holder: String },
    Total { done: u64, bytes: u64, rate: Option<f64>, left: Option<f64> },
    Queued { host: String, holder: String },
    Paused { host: String, delay: f64 },
    Served { digest: Digest, origins: Vec<String> },
    Finished { digest: Digest, size: u64 },
    Retrying { what: String, delay: f64, reason: String },
}

impl Told {
    /// `None` for what is newer than this command.
    fn new(event: Event) -> Option<Told> {
        Some(match event {
            Event::Resolved { digest } => Told::Resolved { digest },
            Event::Planned { blobs, bytes } => Told::Planned { blobs, bytes },
            Event::Foreign { digest, size, urls } => Told::Foreign { digest, size, urls },
            Event::Dropped { digest, names, freed } => Told::Dropped { digest, names, freed },
            Event::Reused { digest, size } => Told::Reused { digest, size },
            Event::Started { digest, size, resumed } => Told::Started { digest, size, resumed },
            Event::Advanced { digest, done } => Told::Advanced { digest, done },
            Event::Waiting { digest, size, done, holder } => {
                Told::Waiting { digest, size, done, holder }
            }
            Event::Queued { host, holder } => Told::Queued { host, holder },
            Event::Paused { host, delay } => Told::Paused { host, delay: delay.as_secs_f64() },
            Event::Served { digest, origins } => {
                Told::Served { digest, origins: origins.iter().map(ToString::to_string).collect() }
            }
            Event::Finished { digest, size } => Told::Finished { digest, size },
            Event::Retrying { what, delay, reason } => {
                Told::Retrying { what, delay: delay.as_secs_f64(), reason }
            }
            _ => return None,
        })
    }
}

impl Lines {
    pub(super) fn new(messages: Messages) -> Lines {
        Lines { messages, told: HashMap::new(), sum: Sum::new(), summed: Instant::now() }
    }

    fn is_too_soon(&mut self, event: &Event) -> bool {
        let (Event::Advanced { digest, .. } | Event::Waiting { digest, .. }) = event else {
            return false;
        };
        let soon = self.told.get(digest).is_some_and(|told| told.elapsed() < PAUSE);
        if !soon {
            self.told.insert(*digest, Instant::now());
        }
        soon
    }
}

impl Show for Lines {
    fn show(&mut self, image: &str, event: Event) {
        let now = Instant::now();
        self.sum.hear(&event, now);
        if now - self.summed >= SUM_PAUSE
            && matches!(event, Event::Advanced { .. } | Event::Waiting { .. })
        {
            self.summed = now;
            let event = Told::Total {
                done: self.sum.done,
                bytes: self.sum.bytes,
                rate: self.sum.rate(now),
                left: self.sum.left(now).map(|left| left.as_secs_f64()),
            };
            self.messages.value(&Line { image, event });
        }
        if self.is_too_soon(&event) {
            return;
        }
        if let Some(event) = Told::new(event) {
            self.messages.value(&Line { image, event });
        }
    }

    fn end(&mut self) {
        self.told.clear();
        (self.sum, self.summed) = (Sum::new(), Instant::now());
    }
}
