//! Credentials as other tools keep them: auth files, and the helpers that these name.

mod file;
mod helper;
mod key;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::Url;

use super::{AuthProvider, Credentials, Origin, Secret};
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::sys::{change_user_file, read_user_file};
pub use key::LoginKey;

#[cfg(any(test, fuzzing))]
pub(super) use file::check;
use file::{AuthFile, Found};
use helper::Helper;

/// The largest auth file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Credentials from auth files (containers-auth.json(5), and the `config.json` of Docker).
///
/// Asked in order: what was [given](AuthFiles::given), then each [file](AuthFiles::file) until one
/// has credentials. Within a file: its `credHelpers` entry for the registry, which has the last word
/// there; its `auths`, the longest namespace first (`registry/team/app`, `registry/team`,
/// `registry`); its `credsStore`. Of an entry `registrytoken` comes before `identitytoken`, and that
/// before `auth`. Files are read anew each time, so that a later login counts. A mirror gets nothing
/// but what is kept for its own host.
///
/// This reads no environment: the files are those that it is given. Helpers are run from the
/// directories that it is given, as processes with the environment of this one.
///
/// ```no_run
/// use layerstore::fetch::{AuthFiles, HttpRegistry};
///
/// # fn main() -> layerstore::Result<()> {
/// let logins = AuthFiles::new().file("/home/me/.docker/config.json").helpers_in(["/usr/bin"]);
/// let registry = HttpRegistry::builder().auth(logins).build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthFiles {
    given: Vec<(LoginKey, Credentials)>,
    files: Vec<Source>,
    directories: Vec<PathBuf>,
    timeout: Duration,
    realms: Vec<(String, Origin)>,
}

#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    /// Whether it is an error that it is not there.
    demanded: bool,
}

/// Who keeps credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keeper {
    /// This file, for everybody to read who may read it.
    File(PathBuf),
    /// The helper of this name: `pass` is the program `docker-credential-pass`.
    Helper(String),
}

impl Default for AuthFiles {
    fn default() -> AuthFiles {
        AuthFiles::new()
    }
}

impl AuthFiles {
    /// No files: nobody, anywhere.
    pub fn new() -> AuthFiles {
        AuthFiles {
            given: Vec::new(),
            files: Vec::new(),
            directories: Vec::new(),
            timeout: Duration::from_secs(60),
            realms: Vec::new(),
        }
    }

    /// Credentials that come before those of every file.
    pub fn given(mut self, key: LoginKey, credentials: Credentials) -> AuthFiles {
        self.given.push((key, credentials));
        self
    }

    /// One more file, asked after those before it; it need not be there.
    ///
    /// The first one is the one that [`AuthFiles::store`] and [`AuthFiles::erase`] change.
    pub fn file(mut self, path: impl Into<PathBuf>) -> AuthFiles {
        self.files.push(Source { path: path.into(), demanded: false });
        self
    }

    /// One more file, which must be there when credentials are looked for.
    pub fn demanded_file(mut self, path: impl Into<PathBuf>) -> AuthFiles {
        self.files.push(Source { path: path.into(), demanded: true });
        self
    }

    /// Where the programs of credential helpers are looked for, in order. A path that is not
    /// absolute is passed over. Default: nowhere, and then a file that names one is an error.
    pub fn helpers_in<P: Into<PathBuf>>(
        mut self,
        directories: impl IntoIterator<Item = P>,
    ) -> AuthFiles {
        self.directories.extend(directories.into_iter().map(Into::into));
        self
    }

    /// How long a helper may take, which may have to ask somebody. Default: 60 s.
    pub fn helper_timeout(mut self, timeout: Duration) -> AuthFiles {
        self.timeout = timeout;
        self
    }

    /// Lets the credentials of a registry be shown to a token server on another host, as
    /// `https://auth.example`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidReference`] where that is no `http` or `https` address.
    pub fn trust_token_server(mut self, key: &LoginKey, server: &str) -> Result<AuthFiles> {
        let origin = server.parse::<Url>().ok().as_ref().and_then(Origin::of);
        let origin = origin.ok_or_else(|| Error::InvalidReference {
            text: server.to_owned(),
            reason: "a token server is written as an address, https://HOST[:PORT]".to_owned(),
        })?;
        self.realms.push((key.registry().to_owned(), origin));
        Ok(self)
    }

    /// Keeps a user and a password, with the helper that the first file names for the registry, else
    /// in that file, where everything else is kept as it is. The file is replaced at once, with mode
    /// 0600, and made if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Credentials`] where the file cannot be understood, or the helper fails.
    pub async fn store(&self, key: &LoginKey, user: &str, password: &Secret) -> Result<Keeper> {
        let path = self.own_file()?;
        if user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()) {
            return Err(unusable(path, "a user has no colon and no control character in its name"));
        }
        let read = self.read(path).await?;
        let helper = read.as_ref().and_then(|file| file.helper(key.registry()));
        if let Some(name) = helper {
            if !key.is_whole_registry() {
                let reason = format!("its helper {name} keeps nothing for a part of a registry");
                return Err(unusable(path, reason));
            }
            let server = key::servers(key.registry())[0];
            self.helper(name).store(server, user, password).await?;
            // What the file itself has would come before.
            self.change(path, Some(key.clone())).await?;
            return Ok(Keeper::Helper(name.to_owned()));
        }
        let (own, key, user) = (path.to_path_buf(), key.clone(), user.to_owned());
        let password = password.clone();
        blocking(move || {
            change_user_file(&own, MAX_FILE, |bytes| {
                let bytes = bytes.unwrap_or_default();
                // A file that says nothing that can be understood is left alone.
                AuthFile::parse(&bytes).map_err(|reason| unusable(&own, reason))?;
                let changed = file::with(&bytes, &key, &user, &password);
                changed.map(Some).map_err(|reason| unusable(&own, reason))
            })
        })
        .await?;
        Ok(Keeper::File(path.to_path_buf()))
    }

    /// Forgets the credentials for `key`, in the first file and with the helper that it names; who
    /// kept them.
    ///
    /// # Errors
    ///
    /// As with [`AuthFiles::store`].
    pub async fn erase(&self, key: &LoginKey) -> Result<Vec<Keeper>> {
        let path = self.own_file()?;
        let Some(file) = self.read(path).await? else {
            return Ok(Vec::new());
        };
        let mut keepers = Vec::new();
        if let Some(name) = file.helper(key.registry()).filter(|_| key.is_whole_registry()) {
            for server in key::servers(key.registry()) {
                if self.helper(name).erase(server).await? {
                    keepers.push(Keeper::Helper(name.to_owned()));
                }
            }
        }
        if self.change(path, Some(key.clone())).await? {
            keepers.push(Keeper::File(path.to_path_buf()));
        }
        Ok(keepers)
    }

    /// Forgets all credentials of the first file, and all that the helpers know that it names; who
    /// kept any.
    ///
    /// # Errors
    ///
    /// As with [`AuthFiles::store`].
    pub async fn erase_all(&self) -> Result<Vec<Keeper>> {
        let path = self.own_file()?;
        let Some(file) = self.read(path).await? else {
            return Ok(Vec::new());
        };
        let mut keepers = Vec::new();
        for name in file.helpers() {
            let helper = self.helper(name);
            let mut erased = false;
            for server in helper.list().await? {
                erased |= helper.erase(&server).await?;
            }
            keepers.extend(erased.then(|| Keeper::Helper(name.to_owned())));
        }
        if self.change(path, None).await? {
            keepers.push(Keeper::File(path.to_path_buf()));
        }
        Ok(keepers)
    }

    /// Who has credentials for `key` and would be asked for them, the helper or the file.
    ///
    /// # Errors
    ///
    /// As when they are looked for.
    pub async fn keeper(&self, key: &LoginKey) -> Result<Option<Keeper>> {
        let image = key.as_image();
        let found = self.find(key.registry(), Some(image.repository())).await?;
        Ok(found.map(|(_, keeper)| keeper))
    }

    async fn find(
        &self,
        registry: &str,
        repository: Option<&str>,
    ) -> Result<Option<(Credentials, Keeper)>> {
        for Source { path, demanded } in &self.files {
            let Some(file) = self.read(path).await? else {
                if *demanded {
                    return Err(unusable(path, "there is no such file"));
                }
                continue;
            };
            let found = file.find(registry, repository).map_err(|why| unusable(path, why))?;
            let (credentials, keeper) = match found {
                Found::Here(credentials) => (Some(credentials), Keeper::File(path.clone())),
                Found::Helper(name) => (self.ask(&name, registry).await?, Keeper::Helper(name)),
                Found::Nowhere => continue,
            };
            if let Some(credentials) = credentials {
                tracing::debug!(path = %path.display(), registry, "found credentials");
                return Ok(Some((credentials, keeper)));
            }
        }
        Ok(None)
    }

    async fn ask(&self, helper: &str, registry: &str) -> Result<Option<Credentials>> {
        for server in key::servers(registry) {
            if let Some(credentials) = self.helper(helper).get(server).await? {
                return Ok(Some(credentials));
            }
        }
        Ok(None)
    }

    fn helper<'a>(&'a self, name: &'a str) -> Helper<'a> {
        Helper { name, directories: &self.directories, timeout: self.timeout }
    }

    fn own_file(&self) -> Result<&Path> {
        let none = || unusable(Path::new("any file"), "none was named");
        self.files.first().map(|source| source.path.as_path()).ok_or_else(none)
    }

    async fn read(&self, path: &Path) -> Result<Option<AuthFile>> {
        let path = path.to_path_buf();
        blocking(move || {
            let bytes = read_user_file(&path, MAX_FILE)?;
            let parse =
                |bytes: Vec<u8>| AuthFile::parse(&bytes).map_err(|why| unusable(&path, why));
            bytes.map(parse).transpose()
        })
        .await
    }

    /// Takes an entry out of a file, or all of them; whether there was any.
    async fn change(&self, path: &Path, key: Option<LoginKey>) -> Result<bool> {
        let path = path.to_path_buf();
        blocking(move || {
            change_user_file(&path, MAX_FILE, |bytes| {
                let bytes = bytes.unwrap_or_default();
                file::without(&bytes, key.as_ref()).map_err(|reason| unusable(&path, reason))
            })
        })
        .await
    }
}

impl AuthProvider for AuthFiles {
    fn credentials<'a>(
        &'a self,
        origin: &'a Origin,
        image: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        let own = origin.serves(image.registry());
        let given = self.given.iter().find(|(key, _)| own && key.covers(image));
        async move {
            if let Some((_, credentials)) = given {
                return Ok(Some(credentials.clone()));
            }
            let (registry, repository) = match own {
                true => (image.registry().to_owned(), Some(image.repository())),
                false => (origin.authority(), None),
            };
            Ok(self.find(&registry, repository).await?.map(|(credentials, _)| credentials))
        }
        .boxed()
    }

    fn trusts_realm(&self, registry: &Origin, realm: &Origin) -> bool {
        self.realms.iter().any(|(name, trusted)| registry.serves(name) && trusted == realm)
    }
}

fn unusable(path: &Path, reason: impl Into<String>) -> Error {
    Error::Credentials { of: path.display().to_string(), reason: reason.into() }
}

/// Files are small, but may lie on a disk that is slow.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(unusable(Path::new("an auth file"), "the program is ending")),
    })
}
