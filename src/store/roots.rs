//! What a collection keeps in mind of the refs: of a hundred thousand, their names and all else that they
//! say would take more memory than everything that it finds.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::index_file::{MANIFESTS, parse_entry};
use super::layout::{Layout, read_small};
use super::refs::{MAX_INDEX, damaged};
use crate::error::Result;
use crate::oci::{Digest, MediaType};

/// The target of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) digest: Digest,
    /// What the ref says that it is.
    pub(crate) media_type: Arc<MediaType>,
}

/// Reads the targets of all refs, unnamed entries too, in their order. One that is not understood is an
/// error.
pub(super) fn read(layout: &Layout) -> Result<Vec<Root>> {
    parse(&read_bytes(layout)?).map_err(|reason| damaged(layout, reason))
}

/// The bytes of an `index.json` whose entries can be found, be they understood or not.
pub(super) fn read_text(layout: &Layout) -> Result<Vec<u8>> {
    let bytes = read_bytes(layout)?;
    match entries(&bytes) {
        Ok(_) => Ok(bytes),
        Err(reason) => Err(damaged(layout, reason)),
    }
}

fn read_bytes(layout: &Layout) -> Result<Vec<u8>> {
    read_small(&layout.root, "index.json", MAX_INDEX)?
        .ok_or_else(|| damaged(layout, "it is missing".to_owned()))
}

/// The same of the bytes of `index.json`.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Root>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let entries =
        deserializer.deserialize_map(EntriesVisitor).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    let mut known: HashMap<MediaType, Arc<MediaType>> = HashMap::new();
    let mut roots = Vec::with_capacity(entries.len());
    for entry in entries {
        let target = parse_entry(entry)?.descriptor;
        let shared = known.get(&target.media_type).map(Arc::clone);
        let media_type = shared.unwrap_or_else(|| {
            let new = Arc::new(target.media_type.clone());
            known.insert(target.media_type, Arc::clone(&new));
            new
        });
        roots.push(Root { digest: target.digest, media_type });
    }
    Ok(roots)
}

/// Finds where the entries are, and copies none.
fn entries(bytes: &[u8]) -> Result<Vec<&RawValue>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let entries = deserializer.deserialize_map(EntriesVisitor);
    let entries = entries.and_then(|found| deserializer.end().map(|()| found));
    entries.map_err(|error| error.to_string())
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == MANIFESTS {
                // Go writes an empty list as `null`; of two lists the last counts.
                entries = Some(map.next_value::<Option<Self::Value>>()?.unwrap_or_default());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        entries.ok_or_else(|| serde::de::Error::missing_field(MANIFESTS))
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

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_they_say_the_same(bytes: Vec<u8>, text in r#"\{"manifests":[\[\]{}:,"a1 ]{0,20}\}"#) {
            proptest::prop_assert_eq!(parse(&bytes).ok(), by_refs(&bytes));
            proptest::prop_assert_eq!(parse(text.as_bytes()).ok(), by_refs(text.as_bytes()));
        }
    }
}
