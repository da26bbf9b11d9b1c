use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::error::Error;

/// The longest name that is looked at, in bytes: a registry, a repository of 255, a tag of 128 and
/// a digest, with room to spare. Keeps the parser from being fed a book.
const MAX_LENGTH: usize = 1024;

/// The full name of an image: registry, repository, and a tag or a digest or both.
///
/// Docker's short forms are understood and written out: `alpine` is
/// `docker.io/library/alpine:latest`. [`Display`](fmt::Display) gives the full form, which is the
/// name of the ref in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with its port where one was named: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the name demands.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image under the name that another server has for it.
    #[cfg(feature = "fetch")]
    pub(crate) fn elsewhere(&self, registry: String, repository: String) -> Reference {
        Reference { registry, repository, tag: self.tag.clone(), digest: self.digest }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidReference { text: text.to_owned(), reason };
        if text.len() > MAX_LENGTH {
            return Err(invalid(format!("it is longer than {MAX_LENGTH} bytes")));
        }
        let spec: oci_spec::distribution::Reference = text
            .parse()
            .map_err(|error: oci_spec::distribution::ParseError| invalid(error.to_string()))?;
        // The parser takes `UPPER/case` for a host without a dot, and then puts Docker Hub before it.
        if spec.repository().bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("repository names are lower-case".to_owned()));
        }
        let digest = spec.digest().map(str::parse).transpose()?;
        Ok(Reference {
            registry: spec.registry().to_owned(),
            repository: spec.repository().to_owned(),
            tag: spec.tag().map(str::to_owned),
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_forms_are_written_out() {
        let cases = [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("index.docker.io/library/alpine:1", "docker.io/library/alpine:1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b/c:v1", "localhost:5000/a/b/c:v1"),
            ("127.0.0.1:5000/real/python:v1", "127.0.0.1:5000/real/python:v1"),
            ("ghcr.io/o/r:Tag_1.0-x", "ghcr.io/o/r:Tag_1.0-x"),
        ];
        for (text, full) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(full.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn tag_and_digest_together() {
        let text = format!("docker.io/library/alpine:3@{DIGEST}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.tag(), Some("3"));
        assert_eq!(reference.digest().unwrap().to_string(), DIGEST);
        assert_eq!(reference.to_string(), text);
        let bare: Reference = format!("alpine@{DIGEST}").parse().unwrap();
        assert_eq!(bare.tag(), None);
    }

    #[test]
    fn malformed_names_are_refused_with_the_name() {
        let long = format!("a/{}", "b".repeat(2000));
        let cases =
            ["", " ", "UPPER/case", "a b", "a:b:c", "a@sha256:12", "a/../b", "a//b", "a\n", &long];
        for text in cases {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(matches!(error, Error::InvalidReference { .. }), "{text:?}: {error:?}");
        }
        assert!(format!("a@{}", DIGEST.to_uppercase()).parse::<Reference>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                proptest::prop_assert_eq!(again, reference);
            }
        }
    }
}
