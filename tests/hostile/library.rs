//! The pull by the library, with little patience, in a process of its own: this test, run again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use layerstore::fetch::{AuthFiles, HttpRegistry, Puller, RetryPolicy};
use layerstore::{BlobStore, Error, ErrorKind, Reference};

use crate::planted;

const ROOT: &str = "LAYERSTORE_TEST_ROOT";
const NAME: &str = "LAYERSTORE_TEST_NAME";
const AUTH_FILE: &str = "LAYERSTORE_TEST_AUTH_FILE";
const PLANT: &str = "LAYERSTORE_TEST_PLANT";

pub(crate) fn command(root: &Path, auth_file: &Path, name: &str, plant: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "no_registry_does_harm", "--nocapture"]).env_clear();
    command.env(ROOT, root).env(AUTH_FILE, auth_file).env(NAME, name).env(PLANT, plant);
    command
}

/// Does what [`command`] asks for, and does not come back.
pub(crate) fn run_if_asked() {
    let Ok(name) = std::env::var(NAME) else { return };
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let root = std::env::var(ROOT).unwrap();
    let auth_file = std::env::var(AUTH_FILE).unwrap();
    planted::act(&std::env::var(PLANT).unwrap(), Path::new(&root));
    match pull(Path::new(&root), Path::new(&auth_file), &name.parse().unwrap()) {
        Ok(name) => println!("{name}"),
        Err(error) => {
            eprintln!("{error:?}\nerror: {error}");
            std::process::exit(code(&error));
        }
    }
    std::process::exit(0);
}

fn pull(root: &Path, auth_file: &Path, image: &Reference) -> Result<String, Error> {
    let registry = HttpRegistry::builder()
        .plain_http(image.registry())
        .auth(AuthFiles::new().file(auth_file))
        .read_timeout(Duration::from_secs(2))
        .build()?;
    let mut patience = RetryPolicy::default();
    patience.retries = 2;
    patience.first_delay = Duration::from_millis(1);
    patience.max_delay = Duration::from_millis(2);
    patience.max_retry_after = Duration::from_secs(1);
    patience.stall = Duration::from_secs(1);
    let puller = Puller::new(BlobStore::open(root)?, Arc::new(registry)).retry(patience);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(puller.pull(image)).map(|pulled| pulled.name)
}

/// The exit code that the command has for it.
fn code(error: &Error) -> i32 {
    match error.kind() {
        ErrorKind::NotFound => 4,
        ErrorKind::Unauthorized => 5,
        ErrorKind::Network => 6,
        ErrorKind::Mismatch => 7,
        _ => 1,
    }
}
