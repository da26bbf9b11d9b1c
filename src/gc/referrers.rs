use super::mark::Marker;
use super::threads;
use crate::error::Result;
use crate::oci::{Algorithm, Digest};
use crate::store::{BlobStore, reading};

/// How many names are looked into at a time, by all threads together.
const CHUNK: usize = 1024;

/// Finds signatures, attestations and the like: documents to which nothing leads, but which are
/// about something that stays (image specification, "subject" of a manifest).
///
/// Only what is not marked is looked at, and of that only what may be a document, so this costs a
/// read of the small garbage. Its age does not count: the files of a young one may be old.
pub(super) fn find(store: &BlobStore, marker: &mut Marker<'_>) -> Result<()> {
    for algorithm in Algorithm::ALL {
        let Some(dir) = store.layout().algorithm(algorithm)? else {
            continue;
        };
        let mut names = dir.names()?;
        loop {
            let some = names.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
            if some.is_empty() {
                break;
            }
            let known = &*marker;
            let found =
                threads::map_giving_way(&some, |name| look_into(store, known, algorithm, name));
            for referrer in found {
                if let Some((digest, subject)) = referrer? {
                    marker.mark_referrer(digest, subject)?;
                }
            }
        }
    }
    Ok(())
}

/// What nothing leads to so far, if it is about something, and what that is.
fn look_into(
    store: &BlobStore,
    marker: &Marker<'_>,
    algorithm: Algorithm,
    name: &str,
) -> Result<Option<(Digest, Digest)>> {
    match Digest::from_hex(algorithm, name) {
        Ok(digest) if marker.keeper(&digest).is_none() => {
            Ok(subject_of(store, &digest)?.map(|subject| (digest, subject)))
        }
        _ => Ok(None),
    }
}

/// What a blob is about. One that is damaged, gone or no document is about nothing; where it cannot
/// be told, since reading failed otherwise, the collection fails.
fn subject_of(store: &BlobStore, digest: &Digest) -> Result<Option<Digest>> {
    match reading::subject(store.layout(), digest) {
        // What is no file is the sweep's business. Looked at only now, for nearly all are files.
        Err(error) => match store.layout().blob_meta(digest)? {
            Some(meta) if meta.is_file => Err(error),
            _ => Ok(None),
        },
        Ok(subject) => Ok(subject.map(|subject| subject.digest)),
    }
}
