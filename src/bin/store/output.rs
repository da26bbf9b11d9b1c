//! The only place that prints: results to the standard output, everything else to the standard
//! error, and nothing of others that was not made visible first (see `escape`).

use std::borrow::Cow;
use std::env;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::MultiProgress;
use serde::Serialize;

use crate::escape;
use crate::exit::{Exit, Failure};

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";

/// What a command found out or did: a JSON document, or text for people.
pub(crate) trait Report: Serialize {
    /// Prints the text.
    fn text(&self, out: &mut Output) -> Result<(), Failure>;
}

/// The standard output, and the way to the standard error.
pub(crate) struct Output {
    json: bool,
    stdout: BufWriter<Stdout>,
    terminal: bool,
    colour: bool,
    /// Whether the reader of a pipe has gone: then there is nobody left to print for, and what was
    /// to be done is done all the same.
    closed: bool,
    messages: Messages,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Output {
        let terminal = io::stdout().is_terminal();
        Output {
            json,
            stdout: BufWriter::with_capacity(64 * 1024, io::stdout()),
            terminal,
            colour: terminal && colour_is_welcome(),
            closed: false,
            messages: Messages::new(quiet),
        }
    }

    /// Whether results are JSON documents.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The way to the standard error, for those that have no `Output`.
    pub(crate) fn messages(&self) -> Messages {
        self.messages.clone()
    }

    /// Prints a report in the form that was asked for.
    pub(crate) fn report(&mut self, report: &impl Report) -> Result<(), Failure> {
        match self.json {
            true => {
                self.value(report)?;
                self.write(b"\n")
            }
            false => report.text(self),
        }
    }

    /// Prints a JSON list as its items come, each on a line of its own. The first error ends it,
    /// and leaves it open: a list that was cut short must not look like a whole one.
    pub(crate) fn array<T: Serialize>(
        &mut self,
        items: impl IntoIterator<Item = Result<T, Failure>>,
    ) -> Result<(), Failure> {
        self.write(b"[")?;
        for (n, item) in items.into_iter().enumerate() {
            self.write(if n == 0 { b"\n" } else { b",\n" })?;
            self.value(&item?)?;
            if self.closed {
                return Ok(());
            }
        }
        self.write(b"\n]\n")
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.write(escape::line(text.as_ref()).as_bytes())?;
        self.write(b"\n")
    }

    /// Prints a heading: a line that is bold on a terminal.
    pub(crate) fn heading(&mut self, text: &str) -> Result<(), Failure> {
        let text = styled(self.colour, BOLD, &escape::line(text));
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Prints a name and its value, `indent` steps in.
    pub(crate) fn field(
        &mut self,
        indent: usize,
        name: &str,
        value: impl Display,
    ) -> Result<(), Failure> {
        self.entry(indent, &format!("{name}:"), value)
    }

    /// Prints the items of a list beside its name: that of the first item, nothing for the others.
    pub(crate) fn items<T: Display>(
        &mut self,
        indent: usize,
        name: &str,
        items: impl IntoIterator<Item = T>,
    ) -> Result<(), Failure> {
        let mut name = format!("{name}:");
        for item in items {
            self.entry(indent, &name, item)?;
            name.clear();
        }
        Ok(())
    }

    fn entry(&mut self, indent: usize, name: &str, value: impl Display) -> Result<(), Failure> {
        let left = "";
        self.line(format!("{left:indent$}{name:<14} {value}", indent = 2 * indent))
    }

    /// Prints rows below their titles, each column as wide as it must be.
    pub(crate) fn table<const N: usize>(
        &mut self,
        titles: [Column; N],
        rows: &[[String; N]],
    ) -> Result<(), Failure> {
        let rows: Vec<[(Cow<'_, str>, usize); N]> =
            rows.iter().map(|row| row.each_ref().map(|cell| shown(cell))).collect();
        let titles_shown = titles.each_ref().map(|column| shown(column.title));
        let width = |n: usize| {
            let cells = rows.iter().chain([&titles_shown]).map(|row| row[n].1);
            cells.max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let mut line = String::new();
        let mut align = |cells: &[(Cow<'_, str>, usize); N]| {
            line.clear();
            for (n, (cell, len)) in cells.iter().enumerate() {
                let gap = if n == 0 { 0 } else { 2 };
                let (pad, right) = (widths[n] - len, titles[n].right);
                line.extend(iter::repeat_n(' ', if right { gap + pad } else { gap }));
                line.push_str(cell);
                line.extend(iter::repeat_n(' ', if right { 0 } else { pad }));
            }
            line.trim_end().to_owned()
        };
        let heading = align(&titles_shown);
        self.heading(&heading)?;
        for row in &rows {
            self.line(align(row))?;
        }
        Ok(())
    }

    /// Prints a blob's bytes as they are; on a terminal made visible.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.terminal {
            true => self.write(escape::bytes(bytes).as_bytes()),
            false => self.write(bytes),
        }
    }

    /// Sends on what is still held back.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        match self.closed {
            true => Ok(()),
            false => {
                let flushed = self.stdout.flush();
                self.settle(flushed)
            }
        }
    }

    /// Says why the command failed.
    pub(crate) fn error(&mut self, failure: impl Display) {
        self.in_order(|messages| messages.error(failure));
    }

    /// Says what people should know; not with `-q`.
    pub(crate) fn warn(&mut self, text: impl Display) {
        self.in_order(|messages| messages.warn(text));
    }

    /// A message must not overtake what was printed before it.
    fn in_order(&mut self, print: impl FnOnce(&Messages)) {
        // An error stays in the buffer, and the last flush reports it.
        let _ = self.flush();
        print(&self.messages);
    }

    fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.write(&json(value).map_err(Failure::Output)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let written = self.stdout.write_all(bytes);
        self.settle(written)
    }

    fn settle(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.map_err(Failure::Output),
        }
    }
}

/// A cell as it is printed, and how many characters it has.
fn shown(cell: &str) -> (Cow<'_, str>, usize) {
    let cell = escape::line(cell);
    let len = cell.chars().count();
    (cell, len)
}

/// A column of a table.
pub(crate) struct Column {
    title: &'static str,
    right: bool,
}

impl Column {
    /// A column of text.
    pub(crate) fn left(title: &'static str) -> Column {
        Column { title, right: false }
    }

    /// A column of numbers.
    pub(crate) fn right(title: &'static str) -> Column {
        Column { title, right: true }
    }
}

/// The standard error. Clones are the same.
#[derive(Clone)]
pub(crate) struct Messages {
    quiet: bool,
    terminal: bool,
    colour: bool,
    /// The bars that stand on the terminal, which a line must not run into.
    bars: Arc<Mutex<Option<MultiProgress>>>,
}

impl Messages {
    fn new(quiet: bool) -> Messages {
        let terminal = io::stderr().is_terminal();
        let colour = terminal && colour_is_welcome();
        Messages { quiet, terminal, colour, bars: Arc::default() }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether there is a terminal that bars can be drawn on.
    pub(crate) fn can_draw(&self) -> bool {
        self.terminal && env::var_os("TERM").is_some_and(|term| term != "dumb")
    }

    /// Puts bars onto the terminal, below all lines.
    pub(crate) fn draw(&self, bars: &MultiProgress) {
        *self.bars.lock().unwrap_or_else(PoisonError::into_inner) = Some(bars.clone());
    }

    /// Says why something failed.
    pub(crate) fn error(&self, text: impl Display) {
        let label = styled(self.colour, RED, "error:");
        self.print(&format!("{label} {}", escape::line(&text.to_string())));
    }

    /// Says what people should know; not with `-q`.
    pub(crate) fn warn(&self, text: impl Display) {
        if !self.quiet {
            let label = styled(self.colour, YELLOW, "warning:");
            self.print(&format!("{label} {}", escape::line(&text.to_string())));
        }
    }

    /// Prints an event of the log, or of what goes on.
    pub(crate) fn line(&self, line: impl AsRef<str>) {
        self.print(&escape::line(line.as_ref()));
    }

    /// Prints an event for programs.
    pub(crate) fn value(&self, value: &impl Serialize) {
        if let Ok(json) = json(value) {
            self.print(&String::from_utf8_lossy(&json));
        }
    }

    /// Prints a line at once, so that those of several threads or processes do not mix.
    fn print(&self, line: &str) {
        // Where the standard error is gone there is nobody to tell.
        let print = || drop(io::stderr().write_all(format!("{line}\n").as_bytes()));
        match &*self.bars.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// Prints what clap has to say: help and version as results, errors as messages.
pub(crate) fn usage(error: &clap::Error) -> Exit {
    let plain = error.render().to_string();
    let shown = escape::text(&plain);
    // Either stream may be closed, as by `--help | head -1`, which is no error.
    let _ = match (shown == plain, error.use_stderr()) {
        (true, _) => error.print(),
        (false, true) => io::stderr().write_all(shown.as_bytes()),
        (false, false) => io::stdout().write_all(shown.as_bytes()),
    };
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// A value as JSON that is harmless to a terminal.
fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, escape::Json);
    value.serialize(&mut serializer)?;
    Ok(json)
}

fn styled(colour: bool, style: &str, text: &str) -> String {
    match colour {
        true => format!("{style}{text}{RESET}"),
        false => text.to_owned(),
    }
}

/// See <https://no-color.org>: any value but an empty one turns colour off.
fn colour_is_welcome() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_some_and(|term| term != "dumb")
}
