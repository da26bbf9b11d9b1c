use std::collections::HashSet;
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::structure::finding;
use super::{CheckProgress, CheckReport, DamageKind, Finding, Findings};
use crate::error::{IoContext, Result};
use crate::oci::{Algorithm, Digest};
use crate::store::layout::Layout;
use crate::sys::Meta;

/// Blobs are read and hashed in pieces of this size. Reading is as fast as mapping them is, and a
/// file that shrinks or a disk that fails gives an error where a map would kill the process.
const PIECE: usize = 1024 * 1024;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);
/// How often a blob is read again because another file took its place meanwhile.
const ATTEMPTS: usize = 3;

#[derive(Default)]
struct Count {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

/// Reads every blob, on several threads, and compares it with its digest.
pub(super) fn read_all(
    layout: &Layout,
    threads: Option<NonZeroUsize>,
    large: Vec<Digest>,
    report: &mut CheckReport,
    findings: &mut Findings,
    mut progress: impl FnMut(CheckProgress),
) -> Result<()> {
    let threads = threads.or_else(|| std::thread::available_parallelism().ok());
    let source = Mutex::new(digests(layout, large)?);
    let count = Count::default();
    let (sender, receiver) = mpsc::channel();
    let now = |count: &Count| CheckProgress {
        blobs: count.blobs.load(Ordering::Relaxed),
        total_blobs: report.blobs,
        bytes: count.bytes.load(Ordering::Relaxed),
        total_bytes: report.blob_bytes,
    };
    let read = std::thread::scope(|scope| {
        for _ in 0..threads.map_or(1, NonZeroUsize::get) {
            let sender = sender.clone();
            scope.spawn(|| work(layout, &source, &count, sender));
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(TELL) {
                Ok(found) => findings.add_blob(found?, &[]),
                Err(RecvTimeoutError::Timeout) => progress(now(&count)),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    });
    let end = now(&count);
    progress(end);
    (report.read_blobs, report.read_bytes) = (end.blobs, end.bytes);
    read
}

/// The large blobs, then all others as the directories list them: only the large ones are held in
/// memory.
fn digests(
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

fn work(
    layout: &Layout,
    source: &Mutex<impl Iterator<Item = Result<Digest>>>,
    count: &Count,
    sender: Sender<Result<Finding>>,
) {
    let mut buffer = vec![0; PIECE];
    loop {
        // A thread that panicked with the lock held did so in the listing, which ends it.
        let next = source.lock().unwrap_or_else(PoisonError::into_inner).next();
        let found = match next {
            None => return,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(digest)) => read(layout, digest, &mut buffer, count).map(Ok),
        };
        // Nobody listens any more once an error was sent.
        if let Some(found) = found
            && sender.send(found).is_err()
        {
            return;
        }
    }
}

fn read(layout: &Layout, digest: Digest, buffer: &mut [u8], count: &Count) -> Option<Finding> {
    for _ in 0..ATTEMPTS {
        match read_once(layout, digest, buffer, count) {
            // Collected since it was listed. If a ref needs it, the refs will tell.
            Ok(Outcome::Gone) => return None,
            Ok(Outcome::Sound) => {
                count.blobs.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            Ok(Outcome::Damaged(found)) => {
                count.blobs.fetch_add(1, Ordering::Relaxed);
                return Some(found);
            }
            Ok(Outcome::Replaced) => {}
            Err(error) => return Some(finding(digest, &error)),
        }
    }
    None
}

enum Outcome {
    Gone,
    Sound,
    Damaged(Finding),
    /// Bad bytes, but they are no longer what has the name: a commit has healed it.
    Replaced,
}

fn read_once(layout: &Layout, digest: Digest, buffer: &mut [u8], count: &Count) -> Result<Outcome> {
    let Some((mut file, Meta { id: own, .. })) = layout.open_blob(&digest)? else {
        return Ok(Outcome::Gone);
    };
    let origin = digest.to_string();
    let mut hasher = digest.algorithm().hasher();
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                count.bytes.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("read", &origin),
        }
    }
    let actual = hasher.finish();
    if actual == digest {
        return Ok(Outcome::Sound);
    }
    if layout.blob_meta(&digest)?.is_none_or(|meta| meta.id != own) {
        return Ok(Outcome::Replaced);
    }
    let message = format!(
        "the bytes of {digest} are those of {actual}; remove the file, and pull the image again"
    );
    Ok(Outcome::Damaged(Finding { kind: DamageKind::WrongDigest, digest, message }))
}
