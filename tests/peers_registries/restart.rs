//! A registry that dies in the middle of a large layer, and comes back.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::data::{LARGE, large};
use super::store::messages;
use super::{User, peers};

/// What nginx may have taken from the registry and not brought to the client: its buffers, and those
/// of the kernel, on each of eight connections.
const LOST: u64 = 32 << 20;

#[test]
#[ignore = "needs Debian's docker-registry and nginx: run ./tests/all"]
fn a_pull_goes_on_where_the_registry_died() {
    let user = User::new();
    let data = user.path("data");
    let image = large(&data);
    let layer = &image.layers[0].digest;
    let registry = peers::Registry::start_on(&user.path("server"), &data, &["--nginx"]);
    let name = format!("{}/large:1", registry.address);
    let mut pull = user
        .store
        .command(&["--json", "pull", "--plain-http", "--limit-rate", "80M", &name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let got = || user.store.parts().get(layer).copied().unwrap_or_default();
    while got() < LARGE / 3 {
        assert!(pull.try_wait().unwrap().is_none(), "it ended before the registry was cut");
        thread::sleep(Duration::from_millis(10));
    }
    registry.cut();
    let before = got();
    // Long enough for the client to be refused.
    thread::sleep(Duration::from_millis(500));
    assert!(pull.try_wait().unwrap().is_none(), "it gave up");
    registry.revive();

    let output = pull.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", messages(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    user.store.assert_complete(&name);
    user.store.assert_sound();
    let sent = registry.sent_after(LARGE)[layer];
    println!(
        "cut after {before} of {LARGE} bytes; {} bytes sent in {} answers, {} retries",
        sent.bytes, sent.responses, report["retries"]
    );
    assert!(before < LARGE, "it was cut too late");
    assert!(report["retries"].as_u64().unwrap() > 0, "{report}");
    assert!(sent.responses > 1 && sent.bytes < LARGE + LOST, "{sent:?}");
}
