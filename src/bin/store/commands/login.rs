//! `store login` and `store logout`.

use std::io;

use layerstore::fetch::{AuthFiles, Credentials, Keeper, LoginKey, Secret};
use serde::Serialize;

use super::Outcome;
use crate::args::{Login, Logout};
use crate::credentials::{self, Unseen};
use crate::exit::{Exit, Failure};
use crate::output::{Messages, Output, Report};
use crate::registries;
use crate::runtime::{self, Signals};

/// Asks, checks and keeps.
pub(super) fn login(args: Login, out: &mut Output) -> Outcome {
    let runtime = runtime::start()?;
    let messages = out.messages();
    let work = async {
        let mut signals = Signals::new()?;
        tokio::select! {
            exit = signals.next() => Ok(Err(exit)),
            done = log_in(&args, &messages) => done.map(Ok),
        }
    };
    let done: Result<Result<LoggedIn, Exit>, Failure> = runtime.block_on(work);
    // Somebody may still be asked for a line, which nobody will read.
    runtime.shutdown_background();
    match done? {
        Err(exit) => Ok(exit),
        Ok(report) => {
            if !report.checked {
                let key = &report.registry;
                out.warn(format!(
                    "{key} lets everybody in: whether it is the right password was not checked"
                ));
            }
            out.report(&report)?;
            Ok(Exit::Ok)
        }
    }
}

async fn log_in(args: &Login, messages: &Messages) -> Result<LoggedIn, Failure> {
    let (key, identity) = (&args.registry, &args.identity);
    let files = credentials::trusting(credentials::auth_files(&args.file), key, identity)?;
    let (username, password) = match &identity.username {
        Some(user) if identity.password_stdin => {
            (user.clone(), credentials::password_from_stdin()?)
        }
        user => ask(user.clone(), key, messages).await?,
    };
    let settings = registries::settings(None)?;
    let builder = registries::client(settings)?.auth(files.clone());
    let builder = if args.plain_http { builder.plain_http(key.registry()) } else { builder };
    let checked =
        builder.build()?.check_login(key, &Credentials::new(&username, &password)).await?;
    let keeper = files.store(key, &username, &Secret::new(password)).await?;
    Ok(LoggedIn { registry: key.to_string(), username, checked, kept: Kept::new(keeper) })
}

/// Asks on the terminal for what was not said.
async fn ask(
    user: Option<String>,
    key: &LoginKey,
    messages: &Messages,
) -> Result<(String, String), Failure> {
    if !credentials::can_ask() {
        let reason = "there is no terminal to ask for a password: use -u USER --password-stdin";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let unreadable = |source| Failure::Input { path: "the terminal".to_owned(), source };
    let user = match user {
        Some(user) => user,
        None => {
            messages.line(format!("user at {key}:"));
            line().await.map_err(unreadable)?
        }
    };
    let unseen = Unseen::new().map_err(unreadable)?;
    messages.line(format!("password of {user} at {key}, which is not shown:"));
    let password = line().await.map_err(unreadable)?;
    drop(unseen);
    match user.is_empty() || password.is_empty() {
        true => Err(Failure::Usage("a login needs a user and a password".to_owned())),
        false => Ok((user, password)),
    }
}

async fn line() -> io::Result<String> {
    tokio::task::spawn_blocking(credentials::line_from_terminal).await.map_err(io::Error::other)?
}

/// Forgets.
pub(super) fn logout(args: &Logout, out: &mut Output) -> Outcome {
    let files = credentials::auth_files(&args.file);
    let runtime = runtime::start()?;
    let (erased, left) = runtime.block_on(async {
        match &args.registry {
            Some(key) => {
                let erased = files.erase(key).await?;
                Ok::<_, Failure>((erased, left(&files, key).await))
            }
            None => Ok((files.erase_all().await?, None)),
        }
    })?;
    if let Some(kept) = left {
        out.warn(format!("{} still has credentials for it", kept.describe()));
    }
    if erased.is_empty() {
        let what = args.registry.as_ref().map_or("any registry".to_owned(), LoginKey::to_string);
        out.error(format!("there is no login to {what} to be forgotten"));
        return Ok(Exit::NotFound);
    }
    let registry = args.registry.as_ref().map(LoginKey::to_string);
    let kept = erased.into_iter().map(Kept::new).collect();
    out.report(&LoggedOut { registry, kept })?;
    Ok(Exit::Ok)
}

/// Who would still be asked: a file that is another tool's is not changed.
async fn left(files: &AuthFiles, key: &LoginKey) -> Option<Kept> {
    // What cannot be read was the business of the login that wrote it.
    files.keeper(key).await.ok().flatten().map(Kept::new)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoggedIn {
    registry: String,
    username: String,
    checked: bool,
    #[serde(flatten)]
    kept: Kept,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoggedOut {
    registry: Option<String>,
    kept: Vec<Kept>,
}

/// Who keeps credentials: one of the two.
#[derive(Serialize)]
struct Kept {
    file: Option<String>,
    helper: Option<String>,
}

impl Kept {
    fn new(keeper: Keeper) -> Kept {
        match keeper {
            Keeper::File(path) => Kept { file: Some(path.display().to_string()), helper: None },
            Keeper::Helper(name) => Kept { file: None, helper: Some(name) },
            _ => Kept { file: None, helper: None },
        }
    }

    fn describe(&self) -> String {
        match (&self.file, &self.helper) {
            (Some(file), _) => file.clone(),
            (None, helper) => {
                format!("docker-credential-{}", helper.as_deref().unwrap_or_default())
            }
        }
    }
}

impl Report for LoggedIn {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let LoggedIn { registry, username, kept, .. } = self;
        out.line(format!("logged in to {registry} as {username}: kept by {}", kept.describe()))
    }
}

impl Report for LoggedOut {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        let registry = self.registry.as_deref().unwrap_or("every registry");
        self.kept.iter().try_for_each(|kept| {
            out.line(format!("logged out of {registry}: forgotten by {}", kept.describe()))
        })
    }
}
