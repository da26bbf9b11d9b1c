//! A damaged layer of 120 MB, mended from Debian's docker-registry: what nginx before it sends is what
//! was wrong.
#![cfg(feature = "cli")]

#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use peers::Registry;
use serde_json::Value;
use store::{Store, blob_in};

const SIZE: u64 = 120_000_000;
const GROUP: u64 = 16 * 1024;

/// Puts an image of one layer into the folder of a registry; the digest of the layer.
fn large_image(data: &Path) -> String {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/large-image");
    let output = Command::new(tool).arg(data).args([&SIZE.to_string(), "large"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Inverts bytes where they lie.
fn rot(path: &Path, places: &[u64]) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    for at in places {
        let mut byte = [0];
        file.read_exact_at(&mut byte, *at).unwrap();
        file.write_all_at(&[!byte[0]], *at).unwrap();
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1444)).unwrap();
}

/// Repairs; the exit code and the report.
fn repair(store: &Store, registry: &Registry) -> (i32, Value) {
    let arguments = ["--json", "check", "--repair", "--plain-http", &registry.address];
    let output = store.command(&arguments).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code().unwrap(), report)
}

fn sent(registry: &Registry, layer: &str, least: u64) -> u64 {
    registry.sent_after(least).get(layer).map_or(0, |sent| sent.bytes)
}

#[test]
#[ignore = "needs Debian's docker-registry, skopeo and umoci: run ./tests/all"]
fn only_what_is_wrong_of_a_large_layer_is_sent() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = temp.path().join("data");
    let layer = large_image(&data);
    let registry = Registry::start_over(&temp.path().join("registry"), &data, "0");
    let name = format!("{}/real/large:v1", registry.address);
    let store = Store::at(temp.path().join("store"));
    store.pull(&name);
    let whole = sent(&registry, &layer, SIZE);
    assert_eq!(whole, SIZE);

    // Three places, two of them in neighbouring groups.
    let path = blob_in(store.root(), &layer);
    rot(&path, &[5, 50_000_000, 50_000_000 + GROUP, SIZE - 1]);
    let (code, report) = repair(&store, &registry);
    assert_eq!(code, 0, "{report}");
    let last = SIZE % GROUP;
    let wanted = 3 * GROUP + last;
    assert_eq!(report["repair"]["fetchedBytes"], wanted);
    assert_eq!(report["repair"]["mended"][0]["digest"], Value::from(layer.as_str()));
    let mended = sent(&registry, &layer, whole + wanted) - whole;
    println!("{mended} bytes sent to mend a layer of {SIZE}, of which {wanted} were wrong");
    assert_eq!(mended, wanted);
    store.assert_sound();
    store.assert_complete(&name);

    // Cut in half, what is missing is asked for.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(SIZE / 2).unwrap();
    let before = sent(&registry, &layer, 0);
    let (code, report) = repair(&store, &registry);
    assert_eq!(code, 0, "{report}");
    let wanted = SIZE - SIZE / 2 / GROUP * GROUP;
    assert_eq!(report["repair"]["fetchedBytes"], wanted);
    // Over several connections what is on its way when one of them is closed is sent for nothing.
    let mended = sent(&registry, &layer, before + wanted) - before;
    assert!((wanted..SIZE).contains(&mended), "{mended}");

    // Without its registry it is put away, and comes back with the next pull.
    rot(&path, &[60_000_000]);
    registry.cut();
    let (code, report) = repair(&store, &registry);
    assert_eq!(code, 3, "{report}");
    let failed = &report["repair"]["failed"][0];
    assert_eq!((&failed["quarantined"], &failed["refs"][0]), (&true.into(), &name.clone().into()));
    assert!(!path.exists());
    registry.revive();
    let before = sent(&registry, &layer, 0);
    store.pull(&name);
    assert_eq!(sent(&registry, &layer, before + GROUP) - before, GROUP);
    store.assert_sound();
    store.assert_complete(&name);
}
