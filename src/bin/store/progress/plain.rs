use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use layerstore::Digest;
use layerstore::fetch::Event;

use super::pull::Show;
use super::sum::Sum;
use crate::human;
use crate::output::Messages;

/// How often it is said how far all has come.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// A line for each blob, and now and then one for all of them.
pub(super) struct Lines {
    messages: Messages,
    story: Story,
    sum: Sum,
    said: Instant,
}

/// What was heard of the blobs so far, to tell of each how it came to be there.
#[derive(Default)]
pub(super) struct Story {
    /// Downloads that began, with what was there from an earlier one, in bytes.
    started: HashMap<Digest, u64>,
    awaited: HashSet<Digest>,
    /// Hosts that a connection was waited for.
    queued: HashSet<String>,
}

impl Lines {
    pub(super) fn new(messages: Messages) -> Lines {
        Lines { messages, story: Story::default(), sum: Sum::new(), said: Instant::now() }
    }
}

impl Show for Lines {
    fn show(&mut self, image: &str, event: Event) {
        if let Some(line) = self.story.line(image, &event) {
            self.messages.line(line);
        }
        let now = Instant::now();
        self.sum.hear(&event, now);
        if now - self.said >= PAUSE
            && matches!(event, Event::Advanced { .. } | Event::Waiting { .. })
        {
            self.said = now;
            let (done, bytes) = (human::size(self.sum.done), human::size(self.sum.bytes));
            self.messages.line(format!("{image}: {done} of {bytes}, {}", self.sum.speed(now)));
        }
    }

    fn end(&mut self) {
        self.story = Story::default();
        (self.sum, self.said) = (Sum::new(), Instant::now());
    }
}

impl Story {
    /// What an event is worth telling once.
    pub(super) fn line(&mut self, image: &str, event: &Event) -> Option<String> {
        match event {
            Event::Planned { blobs, bytes } => {
                let blobs = human::count(*blobs, "blob");
                Some(format!("{image}: {blobs}, {}", human::size(*bytes)))
            }
            Event::Foreign { digest, size, .. } => {
                let text =
                    format!("{}, left out; --include-foreign fetches it", human::size(*size));
                Some(line(digest, "foreign", text))
            }
            Event::Dropped { digest, names, freed } => {
                let text = format!("{}, to make room: {}", human::size(*freed), names.join(" "));
                Some(line(digest, "dropped", text))
            }
            Event::Reused { digest, size } => Some(line(digest, "there", human::size(*size))),
            Event::Started { digest, resumed, .. } => {
                self.started.insert(*digest, *resumed);
                None
            }
            Event::Waiting { digest, holder, .. } => {
                let first = self.awaited.insert(*digest);
                first.then(|| line(digest, "waiting", format!("held by {holder}")))
            }
            Event::Queued { host, holder } => {
                let first = self.queued.insert(host.clone());
                first.then(|| format!("{host}: waiting for a connection, held by {holder}"))
            }
            Event::Paused { host, delay } => {
                let seconds = delay.as_secs_f64();
                Some(format!("{host}: it asked to be left alone, going on in {seconds:.1} s"))
            }
            Event::Finished { digest, size } => Some(self.finished(digest, *size)),
            Event::Retrying { what, delay, reason } => {
                let seconds = delay.as_secs_f64();
                Some(format!("{what}: trying again in {seconds:.1} s: {reason}"))
            }
            _ => None,
        }
    }

    fn finished(&self, digest: &Digest, size: u64) -> String {
        match self.started.get(digest) {
            Some(0) => line(digest, "fetched", human::size(size)),
            Some(resumed) => {
                let resumed = human::size(*resumed);
                let text = format!("{}, {resumed} of it by an earlier pull", human::size(size));
                line(digest, "fetched", text)
            }
            None => line(digest, "there", format!("{}, by another process", human::size(size))),
        }
    }
}

fn line(digest: &Digest, what: &str, text: String) -> String {
    format!("{}  {what:<7}  {text}", human::short(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blob_has_one_line_that_says_how_it_came() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|x| layerstore::oci::Algorithm::Sha256.digest(x));
        let mut story = Story::default();
        let mut told = Vec::new();
        let waiting = |done| Event::Waiting { digest: c, size: 9, done, holder: "7".into() };
        for event in [
            Event::Started { digest: a, size: 2048, resumed: 0 },
            Event::Started { digest: b, size: 2048, resumed: 1024 },
            Event::Advanced { digest: a, done: 1024 },
            waiting(1),
            waiting(2),
            Event::Queued { host: "https://r".into(), holder: "8".into() },
            Event::Queued { host: "https://r".into(), holder: "9".into() },
            Event::Paused { host: "https://r".into(), delay: Duration::from_millis(1500) },
            Event::Finished { digest: a, size: 2048 },
            Event::Finished { digest: b, size: 2048 },
            Event::Finished { digest: c, size: 9 },
        ] {
            told.extend(story.line("i", &event));
        }
        let expected = [
            "2e7d2c03a950  waiting  held by 7",
            "https://r: waiting for a connection, held by 8",
            "https://r: it asked to be left alone, going on in 1.5 s",
            "ca978112ca1b  fetched  2.0 KiB",
            "3e23e8160039  fetched  2.0 KiB, 1.0 KiB of it by an earlier pull",
            "2e7d2c03a950  there    9 B, by another process",
        ];
        assert_eq!(told, expected);
    }
}
