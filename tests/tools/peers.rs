//! The real peers, for the tests in `tests/peers*.rs`:
//!
//! ```ignore
//! #[path = "tools/peers.rs"]
//! mod peers;
//! ```
//!
//! `./tests/all` makes what they serve and says where it is in two variables:
//! `LAYERSTORE_TEST_IMAGES`, an OCI image layout, and `LAYERSTORE_TEST_REGISTRY_DATA`, the same
//! images as `real/TAG:v1` in the folder of a registry.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Each tag, and how many layers its image has: those of the tag before it and one more.
pub(crate) const TAGS: [(&str, usize); 3] = [("debian", 1), ("debian-apt", 2), ("python", 3)];

/// Where the registries of the tests have the images.
pub(crate) fn data() -> PathBuf {
    variable("LAYERSTORE_TEST_REGISTRY_DATA")
}

/// The layout that the images were pushed from.
pub(crate) fn images() -> PathBuf {
    variable("LAYERSTORE_TEST_IMAGES")
}

fn variable(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    value.unwrap_or_else(|| panic!("{name} is not set: run ./tests/all")).into()
}

/// Debian's docker-registry behind nginx, serving the images to this test alone. It ends with
/// the value, or with the test's process, however that dies.
pub(crate) struct Registry {
    script: Child,
    folder: PathBuf,
    /// `127.0.0.1:PORT` of nginx, which counts; of the registry, where there is none.
    pub(crate) address: String,
    /// `127.0.0.1:PORT` of the registry itself, past the counting.
    pub(crate) direct: String,
}

/// What was sent of a blob: in how many responses with a body, and their bytes together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) responses: u64,
    pub(crate) bytes: u64,
}

impl Registry {
    /// Starts one that keeps its files in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// Starts one that sends at most `rate` a second on a connection, as `8m` for 8 MiB.
    pub(crate) fn start_slow(folder: &Path, rate: &str) -> Self {
        Self::start_with(folder, &["--rate", rate])
    }

    /// Starts one that lets nobody in but those in a file that `htpasswd -B` wrote.
    pub(crate) fn start_closed(folder: &Path, htpasswd: &Path) -> Self {
        Self::start_with(folder, &["--htpasswd", htpasswd.to_str().expect("a path of a test")])
    }

    /// Starts one that serves what lies in `data`, at most `rate` bytes a second on a connection.
    pub(crate) fn start_over(folder: &Path, data: &Path, rate: &str) -> Self {
        Self::start_on(folder, data, &["--nginx", "--rate", rate])
    }

    fn start_with(folder: &Path, options: &[&str]) -> Self {
        Self::start_on(folder, &data(), &[&["--nginx"], options].concat())
    }

    /// Starts one over other data than the images, with these options.
    pub(crate) fn start_on(folder: &Path, data: &Path, options: &[&str]) -> Self {
        let nginx = options.contains(&"--nginx");
        let mut script = tool()
            .arg("run")
            .arg(folder)
            .arg("--data")
            .arg(data)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("local-registry can be run");
        let mut lines = BufReader::new(script.stdout.take().expect("it is a pipe")).lines();
        let mut address = || {
            let line = lines.next().expect("local-registry says why it failed on stderr");
            line.expect("an address is text")
        };
        let direct = address();
        let address = if nginx { address() } else { direct.clone() };
        Self { script, folder: folder.to_path_buf(), address, direct }
    }

    /// Kills the registry; what is asked of nginx from then on is answered with 502.
    pub(crate) fn cut(&self) {
        assert!(tool().arg("cut").arg(&self.folder).status().expect("it can be run").success());
    }

    /// Starts it again at the address that it had.
    pub(crate) fn revive(&self) {
        assert!(tool().arg("revive").arg(&self.folder).status().expect("it can be run").success());
    }

    /// What nginx sent of each blob since the start. A request is counted when it has ended, so
    /// this waits for nothing that is still being sent.
    pub(crate) fn sent(&self) -> BTreeMap<String, Sent> {
        let output = tool().arg("sent").arg(&self.folder).output().expect("it can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("digests and numbers are text");
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let digest = words.next().expect("a line has words").to_string();
            let mut number = || words.next().expect("a number").parse().expect("a number");
            (digest, Sent { responses: number(), bytes: number() })
        };
        lines.lines().map(entry).collect()
    }

    /// The same once `bytes` were sent of all blobs together, or would have been logged by now:
    /// nginx logs a request a moment after the client has its last byte.
    pub(crate) fn sent_after(&self, bytes: u64) -> BTreeMap<String, Sent> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let sent = self.sent();
            if sent.values().map(|sent| sent.bytes).sum::<u64>() >= bytes || Instant::now() > until
            {
                return sent;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // The script ends with its input.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

fn tool() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/local-registry"))
}
