//! Sequences of operations, with failures and reopenings, against a plain map. The same code runs
//! under cargo-fuzz (fuzz/fuzz_targets/operations.rs and store_files.rs), from the same seeds.

mod drive;
mod files;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use drive::Driver;
use world::known;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(folder).unwrap();
    let seeds: Vec<_> = entries.map(|it| std::fs::read(it.unwrap().path()).unwrap()).collect();
    assert!(seeds.len() > 2, "{target} has {} seeds", seeds.len());
    seeds
}

#[test]
fn the_seeds() {
    seeds("operations").iter().for_each(|seed| drive::run(seed));
}

#[test]
fn files_that_strangers_wrote() {
    for seed in seeds("store_files") {
        for len in (0..seed.len()).step_by(23).chain([seed.len()]) {
            files::run(&seed[..len]);
        }
    }
}

/// What the harness is for: a blob, a ref, a part or a lease that is lost is noticed.
#[test]
fn what_is_lost_is_noticed() {
    let lose = |what: &str| {
        let mut driver = Driver::new();
        // An image, a name for it, a part of some bytes and a lasting lease.
        let steps = [(1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 0, 5), (10, 0, 5), (4, 0, 3), (5, 0, 9)];
        for (operation, a, b) in steps.into_iter().chain([(8, 1, 0), (14, 0, 5)]) {
            driver.step(operation, a, b);
            driver.compare();
        }
        let root = driver.root();
        let file = |folder: &str, name: String| std::fs::remove_file(root.join(folder).join(name));
        match what {
            "blob" => file("blobs/sha256", known()[2].descriptor.digest.hex()).unwrap(),
            "part" => {
                let digest = known()[3].descriptor.digest.hex();
                file(".layerstore/parts", format!("sha256-{digest}.part")).unwrap();
            }
            "ref" => {
                let names = ["a.example/a:1".to_owned()];
                assert_eq!(driver.store.remove_refs(&names).unwrap(), [true]);
            }
            "lease" => {
                let id = driver.expected.lasting.keys().next().unwrap().clone();
                file(".layerstore/leases", id).unwrap();
            }
            _ => {}
        }
        catch_unwind(AssertUnwindSafe(|| driver.compare())).is_err()
    };
    assert!(!lose("nothing"));
    for what in ["blob", "part", "ref", "lease"] {
        assert!(lose(what), "a lost {what} is not noticed");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 16, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn any_operations(bytes in proptest::collection::vec(0u8.., 0..240)) {
        drive::run(&bytes);
    }
}
