//! The options of `store config`.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use layerstore::ConfigKey;

pub(super) const CONFIG_HELP: &str = "\
Examples:
  store config                           every setting
  store config max-used-space 20G        the store never takes more: a pull makes room, or fails
  store config --unset max-used-space";

#[derive(Args, Debug)]
pub(crate) struct Config {
    /// Take a setting out
    #[arg(long, value_name = "KEY", value_parser = keys(), conflicts_with_all = ["key", "value"])]
    pub(crate) unset: Option<ConfigKey>,

    /// The setting
    #[arg(value_name = "KEY", value_parser = keys())]
    pub(crate) key: Option<ConfigKey>,

    /// What it is to be: a size as 20G, a duration as 48h, or on or off
    #[arg(value_name = "VALUE")]
    pub(crate) value: Option<String>,
}

fn keys() -> impl TypedValueParser<Value = ConfigKey> {
    let names = ConfigKey::ALL.map(ConfigKey::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<ConfigKey>())
}
