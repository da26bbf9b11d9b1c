//! What the library logs, on the standard error.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::Messages;

/// Warnings always, as they say what went on in silence otherwise; more with each `-v`; errors
/// alone with `-q`. Of other crates it is never more than warnings, but with `-vvv`.
pub(crate) fn init(verbose: u8, messages: Messages) {
    let (ours, others) = match (messages.is_quiet(), verbose) {
        (true, _) => (LevelFilter::ERROR, LevelFilter::OFF),
        (false, 0) => (LevelFilter::WARN, LevelFilter::ERROR),
        (false, 1) => (LevelFilter::INFO, LevelFilter::WARN),
        (false, 2) => (LevelFilter::DEBUG, LevelFilter::WARN),
        (false, _) => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    let filter = Targets::new().with_default(others).with_target("layerstore", ours);
    let format = tracing_subscriber::fmt::layer()
        .without_time()
        .with_ansi(false)
        .with_target(verbose > 1)
        .with_writer(move || Line(messages.clone()));
    // Fails only if there is a subscriber already, and this is the only place that makes one.
    let _ = tracing_subscriber::registry().with(filter).with(format).try_init();
}

/// Takes one formatted event, which the subscriber writes at once.
struct Line(Messages);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.log(String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
