//! Modes are the same whatever the umask, also for a user whom modes hold back.

mod store_support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use layerstore::{BlobStore, Claim};
use store_support::*;

/// Does everything that makes a file.
fn fill(root: &Path) {
    let store = BlobStore::init(root.join("made/store")).unwrap();
    add_image(&store, "a:1", &[b"layer"]);
    let lease = store.lease("test").unwrap();
    let digest = layerstore::oci::Algorithm::Blake3.digest(b"part");
    let pinned = lease.pin_one(digest, 4).unwrap();
    let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
    part.write(b"pa").unwrap();
    drop(part);
    let Claim::Held(mut part) = store.claim(&pinned).unwrap() else { panic!("not held") };
    assert_eq!(part.len(), 2);
    // Beyond a gap, so that there is an account too.
    part.write_at(3, b"t").unwrap();
    drop(part);
    store.lasting_lease("test", &[store.find_ref("a:1").unwrap().descriptor.digest], None).unwrap();
    assert_eq!(store.leases().unwrap().len(), 2);
    let store = BlobStore::open(store.root()).unwrap();
    let report = store.check(&Default::default(), |_| {}).unwrap();
    assert!(report.is_sound(), "{report:#?}");
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    if let Some(root) = task() {
        fill(Path::new(&root));
        return;
    }
    for umask in ["000", "022", "027", "077", "777"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
            .args(unprivileged(dir.path()))
            .arg(std::env::current_exe().unwrap())
            .args(["modes_do_not_depend_on_the_umask", "--exact", "--nocapture"])
            .env(CHILD, dir.path());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "umask {umask}: {text}");
        look(&dir.path().join("made"), umask);
    }
}

fn look(dir: &Path, umask: &str) {
    let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
    let mut dirs = vec![dir.to_owned()];
    let mut kinds = std::collections::BTreeSet::new();
    while let Some(dir) = dirs.pop() {
        assert_eq!(mode(&dir), 0o700, "umask {umask}: {}", dir.display());
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            kinds.extend(path.extension().map(|end| end.to_str().unwrap().to_owned()));
            let wanted = match path.file_name().unwrap().to_str().unwrap() {
                "index.json" | "oci-layout" | "version" => 0o644,
                _ if path.components().any(|part| part.as_os_str() == "blobs") => 0o1444,
                _ => 0o600,
            };
            assert_eq!(mode(&path), wanted, "umask {umask}: {}", path.display());
        }
    }
    assert_eq!(Vec::from_iter(kinds), ["json", "lock", "part", "state"], "umask {umask}");
}

/// Its maker may die between the two steps, and whoever comes next is to be able to use it.
#[test]
fn a_directory_whose_maker_died_before_it_had_its_mode_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (name, root_mode, wanted) in [("alone", 0o700, 0o700), ("shared", 0o2770, 0o2770)] {
        let root = dir.path().join(name);
        let made = [".layerstore", ".layerstore/leases", ".layerstore/locks", "blobs"];
        std::fs::create_dir(&root).unwrap();
        set_mode(&root, root_mode);
        for folder in made {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        for folder in made.iter().rev() {
            set_mode(&root.join(folder), 0o500);
        }
        let store = BlobStore::init_shared(&root).unwrap();
        for folder in made {
            assert_eq!(mode(&root.join(folder)), wanted, "{name}: {folder}");
        }
        add_image(&store, "a:1", &[b"layer"]);
    }
}
