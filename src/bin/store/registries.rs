//! What the user's other tools have been told of registries: where `store` finds it.

use std::env;
use std::path::{Path, PathBuf};

use layerstore::fetch::{HttpRegistry, HttpRegistryBuilder, Proxies, RegistrySettings, Scheme};

use crate::exit::Failure;

/// The settings for all registries, from the files of other tools and from `--ca-file`.
pub(crate) fn settings(ca_file: Option<&Path>) -> Result<RegistrySettings, Failure> {
    let user = config_home();
    let below = |name: &str| user.as_ref().map(|user| user.join(name));
    let mut settings = RegistrySettings::new().registries_conf(main_file(below("containers")))?;
    let drop_ins = [PathBuf::from("/etc/containers/registries.conf.d")];
    for directory in drop_ins.into_iter().chain(below("containers/registries.conf.d")) {
        settings = settings.registries_conf_dir(directory)?;
    }
    for tool in ["containers", "docker", "containerd"] {
        let user = below(tool).map(|user| user.join("certs.d"));
        for directory in user.into_iter().chain([Path::new("/etc").join(tool).join("certs.d")]) {
            settings = settings.certs_dir(directory);
        }
    }
    match ca_file {
        Some(path) => Ok(settings.ca_file(path)?),
        None => Ok(settings),
    }
}

/// A client with these settings, and with the proxies that the environment names.
pub(crate) fn client(settings: RegistrySettings) -> Result<HttpRegistryBuilder, Failure> {
    Ok(HttpRegistry::builder().settings(settings).proxies(proxies()?))
}

/// `registries.conf`: the user's own stands in the place of the system's.
fn main_file(user: Option<PathBuf>) -> PathBuf {
    let named = env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|it| !it.is_empty());
    let own = user.map(|user| user.join("registries.conf")).filter(|path| path.exists());
    named.map(PathBuf::from).or(own).unwrap_or("/etc/containers/registries.conf".into())
}

/// Relative paths do not count (XDG Base Directory Specification).
fn config_home() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))
}

fn proxies() -> Result<Proxies, Failure> {
    let variable = |names: [&str; 2]| {
        let mut values = names.iter().filter_map(|name| env::var(name).ok());
        values.find(|value| !value.is_empty()).unwrap_or_default()
    };
    let mut proxies =
        Proxies::new().proxy(Scheme::Https, &variable(["HTTPS_PROXY", "https_proxy"]))?;
    // A web server sets HTTP_PROXY to what a client of it sends as its `Proxy` header.
    if env::var_os("REQUEST_METHOD").is_none() {
        proxies = proxies.proxy(Scheme::Http, &variable(["HTTP_PROXY", "http_proxy"]))?;
    }
    Ok(proxies.except(&variable(["NO_PROXY", "no_proxy"])))
}
