//! The options of `store gc`.

use std::time::Duration;

use clap::Args;

use crate::values;

pub(super) const GC_HELP: &str = "\
Limits that are not given are as `store config` says. Over them, images go that were used the longest ago,
but for those that are pinned, kept by a lease, or used within the time to keep them; before these,
downloads that nobody goes on with. If that is not enough the exit code is 9.

Examples:
  store gc --dry-run                          what would be removed
  store gc --grace 0s                         also what was written a moment ago
  store gc --max-used-space 20G               drop images until the store takes no more
  store gc --why alpine:3.20                  what keeps it, or whether it would go";

#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// Remove nothing, only say what would be
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Keep blobs younger than this, for tools that write blobs first and name them later:
    /// 90s, 30m, 1h30m, 7d [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) grace: Option<Duration>,

    /// The most that the store may take on disk, as 500M or 20G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) max_used_space: Option<u64>,

    /// What is to be free on its file system
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) min_free_space: Option<u64>,

    /// What the store may keep even if that leaves less free
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) reserved_space: Option<u64>,

    /// Keep images that were used within this time
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) keep_duration: Option<Duration>,

    /// Remove nothing: say why a blob, or an image, is kept, or that it would go
    #[arg(long, value_name = "DIGEST|REF", conflicts_with = "dry_run")]
    pub(crate) why: Option<String>,
}
