//! The account of a part may say more than is there, where a restart was broken off.

mod store_support;

use layerstore::Claim;
use layerstore::oci::Algorithm;
use store_support::{noise, store};

const SIZE: usize = 3_000_000;

#[test]
fn what_an_old_account_says_is_not_made_true_by_what_is_written_later() {
    let (_dir, store) = store();
    let bytes = noise(SIZE, 1);
    let digest = Algorithm::Sha256.digest(&bytes);
    let lease = store.lease("test").unwrap();
    let pinned = lease.pin_one(digest, SIZE as u64).unwrap();
    let held = || match store.claim(&pinned).unwrap() {
        Claim::Held(part) => part,
        other => panic!("not held: {other:?}"),
    };
    let mut part = held();
    part.write_at(1_000_000, &bytes[1_000_000..1_500_000]).unwrap();
    drop(part);
    // Emptied, and the process died before it removed the account; the line after was torn.
    let stem = store.root().join(format!(".layerstore/parts/sha256-{}", digest.hex()));
    std::fs::write(stem.with_extension("part"), "").unwrap();
    let state = stem.with_extension("state");
    let account = std::fs::read_to_string(&state).unwrap();
    let line = "bytes 0-500000,1000000-1500000";
    let crc = crc32fast::hash(line.as_bytes());
    std::fs::write(&state, format!("{account}{line} {crc:08x}\nbytes 0-")).unwrap();

    let mut part = held();
    assert!(part.is_empty());
    part.write_at(2_000_000, &bytes[2_000_000..2_100_000]).unwrap();
    drop(part);
    let mut part = held();
    assert!(part.len() <= 100_000, "{} bytes are believed", part.len());
    for missing in part.missing() {
        let place = missing.start as usize..missing.end as usize;
        part.write_at(missing.start, &bytes[place]).unwrap();
    }
    part.commit().unwrap();
    store.open_blob(&digest).unwrap().verify().unwrap();
}
