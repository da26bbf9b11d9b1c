use std::collections::HashMap;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use layerstore::Digest;
use layerstore::fetch::Event;

use super::plain::Story;
use super::pull::Show;
use super::sum::Sum;
use crate::escape;
use crate::human;
use crate::output::Messages;

/// How often a second the terminal is drawn at most.
const HERTZ: u8 = 10;

/// A bar for each download under way and one for all of them; what is done becomes a line above.
pub(super) struct Bars {
    messages: Messages,
    story: Story,
    screen: MultiProgress,
    blobs: HashMap<Digest, ProgressBar>,
    total: Option<ProgressBar>,
    sum: Sum,
}

/// Bars on the standard error that lines of messages are printed above.
pub(super) fn screen(messages: &Messages) -> MultiProgress {
    let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(HERTZ));
    messages.draw(&screen);
    screen
}

pub(super) fn style() -> ProgressStyle {
    let template = "{prefix:12}  {bar:28}  {bytes:>10} / {total_bytes:>10}  {wide_msg}";
    // A template that cannot be parsed costs its looks and nothing else.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Bars {
    pub(super) fn new(messages: Messages) -> Bars {
        let screen = screen(&messages);
        let (story, blobs) = (Story::default(), HashMap::new());
        Bars { messages, story, screen, blobs, total: None, sum: Sum::new() }
    }

    fn draw(&mut self, event: &Event) {
        match event {
            Event::Planned { bytes, .. } => {
                let bar = self.screen.add(ProgressBar::new(*bytes).with_style(style()));
                bar.set_prefix("total");
                self.total = Some(bar);
            }
            Event::Started { digest, size, resumed } => {
                self.advance(digest, *size, *resumed, String::new());
            }
            Event::Advanced { digest, done } => self.advance(digest, 0, *done, String::new()),
            Event::Waiting { digest, size, done, holder } => {
                let holder = escape::line(holder);
                self.advance(digest, *size, *done, format!("by {holder}"));
            }
            Event::Finished { digest, size } => {
                self.advance(digest, *size, *size, String::new());
                if let Some(bar) = self.blobs.remove(digest) {
                    bar.finish_and_clear();
                    self.screen.remove(&bar);
                }
            }
            _ => {}
        }
        let now = Instant::now();
        self.sum.hear(event, now);
        if let Some(total) = &self.total {
            total.set_position(self.sum.done);
            total.set_message(self.sum.speed(now));
        }
    }

    fn advance(&mut self, digest: &Digest, size: u64, done: u64, message: String) {
        let bar = self.blobs.entry(*digest).or_insert_with(|| {
            let bar = ProgressBar::new(size).with_style(style());
            let bar = self.screen.insert_from_back(usize::from(self.total.is_some()), bar);
            bar.set_prefix(human::short(digest));
            bar
        });
        bar.set_position(done);
        bar.set_message(message);
    }
}

impl Show for Bars {
    fn show(&mut self, image: &str, event: Event) {
        self.draw(&event);
        if let Some(line) = self.story.line(image, &event) {
            self.messages.line(line);
        }
    }

    fn end(&mut self) {
        self.total = None;
        self.sum = Sum::new();
        self.blobs.clear();
        self.story = Story::default();
        // Fails only where the terminal does.
        let _ = self.screen.clear();
    }
}
