//! `registries.conf`, version 2: containers-registries.conf(5).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::toml_file::{parse, wrong};
use crate::error::Result;
use crate::oci::Reference;

/// What one or several files say together.
#[derive(Clone, Debug, Default)]
pub(super) struct RegistriesConf {
    registries: Vec<Registry>,
    aliases: BTreeMap<String, String>,
}

/// A `[[registry]]`: what holds for all names that begin with its prefix.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) prefix: String,
    /// What stands in the place of the prefix; nothing for the name as it is.
    pub(super) location: Option<String>,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
    /// The file that says so.
    pub(super) path: PathBuf,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) serves: Serves,
}

/// Which names a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Serves {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Serves {
    pub(super) fn includes(self, image: &Reference) -> bool {
        match self {
            Serves::All => true,
            Serves::DigestOnly => image.digest().is_some(),
            Serves::TagOnly => image.digest().is_none(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileV2 {
    #[serde(default)]
    registry: Vec<RegistryEntry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// The section of version 1.
    registries: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryEntry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Serves>,
}

impl RegistriesConf {
    /// Takes another file in. Its registries replace those of the same prefix, its aliases those
    /// of the same name; an alias for nothing takes one away.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let file: FileV2 = parse(path, text)?;
        if file.registries.is_some() {
            return Err(wrong(
                path,
                "it is in version 1 of the format; write [[registry]] instead",
            ));
        }
        for entry in file.registry {
            let registry = entry.check(path)?;
            self.registries.retain(|known| known.prefix != registry.prefix);
            self.registries.push(registry);
        }
        self.aliases.extend(file.aliases);
        self.aliases.retain(|_, name| !name.is_empty());
        Ok(())
    }

    /// The registry whose prefix is the longest that fits, and the length of what fits.
    pub(super) fn find(&self, name: &str) -> Option<(&Registry, usize)> {
        let fitting = self.registries.iter().filter_map(|it| Some((it, fit(name, &it.prefix)?)));
        fitting.max_by_key(|(it, _)| it.prefix.len())
    }

    /// The name that a short name, without tag and digest, stands for.
    pub(super) fn alias(&self, short: &str) -> Option<&str> {
        self.aliases.get(short).map(String::as_str)
    }
}

impl RegistryEntry {
    fn check(self, path: &Path) -> Result<Registry> {
        let prefix = location(path, &self.prefix)?;
        let location = location(path, &self.location)?;
        let wildcard = prefix.starts_with("*.");
        let prefix = match (prefix.is_empty(), location.is_empty()) {
            (true, true) => return Err(wrong(path, "a registry has neither prefix nor location")),
            (true, false) => location.clone(),
            (false, true) if !wildcard => {
                return Err(wrong(path, format!("the registry {prefix:?} has no location")));
            }
            (false, _) => prefix,
        };
        if prefix.contains('*') && (!wildcard || prefix[1..].contains('*')) {
            let reason = format!("the prefix {prefix:?} has a * elsewhere than in *. at its start");
            return Err(wrong(path, reason));
        }
        let by_digest = self.mirror_by_digest_only;
        let mirrors = self.mirror.into_iter().map(|entry| entry.check(path, &prefix, by_digest));
        Ok(Registry {
            mirrors: mirrors.collect::<Result<_>>()?,
            location: (!location.is_empty()).then_some(location),
            insecure: self.insecure,
            blocked: self.blocked,
            path: path.into(),
            prefix,
        })
    }
}

impl MirrorEntry {
    fn check(self, path: &Path, prefix: &str, by_digest: bool) -> Result<Mirror> {
        let location = location(path, &self.location)?;
        if location.is_empty() || location.contains('*') {
            return Err(wrong(path, format!("a mirror of {prefix:?} has no usable location")));
        }
        let serves = match (by_digest, self.pull_from_mirror) {
            (true, Some(_)) => {
                let reason = format!(
                    "{prefix:?} has both mirror-by-digest-only and a mirror with pull-from-mirror: \
                     say it once"
                );
                return Err(wrong(path, reason));
            }
            (true, None) => Serves::DigestOnly,
            (false, serves) => serves.unwrap_or_default(),
        };
        Ok(Mirror { location, insecure: self.insecure, serves })
    }
}

/// A host, or a host and the beginning of a repository.
fn location(path: &Path, text: &str) -> Result<String> {
    if text.contains("://") {
        let reason = format!(
            "a prefix or location is a host with an optional path, without a scheme: {:?}",
            text.split_once("://").map_or(text, |(scheme, _)| scheme)
        );
        return Err(wrong(path, reason));
    }
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || "@?#\\".contains(c)) {
        return Err(wrong(path, "a prefix or location has a character that no name may have"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// How much of `name` a prefix covers, where it ends between two parts of the name.
fn fit(name: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(domain) => {
            let at = name.find(domain)?;
            let within_host = at > 0 && !name[..at].contains(['/', ':']);
            within_host.then_some(at + domain.len())?
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    let whole_host = !name[..end].contains('/');
    match name[end..].chars().next() {
        None | Some('/' | '@') => Some(end),
        // After a host this is a port, and so another registry.
        Some(':') if !whole_host => Some(end),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<RegistriesConf> {
        let mut conf = RegistriesConf::default();
        conf.add(Path::new("/etc/containers/registries.conf"), text)?;
        Ok(conf)
    }

    const SAMPLE: &str = r#"
unqualified-search-registries = ["registry.fedoraproject.org", "docker.io"]
short-name-mode = "enforcing"
some-key-of-a-later-version = 7

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.corp.example:5000/hub"
[[registry.mirror]]
location = "localhost:5001"
insecure = true
pull-from-mirror = "digest-only"

[[registry]]
prefix = "docker.io/library"
location = "official.corp.example/library"

[[registry]]
prefix = "*.evil.example"
blocked = true

[[registry]]
prefix = "digests.example"
location = "digests.example"
mirror-by-digest-only = true
mirror = [{ location = "m.example" }]

[aliases]
"fedora" = "registry.fedoraproject.org/fedora"
"gone" = ""
"#;

    #[test]
    fn a_file_as_people_write_it() {
        let conf = conf(SAMPLE).unwrap();
        let (hub, end) = conf.find("docker.io/grafana/loki").unwrap();
        assert_eq!((hub.prefix.as_str(), end), ("docker.io", "docker.io".len()));
        assert_eq!(hub.mirrors.len(), 2);
        assert_eq!(hub.mirrors[0].location, "mirror.corp.example:5000/hub");
        assert!(!hub.mirrors[0].insecure && hub.mirrors[1].insecure);
        assert_eq!(hub.mirrors[1].serves, Serves::DigestOnly);

        let (official, _) = conf.find("docker.io/library/alpine").unwrap();
        assert_eq!(official.location.as_deref(), Some("official.corp.example/library"));
        let (evil, _) = conf.find("a.b.evil.example/x").unwrap();
        assert!(evil.blocked && evil.location.is_none());
        assert!(conf.find("evil.example/x").is_none());
        let (digests, _) = conf.find("digests.example/x").unwrap();
        assert_eq!(digests.mirrors[0].serves, Serves::DigestOnly);

        assert_eq!(conf.alias("fedora"), Some("registry.fedoraproject.org/fedora"));
        assert_eq!(conf.alias("gone"), None);
    }

    #[test]
    fn prefixes_end_between_parts() {
        let cases = [
            ("a.example/x", "a.example", Some(9)),
            ("a.example:5000/x", "a.example", None),
            ("a.example:5000/x", "a.example:5000", Some(14)),
            ("a.example.org/x", "a.example", None),
            ("a.example/xy", "a.example/x", None),
            ("a.example/x/y", "a.example/x", Some(11)),
            ("a.example/x:1", "a.example/x", Some(11)),
            ("a.example/x@sha256:0", "a.example/x", Some(11)),
            ("b.a.example/x", "*.a.example", Some(11)),
            ("b.a.example:80/x", "*.a.example", None),
            ("a.example/b.a.example/x", "*.a.example", None),
            ("a.example/x", "*.a.example", None),
        ];
        for (name, prefix, end) in cases {
            assert_eq!(fit(name, prefix), end, "{name} {prefix}");
        }
    }

    #[test]
    fn later_files_replace_what_has_the_same_prefix() {
        let mut conf = conf(SAMPLE).unwrap();
        let drop_in = "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n\
                       [aliases]\nfedora = \"\"\n";
        conf.add(Path::new("/etc/containers/registries.conf.d/1.conf"), drop_in).unwrap();
        let (hub, _) = conf.find("docker.io/x").unwrap();
        assert!(hub.blocked && hub.mirrors.is_empty());
        assert!(hub.path.ends_with("1.conf"));
        assert_eq!(conf.alias("fedora"), None);
        assert!(conf.find("a.evil.example/x").is_some());
    }

    #[test]
    fn files_that_cannot_be_used() {
        let cases = [
            ("[registries.search]\nregistries = [\"x\"]\n", "version 1"),
            ("[[registry]]\ninsecure = true\n", "neither prefix nor location"),
            ("[[registry]]\nprefix = \"a.example\"\n", "has no location"),
            ("[[registry]]\nlocation = \"https://a.example\"\n", "without a scheme"),
            ("[[registry]]\nlocation = \"u@a.example\"\n", "character"),
            ("[[registry]]\nprefix = \"a.*.b\"\nlocation = \"x\"\n", "elsewhere"),
            ("[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\n", "no usable location"),
            (
                "[[registry]]\nlocation=\"a\"\nmirror-by-digest-only=true\n[[registry.mirror]]\n\
                 location=\"b\"\npull-from-mirror=\"all\"\n",
                "say it once",
            ),
            (
                "[[registry]]\nlocation=\"a\"\n[[registry.mirror]]\nlocation=\"b\"\n\
                 pull-from-mirror=\"some\"\n",
                "line 5",
            ),
            ("[[registry]]\nlocation = 7\n", "line 2"),
            ("[[registry]\n", "line 1"),
        ];
        for (text, reason) in cases {
            let error = conf(text).unwrap_err().to_string();
            assert!(error.starts_with("cannot use /etc/containers/registries.conf"), "{error}");
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(
            text in "(\\[\\[registry\\]\\]\n|\\[aliases\\]\n|prefix=|location=|mirror=|\"[*.a/:@é]{0,8}\"\n|\\PC|\n){0,30}",
            name in "[a-c.:/*é@]{0,20}",
        ) {
            if let Ok(conf) = conf(&text) {
                let _ = conf.find(&name);
            }
            let _ = fit(&name, &text);
        }
    }
}
