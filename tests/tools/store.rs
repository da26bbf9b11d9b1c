//! The command `store` on a store of the test's own, and what is on disk as jq and sha256sum see
//! it: nothing here uses the crate under test.
//!
//! ```ignore
//! #[path = "tools/store.rs"]
//! mod store;
//! ```
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// A store that the command makes when it first writes to it.
#[derive(Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// How other tools are told of an image in it.
    pub(crate) fn oci(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.root.display())
    }

    /// The command with `arguments`, not yet run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store"));
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    /// Runs the command, which must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        must(&mut self.command(arguments))
    }

    /// The same with `--json`.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        serde_json::from_str(&self.run(&all)).expect("--json prints JSON")
    }

    /// Pulls, and returns the report.
    #[track_caller]
    /// On one connection: several may leave bytes unread that a server has sent.
    pub(crate) fn pull(&self, reference: &str) -> Value {
        self.json(&["pull", "--plain-http", "--max-connections=1", reference])
    }

    /// Starts a pull; its report goes to a pipe, its messages too.
    pub(crate) fn start_pull(&self, reference: &str) -> Child {
        self.start_pull_with(reference, &[])
    }

    /// Starts one with options.
    pub(crate) fn start_pull_with(&self, reference: &str, options: &[&str]) -> Child {
        self.command(&[&["--json", "pull", "--plain-http", reference], options].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command can be run")
    }

    /// Pulls, and returns the report and the most memory that was resident, in KiB. The kernel's
    /// own high-water mark is read, so that nothing is missed but the process's last moment.
    #[track_caller]
    pub(crate) fn pull_measured(&self, reference: &str) -> (Value, u64) {
        let mut pull = self.start_pull(reference);
        let status = PathBuf::from(format!("/proc/{}/status", pull.id()));
        let mut peak = 0;
        while pull.try_wait().expect("it can be waited for").is_none() {
            let status = fs::read_to_string(&status).expect("/proc has it until it was waited for");
            // One that has ended has no memory.
            if let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
                let number = line.trim().strip_suffix(" kB").expect("the unit is kB");
                peak = number.parse().expect("a number");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = pull.wait_with_output().expect("it can be waited for");
        assert!(output.status.success(), "{}{}", output.status, messages(&output));
        let report = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        (report, peak)
    }

    /// Collects what it can, however young.
    #[track_caller]
    pub(crate) fn gc(&self) -> Value {
        self.json(&["gc", "--grace", "0s"])
    }

    /// The names under `blobs/`, as digests, and the sizes of the files.
    pub(crate) fn blobs(&self) -> BTreeMap<String, u64> {
        let folder = self.root.join("blobs");
        if folder.exists() {
            let mut algorithms = files(&folder).into_keys();
            assert!(algorithms.all(|name| name == "sha256"), "{}", folder.display());
        }
        let named = |(name, size)| (format!("sha256:{name}"), size);
        files(&folder.join("sha256")).into_iter().map(named).collect()
    }

    /// The digests of the blobs that are being downloaded, or were, and how many bytes there are:
    /// by the account beside the part, or by its length where there is none (docs/format.md).
    pub(crate) fn parts(&self) -> BTreeMap<String, u64> {
        let folder = self.root.join(".layerstore/parts");
        let there = |(name, length): (String, u64)| {
            let stem = name.strip_suffix(".part")?;
            let digest = format!("sha256:{}", stem.strip_prefix("sha256-")?);
            let account = fs::read_to_string(folder.join(format!("{stem}.state")));
            Some((digest, account.ok().and_then(|account| accounted(&account)).unwrap_or(length)))
        };
        files(&folder).into_iter().filter_map(there).collect()
    }

    /// What all images are made of.
    #[track_caller]
    pub(crate) fn live(&self) -> BTreeMap<String, u64> {
        closure(&self.root, "")
    }

    /// The names that the index gives to images.
    #[track_caller]
    pub(crate) fn names(&self) -> Vec<String> {
        let filter = ".manifests[].annotations[\"org.opencontainers.image.ref.name\"]";
        jq(filter, "", &self.root.join("index.json"))
    }

    /// Every name under `blobs/` is what sha256sum finds in the file.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let blobs = self.blobs();
        if blobs.is_empty() {
            return;
        }
        let names = blobs.keys().map(|digest| &digest["sha256:".len()..]);
        let mut sha256sum = Command::new("sha256sum");
        let sums = must(sha256sum.args(names.clone()).current_dir(self.root.join("blobs/sha256")));
        let expected: String = names.map(|name| format!("{name}  {name}\n")).collect();
        assert_eq!(sums, expected);
    }

    /// All that an image is made of is there in its size.
    #[track_caller]
    pub(crate) fn assert_complete(&self, name: &str) -> BTreeMap<String, u64> {
        let closure = closure(&self.root, name);
        assert!(!closure.is_empty(), "there is no {name}");
        for (digest, size) in &closure {
            let found = fs::metadata(blob_in(&self.root, digest)).map(|file| file.len());
            assert_eq!(found.ok(), Some(*size), "{digest} of {name}");
        }
        closure
    }
}

/// Where a layout has a blob.
pub(crate) fn blob_in(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

/// What an image of a layout is made of, or each of its images if `name` is empty: digests and
/// sizes, as the descriptors say.
#[track_caller]
pub(crate) fn closure(layout: &Path, name: &str) -> BTreeMap<String, u64> {
    let manifests = manifests(layout, name);
    let blobs =
        manifests.keys().flat_map(|manifest| blobs_of(layout, manifest)).collect::<Vec<_>>();
    manifests.into_iter().chain(blobs).collect()
}

/// The same without manifests: what a registry serves as blobs.
#[track_caller]
pub(crate) fn served(layout: &Path, name: &str) -> BTreeMap<String, u64> {
    let manifests = manifests(layout, name).into_keys();
    manifests.flat_map(|manifest| blobs_of(layout, &manifest)).collect()
}

#[track_caller]
fn manifests(layout: &Path, name: &str) -> BTreeMap<String, u64> {
    let filter = ".manifests[] | select($name == \"\" or \
        .annotations[\"org.opencontainers.image.ref.name\"] == $name) | \"\\(.digest) \\(.size)\"";
    let found = jq(filter, name, &layout.join("index.json"));
    found.iter().map(|line| descriptor(line)).collect()
}

#[track_caller]
fn blobs_of(layout: &Path, manifest: &str) -> Vec<(String, u64)> {
    let filter = ".config, .layers[] | \"\\(.digest) \\(.size)\"";
    let found = jq(filter, "", &blob_in(layout, manifest));
    found.iter().map(|line| descriptor(line)).collect()
}

fn descriptor(line: &str) -> (String, u64) {
    let (digest, size) = line.split_once(' ').expect("a digest and a size");
    (digest.to_string(), size.parse().expect("a size is a number"))
}

/// The lines that a filter makes of a file, which must be JSON.
#[track_caller]
pub(crate) fn jq(filter: &str, name: &str, file: &Path) -> Vec<String> {
    let lines = must(Command::new("jq").args(["-r", "--arg", "name", name, filter]).arg(file));
    lines.lines().map(str::to_string).collect()
}

/// Runs a command that must succeed, and returns what it printed.
#[track_caller]
pub(crate) fn must(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success(), "{command:?}: {}{}", output.status, messages(&output));
    String::from_utf8(output.stdout).expect("what it prints is text")
}

/// What a command said on its standard error.
pub(crate) fn messages(output: &Output) -> String {
    format!("\n{}", String::from_utf8_lossy(&output.stderr))
}

/// The names in a folder and the sizes of the files. One that goes away meanwhile is left out.
fn files(folder: &Path) -> BTreeMap<String, u64> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeMap::new();
    };
    let entry = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("names are text");
        Some((name, entry.metadata().ok()?.len()))
    };
    entries.filter_map(|found| entry(found.expect("the folder can be read"))).collect()
}

/// Numbers for choices, told beforehand, so that a failure can be repeated:
/// `LAYERSTORE_TEST_SEED=N`.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let given = std::env::var("LAYERSTORE_TEST_SEED").ok();
        let seed = given.map_or_else(
            || now.expect("it is after 1970").subsec_nanos().into(),
            |seed| seed.parse().expect("LAYERSTORE_TEST_SEED is a number"),
        );
        println!("LAYERSTORE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Another sequence, for another thread.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }

    /// SplitMix64.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(crate) fn sleep_up_to(&mut self, most: Duration) {
        let most = most.as_micros().try_into().expect("it is short");
        std::thread::sleep(Duration::from_micros(self.below(most)));
    }
}

/// How many bytes the last whole line about them says are there, in the account of a part.
fn accounted(account: &str) -> Option<u64> {
    let whole = account.rfind('\n').map_or("", |end| &account[..end]);
    let line = whole.lines().rfind(|line| line.starts_with("bytes "))?;
    let ranges = line.split(' ').nth(1).unwrap_or_default();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let length = |range: &str| {
        let (start, end) = range.split_once('-').expect("a range");
        number(end) - number(start)
    };
    Some(ranges.split(',').filter(|range| !range.is_empty()).map(length).sum())
}
