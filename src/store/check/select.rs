//! Which blobs a check reads, and in which order.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::CheckOptions;
use crate::error::Result;
use crate::oci::{Algorithm, Digest};
use crate::store::layout::Layout;
use crate::store::outboard::SMALL_BLOB;

/// The blobs to read, and what they are together as far as it is known before.
pub(super) struct Selection {
    pub(super) digests: Box<dyn Iterator<Item = Result<Digest>> + Send>,
    pub(super) blobs: u64,
    pub(super) bytes: u64,
}

/// A blob that may be read, or left for another time.
struct Blob {
    digest: Digest,
    len: u64,
    /// When it was last read whole and found good, as far as is known.
    checked: Option<SystemTime>,
}

/// Chooses among all blobs, of which there are `blobs` with `bytes`.
pub(super) fn select(
    layout: &Layout,
    options: &CheckOptions,
    large: Vec<Digest>,
    (blobs, bytes): (u64, u64),
) -> Result<Selection> {
    if options.since.is_none() && options.subset.is_none() {
        return Ok(Selection { digests: Box::new(all(layout, large)?), blobs, bytes });
    }
    let mut chosen = Vec::new();
    let mut others = Vec::new();
    for digest in all(layout, Vec::new())? {
        let digest = digest?;
        let Some(meta) = layout.blob_meta(&digest)? else {
            continue;
        };
        // Of a small blob nothing is kept that could tell when it was read, and it costs nothing.
        let checked = layout.outboards.checked(&digest);
        let blob = Blob { digest, len: meta.len, checked };
        (if meta.len <= SMALL_BLOB { &mut chosen } else { &mut others }).push(blob);
    }
    if let Some(since) = options.since {
        let now = SystemTime::now();
        // What was read in the future was not: the clock was wrong.
        let is_old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < since);
        others.retain(|blob| !blob.checked.is_some_and(is_old));
    }
    if let Some(hundredths) = options.subset {
        let total: u64 = others.iter().map(|blob| blob.len).sum();
        others = oldest(others, (u128::from(total) * u128::from(hundredths)).div_ceil(10_000));
    }
    others.sort_by_key(|blob| std::cmp::Reverse(blob.len));
    others.extend(chosen);
    let (blobs, bytes) = (others.len() as u64, others.iter().map(|blob| blob.len).sum());
    let digests = others.into_iter().map(|blob| Ok(blob.digest));
    Ok(Selection { digests: Box::new(digests), blobs, bytes })
}

/// Those that were read the longest ago, until they have so many bytes. Of those of which nothing is
/// known the order is another one each time, so that none is left out for good.
fn oldest(mut blobs: Vec<Blob>, enough: u128) -> Vec<Blob> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let shuffled = |digest: &Digest| {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&now.as_nanos().to_le_bytes());
        crc.update(digest.as_bytes());
        crc.finalize()
    };
    blobs.sort_by_cached_key(|blob| (blob.checked, shuffled(&blob.digest)));
    let mut taken = 0;
    blobs.retain(|blob| {
        let is_wanted = taken < enough;
        taken += u128::from(blob.len);
        is_wanted
    });
    blobs
}

/// The large blobs, then all others as the directories list them: only the large ones are held in
/// memory.
fn all(
    layout: &Layout,
    large: Vec<Digest>,
) -> Result<impl Iterator<Item = Result<Digest>> + Send + use<>> {
    let first: HashSet<Digest> = large.iter().copied().collect();
    let mut listings = Vec::new();
    for algorithm in Algorithm::ALL {
        if let Ok(Some(dir)) = layout.algorithm(algorithm) {
            listings.push((algorithm, dir.names()?));
        }
    }
    let rest = listings.into_iter().flat_map(|(algorithm, names)| {
        names.filter_map(move |name| match name {
            Ok(name) => Digest::from_hex(algorithm, &name).ok().map(Ok),
            Err(error) => Some(Err(error)),
        })
    });
    let rest =
        rest.filter(move |digest| !digest.as_ref().is_ok_and(|digest| first.contains(digest)));
    Ok(large.into_iter().map(Ok).chain(rest))
}
