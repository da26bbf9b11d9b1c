//! Where credentials come from: the options and the environment, turned into what the library asks.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use layerstore::Reference;
use layerstore::fetch::{AuthFiles, Credentials, LoginKey};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::args::{AuthFile, Identity};
use crate::exit::Failure;

/// The longest password that is read, in bytes.
const MAX_PASSWORD: u64 = 64 * 1024;

/// The auth files, in the order of containers-auth.json(5), and the helpers on the search path.
pub(crate) fn auth_files(file: &AuthFile) -> AuthFiles {
    let variable = env::var_os("REGISTRY_AUTH_FILE").filter(|path| !path.is_empty());
    let named = file.authfile.clone().or(variable.map(PathBuf::from));
    let files = match &named {
        Some(path) => AuthFiles::new().demanded_file(path),
        None => AuthFiles::new(),
    };
    let user = rustix::process::geteuid().as_raw();
    let defaults = default_files(named.as_deref(), user, |name| env::var_os(name));
    let files = defaults.into_iter().fold(files, AuthFiles::file);
    let path = env::var_os("PATH").unwrap_or_default();
    files.helpers_in(env::split_paths(&path))
}

/// The files that are looked into when nobody names any; a named one takes the place of the first.
fn default_files(
    named: Option<&Path>,
    user: u32,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = absolute("HOME");
    let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
    let runtime = match (named, absolute("XDG_RUNTIME_DIR")) {
        (Some(_), _) => None,
        (None, Some(runtime)) => Some(runtime.join("containers/auth.json")),
        // Where podman keeps its own without that variable; nobody but root can make that folder.
        (None, None) if user == 0 => Some(PathBuf::from("/run/containers/0/auth.json")),
        (None, None) => None,
    };
    let config = absolute("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
    let config = config.map(|config| config.join("containers/auth.json"));
    let docker = variable("DOCKER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let docker = docker.or_else(|| in_home(".docker")).map(|docker| docker.join("config.json"));
    [runtime, config, docker].into_iter().flatten().collect()
}

/// The credentials of a pull: those of the options come before the files, for the one registry that
/// they can be meant for.
pub(crate) fn of_pull(
    file: &AuthFile,
    identity: &Identity,
    images: &[Reference],
) -> Result<AuthFiles, Failure> {
    let mut files = auth_files(file);
    let mut registries: Vec<&str> = images.iter().map(Reference::registry).collect();
    registries.sort_unstable();
    registries.dedup();
    for registry in &registries {
        files = trusting(files, &registry.parse()?, identity)?;
    }
    let Some(user) = &identity.username else {
        return Ok(files);
    };
    let [registry] = registries[..] else {
        let reason = "--username is for one registry, and these images are from several";
        return Err(Failure::Usage(reason.to_owned()));
    };
    if !identity.password_stdin {
        let reason = "--username needs --password-stdin; `store login` asks for a password";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let password = password_from_stdin()?;
    Ok(files.given(registry.parse()?, Credentials::new(user, password)))
}

/// Allows the token servers of the options to see the credentials of a registry.
pub(crate) fn trusting(
    files: AuthFiles,
    key: &LoginKey,
    identity: &Identity,
) -> Result<AuthFiles, Failure> {
    let trust = |files: AuthFiles, server| files.trust_token_server(key, server);
    Ok(identity.token_server.iter().map(String::as_str).try_fold(files, trust)?)
}

/// The whole standard input, less the line break at its end.
pub(crate) fn password_from_stdin() -> Result<String, Failure> {
    let unreadable = |source| Failure::Input { path: "the standard input".to_owned(), source };
    let mut text = String::new();
    io::stdin().take(MAX_PASSWORD + 1).read_to_string(&mut text).map_err(unreadable)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    match password.is_empty() || text.len() as u64 > MAX_PASSWORD {
        true => Err(Failure::Usage("the standard input has no password".to_owned())),
        false => Ok(password.to_owned()),
    }
}

/// Whether there is somebody to ask.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A line from the terminal, without its end.
pub(crate) fn line_from_terminal() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
pub(crate) struct Unseen(Termios);

impl Unseen {
    pub(crate) fn new() -> io::Result<Unseen> {
        let before = tcgetattr(io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        unseen.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Drain, &unseen)?;
        Ok(Unseen(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // Nothing better can be done with a terminal that has gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_and_their_order() {
        let of = |named: Option<&str>, user, variables: &[(&str, &str)]| -> Vec<String> {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let files = default_files(named.map(Path::new), user, variable);
            files.into_iter().map(|path| path.display().to_string()).collect()
        };
        let home = ("HOME", "/h");
        let own = ["/h/.config/containers/auth.json", "/h/.docker/config.json"];
        assert_eq!(of(None, 1000, &[home]), own);
        assert_eq!(of(Some("/named"), 0, &[home, ("XDG_RUNTIME_DIR", "/run/user/0")]), own);
        assert_eq!(of(None, 0, &[]), ["/run/containers/0/auth.json"]);
        let all = [
            home,
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("XDG_CONFIG_HOME", "/c"),
            ("DOCKER_CONFIG", "/d"),
        ];
        let expected =
            ["/run/user/7/containers/auth.json", "/c/containers/auth.json", "/d/config.json"];
        assert_eq!(of(None, 7, &all), expected);
        let useless =
            [home, ("XDG_RUNTIME_DIR", ""), ("XDG_CONFIG_HOME", "c"), ("DOCKER_CONFIG", "")];
        assert_eq!(of(None, 7, &useless), own);
    }
}
