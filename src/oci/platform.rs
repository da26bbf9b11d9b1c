use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Descriptor;
use crate::error::Error;

/// An operating system and a processor architecture, in Go's names.
///
/// Written `OS/ARCH[/VARIANT]`, as in `linux/arm64` or `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system: `linux`, `windows`, …
    pub os: String,
    /// The architecture: `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// The variant of the architecture: `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Which of an index's platforms are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlatformChoice {
    /// This machine's architecture on Linux, else this machine's architecture on any system.
    #[default]
    Host,
    /// Exactly this one; an older variant of it serves where the variant itself is not there.
    One(Platform),
    /// Everything that the index names.
    All,
}

impl Platform {
    /// Linux on this machine's architecture.
    pub fn host() -> Platform {
        let (architecture, variant) = normalize(std::env::consts::ARCH, None);
        Platform { os: "linux".to_owned(), architecture, variant }
    }

    pub(super) fn from_spec(spec: &oci_spec::image::Platform) -> Platform {
        let (architecture, variant) =
            normalize(&spec.architecture().to_string(), spec.variant().as_deref());
        Platform { os: spec.os().to_string(), architecture, variant }
    }

    /// How well `offered` serves a wish for `self`: higher is better, `None` is not at all.
    ///
    /// Processors run what was built for an older variant of themselves.
    fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (self.level(), offered.level()) {
            (Some(wanted), Some(level)) => (level <= wanted).then_some(level),
            _ => (self.variant == offered.variant).then_some(0),
        }
    }

    /// The variant as a number: `v7` is 700, `v8.2` is 802. Where none is named it is the one that
    /// the architecture's images are built for by custom.
    fn level(&self) -> Option<u32> {
        let variant = match (self.variant.as_deref(), self.architecture.as_str()) {
            (Some(variant), _) => variant,
            (None, "arm") => "v7",
            (None, "arm64") => "v8",
            (None, _) => "v1",
        };
        let (major, minor) = match variant.strip_prefix('v')?.split_once('.') {
            Some((major, minor)) => (major, minor.parse::<u32>().ok()?),
            None => (variant.strip_prefix('v')?, 0),
        };
        let major = major.parse::<u32>().ok()?;
        (major < 1000 && minor < 100).then_some(major * 100 + minor)
    }
}

/// Maps the names that uname and Rust use to Go's, and drops the variant that is every arm64's.
fn normalize(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_ascii_lowercase);
    match (architecture.as_str(), variant) {
        ("x86_64" | "x86-64", variant) => ("amd64".to_owned(), variant),
        ("x86" | "i386" | "i686", variant) => ("386".to_owned(), variant),
        ("aarch64" | "arm64", variant) => {
            ("arm64".to_owned(), variant.filter(|v| v != "v8" && v != "8"))
        }
        ("armhf", None) => ("arm".to_owned(), Some("v7".to_owned())),
        ("armel", None) => ("arm".to_owned(), Some("v6".to_owned())),
        ("powerpc64", variant) => {
            let little = cfg!(target_endian = "little");
            (if little { "ppc64le" } else { "ppc64" }.to_owned(), variant)
        }
        ("loongarch64", variant) => ("loong64".to_owned(), variant),
        (_, variant) => (architecture, variant),
    }
}

impl PlatformChoice {
    /// The entries of an index that are wanted, in the index's order.
    ///
    /// Attestations are taken by [`PlatformChoice::All`] only. An entry with no platform cannot be
    /// judged and is taken as a last resort, if it is the only one such.
    pub fn select<'a>(&self, manifests: &'a [Descriptor]) -> Vec<&'a Descriptor> {
        let wanted = match self {
            PlatformChoice::All => return manifests.iter().collect(),
            PlatformChoice::One(platform) => platform.clone(),
            PlatformChoice::Host => Platform::host(),
        };
        let images = || manifests.iter().filter(|entry| !entry.is_attestation());
        let best = best(images(), |platform| wanted.rank(platform)).or_else(|| {
            if *self != PlatformChoice::Host {
                return None;
            }
            best(images(), |platform| {
                Platform { os: platform.os.clone(), ..wanted.clone() }.rank(platform)
            })
        });
        match best {
            Some(entry) => vec![entry],
            None => {
                let unnamed: Vec<_> = images().filter(|entry| entry.platform.is_none()).collect();
                if unnamed.len() == 1 && images().count() == 1 { unnamed } else { Vec::new() }
            }
        }
    }

    /// Whether an image that has no index, and whose config names `platform`, is what is wanted.
    pub fn accepts(&self, platform: &Platform) -> bool {
        match self {
            PlatformChoice::One(wanted) => wanted.rank(platform).is_some(),
            PlatformChoice::Host | PlatformChoice::All => true,
        }
    }
}

/// The entry with the highest rank; of equals the first.
fn best<'a>(
    entries: impl Iterator<Item = &'a Descriptor>,
    rank: impl Fn(&Platform) -> Option<u32>,
) -> Option<&'a Descriptor> {
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in entries {
        if let Some(level) = entry.platform.as_ref().and_then(&rank)
            && best.is_none_or(|(found, _)| level > found)
        {
            best = Some((level, entry));
        }
    }
    best.map(|(_, entry)| entry)
}

impl fmt::Display for PlatformChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlatformChoice::Host => write!(f, "this machine ({})", Platform::host()),
            PlatformChoice::One(platform) => platform.fmt(f),
            PlatformChoice::All => f.write_str("any platform"),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(valid) {
            return Err(Error::InvalidPlatform { text: text.to_owned() });
        }
        let (architecture, variant) = normalize(parts[1], parts.get(2).copied());
        Ok(Platform { os: parts[0].to_ascii_lowercase(), architecture, variant })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, MediaType};

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        platforms
            .iter()
            .map(|platform| Descriptor {
                platform: platform.parse().ok(),
                ..Descriptor::new(
                    MediaType::new(MediaType::OCI_MANIFEST),
                    Algorithm::Sha256.digest(platform.as_bytes()),
                    1,
                )
            })
            .collect()
    }

    fn pick(choice: &PlatformChoice, platforms: &[&str]) -> Option<String> {
        let index = index(platforms);
        let picked = choice.select(&index);
        assert!(picked.len() <= 1);
        picked.first().map(|entry| entry.platform.as_ref().unwrap().to_string())
    }

    fn one(platform: &str) -> PlatformChoice {
        PlatformChoice::One(platform.parse().unwrap())
    }

    #[test]
    fn variants_are_understood() {
        let arms = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64"];
        for (wanted, expected) in [
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v8", Some("linux/arm/v7")),
            ("linux/arm/v4", None),
            ("linux/arm64/v8", Some("linux/arm64")),
            ("linux/aarch64", Some("linux/arm64")),
            ("linux/amd64", None),
        ] {
            assert_eq!(pick(&one(wanted), &arms).as_deref(), expected, "{wanted}");
        }
        let levels = ["linux/amd64/v3", "linux/amd64"];
        assert_eq!(pick(&one("linux/amd64"), &levels).unwrap(), "linux/amd64");
        assert_eq!(pick(&one("linux/amd64/v4"), &levels).unwrap(), "linux/amd64/v3");
    }

    #[test]
    fn the_host_takes_linux_first_and_then_any_system() {
        let arch = Platform::host().architecture;
        let (linux, windows) = (format!("linux/{arch}"), format!("windows/{arch}"));
        let host = PlatformChoice::Host;
        assert_eq!(pick(&host, &[&windows, &linux]).unwrap(), linux);
        assert_eq!(pick(&host, &["linux/vax", &windows]).unwrap(), windows);
        assert_eq!(pick(&host, &["linux/vax"]), None);
        assert_eq!(pick(&one(&linux), &[&windows]), None, "what is asked for by name is exact");
    }

    #[test]
    fn attestations_are_no_platform() {
        let mut entries = index(&["linux/amd64", "linux/amd64"]);
        entries[0]
            .annotations
            .insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
        assert_eq!(one("linux/amd64").select(&entries), [&entries[1]]);
        assert_eq!(PlatformChoice::All.select(&entries).len(), 2);
    }

    #[test]
    fn an_only_entry_without_platform_serves() {
        let mut entries = index(&["linux/amd64"]);
        entries[0].platform = None;
        assert_eq!(PlatformChoice::Host.select(&entries).len(), 1);
        entries.push(entries[0].clone());
        assert_eq!(PlatformChoice::Host.select(&entries).len(), 0);
    }

    #[test]
    fn bad_platforms_are_refused() {
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "li nux/amd64", "a/b\n"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }
}
