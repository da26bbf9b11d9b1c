//! Blobs that go to one writing thread, in any order of the steps of those who bring them and of its own,
//! each of them dropped at any step, and the thread too.
//!
//! The thread meets the others at its queue, at the room and where the parts come out. What it does of that
//! for one message is all the same to them in whatever order they see it, so here it is a task that takes a
//! message at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::fetch::schedules::{Task, schedule, step};
use crate::oci::{Algorithm, Digest};
use crate::store::{BlobStore, Claim, Lease, Pinned};

const PIECE: usize = 1000;
const PIECES: usize = 9;
/// The least that a thread can do with: what waits for company keeps room.
const LEAST: usize = COMPANY + 1;
/// The blobs of a try, and after them the thread.
const BLOBS: usize = 3;
/// This one has bytes beyond its end, in the middle.
const TOO_LONG: usize = 2;

/// A store, and blobs that are not there.
struct Wanted {
    store: BlobStore,
    blobs: Vec<(Vec<u8>, Pinned)>,
    _lease: Lease,
    _temp: tempfile::TempDir,
}

impl Wanted {
    fn new() -> Wanted {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path().join("store")).unwrap();
        let lease = store.lease("test").unwrap();
        let blob = |n: usize| {
            let bytes: Vec<u8> = (0..PIECE * PIECES).map(|at| (at % 251 + n) as u8).collect();
            let digest = Algorithm::Sha256.digest(&bytes);
            let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
            (bytes, pinned)
        };
        let blobs = (0..BLOBS).map(blob).collect();
        Wanted { store, blobs, _lease: lease, _temp: temp }
    }

    /// The part, which must not be held by anybody.
    fn part(&self, n: usize) -> Part {
        let Claim::Held(part) = self.store.claim(&self.blobs[n].1).unwrap() else {
            panic!("the part of blob {n} is still held");
        };
        part
    }

    /// Commits what came, or throws it away; then it is missing again.
    fn settle(&self, n: usize, part: Option<Part>) {
        let digest: &Digest = self.blobs[n].1.digest();
        match part {
            None => self.part(n).discard().unwrap(),
            Some(part) => {
                assert!(part.missing().is_empty());
                part.commit_unsynced().unwrap();
                let dir = self.store.layout().algorithm(digest.algorithm()).unwrap().unwrap();
                assert!(dir.unlink(&digest.hex()).unwrap());
            }
        }
    }
}

/// Brings a blob: the first in order, the second from its middle on.
async fn bring(n: usize, bytes: &[u8], inlet: Inlet, outlet: Outlet) -> Result<Option<Part>> {
    let mut pieces: Vec<_> = bytes.chunks(PIECE).enumerate().collect();
    if n == 1 {
        pieces.rotate_left(PIECES / 2);
    }
    if n == TOO_LONG {
        pieces.insert(PIECES / 2, (PIECES, &bytes[..PIECE]));
    }
    for (place, piece) in pieces {
        let chunks = piece.chunks(PIECE / 2).map(Bytes::copy_from_slice).collect();
        if !inlet.bytes((place * PIECE) as u64, chunks).await {
            break;
        }
    }
    drop(inlet);
    let (part, result) = outlet.part().await?;
    result.map(|()| Some(part))
}

async fn write(mut queue: mpsc::UnboundedReceiver<Message>) -> Result<Option<Part>> {
    let mut writing = Writing::default();
    while let Some(message) = queue.recv().await {
        writing.take(message);
        step().await;
    }
    Ok(None)
}

/// Brings all blobs by one thread in an order of steps, with so much room.
fn tries(wanted: &Wanted, room: usize, order: &[(usize, bool)]) {
    let (messages, queue) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(room));
    let all = room.available_permits();
    let (blobs, thread) = (Arc::<AtomicUsize>::default(), Ending(None));
    let mut writer =
        Writer { messages, room: room.clone(), blobs: blobs.clone(), begun: 0, thread };
    let mut tasks: Vec<_> = (0..BLOBS)
        .map(|n| {
            let (inlet, outlet) = writer.begin(wanted.part(n));
            Task::new(bring(n, &wanted.blobs[n].0, inlet, outlet))
        })
        .collect();
    drop(writer);
    tasks.push(Task::new(write(queue)));
    schedule(&mut tasks, order);
    assert_eq!(room.available_permits(), all, "room was kept");
    assert_eq!(blobs.load(Ordering::Relaxed), 0, "a blob is still counted");
    let has_died = tasks.pop().is_none_or(|thread| thread.ended.is_none());
    for (n, task) in tasks.into_iter().enumerate() {
        let part = match task.ended {
            None => None,
            Some(Ok(part)) => {
                assert_ne!(n, TOO_LONG, "too much was taken");
                part
            }
            Some(Err(Error::SizeMismatch { .. })) if n == TOO_LONG => None,
            Some(Err(error)) => {
                assert!(has_died, "blob {n}: {error}");
                None
            }
        };
        wanted.settle(n, part);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 500, ..Default::default() })]

    #[test]
    fn what_is_brought_is_written_and_what_is_dropped_is_let_go(
        order in proptest::collection::vec(
            (0..=BLOBS, proptest::bool::weighted(0.03)),
            0..80,
        ),
    ) {
        thread_local! {
            static WANTED: Wanted = Wanted::new();
        }
        WANTED.with(|wanted| tries(wanted, LEAST, &order));
    }
}

/// What the test above is for is noticed where it is so: all room is kept by what waits for company.
#[test]
fn too_little_room_is_noticed() {
    let noticed =
        |room| catch_unwind(AssertUnwindSafe(|| tries(&Wanted::new(), room, &[]))).is_err();
    assert!(noticed(LEAST - 1));
    assert!(!noticed(LEAST));
}
