//! Doors for the fuzz targets in `fuzz/`, to parsers that are nobody else's business. Not compiled
//! but for fuzzing, and for the test that runs its seeds.
//!
//! Each function checks more than that nothing panics: what was parsed must mean the same when it
//! is written and parsed again, and must keep within the caps.

#[cfg(feature = "fetch")]
use crate::fetch;
use crate::oci::{Digest, Document, MAX_DESCRIPTORS, MediaType, Reference};
use crate::store;

/// An image name.
pub fn reference(text: &str) {
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    let full = reference.to_string();
    assert_eq!(full.parse::<Reference>().ok(), Some(reference.clone()), "{text:?} is {full:?}");
    assert!(reference.tag().is_some() || reference.digest().is_some());
    for part in [reference.registry(), reference.repository()] {
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || "?#%\\@".contains(c);
        assert!(!part.is_empty() && !part.contains(forbidden), "{text:?} has the part {part:?}");
        assert!(!part.split('/').any(|step| matches!(step, "" | "." | "..")), "{text:?}");
    }
}

/// A digest.
pub fn digest(text: &str) {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.as_bytes().len(), digest.algorithm().digest_len());
        assert!(digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
    }
}

/// A manifest or an index, called each of the types that there are.
pub fn document(bytes: &[u8]) {
    for declared in MediaType::ACCEPTED {
        if let Ok(document) = Document::parse(bytes, &MediaType::new(declared)) {
            assert!(document.children().count() <= MAX_DESCRIPTORS);
            assert!(document.children().all(|child| i64::try_from(child.size).is_ok()));
            let is_index = [MediaType::OCI_INDEX, MediaType::DOCKER_LIST].contains(&declared);
            assert_eq!(matches!(document, Document::Index(_)), is_index);
        }
    }
    if let Some(document) = Document::sniff(bytes) {
        let own = match &document {
            Document::Index(index) => &index.media_type,
            Document::Manifest(manifest) => &manifest.media_type,
        };
        assert_eq!(Document::parse(bytes, own).ok().as_ref(), Some(&document));
    }
}

/// `index.json`.
pub fn index_json(bytes: &[u8]) {
    store::fuzzing::index_json(bytes);
}

/// The lines of a lease.
pub fn lease_records(bytes: &[u8]) {
    store::fuzzing::lease_records(bytes);
}

/// The account of a part.
pub fn part_state(bytes: &[u8]) {
    store::fuzzing::part_state(bytes);
}

/// Which blobs a repository has.
pub fn origins(bytes: &[u8]) {
    store::fuzzing::origins(bytes);
}

/// The copy of `index.json`.
pub fn refs_copy(bytes: &[u8]) {
    store::fuzzing::refs_copy(bytes);
}

/// `config.toml`.
pub fn config(text: &str) {
    store::fuzzing::config(text);
}

/// What a store takes, until when a host is left alone, and names of files.
pub fn notes(bytes: &[u8]) {
    store::fuzzing::notes(bytes);
}

/// A value of `WWW-Authenticate`.
#[cfg(feature = "fetch")]
pub fn challenge(text: &str) {
    fetch::fuzzing::challenge(text);
}

/// A value of `Content-Range`.
#[cfg(feature = "fetch")]
pub fn content_range(text: &str) {
    fetch::fuzzing::content_range(text);
}

/// A file with credentials.
#[cfg(feature = "fetch")]
pub fn auth_file(bytes: &[u8]) {
    fetch::fuzzing::auth_file(bytes);
}

/// A value of `Link`.
#[cfg(feature = "fetch")]
pub fn link(text: &str) {
    fetch::fuzzing::link(text);
}

/// A `hosts.toml`.
#[cfg(feature = "fetch")]
pub fn hosts_toml(text: &str) {
    fetch::fuzzing::hosts_toml(text);
}

/// A `registries.conf`.
#[cfg(feature = "fetch")]
pub fn registries_conf(text: &str) {
    fetch::fuzzing::registries_conf(text);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Runs a target over its seeds, and over each of them cut short.
    fn run(target: &str, check: impl Fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut count = 0;
        for seed in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            (0..=bytes.len()).for_each(|len| check(&bytes[..len]));
            count += 1;
        }
        assert!(count > 2, "{target} has {count} seeds");
    }

    fn run_text(target: &str, check: impl Fn(&str)) {
        run(target, |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                check(text);
            }
        });
    }

    #[test]
    fn the_seeds_of_every_target() {
        run_text("reference", super::reference);
        run_text("digest", super::digest);
        run("document", super::document);
        run("index_json", super::index_json);
        run("lease_records", super::lease_records);
        run("part_state", super::part_state);
        run("origins", super::origins);
        run("refs_copy", super::refs_copy);
        run_text("config", super::config);
        run("notes", super::notes);
        #[cfg(feature = "fetch")]
        {
            run_text("challenge", super::challenge);
            run_text("content_range", super::content_range);
            run("auth_file", super::auth_file);
            run_text("link", super::link);
            run_text("hosts_toml", super::hosts_toml);
            run_text("registries_conf", super::registries_conf);
        }
    }
}
