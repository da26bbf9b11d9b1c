//! The bytes of `index.json`: pure, so that it can be fuzzed.

use std::fmt;

use indexmap::IndexMap;
use memchr::memmem::Finder;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::oci::{Descriptor, MediaType};

/// The annotations that carry a ref's name: the image specification's, which skopeo and umoci read,
/// and containerd's. Both are written; either is understood.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation of a ref that is pinned, with this value. It is a mark on the name, and stays with it
/// when the name comes to stand for another image.
const PINNED: &str = "layerstore.pinned";
const PINNED_VALUE: &str = "true";

/// An entry of `index.json`: a name for an image, and a root of the collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Ref {
    /// The name; other tools write entries without one, which keep blobs alive all the same.
    pub name: Option<String>,
    /// The index or manifest that it names.
    pub descriptor: Descriptor,
}

impl Ref {
    /// Whether the name is pinned: the image that it stands for is not dropped to make room, and the
    /// name not removed but by force.
    pub fn is_pinned(&self) -> bool {
        self.descriptor.annotations.get(PINNED).is_some_and(|value| value == PINNED_VALUE)
    }
}

/// `index.json` as it is on disk. Whatever other tools put there is kept as it was, byte for byte.
///
/// Entries stay text until somebody asks for them: of ten thousand, a pull needs one.
#[derive(Clone, Debug)]
pub(crate) struct IndexFile {
    /// The keys in their order. `manifests` is among them, for its place, with no value.
    document: IndexMap<String, Option<Box<RawValue>>>,
    entries: Vec<Box<RawValue>>,
}

pub(super) const MANIFESTS: &str = "manifests";

/// An object of which nothing but the names is read: numbers above all lose digits when they are.
type Members = IndexMap<String, Box<RawValue>>;

impl Default for IndexFile {
    fn default() -> IndexFile {
        // Numbers and strings always have a text.
        let media_type = serde_json::value::to_raw_value(MediaType::OCI_INDEX).ok();
        let document = IndexMap::from([
            ("schemaVersion".to_owned(), serde_json::value::to_raw_value(&2).ok()),
            ("mediaType".to_owned(), media_type),
            (MANIFESTS.to_owned(), None),
        ]);
        IndexFile { document, entries: Vec::new() }
    }
}

impl IndexFile {
    /// Parses the file. The error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<IndexFile, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // A map of strings to values always has a text.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The refs, unnamed entries too.
    pub(crate) fn refs(&self) -> Result<Vec<Ref>, String> {
        self.entries.iter().map(|entry| parse_entry(entry)).collect()
    }

    /// The refs that are understood: what another tool wrote is no reason not to find the rest.
    pub(crate) fn known_refs(&self) -> Vec<Ref> {
        self.entries.iter().filter_map(|entry| parse_entry(entry).ok()).collect()
    }

    /// The first ref of a name that is understood.
    pub(crate) fn find(&self, name: &str) -> Option<Ref> {
        self.named(name).find_map(|(_, entry)| parse_entry(entry).ok())
    }

    /// The entries of a name, understood or not, with their places.
    fn named(&self, name: &str) -> impl Iterator<Item = (usize, &RawValue)> {
        let wanted = Wanted::new(name);
        let entries = self.entries.iter().map(|entry| &**entry).enumerate();
        entries.filter(move |(_, entry)| wanted.is_name_of(entry))
    }

    /// Whether an entry has this name, be it understood or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }

    /// Points a name at a descriptor; whether that changed anything. A pinned name stays pinned, and
    /// no descriptor brings a pin with it.
    pub(crate) fn set(&mut self, name: &str, target: &Descriptor) -> bool {
        let mut target = target.clone();
        target.annotations.remove(PINNED);
        let named: Vec<usize> = self.named(name).map(|(n, _)| n).collect();
        if named.iter().any(|n| is_pinned(&self.entries[*n])) {
            target.annotations.insert(PINNED.to_owned(), PINNED_VALUE.to_owned());
        }
        target.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        target.annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
        // A descriptor has only strings for keys, so it always has a JSON form.
        let new = serde_json::value::to_raw_value(&target).unwrap_or_default();
        match named[..] {
            [n] if is_same(&self.entries[n], &new) => false,
            [n] => {
                self.entries[n] = new;
                true
            }
            _ => {
                self.remove(name);
                self.entries.push(new);
                true
            }
        }
    }

    /// Whether a name is pinned.
    pub(crate) fn is_pinned(&self, name: &str) -> bool {
        self.named(name).any(|(_, entry)| is_pinned(entry))
    }

    /// Pins a name, or takes the pin away; whether that changed anything, or nothing if there is no
    /// such name. Whatever else an entry says stays.
    pub(crate) fn set_pinned(&mut self, name: &str, pinned: bool) -> Option<bool> {
        let (mut changed, wanted) = (None, Wanted::new(name));
        for entry in self.entries.iter_mut().filter(|entry| wanted.is_name_of(entry)) {
            let mut members: Members = serde_json::from_str(entry.get()).ok()?;
            let annotations = members.get_mut("annotations")?;
            let mut notes: Members = serde_json::from_str(annotations.get()).ok()?;
            let value = serde_json::value::to_raw_value(PINNED_VALUE).ok()?;
            let was = notes.get(PINNED).is_some_and(|value| is_string(value, PINNED_VALUE));
            match pinned {
                true => drop(notes.insert(PINNED.to_owned(), value)),
                false => drop(notes.shift_remove(PINNED)),
            }
            if was != pinned {
                *annotations = serde_json::value::to_raw_value(&notes).ok()?;
                *entry = serde_json::value::to_raw_value(&members).ok()?;
            }
            changed = Some(changed.unwrap_or(false) || was != pinned);
        }
        changed
    }

    /// Removes a name; whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let (before, wanted) = (self.entries.len(), Wanted::new(name));
        self.entries.retain(|entry| !wanted.is_name_of(entry));
        self.entries.len() != before
    }
}

impl<'de> Deserialize<'de> for IndexFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IndexFile, D::Error> {
        deserializer.deserialize_map(IndexVisitor)
    }
}

/// One pass over the text: the entries are found where they begin and end, and not looked into.
struct IndexVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = IndexFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IndexFile, A::Error> {
        let (mut document, mut entries) = (IndexMap::new(), None);
        while let Some(key) = map.next_key::<String>()? {
            let value = if key == MANIFESTS {
                // Go writes an empty list as `null`.
                let list: Option<Vec<Box<RawValue>>> = map.next_value()?;
                entries = Some(list.unwrap_or_default());
                None
            } else {
                Some(map.next_value()?)
            };
            document.insert(key, value);
        }
        let entries = entries.ok_or_else(|| serde::de::Error::missing_field(MANIFESTS))?;
        Ok(IndexFile { document, entries })
    }
}

impl Serialize for IndexFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.document.len()))?;
        for (key, value) in &self.document {
            match value {
                Some(value) => map.serialize_entry(key, value)?,
                None => map.serialize_entry(key, &self.entries)?,
            }
        }
        map.end()
    }
}

pub(super) fn parse_entry(entry: &RawValue) -> Result<Ref, String> {
    let descriptor: Descriptor = serde_json::from_str(entry.get())
        .map_err(|error| format!("an entry is no descriptor: {error}"))?;
    let name = [IMAGE_NAME, REF_NAME].iter().find_map(|key| descriptor.annotations.get(*key));
    Ok(Ref { name: name.cloned(), descriptor })
}

/// The name of an entry, of one too that is no descriptor.
fn name_of(entry: &RawValue) -> Option<String> {
    // Of a key that stands there twice the last counts, as for `parse_entry`.
    let members: Members = serde_json::from_str(entry.get()).ok()?;
    let notes: Members = serde_json::from_str(members.get("annotations")?.get()).ok()?;
    let names = [IMAGE_NAME, REF_NAME].map(|key| notes.get(key));
    names.into_iter().flatten().find_map(|name| serde_json::from_str(name.get()).ok())
}

/// A name that is looked for among many entries.
struct Wanted<'a> {
    name: &'a str,
    finder: Finder<'a>,
}

impl<'a> Wanted<'a> {
    fn new(name: &'a str) -> Wanted<'a> {
        Wanted { name, finder: Finder::new(name) }
    }

    fn is_name_of(&self, entry: &RawValue) -> bool {
        // Parsing an entry takes longer than seeing that the name is nowhere in it. Where characters
        // are written by their numbers, only parsing tells.
        let text = entry.get().as_bytes();
        let may_be = self.finder.find(text).is_some() || memchr::memchr(b'\\', text).is_some();
        may_be && name_of(entry).as_deref() == Some(self.name)
    }
}

fn is_pinned(entry: &RawValue) -> bool {
    parse_entry(entry).is_ok_and(|entry| entry.is_pinned())
}

fn is_string(text: &RawValue, expected: &str) -> bool {
    serde_json::from_str::<String>(text.get()).is_ok_and(|value| value == expected)
}

/// Whether two texts say the same, in whatever order and with whatever space.
fn is_same(one: &RawValue, other: &RawValue) -> bool {
    let parse = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    one.get() == other.get() || parse(one).is_some() && parse(one) == parse(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn target(text: &str) -> Descriptor {
        let digest = Algorithm::Sha256.digest(text.as_bytes());
        Descriptor::new(MediaType::new(MediaType::OCI_MANIFEST), digest, text.len() as u64)
    }

    fn names(index: &IndexFile) -> Vec<Option<String>> {
        index.refs().unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn set_and_remove() {
        let mut index = IndexFile::default();
        assert!(index.set("a:1", &target("x")));
        assert!(index.set("b:1", &target("x")));
        assert!(!index.set("a:1", &target("x")), "nothing changed");
        assert!(index.set("a:1", &target("yy")));
        let again = IndexFile::parse(&index.to_bytes()).unwrap();
        assert_eq!(names(&again), [Some("a:1".to_owned()), Some("b:1".to_owned())]);
        assert_eq!(again.refs().unwrap()[0].descriptor.size, 2);
        assert!(index.remove("a:1"));
        assert!(!index.remove("a:1"));
        assert_eq!(names(&index), [Some("b:1".to_owned())]);
    }

    #[test]
    fn a_pin_stays_with_its_name_and_no_other_gets_it() {
        let mut index = IndexFile::default();
        index.set("a:1", &target("x"));
        assert_eq!(index.set_pinned("b:1", true), None, "there is none");
        assert_eq!(index.set_pinned("a:1", true), Some(true));
        assert_eq!(index.set_pinned("a:1", true), Some(false));
        let pinned = index.find("a:1").unwrap();
        assert!(pinned.is_pinned());
        index.set("b:1", &pinned.descriptor);
        assert!(!index.find("b:1").unwrap().is_pinned(), "a descriptor brings no pin");
        index.set("a:1", &target("yy"));
        let mut again = IndexFile::parse(&index.to_bytes()).unwrap();
        assert!(again.find("a:1").unwrap().is_pinned() && again.is_pinned("a:1"));
        assert_eq!(again.find("a:1").unwrap().descriptor.size, 2);
        assert_eq!(again.set_pinned("a:1", false), Some(true));
        assert_eq!(again.set_pinned("a:1", false), Some(false));
        assert!(!again.is_pinned("a:1"));
    }

    #[test]
    fn a_pin_leaves_what_another_tool_wrote() {
        let digest = target("x").digest;
        let text = format!(
            r#"{{"manifests":[{{"mediaType":"a/b","digest":"{digest}","size":1,"strange":[1],
            "annotations":{{"k":"v","org.opencontainers.image.ref.name":"v1"}}}}]}}"#
        );
        let mut index = IndexFile::parse(text.as_bytes()).unwrap();
        assert_eq!(index.set_pinned("v1", true), Some(true));
        let written = String::from_utf8(index.to_bytes()).unwrap();
        assert!(
            written.contains(r#""strange":[1]"#) && written.contains(r#""k":"v""#),
            "{written}"
        );
        assert!(index.find("v1").unwrap().is_pinned());
    }

    #[test]
    fn what_others_wrote_is_kept() {
        let digest = target("x").digest;
        let text = format!(
            r#"{{"schemaVersion":2,"annotations":{{"k":"v"}},"manifests":[
            {{"mediaType":"a/b","digest":"{digest}","size":1,"strange":[1]}},
            {{"mediaType":"a/b","digest":"{digest}","size":1,"annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}]}}"#
        );
        let mut index = IndexFile::parse(text.as_bytes()).unwrap();
        assert_eq!(names(&index), [None, Some("v1".to_owned())]);
        index.set("new:1", &target("y"));
        let written = String::from_utf8(index.to_bytes()).unwrap();
        assert!(written.contains(r#""annotations":{"k":"v"}"#), "{written}");
        assert!(written.contains(r#""strange":[1]"#), "{written}");
    }

    /// A number that is read and written again is another one; found by a fuzzer.
    #[test]
    fn numbers_keep_every_digit() {
        let digest = target("x").digest;
        let (long, fraction) = ("4".repeat(110), "0.1000000000000000000000000000000001");
        let text = format!(
            r#"{{"own":{long},"manifests":[{{"mediaType":"a/b","digest":"{digest}","size":1,"own":{fraction},
            "annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}]}}"#
        );
        let mut index = IndexFile::parse(text.as_bytes()).unwrap();
        index.set("new:1", &target("y"));
        assert_eq!(index.set_pinned("v1", true), Some(true));
        let written = String::from_utf8(index.to_bytes()).unwrap();
        for number in [&long, fraction] {
            assert!(written.contains(&format!(r#""own":{number},"#)), "{number}: {written}");
        }
    }

    #[test]
    fn a_name_is_found_however_it_is_written() {
        let digest = target("x").digest;
        for (name, found) in
            [("a/b:1", true), (r"a\/b:1", true), (r"\u0061/b:1", true), ("a/b:12", false)]
        {
            let text = format!(
                r#"{{"manifests":[{{"mediaType":"m/n","digest":"{digest}","size":1,
                "annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}]}}"#
            );
            let mut index = IndexFile::parse(text.as_bytes()).unwrap();
            assert_eq!(index.find("a/b:1").is_some(), found, "{name}");
            assert_eq!(index.remove("a/b:1"), found, "{name}");
        }
    }

    #[test]
    fn an_entry_that_only_its_writer_understands_can_be_removed_by_its_name() {
        let text =
            br#"{"manifests":[{"size":"?","annotations":{"io.containerd.image.name":"a:1"}}]}"#;
        let mut index = IndexFile::parse(text).unwrap();
        assert_eq!(index.find("a:1"), None);
        assert!(index.remove("a:1"));
    }

    /// Found by a fuzzer: the name was there for who lists refs, and not for who sets one.
    #[test]
    fn of_a_name_that_stands_there_twice_the_last_counts() {
        let digest = target("x").digest;
        let text = format!(
            r#"{{"manifests":[{{"mediaType":"m/n","digest":"{digest}","size":1,"annotations":
            {{"io.containerd.image.name":"b:1","io.containerd.image.name":"a:1"}}}}]}}"#
        );
        let mut index = IndexFile::parse(text.as_bytes()).unwrap();
        assert_eq!(names(&index), [Some("a:1".to_owned())]);
        assert!(index.find("b:1").is_none() && !index.remove("b:1"));
        index.set("a:1", &target("yy"));
        assert_eq!(names(&index), [Some("a:1".to_owned())]);
        assert_eq!(index.find("a:1").unwrap().descriptor.size, 2);
    }

    /// Were each key looked for among all before it, this would not end.
    #[test]
    fn many_keys_take_no_longer() {
        let keys: String = (0..400_000).map(|n| format!(r#""{n}":0,"#)).collect();
        let text = format!(r#"{{{keys}"7":1,"manifests":[]}}"#);
        let index = IndexFile::parse(text.as_bytes()).unwrap();
        assert_eq!(index.document.len(), 400_001);
        let (key, value) = index.document.get_index(7).unwrap();
        assert_eq!((key.as_str(), value.as_deref().unwrap().get()), ("7", "1"), "the last counts");
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for text in ["", "null", "[]", "{}", r#"{"manifests":7}"#, "\0\0\0\0"] {
            assert!(IndexFile::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let bad = IndexFile::parse(br#"{"manifests":[{"digest":"sha256:../x"}]}"#).unwrap();
        assert!(bad.refs().is_err());
        assert_eq!(bad.known_refs(), []);
        assert!(IndexFile::parse(br#"{"manifests":null}"#).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>) {
            if let Ok(index) = IndexFile::parse(&bytes) {
                let _ = index.refs();
            }
        }
    }
}
