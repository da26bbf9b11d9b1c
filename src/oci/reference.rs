use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::Digest;
use crate::error::Error;

/// The longest name that is looked at, in bytes: room for a registry, a repository, a tag, a digest.
const MAX_LENGTH: usize = 1024;
/// The longest host (RFC 1035, section 2.3.4), repository and tag (distribution specification,
/// "Pulling manifests"), in bytes.
const MAX_HOST: usize = 255;
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// The full name of an image: registry, repository, and a tag or a digest or both.
///
/// The grammar is that of the distribution project's `reference` package, which the specification
/// takes its patterns from. Docker's short forms are understood and written out: `alpine` is
/// `docker.io/library/alpine:latest`. What stands before the first `/` is a registry if it has a dot
/// or a port, is an address, or is `localhost`. Hosts are made lower-case and addresses are
/// written the one way, since names that differ in that only mean the same.
/// [`Display`](fmt::Display) gives the full form, which is the name of the ref in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// A repository, named without a tag and without a digest; as a [`Reference`] it stands for
    /// its tag `latest`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidReference`], also where there is a tag or a digest.
    pub fn of_repository(text: &str) -> Result<Reference, Error> {
        let reference: Reference = text.parse()?;
        match Split::new(text) {
            Split { tag: None, digest: None, .. } => Ok(reference),
            _ => {
                let reason = "a repository is named without a tag or a digest".to_owned();
                Err(Error::InvalidReference { text: text.to_owned(), reason })
            }
        }
    }

    /// The registry's host, with its port where one was named: `docker.io`, `localhost:5000`,
    /// `[::1]:5000`.
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

    /// Whether a text is a tag, as the distribution specification has it.
    pub fn is_tag(text: &str) -> bool {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        text.len() <= MAX_TAG
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
    }

    /// Another tag of the same repository.
    #[cfg(feature = "fetch")]
    pub(crate) fn sibling(&self, tag: String) -> Reference {
        Reference { tag: Some(tag), digest: None, ..self.clone() }
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

    // Not by the parser of `oci-spec`: it knows no IPv6, and at its first use it compiles a regular
    // expression for 37 ms, several times what a pull that finds everything there takes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidReference { text: text.to_owned(), reason };
        if text.len() > MAX_LENGTH {
            return Err(invalid(format!("it is longer than {MAX_LENGTH} bytes")));
        }
        let Split { name, tag, digest } = Split::new(text);
        let (registry, mut repository) = match name.split_once('/') {
            Some((host, rest)) if is_registry(host) => {
                (parse_registry(host).map_err(invalid)?, rest.to_owned())
            }
            _ => ("docker.io".to_owned(), name.to_owned()),
        };
        check_repository(&repository).map_err(invalid)?;
        if registry == "docker.io" && !repository.contains('/') {
            repository.insert_str(0, "library/");
        }
        if repository.len() > MAX_REPOSITORY {
            let reason = format!("its repository is longer than {MAX_REPOSITORY} bytes");
            return Err(invalid(reason));
        }
        if tag.is_some_and(|tag| !Reference::is_tag(tag)) {
            let reason = "a tag is at most 128 letters, digits and the characters _ . -, and does \
                          not begin with . or -";
            return Err(invalid(reason.to_owned()));
        }
        let digest: Option<Digest> = digest
            .map(|digest| digest.parse().map_err(|error: Error| invalid(error.to_string())))
            .transpose()?;
        let tag = tag.or(digest.is_none().then_some("latest")).map(str::to_owned);
        Ok(Reference { registry, repository, tag, digest })
    }
}

/// A name in its parts, none of which was looked at.
struct Split<'a> {
    name: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl Split<'_> {
    fn new(text: &str) -> Split<'_> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is that of a port.
        let last = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[last..].rfind(':').map(|at| at + last) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        Split { name, tag, digest }
    }
}

/// Whether what stands before the first slash is a registry and not part of a repository.
///
/// Docker's parser also takes `UPPER` for one, as it can be no repository; here that is refused,
/// since nobody has a registry of such a name and many mistype repositories.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first.eq_ignore_ascii_case("localhost")
}

/// A host with or without a port, written the one way.
fn parse_registry(text: &str) -> Result<String, String> {
    let end = text.find(']').map_or(0, |at| at + 1);
    let (host, port) = match text[end..].find(':').map(|at| at + end) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => match address.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => return Err(format!("{address:?} is not an IPv6 address")),
        },
        None => match host.to_ascii_lowercase() {
            host if !is_host(&host) => return Err(format!("{host:?} is not a host")),
            host if host == "index.docker.io" => "docker.io".to_owned(),
            host => host,
        },
    };
    match port {
        None => Ok(host),
        Some(port) => match port.parse::<u16>() {
            Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(format!("{host}:{number}"))
            }
            _ => Err(format!("{port:?} is not a port")),
        },
    }
}

/// Whether a text is a DNS name or an IPv4 address.
fn is_host(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let component = |part: &str| {
        let bytes = part.as_bytes();
        alphanumeric(bytes.first())
            && alphanumeric(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if text.len() > MAX_HOST || !text.split('.').all(component) {
        return false;
    }
    // What ends in a number is an address wherever it is used (WHATWG URL, "ends in a number
    // checker"), and then in no form that hides which: 0x7f.1 is 127.0.0.1.
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = |hex: &str| hex.bytes().all(|b| b.is_ascii_hexdigit());
    let number = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(hexadecimal);
    !number || text.parse::<Ipv4Addr>().is_ok()
}

fn check_repository(text: &str) -> Result<(), String> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository names are lower-case".to_owned());
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        // Docker refuses it as well: it would be taken for an image's id.
        return Err("64 hexadecimal digits are no name; for a digest, write NAME@sha256:…".into());
    }
    match text.split('/').all(is_component) {
        true => Ok(()),
        false => Err("a repository is made of a-z and 0-9, with single . or _, two _ or any \
                      number of - between them, and of / between such parts"
            .to_owned()),
    }
}

/// Whether a text is `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return false;
    }
    let mut separators = text.split(alphanumeric).filter(|between| !between.is_empty());
    separators.all(|it| matches!(it, "." | "_" | "__") || it.bytes().all(|b| b == b'-'))
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
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine:1", "docker.io/library/alpine:1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
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
    fn registries() {
        let cases = [
            ("[::1]:5000/a:1", "[::1]:5000"),
            ("[::1]/a", "[::1]"),
            ("[2001:DB8:0:0::1]:443/a/b", "[2001:db8::1]:443"),
            ("[::ffff:127.0.0.1]/a", "[::ffff:127.0.0.1]"),
            ("REGISTRY.Example:5000/a", "registry.example:5000"),
            ("LocalHost/a", "localhost"),
            ("r:5000/a", "r:5000"),
            ("r-1.example/a", "r-1.example"),
            ("r.example:0443/a", "r.example:443"),
            ("10.0.0.1/a", "10.0.0.1"),
            ("r/a", "docker.io"),
        ];
        for (text, registry) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.registry(), registry, "{text}");
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference, "{text}");
        }
        let long = format!("{}.example/a", "a.".repeat(130) + "a");
        for text in [
            "[::1/a",
            "::1/a",
            "[]/a",
            "[::1]x/a",
            "[::1]:/a",
            "[::1%eth0]/a",
            "[127.0.0.1]/a",
            "[::1]5000/a",
            "[g::1]/a",
            "x[::1]/a",
            "r.example:/a",
            "r.example:0/a",
            "r.example:65536/a",
            "r.example:+80/a",
            "r.example:80:80/a",
            ".example/a",
            "r..example/a",
            "r.example./a",
            "-r.example/a",
            "r-.example/a",
            "r_1.example/a",
            "0x7f.1/a",
            "127.1/a",
            "999.0.0.1/a",
            "1.2.3.4.5/a",
            "r.0x7f/a",
            "ré.example/a",
            "user@r.example/a",
            "http://r.example/a",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn repositories() {
        let longest = "a".repeat(MAX_REPOSITORY);
        for name in
            ["a", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b", "a/b/c/d/e", "0/1", &longest]
        {
            let reference: Reference = format!("r.example/{name}").parse().unwrap();
            assert_eq!(reference.repository(), name);
        }
        let (long, id) = ("a".repeat(MAX_REPOSITORY + 1), "0".repeat(64));
        for name in [
            "", ".", "..", "a.", ".a", "a..b", "_a", "a_", "a___b", "a._b", "a-_b", "-a", "a-",
            "A", "a/", "/a", "a//b", "a/../b", "a/./b", "é", "a%2fb", "a?b", "a#b", "a b", "a\\b",
            &long, &id,
        ] {
            assert!(format!("r.example/{name}").parse::<Reference>().is_err(), "{name}");
            // Docker Hub's short forms have the same grammar, but that what comes first may be a
            // registry: the form without a slash shows it.
            assert!(name.contains('/') || name.parse::<Reference>().is_err(), "{name}");
        }
        // With `library/` before it, the name is too long.
        assert!(longest.parse::<Reference>().is_err());
    }

    #[test]
    fn tags() {
        let longest = "x".repeat(MAX_TAG);
        for tag in ["1", "_", "a.b-c_D", "v1.0--x..", "Z", &longest] {
            let reference: Reference = format!("r.example:1/a:{tag}").parse().unwrap();
            assert_eq!(reference.tag(), Some(tag));
        }
        let long = "x".repeat(MAX_TAG + 1);
        for tag in ["", ".", "-a", ".a", "a+b", "a/b", "é", "a b", "a\n", "a%20", &long] {
            assert!(format!("a:{tag}").parse::<Reference>().is_err(), "{tag}");
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
    fn digests_of_every_algorithm() {
        let sha512 = crate::oci::Algorithm::Sha512.digest(b"").to_string();
        for text in [format!("[::1]:5000/a:1@{sha512}"), format!("r.example/a@{sha512}")] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.digest().unwrap().to_string(), sha512);
            assert_eq!(reference.to_string(), text);
        }
        for digest in ["", "sha256", "sha256:", "sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e"]
        {
            let error = format!("a@{digest}").parse::<Reference>().unwrap_err();
            assert!(matches!(error, Error::InvalidReference { .. }), "{error:?}");
        }
        assert!(format!("a@{DIGEST}@{DIGEST}").parse::<Reference>().is_err());
        assert!(format!("a@{DIGEST}:1").parse::<Reference>().is_err());
    }

    #[test]
    fn repositories_alone() {
        for text in ["alpine", "localhost:5000/a", "[::1]:5000/a/b"] {
            assert_eq!(Reference::of_repository(text).unwrap(), text.parse().unwrap());
        }
        for text in ["alpine:3", "localhost:5000/a:1", "[::1]/a:1", &format!("a@{DIGEST}"), "A"] {
            let error = Reference::of_repository(text).unwrap_err();
            assert!(matches!(error, Error::InvalidReference { .. }), "{text}: {error:?}");
        }
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

        /// What the grammar makes is parsed, and into the parts that it was made of.
        #[test]
        fn names_of_the_grammar_are_taken(
            host in "([A-Za-z0-9]([A-Za-z0-9-]{0,5}[A-Za-z0-9])?\\.){1,3}[a-z]{2,5}(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5}){0,2}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let reference: Reference = format!("{host}/{repository}:{tag}").parse().unwrap();
            proptest::prop_assert_eq!(reference.registry(), host.to_ascii_lowercase());
            proptest::prop_assert!(
                reference.repository() == repository || host.eq_ignore_ascii_case("docker.io")
            );
            proptest::prop_assert_eq!(reference.tag(), Some(tag.as_str()));
        }
    }
}
