//! Files of the user's own that lie outside the store: they are found by their path, which may lead
//! through symbolic links.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Aside, Dir, Meta};
use crate::error::{Error, IoContext, Result};

/// How long another process may take to change a file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads a file of at most `limit` bytes; `None` if there is none.
pub(crate) fn read_user_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    // Without NONBLOCK, a FIFO would hold the reader for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error).context("open", path),
    };
    if !Meta::of(&file).context("look at", path)?.is_file {
        return Err(std::io::Error::other("it is not a regular file")).context("read", path);
    }
    let mut bytes = Vec::new();
    (&file).take(limit.saturating_add(1)).read_to_end(&mut bytes).context("read", path)?;
    match bytes.len() as u64 > limit {
        true => Err(Error::TooLarge { what: path.display().to_string(), limit }),
        false => Ok(Some(bytes)),
    }
}

/// Puts new bytes into a file, for its owner alone, or leaves it as it is where `change` gives
/// nothing. Others see the old file or the new one; two who change it at once do so in turn. A
/// symbolic link stays one: the file that it leads to is changed.
///
/// # Errors
///
/// [`Error::Locked`] where another process does not come to an end, and those of `change`.
pub(crate) fn change_user_file(
    path: &Path,
    limit: u64,
    change: impl FnOnce(Option<Vec<u8>>) -> Result<Option<Vec<u8>>>,
) -> Result<bool> {
    #[expect(clippy::disallowed_methods, reason = "this is src/sys")]
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidFilename);
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid);
    let name = name.context("change", &path)?;
    let dir = Dir::create_root(parent)?;
    wait_for_turn(&dir)?;
    let Some(bytes) = change(read_user_file(&path, limit)?)? else {
        return Ok(false);
    };
    let aside = Aside::hidden(&dir)?;
    aside.set_mode(0o600)?;
    aside.file().write_all(&bytes).context("write to", &path)?;
    aside.sync()?;
    aside.name_over(&dir, name)?;
    dir.sync()?;
    Ok(true)
}

/// Locks the directory, until it is closed: the file itself will be another one.
fn wait_for_turn(dir: &Dir) -> Result<()> {
    let start = Instant::now();
    loop {
        match rustix::fs::flock(dir.fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Locked {
                    what: "the directory",
                    path: dir.path().to_path_buf(),
                    holder: "another process".to_owned(),
                    waited: start.elapsed(),
                });
            }
            // A file system without locks: the change is atomic all the same.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(error) => return Err(error).context("lock", dir.path()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn reading_is_bounded_and_of_files_only() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        assert_eq!(read_user_file(&path, 4).unwrap(), None);
        assert_eq!(read_user_file(&path.join("below"), 4).unwrap(), None);
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_user_file(&path, 4).unwrap().unwrap(), b"four");
        assert!(matches!(read_user_file(&path, 3), Err(Error::TooLarge { .. })));
        let fifo = temp.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success() && read_user_file(&fifo, 4).is_err());
        assert!(read_user_file(temp.path(), 4).is_err());
    }

    #[test]
    fn a_change_is_private_whatever_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b/file");
        let put = |path: &Path, text: &str| {
            change_user_file(path, 100, |_| Ok(Some(text.as_bytes().to_vec()))).unwrap()
        };
        assert!(put(&path, "one"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let link = temp.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(put(&link, "two"));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two", 0o600));
        assert!(!change_user_file(&path, 100, |_| Ok(None)).unwrap());
        assert!(change_user_file(&path, 2, |_| Ok(None)).is_err());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn changes_at_once_are_all_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let more = |old: Option<Vec<u8>>| {
                        let mut bytes = old.unwrap_or_default();
                        bytes.push(b'x');
                        Ok(Some(bytes))
                    };
                    change_user_file(&path, 100, more).unwrap();
                });
            }
        });
        assert_eq!(std::fs::read(&path).unwrap(), b"xxxxxxxx");
    }
}
