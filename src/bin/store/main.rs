//! The command `store`: parse, call the library, print the report.
//!
//! It uses nothing of the library but its public names. What it prints, and every exit code, is in
//! `docs/cli.md`.

// The command is the caller that the library leaves these to: it reads its environment and the
// files that it is given by name.
#![allow(clippy::disallowed_methods)]
// Comments on arguments are help texts, where brackets mean what may be left out.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::bare_urls, rustdoc::invalid_html_tags)]

mod args;
mod commands;
mod credentials;
mod escape;
mod exit;
mod human;
mod image;
mod logging;
mod names;
mod output;
mod progress;
mod registries;
mod root;
mod runtime;
mod values;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use exit::{Exit, Failure};
use output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error).into(),
    };
    let mut out = Output::new(cli.global.json, cli.global.quiet);
    logging::init(cli.global.verbose, out.messages());
    let done = commands::run(cli, &mut out);
    let flushed = out.flush();
    let exit = match done.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit,
        Err(failure) => report(&failure, &mut out),
    };
    exit.into()
}

fn report(failure: &Failure, out: &mut Output) -> Exit {
    out.error(failure);
    failure.exit()
}
