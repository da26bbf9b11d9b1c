use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

/// Options that stand before or after the command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The store's directory [default: /var/lib/layerstore for root, for others
    /// $XDG_DATA_HOME/layerstore or ~/.local/share/layerstore]
    #[arg(long, value_name = "DIR", env = "STORE_ROOT", hide_env_values = true, global = true)]
    pub(crate) root: Option<PathBuf>,

    /// Use a store that a group, or everybody, may write to: all of them are trusted
    #[arg(long, global = true)]
    pub(crate) shared: bool,

    /// Print the result as JSON: sizes in bytes, times in seconds of Unix time
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print nothing but results and errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more of what is done (-v), and why (-vv, -vvv)
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// How to show progress, on the standard error
    #[arg(long, global = true, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) progress: Progress,

    /// Whether the hashes of blobs' groups are kept, and compared when blobs are read [default: as
    /// `store config` says, else on]
    #[arg(
        long,
        global = true,
        value_name = "on|off",
        env = "STORE_GROUP_HASHES",
        hide_env_values = true,
        hide_possible_values = true,
        value_enum
    )]
    pub(crate) group_hashes: Option<Switch>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Bars on a terminal, else plain; with -q none
    #[default]
    Auto,
    /// A line for each blob
    Plain,
    /// Not at all
    None,
    /// A JSON object a line
    Json,
}
