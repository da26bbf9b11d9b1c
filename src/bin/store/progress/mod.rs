//! Shows how far something has come, on the standard error.

mod bars;
mod check;
mod json;
mod plain;
mod pull;
mod sum;

pub(crate) use check::CheckProgress;
pub(crate) use pull::PullProgress;

use crate::args::Progress;
use crate::output::Messages;

/// How progress is shown here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Bars,
    Plain,
    Silent,
    Json,
}

impl Mode {
    fn new(asked: Progress, messages: &Messages) -> Mode {
        match asked {
            Progress::Auto if messages.is_quiet() => Mode::Silent,
            Progress::Auto if messages.can_draw() => Mode::Bars,
            Progress::Auto | Progress::Plain => Mode::Plain,
            Progress::None => Mode::Silent,
            Progress::Json => Mode::Json,
        }
    }
}
