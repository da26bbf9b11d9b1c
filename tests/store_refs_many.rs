//! Eight processes write refs into one `index.json`, and none is lost.

mod store_support;

use layerstore::BlobStore;
use store_support::*;

const PROCESSES: usize = 8;
const REFS: usize = 50;

#[test]
fn no_update_of_eight_processes_is_lost() {
    if let Some(task) = task() {
        let (root, process) = task.rsplit_once(' ').unwrap();
        let store = BlobStore::open(root).unwrap();
        let lease = store.lease("test").unwrap();
        for n in 0..REFS {
            store.tag(&lease, "base:1", &format!("of-{process}:{n}")).unwrap();
            if n % 5 == 4 {
                assert_eq!(store.remove_refs(&[format!("of-{process}:{n}")]).unwrap(), [true]);
            }
        }
        return;
    }
    let (_dir, store) = store();
    add_image(&store, "base:1", &[b"layer"]);
    let children: Vec<_> = (0..PROCESSES)
        .map(|n| {
            let task = format!("{} {n}", store.root().display());
            child("no_update_of_eight_processes_is_lost", &task)
        })
        .collect();
    // Whoever reads meanwhile always finds a whole file.
    for _ in 0..200 {
        assert!(store.find_ref("base:1").is_ok());
    }
    children.into_iter().for_each(finish);
    let mut names: Vec<_> = store.refs().unwrap().into_iter().filter_map(|r| r.name).collect();
    let mut expected = vec!["base:1".to_owned()];
    for process in 0..PROCESSES {
        let kept = (0..REFS).filter(|n| n % 5 != 4);
        expected.extend(kept.map(|n| format!("of-{process}:{n}")));
    }
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    assert!(store.check(&Default::default(), |_| {}).unwrap().is_sound());
}
