//! The options of `store df`.

use std::path::PathBuf;

use clap::Args;

pub(super) const DF_HELP: &str = "\
Examples:
  store df                       by kind, by what keeps it, and by image
  store df -v --json             every blob too, for programs
  store df --html usage.html     a page to look at: what fills the store, and who shares it";

#[derive(Args, Debug)]
pub(crate) struct Df {
    /// Write a page for a browser, which needs nothing else; - is the standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}
