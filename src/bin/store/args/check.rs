//! The options of `store check`.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::AuthFile;
use crate::values;

pub(super) const CHECK_HELP: &str = "\
Examples:
  store check --quick                         in a moment: what is there, and what is missing
  store check --subset 5% --limit-rate 50M    every day: all of it in about three weeks
  store check --since 30d                     what no check has read for 30 days
  store check --read-data                     the digest of every blob
  store check --repair                        mend what is damaged or missing
  store check --repair --quick                only what is missing";

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Read no layer: look only at names, sizes, and what the images lead to
    #[arg(long, conflicts_with_all = ["read_data", "since", "subset", "limit_rate"])]
    pub(crate) quick: bool,

    /// Compare every blob with its digest, which takes longer than by the hashes of its groups
    #[arg(long)]
    pub(crate) read_data: bool,

    /// Read only what no check has read, and found good, for so long: 12h, 7d
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) since: Option<Duration>,

    /// Read only so much of it, what was read the longest ago first: 5%, 0.5%
    #[arg(long, value_name = "PERCENT", value_parser = values::hundredths)]
    pub(crate) subset: Option<u32>,

    /// Read no more than so many bytes a second, and with --repair fetch no more: 500k, 20M
    #[arg(long, value_name = "SIZE", value_parser = values::rate)]
    pub(crate) limit_rate: Option<NonZeroU64>,

    /// Mend what was found: of a damaged blob what is wrong is fetched from where it came, index.json
    /// is rebuilt from its copy, and what cannot be had is put in quarantine
    #[arg(long)]
    pub(crate) repair: bool,

    /// Speak HTTP without TLS with this registry; may be repeated
    #[arg(long, value_name = "HOST[:PORT]", requires = "repair")]
    pub(crate) plain_http: Vec<String>,

    /// Trust the certificate authorities in this PEM file as well
    #[arg(long, value_name = "FILE", requires = "repair")]
    pub(crate) ca_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) auth_file: AuthFile,
}
