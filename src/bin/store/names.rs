//! What image somebody means.

use layerstore::{BlobStore, Error, Ref, Reference, Result};

/// The name in the store that a text stands for: the very name, which another tool may have given
/// in any form, else the full form of what the text is short for.
///
/// # Errors
///
/// [`Error::InvalidReference`] if it is neither a ref nor an image name.
pub(crate) fn resolve(refs: &[Ref], text: &str) -> Result<Option<String>> {
    let is_there = |name: &str| refs.iter().any(|entry| entry.name.as_deref() == Some(name));
    if is_there(text) {
        return Ok(Some(text.to_owned()));
    }
    let full = text.parse::<Reference>()?.to_string();
    Ok(is_there(&full).then_some(full))
}

/// The image that a text stands for: a name as [`resolve`] understands it, or `NAME@DIGEST` for
/// whatever the repository has with that digest.
///
/// # Errors
///
/// [`Error::RefNotFound`] if there is none, and those of [`resolve`] and of [`BlobStore::refs`].
pub(crate) fn find(store: &BlobStore, text: &str) -> Result<Ref> {
    let refs = store.refs()?;
    let name = resolve(&refs, text)?;
    let found = match &name {
        Some(_) => refs.into_iter().find(|entry| entry.name == name),
        None => {
            let wanted = text.parse::<Reference>()?;
            refs.into_iter().find(|entry| is_of_repository(entry, &wanted))
        }
    };
    found.ok_or_else(|| Error::RefNotFound { name: text.to_owned() })
}

fn is_of_repository(entry: &Ref, wanted: &Reference) -> bool {
    let Some(Ok(name)) = entry.name.as_deref().map(str::parse::<Reference>) else {
        return false;
    };
    wanted.digest() == Some(&entry.descriptor.digest)
        && (name.registry(), name.repository()) == (wanted.registry(), wanted.repository())
        && (wanted.tag().is_none() || wanted.tag() == name.tag())
}
