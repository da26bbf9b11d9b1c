//! The options that say who somebody is.

use std::path::PathBuf;

use clap::Args;
use layerstore::fetch::LoginKey;

/// Where credentials are.
#[derive(Args, Debug)]
pub(crate) struct AuthFile {
    /// The file with credentials to look into first [default: $REGISTRY_AUTH_FILE, or
    /// $XDG_RUNTIME_DIR/containers/auth.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

/// Who somebody is. A password is never an argument, which every process could read.
#[derive(Args, Debug)]
pub(crate) struct Identity {
    /// The user
    #[arg(long, short, value_name = "USER")]
    pub(crate) username: Option<String>,

    /// Read the password, or an access token, from the standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,

    /// Show credentials to this token server too, where the registry has it on another host:
    /// https://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    pub(crate) token_server: Vec<String>,
}

pub(super) const LOGIN_HELP: &str = "\
REGISTRY is HOST[:PORT], or HOST[:PORT]/NAMESPACE for a part of one. Docker Hub is docker.io.

Examples:
  store login ghcr.io                                            asks for user and password
  store login ghcr.io -u me --password-stdin < token
  store login localhost:5000 -u me --password-stdin --plain-http < token
  store login docker.io --authfile ~/.docker/config.json -u me --password-stdin < token";

#[derive(Args, Debug)]
pub(crate) struct Login {
    /// The registry
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: LoginKey,

    #[command(flatten)]
    pub(crate) identity: Identity,

    #[command(flatten)]
    pub(crate) file: AuthFile,

    /// Speak HTTP without TLS with the registry
    #[arg(long)]
    pub(crate) plain_http: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Logout {
    /// The registry, spelt as at the login
    #[arg(value_name = "REGISTRY", required_unless_present = "all")]
    pub(crate) registry: Option<LoginKey>,

    /// Forget the credentials of every registry
    #[arg(long, conflicts_with = "registry")]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) file: AuthFile,
}
