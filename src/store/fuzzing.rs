//! What fuzz targets may reach of the store's parsers.

use super::index_file::IndexFile;
use super::lease_record::{self, Record};
use super::ranges::Ranges;
use super::{line, part_state};
use crate::oci::{Algorithm, Descriptor, MediaType};

/// `index.json`: what is set is found again, and what was there stays.
pub(crate) fn index_json(bytes: &[u8]) {
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
    let mut sealed = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        sealed.extend_from_slice(line);
        sealed.extend_from_slice(format!(" {:08x}\n", crc32fast::hash(line)).as_bytes());
    }
    round_trip(&sealed);
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
