use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::pace::Pace;
use super::select::{Selection, select};
use super::structure::finding;
use super::{CheckOptions, CheckProgress, CheckReport, DamageKind, Finding, Findings};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::store::groups::{self, GROUP, PAGE, RECORD};
use crate::store::layout::Layout;
use crate::store::outboard::{BlobHasher, Outboard};
use crate::sys::Meta;

/// Blobs are read and hashed in pieces of this size. Reading is as fast as mapping them is, and a
/// file that shrinks or a disk that fails gives an error where a map would kill the process.
const PIECE: usize = 1024 * 1024;
/// How many groups a piece has.
const PIECE_GROUPS: usize = PIECE / GROUP;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);
/// How often a blob is read again because another file took its place meanwhile.
const ATTEMPTS: usize = 3;

#[derive(Default)]
struct Count {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

/// Reads blobs, on several threads, and compares them with what is known of them.
pub(super) fn read(
    layout: &Layout,
    options: &CheckOptions,
    large: Vec<Digest>,
    report: &mut CheckReport,
    findings: &mut Findings,
    mut progress: impl FnMut(CheckProgress),
) -> Result<()> {
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok());
    let selection = select(layout, options, large, (report.blobs, report.blob_bytes))?;
    let Selection { digests, blobs: total_blobs, bytes: total_bytes } = selection;
    let source = Mutex::new(digests);
    let count = Count::default();
    let pace = options.limit_rate.map(Pace::new);
    let reader = Reader { layout, options, count: &count, pace };
    let (sender, receiver) = mpsc::channel();
    let now = |count: &Count| CheckProgress {
        blobs: count.blobs.load(Ordering::Relaxed),
        total_blobs,
        bytes: count.bytes.load(Ordering::Relaxed),
        total_bytes,
    };
    let read = std::thread::scope(|scope| {
        for n in 0..threads.map_or(1, NonZeroUsize::get) {
            let to = sender.clone();
            let started = thread::Builder::new().spawn_scoped(scope, || reader.work(&source, to));
            // Where no more threads are to be had, fewer do, and at worst this one.
            if started.is_err() {
                if n == 0 {
                    reader.work(&source, sender.clone());
                }
                break;
            }
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

enum Outcome {
    Gone,
    Sound,
    Damaged(Finding),
    /// It has to be read again: it is no longer what has the name, for a commit has healed it; or the hashes
    /// that were kept of it were of other bytes.
    Again,
}

/// A blob that is being hashed whole.
struct Hashing {
    digest: Digest,
    file: File,
    own: Meta,
    /// The first group that is not what its hash says.
    bad: Option<u64>,
    hasher: BlobHasher,
    /// The hashes of its groups, where they are only compared and not made anew.
    kept: Option<Outboard>,
    /// Whether these turned out to be of other bytes.
    is_stale: bool,
    /// How far it is hashed.
    at: u64,
}

impl Hashing {
    /// Whether the kept hashes speak of these bytes, which come next; by the sums of the pages, which take
    /// a tenth of the time.
    fn fits(&self, bytes: &[u8]) -> bool {
        let Some(kept) = &self.kept else { return true };
        let mut records = [[0; RECORD]; PIECE_GROUPS];
        let records = &mut records[..bytes.len().div_ceil(GROUP)];
        // Those of pages that are not there are zeros.
        let sums = bytes.chunks(PAGE).map(groups::sum).chain(std::iter::repeat([0; 8]));
        kept.read(self.at / GROUP as u64, records).is_ok()
            && records.iter().flat_map(groups::sums_of).zip(sums).all(|(kept, sum)| *kept == sum)
    }

    /// Takes note of bytes that were hashed.
    fn go_on(&mut self, bytes: &[u8]) {
        if !self.fits(bytes) {
            (self.kept, self.is_stale) = (None, true);
        }
        self.at += bytes.len() as u64;
    }
}

struct Ended {
    digest: Digest,
    outcome: Result<Outcome>,
}

enum Begun {
    Hashing(Box<Hashing>),
    Ended(Ended),
}

struct Reader<'a> {
    layout: &'a Layout,
    options: &'a CheckOptions,
    count: &'a Count,
    pace: Option<Pace>,
}

impl Reader<'_> {
    fn work(
        &self,
        source: &Mutex<impl Iterator<Item = Result<Digest>>>,
        sender: Sender<Result<Finding>>,
    ) {
        let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
        // What is hashed as soon as there is another blob for company.
        let mut waiting = None;
        loop {
            // A thread that panicked with the lock held did so in the listing, which ends it.
            let next = source.lock().unwrap_or_else(PoisonError::into_inner).next();
            let ended = match (next, waiting.take()) {
                (None, None) => return,
                (None, Some(hashing)) => vec![self.hash_alone(hashing, &mut buffers[0])],
                (Some(Err(error)), _) => {
                    let _ = sender.send(Err(error));
                    return;
                }
                (Some(Ok(digest)), other) => match (self.begin(digest, &mut buffers[0]), other) {
                    (Begun::Hashing(hashing), None) => {
                        waiting = Some(hashing);
                        continue;
                    }
                    (Begun::Hashing(one), Some(other)) => {
                        let (ended, rest) = self.hash_two([one, other], &mut buffers);
                        waiting = rest;
                        ended
                    }
                    (Begun::Ended(ended), other) => {
                        waiting = other;
                        vec![ended]
                    }
                },
            };
            for Ended { digest, outcome } in ended {
                let found = self.finding(digest, outcome, &mut buffers[0]);
                // Nobody listens any more once an error was sent.
                if let Some(found) = found
                    && sender.send(Ok(found)).is_err()
                {
                    return;
                }
            }
        }
    }

    /// What is wrong with a blob. One that was replaced meanwhile is read again.
    fn finding(
        &self,
        digest: Digest,
        mut outcome: Result<Outcome>,
        buffer: &mut [u8],
    ) -> Option<Finding> {
        for _ in 0..ATTEMPTS {
            let found = match outcome {
                // Collected since it was listed. If a ref needs it, the refs will tell.
                Ok(Outcome::Gone) => return None,
                Ok(Outcome::Again) => {
                    outcome = match self.begin(digest, buffer) {
                        Begun::Ended(ended) => ended.outcome,
                        Begun::Hashing(hashing) => self.hash_alone(hashing, buffer).outcome,
                    };
                    continue;
                }
                Ok(Outcome::Sound) => None,
                Ok(Outcome::Damaged(found)) => Some(found),
                Err(error) => return Some(finding(digest, &error)),
            };
            self.count.blobs.fetch_add(1, Ordering::Relaxed);
            return found;
        }
        None
    }

    fn begin(&self, digest: Digest, buffer: &mut [u8]) -> Begun {
        match self.try_begin(digest, buffer) {
            Ok(Ok(hashing)) => Begun::Hashing(Box::new(hashing)),
            Ok(Err(outcome)) => Begun::Ended(Ended { digest, outcome: Ok(outcome) }),
            Err(error) => Begun::Ended(Ended { digest, outcome: Err(error) }),
        }
    }

    /// Compares the hashes of groups, where there are any; else, or where they do not fit, or with
    /// `read_data`, the whole is to be hashed.
    fn try_begin(&self, digest: Digest, buffer: &mut [u8]) -> Result<Result<Hashing, Outcome>> {
        let Some((file, own)) = self.layout.open_blob(&digest)? else {
            return Ok(Err(Outcome::Gone));
        };
        let (outboards, suspects) = (&self.layout.outboards, &self.layout.suspects);
        let algorithm = digest.algorithm();
        let outboard = outboards.are_on().then(|| outboards.open(&digest, own.len)).flatten();
        let (mut kept, mut bad) = (None, None);
        let hasher = match outboard {
            // What a digest says of a blob, the hashes of its groups need not say again.
            Some(outboard) if self.options.read_data && outboard.is_sound(own.len) => {
                kept = Some(outboard);
                BlobHasher::of_digest(algorithm)
            }
            None => BlobHasher::new(algorithm, outboards),
            Some(_) if self.options.read_data => BlobHasher::new(algorithm, outboards),
            Some(outboard) => {
                bad = match self.first_bad_group(&file, &digest, &outboard, buffer) {
                    Err(_) if self.is_replaced(&digest, &own) => {
                        return Ok(Err(Outcome::Again));
                    }
                    bad => bad?,
                };
                // A mark says that the digest did not hold: hashes that do were changed with the bytes.
                if bad.is_none() && !suspects.has(&digest)? {
                    outboards.set_checked(&digest);
                    return Ok(Err(Outcome::Sound));
                }
                // Only the digest condemns a blob, or clears it: the hashes may be what is wrong.
                BlobHasher::new(algorithm, outboards)
            }
        };
        Ok(Ok(Hashing { digest, file, own, bad, hasher, kept, is_stale: false, at: 0 }))
    }

    fn hash_alone(&self, mut hashing: Box<Hashing>, buffer: &mut [u8]) -> Ended {
        loop {
            let read = self.fill(&hashing.file, &hashing.digest, buffer, hashing.at);
            let len = match read {
                Ok(len) => len,
                Err(error) => return self.failed(&hashing, error),
            };
            hashing.hasher.update(&buffer[..len]);
            hashing.go_on(&buffer[..len]);
            if len < buffer.len() {
                return self.end(hashing);
            }
        }
    }

    /// Hashes two blobs together, until one of them ends, or both do; what is left of the other.
    fn hash_two(
        &self,
        both: [Box<Hashing>; 2],
        buffers: &mut [Vec<u8>; 2],
    ) -> (Vec<Ended>, Option<Box<Hashing>>) {
        let [mut one, mut other] = both;
        let [ones, others] = buffers;
        loop {
            let read = self.fill(&one.file, &one.digest, ones, one.at);
            let other_read = self.fill(&other.file, &other.digest, others, other.at);
            let (len, other_len) = match (read, other_read) {
                (Ok(len), Ok(other_len)) => (len, other_len),
                (Err(error), _) => return (vec![self.failed(&one, error)], Some(other)),
                (_, Err(error)) => return (vec![self.failed(&other, error)], Some(one)),
            };
            let hashers = [&mut one.hasher, &mut other.hasher];
            BlobHasher::update_both(hashers, [&ones[..len], &others[..other_len]]);
            one.go_on(&ones[..len]);
            other.go_on(&others[..other_len]);
            match (len < PIECE, other_len < PIECE) {
                (false, false) => {}
                (true, false) => return (vec![self.end(one)], Some(other)),
                (false, true) => return (vec![self.end(other)], Some(one)),
                (true, true) => return (vec![self.end(one), self.end(other)], None),
            }
        }
    }

    /// What could not be read may not be what has the name any more.
    fn failed(&self, hashing: &Hashing, error: Error) -> Ended {
        let digest = hashing.digest;
        let outcome = match self.is_replaced(&digest, &hashing.own) {
            true => Ok(Outcome::Again),
            false => Err(error),
        };
        Ended { digest, outcome }
    }

    fn is_replaced(&self, digest: &Digest, own: &Meta) -> bool {
        let now = self.layout.blob_meta(digest);
        now.is_ok_and(|now| now.is_none_or(|now| now.id != own.id))
    }

    /// Compares the digest. Where it is the right one, the hashes of the groups are kept.
    fn end(&self, hashing: Box<Hashing>) -> Ended {
        let digest = hashing.digest;
        Ended { digest, outcome: self.judge(*hashing) }
    }

    fn judge(&self, hashing: Hashing) -> Result<Outcome> {
        let Hashing { digest, file, own, bad, hasher, is_stale, .. } = hashing;
        let actual = hasher.digest();
        if actual == digest && is_stale && self.layout.outboards.forget(&digest).is_ok() {
            // Without them the whole is hashed once more, and they are made anew.
            return Ok(Outcome::Again);
        }
        if actual == digest {
            if !hasher.keep(&digest) && !is_stale {
                self.layout.outboards.set_checked(&digest);
            }
            self.layout.suspects.clear(&digest)?;
            return Ok(Outcome::Sound);
        }
        if self.layout.blob_meta(&digest)?.is_none_or(|meta| meta.id != own.id) {
            return Ok(Outcome::Again);
        }
        self.layout.suspects.mark(&digest, &file);
        let place = bad.map(|group| format!(" from byte {} on", group * GROUP as u64));
        let message = format!(
            "the bytes of {digest} are those of {actual}{}; a pull of an image that has \
             it brings it anew",
            place.map(|place| format!(", and wrong{place}")).unwrap_or_default()
        );
        let (kind, descriptor) = (DamageKind::WrongDigest, None);
        Ok(Outcome::Damaged(Finding { kind, digest, message, descriptor }))
    }

    /// The first group that is not what its hashes say.
    fn first_bad_group(
        &self,
        file: &File,
        digest: &Digest,
        outboard: &Outboard,
        buffer: &mut [u8],
    ) -> Result<Option<u64>> {
        let mut records = [[0; RECORD]; PIECE_GROUPS];
        let mut first = 0;
        loop {
            let len = self.fill(file, digest, buffer, first * GROUP as u64)?;
            let groups = buffer[..len].chunks(GROUP);
            let records = &mut records[..groups.len()];
            // What cannot be read says as little as what is wrong.
            if outboard.read(first, records).is_err() {
                return Ok(Some(first));
            }
            for ((n, group), record) in (first..).zip(groups).zip(&*records) {
                if groups::record(group, n) != *record {
                    return Ok(Some(n));
                }
            }
            if len < PIECE {
                return Ok(None);
            }
            first += PIECE_GROUPS as u64;
        }
    }

    /// Fills the buffer, but at the end of the file; no faster than is allowed.
    fn fill(&self, file: &File, digest: &Digest, buffer: &mut [u8], at: u64) -> Result<usize> {
        let filled = self.layout.suspects.fill(digest, file, buffer, at)?;
        self.count.bytes.fetch_add(filled as u64, Ordering::Relaxed);
        if let Some(pace) = &self.pace {
            pace.read(filled as u64);
        }
        Ok(filled)
    }
}
