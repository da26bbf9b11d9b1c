use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar};
use serde::Serialize;

use super::Mode;
use super::bars::{screen, style};
use super::plain;
use crate::args::Progress;
use crate::human;
use crate::output::Messages;

const PAUSE: Duration = Duration::from_millis(100);

/// Shows how much of a store was read: a bar, a line now and then, a JSON object a line, or nothing.
pub(crate) struct CheckProgress {
    show: Show,
}

enum Show {
    Bar(MultiProgress, Option<ProgressBar>),
    Json(Messages, Option<Instant>),
    Lines(Messages, Instant),
    Nothing,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    event: &'static str,
    blobs: u64,
    total_blobs: u64,
    bytes: u64,
    total_bytes: u64,
}

impl CheckProgress {
    pub(crate) fn new(asked: Progress, messages: Messages) -> CheckProgress {
        let show = match Mode::new(asked, &messages) {
            Mode::Bars => Show::Bar(screen(&messages), None),
            Mode::Json => Show::Json(messages, None),
            Mode::Plain => Show::Lines(messages, Instant::now()),
            Mode::Silent => Show::Nothing,
        };
        CheckProgress { show }
    }

    pub(crate) fn show(&mut self, step: &layerstore::CheckProgress) {
        match &mut self.show {
            Show::Bar(screen, bar) => {
                let bar = bar.get_or_insert_with(|| {
                    let bar = ProgressBar::new(step.total_bytes).with_style(style());
                    let bar = screen.add(bar);
                    bar.set_prefix("reading");
                    bar
                });
                bar.set_position(step.bytes);
            }
            Show::Json(messages, told) => {
                if told.is_none_or(|told| told.elapsed() >= PAUSE) {
                    *told = Some(Instant::now());
                    messages.value(&Line {
                        event: "read",
                        blobs: step.blobs,
                        total_blobs: step.total_blobs,
                        bytes: step.bytes,
                        total_bytes: step.total_bytes,
                    });
                }
            }
            Show::Lines(messages, said) => {
                if said.elapsed() >= plain::PAUSE {
                    *said = Instant::now();
                    let (read, all) = (
                        human::size(step.bytes.min(step.total_bytes)),
                        human::size(step.total_bytes),
                    );
                    messages.line(format!("read {read} of {all}"));
                }
            }
            Show::Nothing => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if let Show::Bar(screen, _) = &self.show {
            // Fails only where the terminal does.
            let _ = screen.clear();
        }
    }
}
