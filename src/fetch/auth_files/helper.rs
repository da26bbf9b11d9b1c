//! Credential helpers: programs named `docker-credential-NAME` that keep secrets elsewhere
//! (github.com/docker/docker-credential-helpers). What is asked goes to their standard input, and
//! the answer comes from their standard output, as JSON.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::error::{Error, Result};
use crate::fetch::{Credentials, Secret};

/// The most that is read of what a helper says, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// The user whose password is an identity token.
const TOKEN_USER: &str = "<token>";
/// What a helper says, and fails, where it has nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A helper, and where its program may be.
pub(super) struct Helper<'a> {
    pub(super) name: &'a str,
    pub(super) directories: &'a [PathBuf],
    pub(super) timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    secret: String,
}

#[derive(Serialize)]
struct Store<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    username: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

/// What a helper that ended said.
enum Said {
    Done(Vec<u8>),
    NotFound,
}

impl Helper<'_> {
    /// What the helper has for a server.
    pub(super) async fn get(&self, server: &str) -> Result<Option<Credentials>> {
        let Said::Done(answer) = self.run("get", self.checked(server)?.as_bytes()).await? else {
            return Ok(None);
        };
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| self.failed("its answer to `get` is not what a helper says"))?;
        Ok(match (answer.username.as_str(), answer.secret.is_empty()) {
            (_, true) => None,
            (TOKEN_USER, _) => Some(Credentials::IdentityToken(Secret::new(answer.secret))),
            _ => Some(Credentials::new(answer.username, answer.secret)),
        })
    }

    /// Gives the helper a user and a password to keep.
    pub(super) async fn store(&self, server: &str, username: &str, secret: &Secret) -> Result<()> {
        let server = self.checked(server)?;
        let store = Store { server, username, secret: secret.expose() };
        let input =
            serde_json::to_vec(&store).map_err(|_| self.failed("what to keep is not text"))?;
        match self.run("store", &input).await? {
            Said::Done(_) => Ok(()),
            Said::NotFound => Err(self.failed("`store` failed")),
        }
    }

    /// Has the helper forget a server; whether it knew it.
    pub(super) async fn erase(&self, server: &str) -> Result<bool> {
        let server = self.checked(server)?;
        // Helpers differ in what they say of a server that they do not know.
        if self.get(server).await?.is_none() {
            return Ok(false);
        }
        let said = self.run("erase", server.as_bytes()).await?;
        Ok(matches!(said, Said::Done(_)))
    }

    /// Every server that the helper knows.
    pub(super) async fn list(&self) -> Result<Vec<String>> {
        let Said::Done(answer) = self.run("list", b"").await? else {
            return Ok(Vec::new());
        };
        let servers: BTreeMap<String, String> = serde_json::from_slice(&answer)
            .map_err(|_| self.failed("its answer to `list` is not what a helper says"))?;
        Ok(servers.into_keys().collect())
    }

    /// A helper takes a line for a server: a second one would be a command of somebody else's.
    fn checked<'s>(&self, server: &'s str) -> Result<&'s str> {
        match server.is_empty() || server.contains(|c: char| c.is_control() || c.is_whitespace()) {
            true => {
                Err(self.failed("the name of the registry has characters that it may not have"))
            }
            false => Ok(server),
        }
    }

    async fn run(&self, action: &str, input: &[u8]) -> Result<Said> {
        let mut child = self.spawn(action)?;
        let late = || {
            let seconds = self.timeout.as_secs();
            self.failed(format!("`{action}` did not end within {seconds} s"))
        };
        // Whatever goes wrong, the child is killed when it is dropped.
        let ended = tokio::time::timeout(self.timeout, converse(&mut child, input)).await;
        let (answer, success) = ended
            .map_err(|_| late())?
            .map_err(|error| self.failed(format!("`{action}` could not be followed: {error}")))?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err(self.failed(format!("`{action}` says more than {MAX_ANSWER} bytes")));
        }
        tracing::debug!(helper = self.name, action, success, "asked a credential helper");
        if success {
            return Ok(Said::Done(answer));
        }
        // Nothing else of what it says is repeated: it may be a secret.
        match String::from_utf8_lossy(&answer).contains(NOT_FOUND) {
            true => Ok(Said::NotFound),
            false => Err(self.failed(format!("`{action}` failed; run it by hand to see why"))),
        }
    }

    /// Its environment and its working directory are those of this process.
    fn spawn(&self, action: &str) -> Result<Child> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.len() > 64 || self.name.starts_with('.') || !self.name.chars().all(plain) {
            let reason = "a file names a credential helper whose name is not that of a program";
            return Err(Error::Credentials {
                of: "a helper".to_owned(),
                reason: reason.to_owned(),
            });
        }
        for directory in self.directories.iter().filter(|directory| directory.is_absolute()) {
            let spawned = Command::new(directory.join(self.program()))
                .arg(action)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn();
            match spawned {
                Err(error) if is_elsewhere(&error) => {}
                spawned => return spawned.map_err(|error| self.failed(error)),
            }
        }
        Err(self.failed("there is no such program on the search path"))
    }

    fn program(&self) -> PathBuf {
        Path::new(&format!("docker-credential-{}", self.name)).to_path_buf()
    }

    fn failed(&self, reason: impl ToString) -> Error {
        let of = self.program().display().to_string();
        Error::Credentials { of, reason: reason.to_string() }
    }
}

fn is_elsewhere(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

/// Says `input`, and reads what comes back, up to one byte more than is let pass.
async fn converse(child: &mut Child, input: &[u8]) -> io::Result<(Vec<u8>, bool)> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let say = async {
        if let Some(mut stdin) = stdin {
            // One that does not listen may still answer.
            let _ = stdin.write_all(input).await;
        }
    };
    let listen = async {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer).await?;
        }
        io::Result::Ok(answer)
    };
    let ((), answer) = tokio::join!(say, listen);
    let answer = answer?;
    if answer.len() as u64 > MAX_ANSWER {
        return Ok((answer, false));
    }
    let success = child.wait().await?.success();
    Ok((answer, success))
}
