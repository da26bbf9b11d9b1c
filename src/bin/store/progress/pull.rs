use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use layerstore::fetch::{Event, Observer};

use super::Mode;
use super::bars::Bars;
use super::json::Lines as JsonLines;
use super::plain::Lines;
use crate::args::Progress;
use crate::output::Messages;

/// How many events may wait to be shown before those are left out of which the next says it all.
const QUEUE: usize = 1000;

/// Shows the events of pulls.
///
/// A thread of its own does: a terminal that takes nothing (Ctrl-S) must not stop the download.
pub(crate) struct PullProgress {
    steps: Sender<Step>,
    waiting: Arc<AtomicUsize>,
}

enum Step {
    /// Something happened in the pull of an image.
    Event(Arc<str>, Event),
    /// Whoever holds the other end waits until all before this is shown.
    Settle(Sender<()>),
}

/// A way to show events.
pub(super) trait Show {
    /// Shows an event of the pull of `image`.
    fn show(&mut self, image: &str, event: Event);

    /// The pull has ended, one way or the other.
    fn end(&mut self) {}
}

impl PullProgress {
    pub(crate) fn start(asked: Progress, messages: Messages) -> PullProgress {
        let (steps, queue) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let mode = Mode::new(asked, &messages);
        thread::spawn(move || match mode {
            Mode::Bars => run(Bars::new(messages), &queue, &counter),
            Mode::Plain => run(Lines::new(messages), &queue, &counter),
            Mode::Silent => run(Nothing, &queue, &counter),
            Mode::Json => run(JsonLines::new(messages), &queue, &counter),
        });
        PullProgress { steps, waiting }
    }

    /// Who tells of the pull of `image`.
    pub(crate) fn observer(&self, image: impl ToString) -> Observer {
        let image: Arc<str> = image.to_string().into();
        let (steps, waiting) = (self.steps.clone(), self.waiting.clone());
        Observer::new(move |event| {
            let repeated = matches!(event, Event::Advanced { .. } | Event::Waiting { .. });
            if repeated && waiting.load(Ordering::Relaxed) > QUEUE {
                return;
            }
            waiting.fetch_add(1, Ordering::Relaxed);
            // An error is the end of the thread: nobody looks any more.
            let _ = steps.send(Step::Event(image.clone(), event));
        })
    }

    /// Waits until everything is shown, and takes the bars away.
    pub(crate) fn settle(&self) {
        let (done, wait) = mpsc::channel();
        if self.steps.send(Step::Settle(done)).is_ok() {
            // An error is the end of the thread, which shows nothing more either.
            let _ = wait.recv();
        }
    }
}

fn run(mut show: impl Show, queue: &Receiver<Step>, waiting: &AtomicUsize) {
    for step in queue {
        match step {
            Step::Event(image, event) => {
                waiting.fetch_sub(1, Ordering::Relaxed);
                show.show(&image, event);
            }
            Step::Settle(done) => {
                show.end();
                let _ = done.send(());
            }
        }
    }
}

struct Nothing;

impl Show for Nothing {
    fn show(&mut self, _: &str, _: Event) {}
}
