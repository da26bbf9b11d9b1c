use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::Origin;
use crate::error::Result;
use crate::oci::Reference;

/// Who to be at which registry.
///
/// Asked only when a registry wants to know, which is after its first `401`.
///
/// ```
/// use futures_util::future::{BoxFuture, FutureExt, ready};
/// use layerstore::fetch::{AuthProvider, Credentials, Origin};
/// use layerstore::{Reference, Result};
///
/// struct OneRobot;
///
/// impl AuthProvider for OneRobot {
///     fn credentials<'a>(
///         &'a self,
///         origin: &'a Origin,
///         _image: &'a Reference,
///     ) -> BoxFuture<'a, Result<Option<Credentials>>> {
///         let known = origin.to_string() == "https://registry.example";
///         ready(Ok(known.then(|| Credentials::new("robot", "secret")))).boxed()
///     }
/// }
/// ```
pub trait AuthProvider: Send + Sync {
    /// The credentials for `origin`, or `None` to go without.
    ///
    /// `image` is what is being pulled: its registry is the name that people know (`docker.io`,
    /// whose origin is `https://registry-1.docker.io`), and a password may be for some
    /// repositories only. The answer is sent to `origin`, and to the token server that it names
    /// where that is on the same host or [known](Self::trusts_realm).
    fn credentials<'a>(
        &'a self,
        origin: &'a Origin,
        image: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>>;

    /// Whether credentials for `registry` may be sent to a token server on another host.
    ///
    /// Those of Docker Hub and of gitlab.com are known without asking.
    fn trusts_realm(&self, registry: &Origin, realm: &Origin) -> bool {
        let _ = (registry, realm);
        false
    }
}

/// What proves to a registry who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// A user and a password, sent to the registry or to its token server.
    Password {
        /// The user.
        username: String,
        /// The password, or what a registry takes for one.
        password: Secret,
    },
    /// What the token server gives tokens for: a refresh token (RFC 6749, section 6), which the
    /// registry itself never sees.
    IdentityToken(Secret),
    /// A token for the registry, sent as it is.
    RegistryToken(Secret),
}

impl Credentials {
    /// A user and a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials::Password { username: username.into(), password: Secret::new(password) }
    }
}

/// A text that must not be seen: it has no `Display`, and its `Debug` does not show it.
///
/// ```
/// use layerstore::fetch::Secret;
///
/// assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
/// assert_eq!(Secret::new("hunter2").expose(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for where it has to go.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: AuthProvider + ?Sized> AuthProvider for Arc<T> {
    fn credentials<'a>(
        &'a self,
        origin: &'a Origin,
        image: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        (**self).credentials(origin, image)
    }

    fn trusts_realm(&self, registry: &Origin, realm: &Origin) -> bool {
        (**self).trusts_realm(registry, realm)
    }
}

/// Nobody, anywhere: enough for public images.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl AuthProvider for Anonymous {
    fn credentials<'a>(
        &'a self,
        _: &'a Origin,
        _: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        ready(Ok(None)).boxed()
    }
}

/// One user and password for one registry, and nothing for any other, its mirrors included.
#[derive(Clone, Debug)]
pub struct StaticCredentials {
    registry: String,
    credentials: Credentials,
}

impl StaticCredentials {
    /// Credentials for the registry that image names spell this way: `docker.io`,
    /// `localhost:5000`.
    pub fn new(registry: impl Into<String>, credentials: Credentials) -> StaticCredentials {
        StaticCredentials { registry: registry.into(), credentials }
    }
}

impl AuthProvider for StaticCredentials {
    fn credentials<'a>(
        &'a self,
        origin: &'a Origin,
        _: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Credentials>>> {
        let known = origin.serves(&self.registry);
        ready(Ok(known.then(|| self.credentials.clone()))).boxed()
    }
}
