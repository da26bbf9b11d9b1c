//! The bytes of `index.json`: pure, so that it can be fuzzed.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::oci::{Descriptor, MediaType};

/// The annotations that carry a ref's name: the image specification's, which skopeo and umoci read,
/// and containerd's. Both are written; either is understood.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

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

/// `index.json` as it is on disk. Whatever other tools put there is kept as it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IndexFile {
    document: Map<String, Value>,
    entries: Vec<Value>,
}

impl Default for IndexFile {
    fn default() -> IndexFile {
        let mut document = Map::new();
        document.insert("schemaVersion".to_owned(), json!(2));
        document.insert("mediaType".to_owned(), json!(MediaType::OCI_INDEX));
        document.insert("manifests".to_owned(), json!([]));
        IndexFile { document, entries: Vec::new() }
    }
}

impl IndexFile {
    /// Parses the file. The error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<IndexFile, String> {
        let mut document: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        // Left in the document as an empty list, to keep its place among the keys.
        let entries = match document.get_mut("manifests").map(Value::take) {
            Some(Value::Array(entries)) => entries,
            // Go writes an empty list so.
            Some(Value::Null) => Vec::new(),
            Some(_) => return Err("`manifests` is not a list".to_owned()),
            None => return Err("it has no `manifests`".to_owned()),
        };
        Ok(IndexFile { document, entries })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut document = self.document.clone();
        document.insert("manifests".to_owned(), Value::Array(self.entries.clone()));
        // A map of strings to values always has a text.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The refs, unnamed entries too.
    pub(crate) fn refs(&self) -> Result<Vec<Ref>, String> {
        self.entries.iter().map(parse_entry).collect()
    }

    /// The refs that are understood: what another tool wrote is no reason not to find the rest.
    pub(crate) fn known_refs(&self) -> Vec<Ref> {
        self.entries.iter().filter_map(|entry| parse_entry(entry).ok()).collect()
    }

    /// Points a name at a descriptor; whether that changed anything.
    pub(crate) fn set(&mut self, name: &str, target: &Descriptor) -> bool {
        let mut target = target.clone();
        target.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        target.annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
        // A descriptor has only strings for keys, so it always has a JSON form.
        let new = serde_json::to_value(&target).unwrap_or_default();
        let mut at = self.entries.iter().enumerate().filter(|(_, entry)| is_named(entry, name));
        match (at.next().map(|(n, _)| n), at.next()) {
            (Some(n), None) if self.entries[n] == new => false,
            (Some(n), None) => {
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

    /// Removes a name; whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !is_named(entry, name));
        self.entries.len() != before
    }
}

fn parse_entry(entry: &Value) -> Result<Ref, String> {
    let descriptor: Descriptor = serde_json::from_value(entry.clone())
        .map_err(|error| format!("an entry is no descriptor: {error}"))?;
    Ok(Ref { name: name_of(entry).map(str::to_owned), descriptor })
}

fn name_of(entry: &Value) -> Option<&str> {
    let annotations = entry.get("annotations")?;
    [IMAGE_NAME, REF_NAME].iter().find_map(|key| annotations.get(key)?.as_str())
}

fn is_named(entry: &Value, name: &str) -> bool {
    name_of(entry) == Some(name)
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
