//! Opening one entry of a directory, and nothing that a symbolic link leads to.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// Opens `name` in `dir`, which must be a single name, or `.` for the directory itself.
///
/// With `openat2` the kernel refuses to leave the directory and to follow any link on the way.
/// A kernel before 5.6 does not have it, and some sandboxes do not let it through: then it is
/// `openat`, with the same outcome for a single name.
pub(super) fn open_beneath(
    dir: impl AsFd,
    name: &str,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    if !is_single(name) {
        return Err(Errno::XDEV);
    }
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // openat2 takes no mode where it makes no file.
    let makes = flags.intersects(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
    let mode = if makes { mode } else { Mode::empty() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&dir, name, flags, mode, resolve) {
        // Not only said of openat2 itself; then openat says it again.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            rustix::fs::openat(&dir, name, flags, mode)
        }
        opened => opened,
    }
}

fn is_single(name: &str) -> bool {
    !matches!(name, "" | "..") && !OsStr::new(name).as_bytes().contains(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_name_is_opened() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("dir")).unwrap();
        std::fs::write(temp.path().join("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", temp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("dir", temp.path().join("dirlink")).unwrap();
        let dir = std::fs::File::open(temp.path()).unwrap();
        let open = |name| open_beneath(&dir, name, OFlags::RDONLY, Mode::empty()).map(drop);
        assert_eq!(open("file"), Ok(()));
        assert_eq!(open("dir"), Ok(()));
        assert_eq!(open("."), Ok(()));
        assert_eq!(open("none"), Err(Errno::NOENT));
        for link in ["link", "dirlink"] {
            assert_eq!(open(link), Err(Errno::LOOP), "{link}");
        }
        for path in ["", "..", "/", "/etc/passwd", "dir/..", "../file", "dir/"] {
            assert_eq!(open(path), Err(Errno::XDEV), "{path:?}");
        }
    }
}
