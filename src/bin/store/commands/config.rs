//! `store config`.

use layerstore::{BlobStore, ConfigKey, StoreConfig};
use serde::Serialize;

use super::Outcome;
use crate::args::Config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Report};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    max_used_space: Option<u64>,
    min_free_space: Option<u64>,
    reserved_space: Option<u64>,
    /// In seconds.
    keep_duration: Option<u64>,
    group_hashes: Option<bool>,
    unknown: Vec<String>,
    #[serde(skip)]
    texts: Vec<(ConfigKey, Option<String>)>,
}

impl Settings {
    fn new(config: &StoreConfig, keys: &[ConfigKey]) -> Settings {
        Settings {
            max_used_space: config.space.max_used,
            min_free_space: config.space.min_free,
            reserved_space: config.space.reserved,
            keep_duration: config.space.keep.map(|keep| keep.as_secs()),
            group_hashes: config.group_hashes,
            unknown: config.unknown.clone(),
            texts: keys.iter().map(|key| (*key, config.text(*key).map(str::to_owned))).collect(),
        }
    }
}

impl Report for Settings {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "not set".to_owned());
        match &self.texts[..] {
            [(_, text)] => text.iter().try_for_each(|text| out.line(text)),
            all => all.iter().try_for_each(|(key, text)| out.field(0, key.name(), shown(text))),
        }
    }
}

pub(super) fn run(store: &BlobStore, args: &Config, out: &mut Output) -> Outcome {
    if let Some(key) = args.unset {
        store.set_config(key, None)?;
    }
    if let (Some(key), Some(value)) = (args.key, &args.value) {
        store.set_config(key, Some(value))?;
    }
    let config = store.config()?;
    warn_of_unknown(&config, out);
    let asked = args.key.map(|key| [key]);
    let keys = asked.as_ref().map_or(&ConfigKey::ALL[..], |key| &key[..]);
    out.report(&Settings::new(&config, keys))?;
    Ok(match args.key {
        Some(key) if config.text(key).is_none() => Exit::NotFound,
        _ => Exit::Ok,
    })
}

/// A key that is misspelt does nothing: who relies on it should know.
pub(super) fn warn_of_unknown(config: &StoreConfig, out: &mut Output) {
    for key in &config.unknown {
        out.warn(format!("the store's config.toml has {key:?}, which this version does not know"));
    }
}
