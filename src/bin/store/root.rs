//! Where the store is when nobody says.

use std::env;
use std::path::PathBuf;

use crate::exit::Failure;

/// `/var/lib/layerstore` for root, and for others a directory in their data folder (XDG Base
/// Directory Specification, which also says that a relative `XDG_DATA_HOME` does not count).
pub(crate) fn default() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/layerstore"));
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    let data = data.ok_or_else(|| {
        let reason = "cannot tell where the store is: neither XDG_DATA_HOME nor HOME is an \
                      absolute path; use --root DIR or set STORE_ROOT";
        Failure::Usage(reason.to_owned())
    })?;
    Ok(data.join("layerstore"))
}
