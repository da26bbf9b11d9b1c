//! The store's settings: `.layerstore/config.toml`, written by `store config` or by hand.

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use toml_edit::{DocumentMut, Item, Value};

use super::BlobStore;
use super::layout::{Layout, read_small};
use super::refs;
use super::units::{parse_duration, parse_size};
use crate::error::{Error, IoContext, Result};
use crate::sys::Aside;

const NAME: &str = "config.toml";
/// The largest settings that are read.
const MAX_CONFIG: u64 = 64 * 1024;
/// How a new file begins. What people write into it stays.
const TEMPLATE: &str = "\
# The settings of this store, for every process that uses it. `store config KEY VALUE` changes a key
# and leaves comments as they are; see docs/cli.md. None is set until a line of yours sets it.
#
# The most that the store may take on disk, parts and all: a pull makes room first, or fails.
#   max-used-space = \"20G\"
# What is to stay free on the file system.
#   min-free-space = \"5G\"
# What the store may keep even if that leaves less free.
#   reserved-space = \"2G\"
# Images that were used within this time are not dropped to make room.
#   keep-duration = \"48h\"
# Whether the hashes of blobs' 16 KiB groups are kept, and compared when blobs are read.
#   group-hashes = true
";

/// One of the settings of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigKey {
    /// `max-used-space`: the most that the store may take on disk.
    MaxUsedSpace,
    /// `min-free-space`: what is to stay free on its file system.
    MinFreeSpace,
    /// `reserved-space`: what the store may keep whatever is free.
    ReservedSpace,
    /// `keep-duration`: how long after its last use an image is not dropped to make room.
    KeepDuration,
    /// `group-hashes`: whether hashes of blobs' groups are kept and compared.
    GroupHashes,
}

impl ConfigKey {
    /// All of them.
    pub const ALL: [ConfigKey; 5] = [
        ConfigKey::MaxUsedSpace,
        ConfigKey::MinFreeSpace,
        ConfigKey::ReservedSpace,
        ConfigKey::KeepDuration,
        ConfigKey::GroupHashes,
    ];

    /// The key, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            ConfigKey::MaxUsedSpace => "max-used-space",
            ConfigKey::MinFreeSpace => "min-free-space",
            ConfigKey::ReservedSpace => "reserved-space",
            ConfigKey::KeepDuration => "keep-duration",
            ConfigKey::GroupHashes => "group-hashes",
        }
    }
}

impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ConfigKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<ConfigKey> {
        ConfigKey::ALL.into_iter().find(|key| key.name() == text).ok_or_else(|| {
            let known = ConfigKey::ALL.map(ConfigKey::name).join(", ");
            invalid(text, format!("there is no such setting; there are {known}"))
        })
    }
}

/// How much room a store may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceLimits {
    /// The most that it may take on disk, in bytes.
    pub max_used: Option<u64>,
    /// What is to stay free on its file system, in bytes.
    pub min_free: Option<u64>,
    /// What it may keep in any case, in bytes.
    pub reserved: Option<u64>,
    /// Images that were used within this time are kept.
    pub keep: Option<Duration>,
}

impl SpaceLimits {
    /// Whether there is a limit at all.
    pub fn is_limited(&self) -> bool {
        self.max_used.is_some() || self.min_free.is_some()
    }
}

/// The settings of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreConfig {
    /// How much room it may take.
    pub space: SpaceLimits,
    /// Whether the hashes of blobs' groups are kept, where that is said.
    pub group_hashes: Option<bool>,
    /// The keys that this version does not know.
    pub unknown: Vec<String>,
    texts: Vec<(ConfigKey, String)>,
}

impl StoreConfig {
    /// A setting as it is written, if it is.
    pub fn text(&self, key: ConfigKey) -> Option<&str> {
        self.texts.iter().find(|(known, _)| *known == key).map(|(_, text)| text.as_str())
    }

    pub(super) fn parse(document: &DocumentMut) -> Result<StoreConfig, String> {
        let mut config = StoreConfig::default();
        for (name, item) in document.iter() {
            let Ok(key) = name.parse::<ConfigKey>() else {
                config.unknown.push(name.to_owned());
                continue;
            };
            let text =
                text_of(item).ok_or_else(|| format!("{key} is neither text nor a number"))?;
            config.set(key, &text).map_err(|reason| format!("{key}: {reason}"))?;
            config.texts.push((key, text));
        }
        Ok(config)
    }

    fn set(&mut self, key: ConfigKey, text: &str) -> Result<(), String> {
        match key {
            ConfigKey::MaxUsedSpace => self.space.max_used = Some(parse_size(text)?),
            ConfigKey::MinFreeSpace => self.space.min_free = Some(parse_size(text)?),
            ConfigKey::ReservedSpace => self.space.reserved = Some(parse_size(text)?),
            ConfigKey::KeepDuration => self.space.keep = Some(parse_duration(text)?),
            ConfigKey::GroupHashes => self.group_hashes = Some(parse_switch(text)?),
        }
        Ok(())
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("it is either on or off".to_owned()),
    }
}

fn text_of(item: &Item) -> Option<String> {
    match item.as_value()? {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Boolean(switch) => Some(if *switch.value() { "on" } else { "off" }.to_owned()),
        _ => None,
    }
}

fn invalid(key: &str, reason: String) -> Error {
    Error::InvalidSetting { key: key.to_owned(), reason }
}

/// The settings; all unset where there is no file.
pub(crate) fn read(layout: &Layout) -> Result<StoreConfig> {
    let Some(document) = document(layout)? else {
        return Ok(StoreConfig::default());
    };
    StoreConfig::parse(&document).map_err(|reason| unusable(layout, None, reason))
}

fn document(layout: &Layout) -> Result<Option<DocumentMut>> {
    let bytes = match read_small(&layout.private, NAME, MAX_CONFIG) {
        Err(error @ Error::TooLarge { .. }) => {
            return Err(unusable(layout, None, error.to_string()));
        }
        read => read?,
    };
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| unusable(layout, None, "it is not UTF-8".to_owned()))?;
    let parsed = text.parse::<DocumentMut>().map_err(|error| {
        let before = |span: std::ops::Range<usize>| text.get(..span.start);
        let line = error.span().and_then(before).map(|before| before.matches('\n').count() + 1);
        unusable(layout, line, error.message().to_owned())
    });
    parsed.map(Some)
}

fn unusable(layout: &Layout, line: Option<usize>, reason: String) -> Error {
    Error::Configuration { path: layout.private.path_of(NAME), line, reason }
}

/// Sets a key, or takes it out, durably. The rest of the file stays as it is.
fn change(layout: &Layout, key: ConfigKey, text: Option<&str>) -> Result<()> {
    if let Some(text) = text {
        let checked = StoreConfig::default().set(key, text);
        checked.map_err(|reason| invalid(key.name(), reason))?;
    }
    let lock = refs::lock(layout)?;
    let mut document = match document(layout)? {
        Some(document) => document,
        None => TEMPLATE.parse().map_err(|_| unusable(layout, None, "the template".to_owned()))?,
    };
    edit(&mut document, key, text);
    // What else is wrong in it is for people to set right, and not to be written anew as it is.
    StoreConfig::parse(&document).map_err(|reason| unusable(layout, None, reason))?;
    let text = document.to_string();
    if text.len() as u64 > MAX_CONFIG {
        let reason = format!("it has no room for another setting within {MAX_CONFIG} bytes");
        return Err(unusable(layout, None, reason));
    }
    let aside = Aside::hidden(&layout.private)?;
    aside.file().write_all(text.as_bytes()).context("write to", aside.path())?;
    aside.set_mode(0o644)?;
    aside.sync()?;
    aside.name_over(&layout.private, NAME)?;
    layout.private.sync()?;
    drop(lock);
    Ok(())
}

pub(super) fn edit(document: &mut DocumentMut, key: ConfigKey, text: Option<&str>) {
    let Some(text) = text else {
        document.remove(key.name());
        return;
    };
    let mut value = match (key, parse_switch(text)) {
        (ConfigKey::GroupHashes, Ok(switch)) => Value::from(switch),
        _ => Value::from(text),
    };
    match document.get_mut(key.name()).and_then(Item::as_value_mut) {
        // With what stands around it, a comment on its line for one.
        Some(known) => {
            *value.decor_mut() = known.decor().clone();
            *known = value;
        }
        None => {
            // Comments alone are an end to what follows nothing: they are to stand before.
            let is_first = document.is_empty();
            let mut comments = document.trailing().as_str().unwrap_or_default().to_owned();
            if comments.contains('#') && !comments.ends_with('\n') {
                comments.push('\n');
            }
            document.insert(key.name(), Item::Value(value));
            if is_first && let Some(mut key) = document.key_mut(key.name()) {
                key.leaf_decor_mut().set_prefix(comments);
                document.set_trailing("");
            }
        }
    }
}

impl BlobStore {
    /// The store's settings.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if the file makes no sense, [`Error::Io`].
    pub fn config(&self) -> Result<StoreConfig> {
        read(self.layout())
    }

    /// Sets one of the store's settings, or unsets it, durably. Comments and keys that are not known
    /// stay in the file as they are.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] if the key cannot have this value, [`Error::Configuration`] if what is
    /// there makes no sense, [`Error::Locked`], [`Error::NotDurable`], [`Error::NoSpace`],
    /// [`Error::Io`].
    pub fn set_config(&self, key: ConfigKey, value: Option<&str>) -> Result<()> {
        change(self.layout(), key, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreConfig, String> {
        StoreConfig::parse(&text.parse().map_err(|error| format!("{error}"))?)
    }

    #[test]
    fn the_template_sets_nothing_and_names_every_key() {
        assert_eq!(parse(TEMPLATE).unwrap(), StoreConfig::default());
        let uncommented: String = TEMPLATE
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = parse(&uncommented).unwrap();
        assert!(ConfigKey::ALL.iter().all(|key| config.text(*key).is_some()), "{config:?}");
    }

    #[test]
    fn a_comment_without_its_line_feed_does_not_take_in_what_is_set() {
        let mut document: DocumentMut = "# mine\n# none".parse().unwrap();
        edit(&mut document, ConfigKey::MaxUsedSpace, Some("20G"));
        assert_eq!(document.to_string(), "# mine\n# none\nmax-used-space = \"20G\"\n");
    }

    #[test]
    fn values_are_texts_or_numbers() {
        let config =
            parse("max-used-space = 1000\nkeep-duration = '2d'\nmine = [1]\n[table]\nx = 1")
                .unwrap();
        assert_eq!(config.space.max_used, Some(1000));
        assert_eq!(config.space.keep, Some(Duration::from_secs(172_800)));
        assert_eq!(config.unknown, ["mine", "table"]);
        for text in [
            "max-used-space = -1",
            "max-used-space = 1.5",
            "max-used-space = ''",
            "max-used-space = []",
            "min-free-space = true",
            "keep-duration = 7",
            "group-hashes = 'maybe'",
            "[max-used-space]",
            "max-used-space",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
