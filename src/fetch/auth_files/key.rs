//! What credentials are for, and how files and helpers spell it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::oci::Reference;

/// Docker Hub, as image names spell it.
const HUB: &str = "docker.io";
/// Docker Hub, as `docker login` does.
const HUB_LEGACY: &str = "https://index.docker.io/v1/";

/// What credentials are kept for: a registry, as `quay.io` or `localhost:5000`, or a part of one,
/// as `quay.io/team` or `quay.io/team/app`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginKey {
    image: Reference,
    /// What of the registry; nothing for all of it.
    path: Option<String>,
}

impl LoginKey {
    /// The registry, as in [`Reference::registry`].
    pub fn registry(&self) -> &str {
        self.image.registry()
    }

    /// An image that these credentials are for.
    pub(in crate::fetch) fn as_image(&self) -> Reference {
        self.image.clone()
    }

    /// Whether these credentials are for this image.
    pub(super) fn covers(&self, image: &Reference) -> bool {
        let repository = Some(image.repository());
        namespaces(image.registry(), repository).contains(&self.to_string())
    }

    pub(super) fn is_whole_registry(&self) -> bool {
        self.path.is_none()
    }
}

impl FromStr for LoginKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<LoginKey> {
        let wrong = |reason: &str| Error::InvalidReference {
            text: text.to_owned(),
            reason: format!("{reason}; write HOST[:PORT] or HOST[:PORT]/NAMESPACE"),
        };
        let name = if is_hub(text) { HUB } else { text };
        if name.contains("://") {
            return Err(wrong("a registry is written without its scheme"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((registry, path)) => (registry, Some(path.to_owned())),
            None => (name, None),
        };
        let image: Reference =
            format!("{name}/x").parse().map_err(|_| wrong("it is not a registry"))?;
        match image.registry().eq_ignore_ascii_case(registry) {
            true => Ok(LoginKey { image, path }),
            false => Err(wrong("it is not a registry, whose name has a dot or a port")),
        }
    }
}

impl fmt::Display for LoginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.registry())?;
        self.path.iter().try_for_each(|path| write!(f, "/{path}"))
    }
}

/// Whether a key of a file stands for Docker Hub, which has been spelt in many ways.
fn is_hub(key: &str) -> bool {
    matches!(without_scheme(key), HUB | "index.docker.io" | "registry-1.docker.io")
}

/// The registry of a key that is an address, as tools of old wrote them; another key as it is.
fn without_scheme(key: &str) -> &str {
    let stripped = ["https://", "http://"].iter().find_map(|scheme| key.strip_prefix(scheme));
    match stripped {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key,
    }
}

/// Whether a key of a file stands for the whole of a registry.
pub(super) fn stands_for(key: &str, registry: &str) -> bool {
    without_scheme(key) == registry || (registry == HUB && is_hub(key))
}

/// The keys to look for, in order: `registry/a/b`, `registry/a`, `registry`.
pub(super) fn namespaces(registry: &str, repository: Option<&str>) -> Vec<String> {
    let mut key = match repository {
        Some(repository) => format!("{registry}/{repository}"),
        None => registry.to_owned(),
    };
    let mut keys = vec![key.clone()];
    while let Some((parent, _)) = key.rsplit_once('/') {
        key = parent.to_owned();
        keys.push(key.clone());
    }
    keys
}

/// How helpers may know a registry, the likeliest name first.
pub(super) fn servers(registry: &str) -> Vec<&str> {
    if registry == HUB { vec![HUB_LEGACY, HUB] } else { vec![registry] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_and_namespaces() {
        for (text, shown, registry) in [
            ("quay.io", "quay.io", "quay.io"),
            ("localhost:5000", "localhost:5000", "localhost:5000"),
            ("quay.io/team/app", "quay.io/team/app", "quay.io"),
            ("docker.io", "docker.io", "docker.io"),
            ("index.docker.io", "docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io", "docker.io"),
        ] {
            let key: LoginKey = text.parse().unwrap();
            assert_eq!((key.to_string().as_str(), key.registry()), (shown, registry), "{text}");
        }
        for text in
            ["", "team", "https://quay.io", "quay.io/", "quay.io/UP", "a b.c", "q.io\n", "/x"]
        {
            assert!(text.parse::<LoginKey>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_longest_key_comes_first() {
        assert_eq!(namespaces("r.io:5", Some("a/b")), ["r.io:5/a/b", "r.io:5/a", "r.io:5"]);
        assert_eq!(namespaces("r.io", None), ["r.io"]);
    }

    #[test]
    fn spellings() {
        for key in ["docker.io", "index.docker.io", "https://index.docker.io/v1/"] {
            assert!(stands_for(key, "docker.io") && !stands_for(key, "quay.io"), "{key}");
        }
        assert!(stands_for("https://r.io/v1/", "r.io") && stands_for("http://r.io", "r.io"));
        assert!(!stands_for("r.io/a", "r.io") && !stands_for("r.io", "r.io:443"));
        assert!(
            !stands_for("https://r.io.evil.io/", "r.io") && !stands_for("https://r.io@e/", "r.io")
        );
    }
}
