//! Reads give no byte that is not the blob's, whatever happened to the blob or to its group hashes.

mod store_support;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use layerstore::gc::{self, GcOptions};
use layerstore::oci::Algorithm;
use layerstore::{Blob, BlobStore, Claim, Digest, Error};
use store_support::*;

const GROUP: usize = 16 * 1024;
const PAGE: usize = 4 * 1024;
/// Seven groups, the last of them a short one.
const LEN: usize = 6 * GROUP + 100;

fn outboard_path(store: &BlobStore, digest: &Digest) -> PathBuf {
    store.root().join(".layerstore/outboard").join(digest.algorithm().name()).join(digest.hex())
}

/// Changes a file where it lies, as a disk does.
fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    set_mode(path, 0o600);
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
    set_mode(path, 0o1444);
}

fn flip(path: &Path, at: u64) {
    let mut byte = [0];
    File::open(path).unwrap().read_exact_at(&mut byte, at).unwrap();
    overwrite(path, at, &[byte[0] ^ 0x10]);
}

fn put_blob(store: &BlobStore, bytes: &[u8]) -> Digest {
    let lease = store.lease("test").unwrap();
    *put(store, &lease, bytes).digest()
}

/// Everything, in pieces of one size.
fn read_by(blob: &mut Blob, piece: usize) -> std::io::Result<Vec<u8>> {
    blob.rewind()?;
    let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        match blob.read(&mut buffer)? {
            0 => return Ok(all),
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
}

#[test]
fn every_way_to_read_gives_the_bytes() {
    let (_dir, store) = store();
    for len in [0, 1, 65_536, 65_537, LEN, 40 * GROUP, 3_000_000] {
        let bytes = noise(len, 1);
        let digest = put_blob(&store, &bytes);
        let mut blob = store.open_blob(&digest).unwrap();
        for piece in [1000, PAGE, PAGE + 1, GROUP + 1, 100_000, 4_000_000] {
            assert!(read_by(&mut blob, piece).unwrap() == bytes, "{len} bytes by {piece}");
        }
        let mut all = Vec::new();
        blob.rewind().unwrap();
        blob.read_to_end(&mut all).unwrap();
        assert!(all == bytes);
        let mut buffer = vec![0; 700_000];
        for seed in 0..200 {
            let random = noise(16, seed);
            let number = |at: usize| u64::from_le_bytes(random[at..at + 8].try_into().unwrap());
            let (at, size) = (number(0) % (len as u64 + 10), (number(8) % 700_000) as usize);
            let read = blob.read_at(&mut buffer[..size], at).unwrap();
            let expected = &bytes[(at as usize).min(len)..];
            assert!(read <= expected.len() && buffer[..read] == expected[..read]);
            assert_eq!(read == 0, size == 0 || expected.is_empty());
        }
        assert_eq!(blob.seek(SeekFrom::End(10)).unwrap(), len as u64 + 10);
        assert_eq!(blob.read(&mut buffer).unwrap(), 0);
        assert!(blob.seek(SeekFrom::End(-(len as i64) - 1)).is_err());
    }
}

#[test]
fn a_bad_page_is_an_error_and_the_others_are_read() {
    let (_dir, store) = store();
    let bytes = noise(LEN, 2);
    for (at, page) in [(0, 0), (PAGE * 7 - 1, 6), (PAGE * 7, 7), (LEN - 1, 24)] {
        let digest = put_blob(&store, &bytes);
        flip(&blob_path(&store, &digest), at as u64);
        let mut blob = store.open_blob(&digest).unwrap();
        for n in 0..25 {
            let mut buffer = vec![0xaa; PAGE];
            match blob.read_at(&mut buffer, (n * PAGE) as u64) {
                Ok(read) => {
                    assert_ne!(n, page);
                    assert!(buffer[..read] == bytes[n * PAGE..n * PAGE + read]);
                }
                Err(Error::CorruptBlob { digest: of, offset }) => {
                    assert_eq!((n, of, offset), (page, digest, (page * PAGE) as u64));
                    let end = PAGE.min(LEN - n * PAGE);
                    // Emptied, or as it was.
                    let first = buffer[0];
                    assert!(first == 0 || first == 0xaa);
                    assert!(buffer[..end].iter().all(|byte| *byte == first), "no wrong byte");
                }
                Err(other) => panic!("{other}"),
            }
        }
        for piece in [777, GROUP, 1_000_000] {
            let error = read_by(&mut blob, piece).unwrap_err().downcast::<Error>().unwrap();
            let text = error.to_string();
            assert!(text.contains(&digest.to_string()), "{text}");
            assert!(text.contains(&format!("byte {}", page * PAGE)), "{text}");
        }
        std::fs::remove_file(blob_path(&store, &digest)).unwrap();
    }
}

#[test]
fn a_blob_that_was_cut_or_swapped_is_an_error() {
    let (_dir, store) = store();
    let (bytes, other) = (noise(LEN, 3), noise(LEN, 4));
    let (digest, other_digest) = (put_blob(&store, &bytes), put_blob(&store, &other));
    let mut open = store.open_blob(&digest).unwrap();
    let path = blob_path(&store, &digest);
    set_mode(&path, 0o600);
    File::options().write(true).open(&path).unwrap().set_len(LEN as u64 - 1).unwrap();
    assert!(matches!(open.read_at(&mut [0; 10], 6 * GROUP as u64), Err(Error::CorruptBlob { .. })));
    // Opened now, it has a length that its group hashes are not of.
    let mut cut = store.open_blob(&digest).unwrap();
    assert!(matches!(cut.read_at(&mut [0; 10], 0), Err(Error::DigestMismatch { .. })));

    std::fs::remove_file(&path).unwrap();
    std::fs::copy(blob_path(&store, &other_digest), &path).unwrap();
    let mut swapped = store.open_blob(&digest).unwrap();
    assert!(matches!(swapped.read_at(&mut [0; 10], 0), Err(Error::CorruptBlob { .. })));
    // And with the hashes of the other beside it.
    std::fs::copy(outboard_path(&store, &other_digest), outboard_path(&store, &digest)).unwrap();
    let mut swapped = store.open_blob(&digest).unwrap();
    assert!(matches!(swapped.read_at(&mut [0; 10], 0), Err(Error::DigestMismatch { .. })));
}

/// The hashes are derived: no state that they can be in says anything against a good blob.
/// Its end is where the file ends, which may be anywhere by then.
#[test]
fn of_a_blob_that_was_cut_the_end_is_an_error_too() {
    for (len, cut, at) in [(1000, 0, 0), (1000, 900, 950), (LEN, 3 * GROUP, 5 * GROUP), (LEN, 0, 0)]
    {
        let (_dir, store) = store();
        let digest = put_blob(&store, &noise(len, 1));
        let path = blob_path(&store, &digest);
        set_mode(&path, 0o600);
        File::options().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
        set_mode(&path, 0o1444);
        let mut blob = store.open_blob(&digest).unwrap();
        blob.seek(SeekFrom::Start(at as u64)).unwrap();
        let read = blob.read(&mut [0; 10]);
        assert!(read.is_err(), "{len} cut to {cut}, at {at}: {read:?}");
    }
}

#[test]
fn stale_torn_and_missing_hashes_cost_a_good_blob_nothing() {
    let (_dir, store) = store();
    let bytes = noise(LEN, 5);
    let digest = put_blob(&store, &bytes);
    let path = outboard_path(&store, &digest);
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good.len(), 64 + 7 * 64);
    let mut states = vec![Vec::new(), good[..100].to_vec(), vec![0; good.len()]];
    for at in 0..good.len() {
        let mut state = good.clone();
        state[at] ^= 1;
        states.push(state);
    }
    // The header came to the disk, the records did not.
    states.push([&good[..64], &vec![0; good.len() - 64][..]].concat());
    for (n, state) in states.iter().enumerate() {
        std::fs::write(&path, state).unwrap();
        let mut blob = store.open_blob(&digest).unwrap();
        assert!(read_by(&mut blob, 1000).unwrap() == bytes, "state {n}");
        let at = n.saturating_sub(3);
        // A leaf is compared by a check only, as are the sums of pages that are not there.
        let is_leaf = at >= 64 && (at - 64) % 64 < 32 || at >= good.len() - 3 * 8;
        let is_passed = (3..states.len() - 1).contains(&n) && is_leaf;
        assert_eq!(std::fs::read(&path).unwrap() == good, !is_passed, "state {n}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(read_by(&mut store.open_blob(&digest).unwrap(), 1000).unwrap() == bytes);
    assert!(std::fs::read(&path).unwrap() == good, "the first read keeps them");
    // Cut while a reader has them open, who has read the sums of the first MiB.
    let bytes = noise(3 * 1024 * 1024, 6);
    let digest = put_blob(&store, &bytes);
    let path = outboard_path(&store, &digest);
    let mut blob = store.open_blob(&digest).unwrap();
    blob.read_exact(&mut [0; 10]).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(70).unwrap();
    assert!(read_by(&mut blob, 1000).unwrap() == bytes);
}

#[test]
fn a_blob_of_another_tool_is_compared_with_its_digest_first() {
    let (_dir, store) = store();
    for algorithm in Algorithm::ALL {
        let bytes = noise(LEN, 6);
        let digest = algorithm.digest(&bytes);
        let path = blob_path(&store, &digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bad = bytes.clone();
        bad[LEN / 2] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let error = store.open_blob(&digest).unwrap().read_at(&mut [0; 10], 0).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        assert!(!outboard_path(&store, &digest).exists(), "nothing speaks for bad bytes");
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_by(&mut store.open_blob(&digest).unwrap(), 1000).unwrap() == bytes);
        assert!(outboard_path(&store, &digest).exists());
    }
}

#[test]
fn parts_get_the_same_hashes_in_whatever_order_they_come() {
    let (_dir, store) = store();
    // Enough records that they are written in pieces.
    let bytes = noise(30 << 20, 7);
    let digest = put_blob(&store, &bytes);
    let good = std::fs::read(outboard_path(&store, &digest)).unwrap();
    let root = blake3::hash(&bytes);
    assert!(good[32..64] == *root.as_bytes(), "the root is the BLAKE3 hash of the blob");
    let remove = || {
        std::fs::remove_file(blob_path(&store, &digest)).unwrap();
        std::fs::remove_file(outboard_path(&store, &digest)).unwrap();
    };
    let lease = store.lease("test").unwrap();
    let hold = || {
        let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
        match store.claim(&pinned).unwrap() {
            Claim::Held(part) => part,
            other => panic!("{other:?}"),
        }
    };
    remove();
    let mut part = hold();
    let cuts = [0, 5_000_001, 9 << 20, 22_222_222, bytes.len()];
    for n in [2, 0, 3] {
        part.write_at(cuts[n] as u64, &bytes[cuts[n]..cuts[n + 1]]).unwrap();
    }
    drop(part);
    // Taken over.
    let mut part = hold();
    part.write_at(cuts[1] as u64, &bytes[cuts[1]..cuts[2]]).unwrap();
    part.commit().unwrap();
    assert!(std::fs::read(outboard_path(&store, &digest)).unwrap() == good);

    remove();
    let pinned = lease.pin_one(digest, bytes.len() as u64).unwrap();
    let mut part = store.private_part(&pinned).unwrap();
    part.write(&noise(100, 1)).unwrap();
    part.restart().unwrap();
    part.write(&bytes).unwrap();
    part.commit().unwrap();
    assert!(std::fs::read(outboard_path(&store, &digest)).unwrap() == good);
    let files = std::fs::read_dir(outboard_path(&store, &digest).parent().unwrap()).unwrap();
    assert_eq!(files.count(), 1);
    assert!(good.len() as u64 * 1000 < bytes.len() as u64 * 4, "no more than 0.4 % of the blob");
}

#[test]
fn switched_off_nothing_is_kept_and_nothing_compared() {
    let (_dir, store) = store();
    store.set_group_hashes(false);
    let digest = put_blob(&store, &noise(LEN, 8));
    flip(&blob_path(&store, &digest), 5);
    assert_eq!(read_by(&mut store.open_blob(&digest).unwrap(), 1000).unwrap().len(), LEN);
    assert!(!outboard_path(&store, &digest).exists());
    // Another handle, that was not told so, compares.
    let other = BlobStore::open(store.root()).unwrap();
    assert!(read_by(&mut other.open_blob(&digest).unwrap(), 1000).is_err());
}

#[test]
fn a_collection_removes_the_hashes_of_blobs_that_are_gone() {
    let (_dir, store) = store();
    let image = add_image(&store, "a:1", &[&noise(LEN, 9)]);
    let garbage = put_blob(&store, &noise(LEN, 10));
    let removed = put_blob(&store, &noise(LEN, 11));
    std::fs::remove_file(blob_path(&store, &removed)).unwrap();
    let mut options = GcOptions { grace: std::time::Duration::ZERO, ..GcOptions::default() };
    options.dry_run = true;
    gc::collect(&store, &options).unwrap();
    assert!(outboard_path(&store, &garbage).exists() && outboard_path(&store, &removed).exists());
    options.dry_run = false;
    gc::collect(&store, &options).unwrap();
    assert!(!outboard_path(&store, &garbage).exists());
    assert!(!outboard_path(&store, &removed).exists());
    let kept = outboard_path(&store, &image.layers[0]);
    assert_eq!(std::fs::metadata(kept).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn small_blobs_have_no_hashes_of_their_own() {
    let (_dir, store) = store();
    let bytes = noise(64 * 1024, 12);
    let digest = put_blob(&store, &bytes);
    assert!(!outboard_path(&store, &digest).exists());
    flip(&blob_path(&store, &digest), 64 * 1024 - 1);
    let error = store.open_blob(&digest).unwrap().read_at(&mut [0; 10], 0).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}
