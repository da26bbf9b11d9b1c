//! `check` beside pulls and removals: blobs that come and go with their refs are no damage.

mod store_support;

use std::sync::atomic::{AtomicBool, Ordering};

use layerstore::CheckOptions;
use store_support::*;

#[test]
fn what_comes_and_goes_is_no_damage() {
    let (_dir, store) = store();
    add_image(&store, "stays:1", &[&noise(3_000_000, 1)]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let store = &store;
        let done = &done;
        for n in 0..2u64 {
            scope.spawn(move || {
                let name = format!("comes-and-goes:{n}");
                let layer = noise(200_000, 10 + n);
                while !done.load(Ordering::Relaxed) {
                    let image = add_image(store, &name, &[&layer]);
                    store.remove_refs(std::slice::from_ref(&name)).unwrap();
                    // As a collection does that began after the removal, without its grace time.
                    for digest in [image.layers[0], image.config, image.target.digest] {
                        std::fs::remove_file(blob_path(store, &digest)).unwrap();
                    }
                }
            });
        }
        for round in 0..60 {
            let options = CheckOptions { read_data: round % 2 == 0, ..Default::default() };
            let report = store.check(&options, |_| {}).unwrap();
            if !report.is_sound() || !report.notes.is_empty() {
                done.store(true, Ordering::Relaxed);
                panic!("round {round}: {report:#?}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
