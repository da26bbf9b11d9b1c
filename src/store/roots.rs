//! What a collection keeps in mind of the refs: of a hundred thousand, their names and all else that they
//! say would take more memory than everything that it finds.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::index_file::{MANIFESTS, parse_entry};
use super::layout::{Layout, read_small};
use super::refs::{MAX_INDEX, damaged};
use super::refs_copy;
use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Digest, Hasher, MediaType};
use crate::sys::Meta;

/// What of the file is in memory while it is read, in bytes: with many refs it is larger than all that
/// is kept.
const PIECE: usize = 64 * 1024;
/// How often it is read while others write to it.
const TRIES: usize = 5;

/// The target of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) digest: Digest,
    /// What the ref says that it is.
    pub(crate) media_type: Arc<MediaType>,
}

/// Reads the targets of all refs, unnamed entries too, in their order; and the first line of a copy of
/// the bytes that said so. An entry that is not understood is an error.
pub(super) fn read(layout: &Layout) -> Result<(Vec<Root>, String)> {
    for _ in 0..TRIES {
        if let Some(read) = read_once(layout)? {
            return Ok(read);
        }
    }
    Err(damaged(layout, "another program is writing it".to_owned()))
}

/// The same, unless somebody wrote to the file meanwhile: other tools do so where it lies, and what is
/// read then may be half of the old and half of the new.
fn read_once(layout: &Layout) -> Result<Option<(Vec<Root>, String)>> {
    let path = layout.root.path_of("index.json");
    let Some((file, before)) = layout.root.open_file_meta("index.json")? else {
        return Err(damaged(layout, "it is missing".to_owned()));
    };
    let mut hashed =
        Hashed { reader: (&file).take(MAX_INDEX + 1), hasher: Algorithm::Blake3.hasher(), len: 0 };
    let parsed = parse_from(BufReader::with_capacity(PIECE, &mut hashed));
    if hashed.len > MAX_INDEX {
        return Err(Error::TooLarge { what: path.display().to_string(), limit: MAX_INDEX });
    }
    let after = Meta::of(&file).context("look at", &path)?;
    if (after.len, after.modified) != (before.len, before.modified) {
        return Ok(None);
    }
    match parsed {
        Ok(roots) => Ok(Some((roots, refs_copy::heading_of(&hashed.hasher.finish(), hashed.len)))),
        Err(Fault::Read(error)) => Err(error).context("read", path),
        Err(Fault::Text(reason)) => Err(damaged(layout, reason)),
    }
}

/// The bytes of an `index.json` all of whose entries are understood.
pub(super) fn read_bytes(layout: &Layout) -> Result<Vec<u8>> {
    let bytes = read_small(&layout.root, "index.json", MAX_INDEX)?
        .ok_or_else(|| damaged(layout, "it is missing".to_owned()))?;
    match parse(&bytes) {
        Ok(_) => Ok(bytes),
        Err(reason) => Err(damaged(layout, reason)),
    }
}

/// Hashes what is read.
struct Hashed<R> {
    reader: R,
    hasher: Hasher,
    len: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.len += read as u64;
        Ok(read)
    }
}

enum Fault {
    Read(io::Error),
    Text(String),
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Fault {
        match error.is_io() {
            true => Fault::Read(error.into()),
            false => Fault::Text(error.to_string()),
        }
    }
}

/// The same of the bytes of `index.json`.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Root>, String> {
    parse_from(bytes).map_err(|fault| match fault {
        Fault::Read(error) => error.to_string(),
        Fault::Text(reason) => reason,
    })
}

fn parse_from(reader: impl Read) -> Result<Vec<Root>, Fault> {
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let mut roots = Roots::default();
    deserializer.deserialize_map(&mut roots)?;
    deserializer.end()?;
    match roots.fault {
        Some(reason) => Err(Fault::Text(reason)),
        None => Ok(roots.targets),
    }
}

/// Takes in the entries one by one.
#[derive(Default)]
struct Roots {
    known: HashMap<MediaType, Arc<MediaType>>,
    targets: Vec<Root>,
    /// Why an entry was not understood.
    fault: Option<String>,
}

impl Roots {
    fn add(&mut self, entry: &RawValue) {
        let target = match parse_entry(entry) {
            Ok(entry) => entry.descriptor,
            Err(reason) => {
                self.fault = Some(reason);
                return;
            }
        };
        let shared = self.known.get(&target.media_type).map(Arc::clone);
        let media_type = shared.unwrap_or_else(|| {
            let new = Arc::new(target.media_type.clone());
            self.known.insert(target.media_type, Arc::clone(&new));
            new
        });
        self.targets.push(Root { digest: target.digest, media_type });
    }
}

impl<'de> Visitor<'de> for &mut Roots {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_there = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == MANIFESTS {
                // Of two lists the last counts.
                (self.targets, self.fault, is_there) = (Vec::new(), None, true);
                map.next_value_seed(Entries(self))?;
            } else {
                // Not passed over: it is no JSON either if it is no UTF-8.
                map.next_value::<Box<RawValue>>()?;
            }
        }
        match is_there {
            true => Ok(()),
            false => Err(serde::de::Error::missing_field(MANIFESTS)),
        }
    }
}

/// The list of the entries.
struct Entries<'a>(&'a mut Roots);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of descriptors")
    }

    // Go writes an empty list so.
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Box<RawValue>>()? {
            self.0.add(&entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::index_file::IndexFile;
    use super::*;

    fn by_refs(bytes: &[u8]) -> Option<Vec<Root>> {
        let refs = IndexFile::parse(bytes).and_then(|index| index.refs()).ok()?;
        let root = |descriptor: crate::oci::Descriptor| Root {
            digest: descriptor.digest,
            media_type: Arc::new(descriptor.media_type),
        };
        Some(refs.into_iter().map(|it| root(it.descriptor)).collect())
    }

    #[test]
    fn roots_are_the_targets_of_the_refs() {
        let entry = |n: u8, media_type: &str| {
            let digest = crate::oci::Algorithm::Sha256.digest(&[n]);
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1}}"#)
        };
        let (a, b) = (entry(1, MediaType::OCI_MANIFEST), entry(2, MediaType::OCI_INDEX));
        let cases = [
            format!(r#"{{"schemaVersion":2,"manifests":[{a},{b},{a}]}}"#),
            format!(r#"{{"manifests":[{a}],"x":[1,{{"y":null}}],"manifests":[{b}]}} "#),
            r#"{"manifests":null}"#.to_owned(),
            r#"{"manifests":[]}"#.to_owned(),
        ];
        for (text, count) in cases.iter().zip([3, 1, 0, 0]) {
            let roots = parse(text.as_bytes()).unwrap();
            assert_eq!(roots.len(), count, "{text}");
            assert_eq!(Some(roots), by_refs(text.as_bytes()), "{text}");
        }
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"manifests":[]} x"#,
            r#"{"manifests":[{}]}"#,
            r#"{"manifests":{}}"#,
            r#"{"manifests":[],"x":}"#,
        ] {
            assert!(
                parse(wrong.as_bytes()).is_err() && by_refs(wrong.as_bytes()).is_none(),
                "{wrong}"
            );
        }
        let bad = b"{\"manifests\":[],\"x\":\"\xff\"}";
        assert!(parse(bad).is_err() && by_refs(bad).is_none(), "no UTF-8");
    }

    /// Other tools write it where it lies, while a collection reads it.
    #[test]
    fn what_is_half_old_and_half_new_is_not_believed() {
        use std::os::unix::fs::FileExt;

        let temp = tempfile::tempdir().unwrap();
        let store = crate::store::BlobStore::init(temp.path().join("store")).unwrap();
        let text = |kind: &str| {
            let entry = |n: u32| {
                let digest = Algorithm::Sha256.digest(format!("{kind} {n}").as_bytes());
                format!(
                    r#"{{"mediaType":"{}","digest":"{digest}","size":1}}"#,
                    MediaType::OCI_MANIFEST
                )
            };
            let entries: Vec<_> = (0..3000).map(entry).collect();
            format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
        };
        let texts = [text("a"), text("b")];
        let known = texts.each_ref().map(|text| parse(text.as_bytes()).unwrap());
        let path = store.root().join("index.json");
        std::fs::write(&path, &texts[0]).unwrap();
        let (stop, mut good) = (std::sync::atomic::AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                for text in texts.iter().rev().cycle() {
                    for (n, piece) in text.as_bytes().chunks(4096).enumerate() {
                        file.write_all_at(piece, n as u64 * 4096).unwrap();
                    }
                    if stop.load(std::sync::atomic::Ordering::SeqCst) {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(60));
                }
            });
            for _ in 0..60 {
                if let Ok((roots, _)) = read(store.layout()) {
                    assert!(known.contains(&roots), "neither of the two");
                    good += 1;
                }
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        assert!(good > 0);
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_they_say_the_same(bytes: Vec<u8>, text in r#"\{"manifests":[\[\]{}:,"a1 ]{0,20}\}"#) {
            proptest::prop_assert_eq!(parse(&bytes).ok(), by_refs(&bytes));
            proptest::prop_assert_eq!(parse(text.as_bytes()).ok(), by_refs(text.as_bytes()));
        }
    }
}
