//! Reading the files that a user configures other tools with.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The bytes of a file of at most `limit` bytes; nothing where there is no such file.
///
/// The path may lead through symbolic links, as it does where configuration is mounted. What is
/// not a regular file is refused, and not waited for.
pub(crate) fn read_config(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(error) if is_absent(error.into()) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let reason = format!("it is larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(bytes))
}

/// The names in a directory, sorted, at most `limit` of them; nothing where there is no such
/// directory. Names that are not text are passed over.
pub(crate) fn list_config(path: &Path, limit: usize) -> io::Result<Option<Vec<String>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => rustix::fs::Dir::new(fd)?,
        Err(error) if is_absent(error.into()) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in directory {
        let entry = entry?;
        let Ok(name) = std::str::from_utf8(entry.file_name().to_bytes()) else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        if names.len() == limit {
            let reason = format!("it has more than {limit} files");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        names.push(name.to_owned());
    }
    names.sort();
    Ok(Some(names))
}

fn is_absent(error: io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_config(&path, 5).unwrap().as_deref(), Some(&b"12345"[..]));
        assert!(read_config(&path, 4).unwrap_err().to_string().contains("larger than 4"));
        assert!(read_config(&path.join("below"), 5).unwrap().is_none());
        assert!(read_config(&dir.path().join("y"), 5).unwrap().is_none());
        assert!(read_config(dir.path(), 5).unwrap_err().to_string().contains("regular file"));
        assert!(read_config(Path::new("/dev/zero"), 5).is_err());
    }

    #[test]
    fn directories_are_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let names = list_config(dir.path(), 3).unwrap();
        assert_eq!(names, Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
        assert!(list_config(dir.path(), 2).is_err());
        assert_eq!(list_config(&dir.path().join("none"), 2).unwrap(), None);
    }
}
