//! Room under a cap: which image goes for a pull, and whose room a put takes.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use crate::sandbox::Sandbox;
use crate::store_support::{mkfifo, noise};
use crate::support::{Registry, images};

const MIB: u64 = 1 << 20;

/// A store that may take so much more than it does.
fn limit(sandbox: &Sandbox, more: u64) {
    let used = sandbox.json(&["df"])["total"]["disk"].as_u64().unwrap();
    sandbox.ok(&["config", "max-used-space", &(used + more).to_string()]);
}

/// Also one that finds everything there, and one that does not even ask.
#[test]
fn a_pull_is_a_use_of_what_is_there() {
    let (sandbox, registry) = (Sandbox::new(), Registry::start());
    let names: Vec<String> = (0..4).map(|n| registry.reference(&format!("demo{n}:1"))).collect();
    for n in 0..4 {
        let image = images::synthetic(&[2 * MIB + n]);
        registry.push(&format!("demo{n}"), "1", &image);
        if n == 3 {
            break;
        }
        sandbox.ok(&["pull", "--plain-http", &names[n as usize]]);
        // The third a little later than the others: it would be the last to go.
        let then = SystemTime::now() - Duration::from_secs(3600 - 60 * (n / 2));
        let used = format!(".layerstore/used/{}", image.digest.replace(':', "-"));
        let blob = format!("blobs/{}", image.digest.replace(':', "/"));
        for path in [used, blob] {
            let file = std::fs::File::open(sandbox.root().join(path)).unwrap();
            file.set_modified(then).unwrap();
        }
    }
    registry.clear_requests();
    sandbox.ok(&["pull", "--plain-http", "--policy", "missing", &names[1]]);
    assert_eq!(registry.requests().len(), 0);
    sandbox.ok(&["pull", "--plain-http", &names[0]]);
    limit(&sandbox, MIB);
    let done = sandbox.run(&["pull", "--plain-http", &names[3]]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let left = sandbox.json(&["images"]);
    let mut left: Vec<_> =
        left.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, [&names[0], &names[1], &names[3]]);
}

/// `blob put` of a file and of a pipe from which nothing comes: the file is read, and nothing named.
#[test]
fn the_room_of_a_put_that_is_under_way_is_nobody_elses() {
    let sandbox = Sandbox::new();
    let path = |name: &str| sandbox.dir.path().join(name).to_str().unwrap().to_owned();
    let (first, second, pipe) = (path("first"), path("second"), path("pipe"));
    std::fs::write(&first, noise(4 << 20, 1)).unwrap();
    std::fs::write(&second, noise(2 << 20, 2)).unwrap();
    mkfifo(pipe.as_ref());
    limit(&sandbox, 5 * MIB);
    let mut command = sandbox.command(&["blob", "put", &first, &pipe]);
    let mut putting = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Opened for both, so that this does not wait for who reads it, and nobody finds its end.
    let held = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    wait_until_read(putting.id(), &first, &pipe);
    sandbox.fails(&["blob", "put", &second], 9, "there is no room for ");
    putting.kill().unwrap();
    putting.wait().unwrap();
    drop(held);
    sandbox.ok(&["blob", "put", &second]);
}

/// Until a process that has read one file waits for a byte of the next.
fn wait_until_read(pid: u32, first: &str, pipe: &str) {
    let begun = Instant::now();
    let open = || -> Vec<_> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
    };
    // What is read is put into a file without a name, or with one of the store's own.
    let is_new = |text: &str| {
        text.contains("/store/") && (text.contains("(deleted)") || text.contains("/.new-"))
    };
    loop {
        let open = open();
        let texts: Vec<_> = open.iter().filter_map(|path| path.to_str()).collect();
        if texts.contains(&pipe) && !texts.contains(&first) && texts.iter().any(|it| is_new(it)) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{texts:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
