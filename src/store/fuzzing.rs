//! What fuzz targets may reach of the store's parsers.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use toml_edit::DocumentMut;

use super::config::{self, ConfigKey, StoreConfig};
use super::hosts::{self, Closed};
use super::index_file::IndexFile;
use super::lease_record::{self, Record};
use super::origins::{self, Record as Origin};
use super::ranges::Ranges;
use super::units::{parse_duration, parse_size};
use super::{line, part_state, refs_copy, roots, space, suspect};
use crate::oci::{Algorithm, Descriptor, Digest, MediaType, Reference};

/// `index.json`: what is set is found again, and what was there stays.
pub(crate) fn index_json(bytes: &[u8]) {
    let refs = IndexFile::parse(bytes).and_then(|index| index.refs()).ok();
    let roots = roots::parse(bytes).ok().map(|all| all.into_iter().map(|it| it.digest).collect());
    let targets = refs.map(|all| all.iter().map(|it| it.descriptor.digest).collect::<Vec<_>>());
    assert_eq!(roots, targets, "a collection knows the targets of all refs");
    let Ok(mut index) = IndexFile::parse(bytes) else {
        return;
    };
    let bytes_written = index.to_bytes();
    let written = IndexFile::parse(&bytes_written).map(|index| index.to_bytes());
    assert_eq!(written.as_ref(), Ok(&bytes_written), "written and read again");
    let Ok(before) = index.refs() else {
        return;
    };
    let name = "fuzz.example/a:1";
    let digest = Algorithm::Sha256.digest(bytes);
    let target = Descriptor::new(MediaType::new(MediaType::OCI_MANIFEST), digest, 7);
    index.set(name, &target);
    assert!(!index.set(name, &target), "a second time changes nothing");
    let again = IndexFile::parse(&index.to_bytes()).and_then(|index| index.refs());
    let mut again = again.unwrap_or_default();
    let at = again.iter().position(|entry| entry.name.as_deref() == Some(name));
    assert_eq!(at.map(|at| again.remove(at).descriptor.digest), Some(digest));
    let mut others = before;
    others.retain(|entry| entry.name.as_deref() != Some(name));
    assert_eq!(again, others, "other entries stay as they were");
    assert!(index.remove(name) && !index.remove(name));
    assert_eq!(index.refs().as_ref(), Ok(&others));
}

/// The lines of a lease, as they are and with the checksums that they should have: otherwise hardly
/// an input came as far as the fields.
pub(crate) fn lease_records(bytes: &[u8]) {
    round_trip(bytes);
    round_trip(&sealed(bytes));
}

/// Each line with the checksum that it should have.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        sealed.extend_from_slice(line);
        sealed.extend_from_slice(format!(" {:08x}\n", crc32fast::hash(line)).as_bytes());
    }
    sealed
}

/// The account of a part, as it is and with the checksums that it should have.
pub(crate) fn part_state(bytes: &[u8]) {
    accounts(bytes);
    let lines =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let sealed: String = lines.map(line::seal).collect();
    accounts(sealed.as_bytes());
}

fn accounts(bytes: &[u8]) {
    let Some(ranges) = part_state::parse(bytes) else {
        return;
    };
    let all: Vec<_> = ranges.iter().collect();
    assert!(all.iter().all(|range| range.start < range.end), "{all:?}");
    assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start), "{all:?}");
    // No more than a file of a hundred bytes can have.
    let within = ranges.clone().within(100);
    let missing = within.missing(0..100).iter().map(|range| range.end - range.start).sum::<u64>();
    assert_eq!(within.total() + missing, 100);
    let list: Vec<_> = ranges.iter().map(|it| format!("{}-{}", it.start, it.end)).collect();
    let written = line::seal(&format!("bytes {}", list.join(",")));
    let again: Option<Ranges> = part_state::parse(written.as_bytes());
    assert_eq!(again, Some(ranges), "written and read again");
}

fn round_trip(bytes: &[u8]) {
    let (records, taken) = match lease_record::parse(bytes) {
        Ok(parsed) => parsed,
        Err(line) => {
            assert!(line >= 1 && line <= bytes.split(|byte| *byte == b'\n').count());
            return;
        }
    };
    // What is not taken is the beginning of a line, or begins with a line that a power cut emptied.
    let left = &bytes[taken..];
    let torn = |end: usize| left[..end].contains(&0);
    assert!(left.iter().position(|byte| *byte == b'\n').is_none_or(torn), "{left:?}");
    let text: String = records.iter().map(Record::to_line).collect();
    let again = lease_record::parse(text.as_bytes());
    // Control characters in a holder's text are replaced when it is written.
    let plain = |records: &[Record]| {
        let kept = records.iter().filter(|record| !matches!(record, Record::Holder(_)));
        kept.cloned().collect::<Vec<_>>()
    };
    assert_eq!(again.map(|(again, _)| plain(&again)), Ok(plain(&records)));
}

/// Which blobs a repository has, as it is and with checksums: what is foreign or torn says nothing,
/// what is appended is read, and nothing else is.
pub(crate) fn origins(bytes: &[u8]) {
    appended(bytes);
    appended(&sealed(bytes));
}

/// What the file of this name says.
fn said(name: &str, bytes: &[u8]) -> (Option<String>, BTreeSet<Digest>) {
    let (mut repository, mut blobs) = (None, BTreeSet::new());
    let read = origins::each(bytes, |record| match record {
        Origin::Repository(text) => repository = origins::named(name, text).or(repository.take()),
        Origin::Blob(digest) => drop(blobs.insert(digest)),
    });
    assert!(read.is_ok(), "memory can be read");
    (repository, blobs)
}

fn appended(bytes: &[u8]) {
    let mut named = Vec::new();
    assert!(origins::each(bytes, |record| named.push(record)).is_ok());
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let whole = lines[..lines.len() - 1].iter().filter(|line| line.len() < 1024);
    let plain: Vec<_> = whole.filter_map(|line| Origin::parse(line)).collect();
    assert_eq!(named, plain, "whole lines as they were written, and no others");

    let first = named.iter().find_map(|record| match record {
        Origin::Repository(text) if Reference::of_repository(text).is_ok() => Some(text.clone()),
        _ => None,
    });
    let own = first.unwrap_or_else(|| "fuzz.example/a".to_owned());
    let name = origins::stem(&own);
    assert!(origins::is_name(&name));
    let (repository, blobs) = said(&name, bytes);
    assert!(repository.is_none_or(|it| it == own), "of no other repository");
    let (foreign, _) = said(&origins::stem("other.example/fuzz"), bytes);
    assert!(foreign.is_none_or(|it| it == "other.example/fuzz"), "nor under another name");

    // Whatever there was, even half a line, and whatever comes after.
    let new = Algorithm::Sha256.digest(bytes);
    let is_canonical =
        Reference::of_repository(&own).is_ok_and(|it| origins::repository_of(&it) == own);
    let text = origins::addition(Some(own.clone()), [new]);
    let longer = [bytes, text.as_bytes()].concat();
    let (repository, after) = said(&name, &longer);
    assert_eq!(repository, is_canonical.then_some(own), "written and read again");
    // Half a line may have lacked no more than its line feed.
    let mut due = said(&name, &[bytes, b"\n"].concat()).1;
    assert!(due.is_superset(&blobs));
    due.insert(new);
    assert_eq!(after, due);
    for cut in [bytes.len() / 2, longer.len() - 1, longer.len() - text.len() / 2] {
        let (_, left) = said(&name, &longer[..cut]);
        assert!(left.is_subset(&after), "what is torn says nothing new");
    }
}

/// The copy of `index.json`: it is what was written, to the last bit, or nothing.
pub(crate) fn refs_copy(bytes: &[u8]) {
    if let Some(index) = refs_copy::parse(bytes) {
        assert_eq!([refs_copy::heading(index).as_bytes(), index].concat(), bytes);
    }
    let copy = [refs_copy::heading(bytes).as_bytes(), bytes].concat();
    assert_eq!(refs_copy::parse(&copy), Some(bytes), "written and read again");
    let at = bytes
        .iter()
        .fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let at = at % copy.len();
    assert_eq!(refs_copy::parse(&copy[..at]), None, "torn at {at}");
    assert_eq!(refs_copy::parse(&[&copy[..], b"\n"].concat()), None, "too long");
    let mut flipped = copy.clone();
    flipped[at] ^= 1 << (at % 8);
    assert_eq!(refs_copy::parse(&flipped), None, "another byte at {at}");
    flipped = copy;
    flipped[at..].fill(0);
    assert!(refs_copy::parse(&flipped).is_none_or(|it| it == bytes), "zeroes from {at}");
    // Bytes that are no index.json are never taken for one, nor are two that differ.
    if let Ok(index) = IndexFile::parse(bytes) {
        let own = index.to_bytes();
        let copy = [refs_copy::heading(&own).as_bytes(), &own].concat();
        let read = refs_copy::parse(&copy).and_then(|it| IndexFile::parse(it).ok());
        assert_eq!(read.map(|it| it.refs()), Some(index.refs()), "the same refs");
    }
}

/// `config.toml`: a setting that is changed is read again, and all else stays.
pub(crate) fn config(text: &str) {
    for line in text.lines() {
        units(line);
    }
    let Ok(document) = text.parse::<DocumentMut>() else {
        return;
    };
    let Ok(before) = StoreConfig::parse(&document) else {
        return;
    };
    let defaults = ["20G", "5M", "1k", "48h", "off"];
    for (key, value) in ConfigKey::ALL.into_iter().zip(defaults) {
        let mut changed = document.clone();
        config::edit(&mut changed, key, Some(value));
        let written = reads(&changed, key, Some(value), &before);
        for comment in text.lines().map(str::trim).filter(|line| line.starts_with('#')) {
            assert!(written.lines().any(|line| line.trim() == comment), "{comment} is lost");
        }
        config::edit(&mut changed, key, Some(value));
        assert_eq!(changed.to_string(), written, "a second time changes nothing");
        config::edit(&mut changed, key, None);
        reads(&changed, key, None, &before);
    }
}

/// Looks that a document, as it is written, sets this key so and all others as before.
fn reads(
    changed: &DocumentMut,
    key: ConfigKey,
    value: Option<&str>,
    before: &StoreConfig,
) -> String {
    let written = changed.to_string();
    let parsed = written.parse::<DocumentMut>().map_err(|error| error.to_string());
    let config = parsed.and_then(|document| StoreConfig::parse(&document));
    let Ok(config) = config else { panic!("{config:?} of {written:?}") };
    assert_eq!(config.text(key), value, "{written:?}");
    for other in ConfigKey::ALL.into_iter().filter(|other| *other != key) {
        assert_eq!(config.text(other), before.text(other), "{written:?}");
    }
    let unknown = |config: &StoreConfig| config.unknown.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(unknown(&config), unknown(before), "{written:?}");
    written
}

fn units(text: &str) {
    if let Ok(size) = parse_size(text) {
        assert!(size > 0);
        assert_eq!(parse_size(&size.to_string()), Ok(size), "{text:?}");
    }
    if let Ok(time) = parse_duration(text) {
        let seconds = Duration::from_secs(time.as_secs());
        assert_eq!(parse_duration(&format!("{}s", time.as_secs())), Ok(seconds), "{text:?}");
    }
}

/// What is replaced or overwritten as a whole, and the names of files that say something by them.
pub(crate) fn notes(bytes: &[u8]) {
    note(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        note(&sealed(line));
        let Ok(name) = std::str::from_utf8(line) else {
            continue;
        };
        if let Some(digest) = suspect::digest_of(name) {
            assert_eq!(suspect::name(&digest), name, "one blob, one name");
        }
        for is_name in [origins::is_name(name), hosts::is_name(name)] {
            assert!(!is_name || !name.contains(['/', '\0']) && !name.starts_with('.'));
        }
    }
}

fn note(bytes: &[u8]) {
    let torn = (0..bytes.len()).map(|end| &bytes[..end]);
    if let Some((used, since)) = space::parse_note(bytes) {
        let written = space::to_note(used, since);
        assert_eq!(space::parse_note(written.as_bytes()), Some((used, since)));
        assert!(torn.clone().all(|it| space::parse_note(it).is_none()), "it is torn");
    }
    if let Some(closed) = Closed::parse(bytes) {
        let ceiling = Duration::from_secs(90);
        let from = UNIX_EPOCH.checked_add(Duration::from_millis(closed.from));
        for now in [Some(UNIX_EPOCH), from].into_iter().flatten() {
            assert!(closed.left(now, ceiling) <= ceiling);
        }
        assert_eq!(Closed::parse(closed.to_line().as_bytes()), Some(closed));
        assert!(torn.clone().all(|it| Closed::parse(it).is_none()), "it is torn");
    }
}
