//! Leases are reaped before the refs are read.

use std::collections::HashSet;
use std::fs;

use layerstore::Pinned;

use crate::images::{Image, assert_holds, collect, image, private, store};

/// How many leases of dead processes there are, to make the reaping of them take its time.
const DEAD: u32 = 6000;

/// While the collector reaps, images are published and let go of. Had it read the refs before, it
/// would reap their leases after, and know of no reason to keep them.
#[test]
fn what_is_published_during_the_reaping_stays() {
    let (_dir, store) = store();
    let leases = private(&store, "leases");
    let holder = "holder a dead process";
    let line = format!("{holder} {:08x}\n", crc32fast::hash(holder.as_bytes()));
    for n in 0..DEAD {
        // Spread over the directory, whose order may be that of the names.
        let name = format!("{:08x}{:024x}", n.wrapping_mul(0x9e37_79b9), n);
        fs::write(leases.join(name), &line).unwrap();
    }
    let pulls: Vec<(Image, Vec<Pinned>)> = (0..24)
        .map(|n| {
            let lease = store.lease("pull").unwrap();
            let image = image(&store, &lease, &format!("image {n}"), &[b"shared layer"]);
            let pinned = lease.pin(&image.blobs).unwrap();
            (image, pinned)
        })
        .collect();
    let expected: Vec<_> = pulls.iter().map(|(image, _)| image.digests()).collect();
    let names = || -> HashSet<_> {
        fs::read_dir(&leases).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let all = names().len();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| collect(&store));
        while names().len() == all {
            assert!(!collector.is_finished(), "nothing was reaped: {:?}", collector.join());
            std::thread::yield_now();
        }
        for (n, (image, pinned)) in pulls.into_iter().enumerate() {
            // The lease ends with the pins: here, and its file stays for the collector.
            store.publish(&format!("example.org/image:{n}"), &image.target, &pinned).unwrap();
            drop(pinned);
        }
        let report = collector.join().unwrap();
        assert!(report.leases_removed >= u64::from(DEAD), "{report:?}");
    });
    assert_holds(&store, &expected);
    collect(&store);
    assert_holds(&store, &expected);
}
