//! What docs/operations.md says to put on a host: the units of examples/systemd, and its commands.
#![cfg(feature = "cli")]

#[path = "tools/store.rs"]
mod store;
mod store_support;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use layerstore::BlobStore;
use store::{Store, must};
use store_support::{add_image, noise, put};
use support::{Image, Layer, Registry};

const STORE: &str = env!("CARGO_BIN_EXE_store");
const ROOT: &str = "/var/lib/layerstore";
const PAGE: &str = include_str!("../docs/operations.md");
const COMMANDS: &str = include_str!("../docs/cli.md");

/// The units as they are shipped, with the program of this test.
fn units(folder: &Path) -> Vec<PathBuf> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd");
    let mut units = Vec::new();
    let mut folders = vec![(shipped, folder.to_path_buf())];
    while let Some((from, to)) = folders.pop() {
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
            if path.is_dir() {
                folders.push((path, to.join(name)));
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            fs::write(to.join(&name), text.replace("/usr/local/bin/store", STORE)).unwrap();
            units.push(to.join(name));
        }
    }
    units.sort();
    units
}

/// The command that a unit runs, for a store elsewhere.
fn exec_start(unit: &str, root: &Path) -> Vec<String> {
    let line = unit.lines().rfind(|line| line.starts_with("ExecStart=/")).unwrap();
    let command = line["ExecStart=".len()..].replace("%%", "%");
    command.split(' ').map(|word| word.replace(ROOT, root.to_str().unwrap())).collect()
}

/// What systemd runs: each service, and each once more with its drop-in file, whose settings come after
/// its own.
fn services(units: &[PathBuf]) -> Vec<(String, String)> {
    let ending =
        |wanted: &'static str| units.iter().filter(move |unit| unit.extension().unwrap() == wanted);
    let read = |unit: &Path| fs::read_to_string(unit).unwrap();
    let mut services = Vec::new();
    for unit in ending("service") {
        let (name, text) = (unit.file_name().unwrap().to_str().unwrap(), read(unit));
        for drop_in in
            ending("conf").filter(|it| it.parent().unwrap().ends_with(format!("{name}.d")))
        {
            let both = format!("{text}\n{}", read(drop_in));
            services.push((format!("{name} with {}", drop_in.display()), both));
        }
        services.push((name.to_owned(), text));
    }
    assert_eq!(services.len(), 3, "{units:?}");
    assert_eq!(services.iter().filter(|(_, text)| text.contains("--repair")).count(), 1);
    services
}

/// What a unit's last line of this setting says.
fn setting<'a>(unit: &'a str, name: &str) -> Option<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).next_back()
}

/// A registry on loopback, and a blob that came from it and rots.
struct Rot {
    registry: Registry,
    name: String,
    layer: Layer,
    path: PathBuf,
    hashes: PathBuf,
    /// A `registries.conf` that says how the registry is spoken to.
    conf: PathBuf,
}

impl Rot {
    fn in_store(store: &Store, folder: &Path) -> Rot {
        let (registry, layer) = (Registry::start(), Layer::generated(9, 400_000));
        registry.push("demo", "1", &Image::of(std::slice::from_ref(&layer)));
        let name = registry.reference("demo:1");
        store.pull(&name);
        let path = store::blob_in(store.root(), &layer.digest);
        let hashes = layer.digest.replace(':', "/");
        let hashes = store.root().join(".layerstore/outboard").join(hashes);
        let conf = folder.join("registries.conf");
        let text =
            format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.address());
        fs::write(&conf, text).unwrap();
        Rot { registry, name, layer, path, hashes, conf }
    }

    /// Changes a bit, and has the blob be the first that a check of a share reads.
    fn sets_in(&self) {
        let mut bytes = self.layer.content.to_vec();
        bytes[200_000] ^= 1;
        store_support::set_mode(&self.path, 0o600);
        fs::write(&self.path, bytes).unwrap();
        store_support::set_mode(&self.path, 0o1444);
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::open(&self.hashes).unwrap().set_modified(long_ago).unwrap();
    }

    fn is_mended(&self) -> bool {
        fs::read(&self.path).unwrap() == self.layer.content.to_vec()
    }
}

/// What `systemd-analyze verify` says of units; nothing if they are right.
fn verify(units: &[PathBuf]) -> String {
    let units = units.iter().filter(|unit| unit.extension().unwrap() != "conf");
    let output = Command::new("systemd-analyze").arg("verify").args(units).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() || !said.is_empty());
    said
}

fn populated(folder: &Path) -> Store {
    let store = Store::at(folder.join("store"));
    store.run(&["init"]);
    let library = BlobStore::open(store.root()).unwrap();
    add_image(&library, "example.org/a:1", &[&noise(300_000, 1), &noise(70_000, 2)]);
    put(&library, &library.lease("test").unwrap(), &noise(2 << 20, 3));
    store
}

#[test]
#[ignore = "needs systemd-analyze: run ./tests/all"]
fn the_units_are_sound_and_closed() {
    let temp = tempfile::tempdir().unwrap();
    let units = units(temp.path());
    assert_eq!(units.len(), 5, "{units:?}");
    assert_eq!(verify(&units), "");
    for unit in units.iter().filter(|unit| unit.extension().unwrap() == "service") {
        // The score is from 0, closed, to 10; the threshold is ten times that. To mend, a check
        // has the network.
        let most = if unit.ends_with("layerstore-gc.service") { 15 } else { 30 };
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", &format!("--threshold={most}")]);
        must(security.arg(unit));
    }

    // What is planted is seen, in a drop-in file too.
    let drop_in = units.iter().find(|unit| unit.extension().unwrap() == "conf").unwrap();
    let good = fs::read_to_string(drop_in).unwrap();
    fs::write(drop_in, good.replace("PrivateNetwork=no", "PrivateNetwrk=no")).unwrap();
    assert!(verify(&units).contains("PrivateNetwrk"));
    fs::write(drop_in, good.replace(STORE, "/usr/local/bin/nothing")).unwrap();
    assert!(verify(&units).contains("/usr/local/bin/nothing"));
    fs::write(drop_in, good).unwrap();
    let timer = units.iter().find(|unit| unit.ends_with("layerstore-gc.timer")).unwrap();
    fs::write(timer, "[Timer]\nOnCalendar=hurly\n").unwrap();
    assert!(verify(&units).contains("hurly"));
}

/// The system calls that a filter of systemd permits.
fn permitted(unit: &str) -> BTreeSet<String> {
    let mut permitted = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (keep, sets) = match line.strip_prefix('~') {
            Some(sets) => (false, sets),
            None => (true, line),
        };
        for call in sets.split(' ').flat_map(calls_of) {
            match keep {
                true => permitted.insert(call),
                false => permitted.remove(&call),
            };
        }
    }
    permitted.extend(calls_of("@default"));
    permitted
}

fn calls_of(set: &str) -> Vec<String> {
    if !set.starts_with('@') {
        return vec![set.to_owned()];
    }
    let text = must(Command::new("systemd-analyze").args(["syscall-filter", set]));
    let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.filter(|line| !line.starts_with('#'));
    lines
        .flat_map(|line| match line.starts_with('@') {
            true => calls_of(line),
            false => vec![line.to_owned()],
        })
        .collect()
}

#[test]
#[ignore = "needs strace and systemd-analyze: run ./tests/all"]
fn the_units_permit_every_system_call_that_is_made() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let rot = Rot::in_store(&store, temp.path());
    for (name, text) in services(&units(&temp.path().join("units"))) {
        let repairs = text.contains("--repair");
        if repairs {
            rot.sets_in();
        }
        let trace = temp.path().join("trace");
        let mut strace = Command::new("strace");
        strace.env("CONTAINERS_REGISTRIES_CONF", &rot.conf);
        strace.args(["-f", "-qq", "-o"]).arg(&trace).args(exec_start(&text, store.root()));
        must(&mut strace);
        assert!(rot.is_mended(), "{name}");
        let trace = fs::read_to_string(&trace).unwrap();
        let made: BTreeSet<&str> = trace
            .lines()
            .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
            .map(|(name, _)| name.trim_start_matches("<... "))
            .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
            .collect();
        assert!(made.contains("openat2"), "{made:?}");
        assert_eq!(made.contains("connect"), repairs, "{name}: {made:?}");
        let permitted = permitted(&text);
        let refused: Vec<_> = made.iter().filter(|call| !permitted.contains(**call)).collect();
        assert!(refused.is_empty(), "{name}: {refused:?}");
        let families = setting(&text, "RestrictAddressFamilies").unwrap();
        let sockets: BTreeSet<&str> = trace
            .lines()
            .filter_map(|line| line.split_once(" socket(")?.1.split_once(','))
            .map(|(family, _)| family)
            .collect();
        let refused: Vec<_> =
            sockets.iter().filter(|it| !families.split(' ').any(|known| known == **it)).collect();
        assert!(refused.is_empty(), "{name}: {refused:?} of {sockets:?}");
        assert_eq!(sockets.contains("AF_INET"), repairs, "{name}: {sockets:?}");
        assert!(!permitted.contains("mount") && !permitted.contains("sched_setscheduler"));
        // In a small store no thread has to.
        assert_eq!(permitted.contains("setpriority"), name.contains("-gc"), "{name}");
    }
}

/// Without capabilities, with no network but for what mends, and with nothing to write to but the store.
#[test]
#[ignore = "needs root: run ./tests/all"]
fn the_units_commands_need_no_more_than_they_are_given() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let rot = Rot::in_store(&store, temp.path());
    let closed = "mount --make-rprivate / && mount --bind \"$0\" \"$0\" && \
        mount -o remount,bind,ro / && \
        exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \"$@\"";
    let run = |command: &[String], network: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.env("CONTAINERS_REGISTRIES_CONF", &rot.conf).arg("--mount").args(network);
        unshare.args(["sh", "-c", closed]).arg(store.root()).args(command);
        unshare.output().unwrap()
    };
    const NONE: &[&str] = &["--net"];
    for (name, text) in services(&units(&temp.path().join("units"))) {
        let network = match setting(&text, "PrivateNetwork").unwrap() {
            "yes" => NONE,
            _ => &[],
        };
        if text.contains("--repair") {
            rot.sets_in();
        }
        let output = run(&exec_start(&text, store.root()), network);
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(rot.is_mended(), "{name}");
    }
    store.run(&["rm", &rot.name]);
    let gc = ["gc", "--grace", "0s"].map(str::to_owned);
    let head = [STORE.to_owned(), "--root".to_owned(), store.root().display().to_string()];
    let output = run(&[&head[..], &gc].concat(), NONE);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(store.blobs().len(), 4, "what nothing kept is gone");
    // The walls are there.
    let touch = ["touch".to_owned(), temp.path().join("file").display().to_string()];
    let output = run(&touch, NONE);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only"), "{output:?}");
    let socket = format!("exec 3<>/dev/tcp/{}", rot.registry.address().replace(':', "/"));
    let connect = ["bash", "-c", &socket].map(str::to_owned);
    assert!(run(&connect, &[]).status.success() && !run(&connect, NONE).status.success());
}

/// The codes that a table of a page has a row for.
fn codes(page: &str, head: &str) -> BTreeSet<u8> {
    let table = page.split_once(head).unwrap_or_else(|| panic!("no table {head}")).1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| cell.split(',')).map(|code| code.trim().parse().unwrap()).collect()
}

#[test]
fn each_code_that_a_command_ends_with_has_its_advice() {
    let (known, advised) =
        (codes(COMMANDS, "| code | meaning |"), codes(PAGE, "| code | of | what to do |"));
    assert!(known.len() >= 14 && known.contains(&130), "{known:?}");
    assert_eq!(known, advised);
}

/// The block of commands on the page that has this in it.
fn block(with: &str) -> &'static str {
    let blocks = PAGE.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let mut found = blocks.filter(|block| block.contains(with));
    let block = found.next().unwrap_or_else(|| panic!("no commands with {with} on the page"));
    assert!(found.next().is_none(), "two blocks have {with}");
    block
}

/// Runs commands of the page with the program of this test, and `systemctl` that does nothing.
#[track_caller]
fn run_block(block: &str, folder: &Path, root: &Path) -> String {
    let tools = folder.join("tools");
    fs::create_dir_all(&tools).unwrap();
    let _ = std::os::unix::fs::symlink(STORE, tools.join("store"));
    fs::write(tools.join("systemctl"), "#!/bin/sh\n").unwrap();
    store_support::set_mode(&tools.join("systemctl"), 0o755);
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let backup = folder.join("backup");
    let script = block.replace(ROOT, root.to_str().unwrap());
    let script = script.replace("/backup", backup.to_str().unwrap());
    let mut sh = Command::new("sh");
    must(sh.args(["-e", "-c", &script]).env("PATH", path).env("STORE_ROOT", root))
}

#[test]
#[ignore = "needs jq: run ./tests/all"]
fn the_figures_of_the_page_are_those_of_df() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let text = run_block(block("layerstore_reclaimable_bytes"), temp.path(), store.root());
    let usage = store.json(&["df"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), usage["kinds"].as_object().unwrap().len() + 3, "{text}");
    let layers =
        format!("layerstore_disk_bytes{{kind=\"layers\"}} {}", usage["kinds"]["layers"]["disk"]);
    for line in [&layers, "layerstore_images 1", "layerstore_unreadable 0"] {
        assert!(lines.contains(&line), "{line}: {text}");
    }
}

#[test]
#[ignore = "needs rsync: run ./tests/all"]
fn a_copy_by_the_page_is_a_store() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let copy = Store::at(temp.path().join("backup/images"));
    let said = run_block(block("rsync"), temp.path(), store.root());
    assert!(said.contains("no damage: looked at 1 image name"), "{said}");
    assert_eq!((copy.names(), copy.blobs()), (store.names(), store.blobs()));

    // And again, after the names have changed.
    let library = BlobStore::open(store.root()).unwrap();
    add_image(&library, "example.org/b:1", &[&noise(90_000, 4)]);
    store.run(&["rm", "example.org/a:1"]);
    let said = run_block(block("rsync"), temp.path(), store.root());
    assert!(said.contains("no damage: looked at 1 image name"), "{said}");
    assert_eq!(copy.names(), ["example.org/b:1"]);
    copy.gc();
    assert_eq!(copy.blobs(), copy.live());
    copy.assert_sound();
}

#[test]
#[ignore = "needs rsync: run ./tests/all"]
fn a_store_that_was_moved_is_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let moved = Store::at(temp.path().join("moved"));
    must(
        Command::new("rsync")
            .arg("-aHS")
            .arg(format!("{}/", store.root().display()))
            .arg(moved.root()),
    );
    assert!(moved.run(&["check"]).contains("no damage"));
    assert_eq!((moved.names(), moved.blobs()), (store.names(), store.blobs()));
}
