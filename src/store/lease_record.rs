//! The lines of a lease file.
//!
//! A line is `KIND VALUE CRC`, the CRC-32 (IEEE) of what stands before it in eight hexadecimal
//! digits. Lines are only ever appended. A last line without its line feed is one whose writer died
//! or is still writing: nobody relied on it yet. A bad line anywhere else is damage.

use std::fmt;

use super::line;
use crate::oci::Digest;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// `holder`: who made the lease, for people.
    Holder(String),
    /// `blob`: keeps one blob.
    Blob(Digest),
    /// `tree`: keeps a blob and all that it is made of.
    Tree(Digest),
    /// `want`: the process is going to write a blob of so many bytes. It keeps nothing.
    Want(Digest, u64),
    /// `room`: the process is going to write blobs whose digests it does not know yet, which take so
    /// many bytes on disk. It keeps nothing.
    Room(u64),
    /// `until`: the lease outlives its process, to this second of Unix time; `never` ends by itself
    /// where there is none.
    Until(Option<u64>),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Holder(text) => {
                let plain = |c: char| if c.is_control() { '?' } else { c };
                write!(f, "holder {}", text.chars().map(plain).collect::<String>())
            }
            Record::Blob(digest) => write!(f, "blob {digest}"),
            Record::Tree(digest) => write!(f, "tree {digest}"),
            Record::Want(digest, size) => write!(f, "want {digest} {size}"),
            Record::Room(bytes) => write!(f, "room {bytes}"),
            Record::Until(Some(seconds)) => write!(f, "until {seconds}"),
            Record::Until(None) => f.write_str("until never"),
        }
    }
}

impl Record {
    /// The line, with its line feed.
    pub(crate) fn to_line(&self) -> String {
        line::seal(&self.to_string())
    }

    fn parse(line: &[u8]) -> Option<Record> {
        let text = line::open(line)?;
        let (kind, value) = text.split_once(' ')?;
        match kind {
            "holder" => Some(Record::Holder(value.to_owned())),
            "blob" => value.parse().ok().map(Record::Blob),
            "tree" => value.parse().ok().map(Record::Tree),
            "want" => {
                let (digest, size) = value.split_once(' ')?;
                Some(Record::Want(digest.parse().ok()?, size.parse().ok()?))
            }
            "room" => value.parse().ok().map(Record::Room),
            "until" if value == "never" => Some(Record::Until(None)),
            "until" => value.parse().ok().map(|seconds| Record::Until(Some(seconds))),
            _ => None,
        }
    }
}

/// Reads the whole lines of `bytes`: the records, and how many bytes they took.
///
/// # Errors
///
/// The number of the first bad line, counted from 1.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Vec<Record>, usize), usize> {
    let mut records = Vec::new();
    let mut taken = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        // A power cut may leave zeros where the lease of a process had lines. Such a lease is dead;
        // one that lasts was synced before anybody relied on it, and says since when after all else.
        let lasts = || {
            let ends_with_process = |it: &Record| *it == Record::Until(Some(0));
            records.iter().any(|it| matches!(it, Record::Until(_)) && !ends_with_process(it))
        };
        if line.contains(&0) && !lasts() {
            break;
        }
        records.push(Record::parse(line).ok_or(records.len() + 1)?);
        taken += line.len() + 1;
    }
    Ok((records, taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn some() -> Vec<Record> {
        let digest = Algorithm::Sha256.digest(b"x");
        vec![
            Record::Holder("process 7: store pull a\nb".to_owned()),
            Record::Blob(digest),
            Record::Tree(Algorithm::Sha512.digest(b"x")),
            Record::Want(digest, 17),
            Record::Room(8192),
            Record::Until(Some(1_800_000_000)),
            Record::Until(None),
        ]
    }

    #[test]
    fn lines_round_trip_and_a_torn_tail_is_left_out() {
        let text: String = some().iter().map(Record::to_line).collect();
        let (records, taken) = parse(text.as_bytes()).unwrap();
        assert_eq!(taken, text.len());
        assert_eq!(records[1..], some()[1..]);
        assert_eq!(records[0], Record::Holder("process 7: store pull a?b".to_owned()));
        for cut in 0..text.len() {
            let (records, taken) = parse(&text.as_bytes()[..cut]).unwrap();
            assert!(taken <= cut && records.len() < some().len());
        }
    }

    #[test]
    fn zeros_end_the_lease_of_a_process_and_damage_one_that_lasts() {
        let line = some()[1].to_line();
        let (records, _) = parse(format!("{line}\0\0\0\n").as_bytes()).unwrap();
        assert_eq!(records.len(), 1);
        let lasting = format!("{}{line}\0\0\0\n", Record::Until(None).to_line());
        assert_eq!(parse(lasting.as_bytes()), Err(3));
        // Nobody was given its id yet.
        let made = format!("{}{line}\0\0\0\n", Record::Until(Some(0)).to_line());
        assert_eq!(parse(made.as_bytes()).map(|(records, _)| records.len()), Ok(2));
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let line = Record::Blob(Algorithm::Sha256.digest(b"x")).to_line().into_bytes();
        for bit in 0..(line.len() - 1) * 8 {
            let mut bad = line.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // The case of a hexadecimal digit of the CRC carries nothing.
            let same_text = bad.eq_ignore_ascii_case(&line);
            assert!(same_text || parse(&bad) == Err(1) || bad.contains(&b'\n'), "bit {bit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
