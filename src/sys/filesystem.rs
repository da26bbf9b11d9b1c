use std::io;
use std::path::Path;

use super::Dir;
use crate::error::{IoContext, Result};

/// What is known of the file system below a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filesystem {
    /// Its name, if flock on it does not hold between machines.
    pub(crate) network: Option<&'static str>,
}

/// `f_type` of file systems whose locks a second machine may not see (statfs(2), `linux/magic.h`).
const NETWORK: [(u32, &str); 10] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x517b, "SMB"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x5346_414f, "AFS"),
    (0x7461_636f, "OCFS2"),
];

impl Filesystem {
    /// Asks the kernel about the file system that a directory lies on.
    pub(crate) fn of(dir: &Dir) -> Result<Filesystem> {
        let stat =
            rustix::fs::fstatfs(dir.fd()).context("look at the file system of", dir.path())?;
        Ok(Filesystem::from_magic(u64::try_from(stat.f_type).unwrap_or(0)))
    }

    fn from_magic(magic: u64) -> Filesystem {
        let magic = magic & 0xffff_ffff;
        let known = NETWORK.iter().find(|(number, _)| u64::from(*number) == magic);
        Filesystem { network: known.map(|(_, name)| *name) }
    }

    /// How many bytes this user may still write below `path`.
    pub(crate) fn available(path: &Path) -> io::Result<u64> {
        fs2::available_space(path)
    }
}

/// The effective user id.
pub(crate) fn current_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(Filesystem::from_magic(0x6969).network, Some("NFS"));
        // The kernel gives CIFS as a signed number on some architectures.
        assert_eq!(Filesystem::from_magic(0xffff_ffff_ff53_4d42).network, Some("CIFS"));
        assert_eq!(Filesystem::from_magic(0xef53).network, None, "ext4");
    }
}
