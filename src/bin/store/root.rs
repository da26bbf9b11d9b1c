//! Where the store is when nobody says.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::exit::Failure;

/// `/var/lib/layerstore` for root, and for others a directory in their data folder.
pub(crate) fn default() -> Result<PathBuf, Failure> {
    default_of(rustix::process::geteuid().is_root(), |name| env::var_os(name)).ok_or_else(|| {
        let reason = "cannot tell where the store is: neither XDG_DATA_HOME nor HOME is an \
                      absolute path; use --root DIR or set STORE_ROOT";
        Failure::Usage(reason.to_owned())
    })
}

/// A relative `XDG_DATA_HOME` does not count (XDG Base Directory Specification, "Basics").
fn default_of(root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/layerstore"));
    }
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("layerstore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_others() {
        let of = |root, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            default_of(root, variable).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/home/me");
        assert_eq!(of(true, &[home]).unwrap(), "/var/lib/layerstore");
        assert_eq!(of(false, &[home]).unwrap(), "/home/me/.local/share/layerstore");
        assert_eq!(of(false, &[home, ("XDG_DATA_HOME", "/d")]).unwrap(), "/d/layerstore");
        for ignored in ["", "relative"] {
            let path = of(false, &[home, ("XDG_DATA_HOME", ignored)]);
            assert_eq!(path.unwrap(), "/home/me/.local/share/layerstore");
        }
        assert_eq!(of(false, &[]), None);
    }
}
