use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::open::open_beneath;
use super::{Dir, LockMode, lock, sync};
use crate::error::{IoContext, Result};

/// What temporary names begin with, where a file cannot be written without one. The collector
/// removes those that their writer left behind.
const HIDDEN: &str = ".new-";

/// A file that is written aside and gets its name when it is whole.
///
/// Where the file system can, it has no name until then (`O_TMPFILE`), so a crash leaves nothing;
/// elsewhere it has a hidden one, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    // Before `dir`, for it is removed by way of that descriptor.
    file: Form,
    dir: Dir,
}

#[derive(Debug)]
enum Form {
    Nameless(File),
    Hidden(NamedTempFile),
}

impl Aside {
    /// A new file with mode 0600 on the file system of `dir`.
    pub(crate) fn new(dir: &Dir) -> Result<Aside> {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        match open_beneath(dir.fd(), ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Aside { file: Form::Nameless(File::from(fd)), dir: dir.clone() }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                Aside::hidden(dir)
            }
            Err(error) => Err(error).context("make a file in", dir.path()),
        }
    }

    /// A new file with a hidden name, for what is going to replace another.
    pub(crate) fn hidden(dir: &Dir) -> Result<Aside> {
        let own = PathBuf::from(format!("/proc/self/fd/{}", dir.fd().as_fd().as_raw_fd()));
        let file = tempfile::Builder::new()
            .prefix(HIDDEN)
            .tempfile_in(own)
            .context("make a file in", dir.path())?;
        Ok(Aside { file: Form::Hidden(file), dir: dir.clone() })
    }

    /// Whether a name is one that a writer left behind.
    pub(crate) fn is_leftover(name: &str) -> bool {
        name.starts_with(HIDDEN)
    }

    /// The file, to be written.
    pub(crate) fn file(&self) -> &File {
        match &self.file {
            Form::Nameless(file) => file,
            Form::Hidden(file) => file.as_file(),
        }
    }

    /// Where it is being written, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// Takes the lock on the file before anybody can know it.
    #[cfg_attr(planted_faults, track_caller)]
    pub(crate) fn lock(&self, mode: LockMode) -> Result<()> {
        #[cfg(planted_faults)]
        if super::planted::takes_lock(self.file(), &self.path()) {
            return Ok(());
        }
        lock::lock_now(self.file(), mode).context("lock", self.path())
    }

    /// Sets the mode, whatever the umask.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        sync::set_mode(self.file(), mode, &self.path())
    }

    /// Makes the bytes durable. The name comes after, and is made durable with its directory.
    #[cfg_attr(planted_faults, track_caller)]
    pub(crate) fn sync(&self) -> Result<()> {
        sync::sync_data(self.file(), &self.path())
    }

    /// Gives the file a name unless it is taken; the file, open, if it got it.
    pub(crate) fn name_new(self, to: &Dir, name: &str) -> Result<Option<File>> {
        match self.file {
            Form::Nameless(file) => {
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                let flags = AtFlags::SYMLINK_FOLLOW;
                match rustix::fs::linkat(rustix::fs::CWD, &*own, to.fd(), name, flags) {
                    Ok(()) => {
                        #[cfg(planted_faults)]
                        super::planted::after_name(name, true);
                        Ok(Some(file))
                    }
                    Err(Errno::EXIST) => Ok(None),
                    Err(error) => to.refuses(name, error),
                }
            }
            Form::Hidden(file) => {
                let Some(hidden) = hidden_name(&file) else {
                    return Err(io::Error::from(io::ErrorKind::InvalidFilename))
                        .context("name a file in", self.dir.path());
                };
                if !self.dir.rename_new(&hidden, to, name)? {
                    return Ok(None);
                }
                let (file, path) = file.into_parts();
                forget(path);
                Ok(Some(file))
            }
        }
    }

    /// Gives a hidden file a name, over whatever has it.
    pub(crate) fn name_over(self, to: &Dir, name: &str) -> Result<File> {
        let hidden = match self.file {
            Form::Hidden(file) => file,
            // A nameless file cannot replace: it passes through a hidden name.
            Form::Nameless(file) => return name_over_by_link(&file, to, name).map(|()| file),
        };
        let Some(from) = hidden_name(&hidden) else {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename))
                .context("name a file in", self.dir.path());
        };
        self.dir.rename(&from, to, name)?;
        let (file, path) = hidden.into_parts();
        forget(path);
        Ok(file)
    }
}

fn name_over_by_link(file: &File, to: &Dir, name: &str) -> Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let hidden = format!("{HIDDEN}{}", super::random_name().context("name a file in", to.path())?);
    rustix::fs::linkat(rustix::fs::CWD, &*own, to.fd(), &*hidden, AtFlags::SYMLINK_FOLLOW)
        .or_else(|error| to.refuses(&hidden, error))?;
    let renamed = to.rename(&hidden, to, name);
    if renamed.is_err() {
        // The error that matters is the rename's; what stays here is litter for the collector.
        let _ = to.unlink(&hidden);
    }
    renamed
}

fn hidden_name(file: &NamedTempFile) -> Option<String> {
    Some(file.path().file_name()?.to_str()?.to_owned())
}

/// The name was moved away; nothing is left to be removed.
fn forget(path: tempfile::TempPath) {
    // `keep` only fails on Windows, where it changes an attribute of the file.
    let _ = path.keep();
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn both_forms_name_new_and_name_over() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        let forms: [fn(&Dir) -> Result<Aside>; 2] = [Aside::new, Aside::hidden];
        for (n, form) in forms.into_iter().enumerate() {
            let name = format!("file{n}");
            let write = |text: &str| {
                let aside = form(&dir).unwrap();
                aside.file().write_all(text.as_bytes()).unwrap();
                aside
            };
            let read = || std::fs::read_to_string(temp.path().join(&name)).unwrap();
            assert!(write("one").name_new(&dir, &name).unwrap().is_some());
            assert!(write("two").name_new(&dir, &name).unwrap().is_none());
            assert_eq!(read(), "one");
            write("three").name_over(&dir, &name).unwrap();
            assert_eq!(read(), "three");
            drop(write("four"));
        }
        let mut names: Vec<_> = dir.names().unwrap().map(Result::unwrap).collect();
        names.sort();
        assert_eq!(names, ["file0", "file1"], "nothing is left behind");
    }

    #[test]
    fn a_name_can_be_born_locked() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        let aside = Aside::new(&dir).unwrap();
        aside.lock(LockMode::Exclusive).unwrap();
        let held = aside.name_new(&dir, "lease").unwrap();
        let again = || super::super::Lock::try_acquire(&dir, "lease", LockMode::Exclusive).unwrap();
        assert!(again().is_none());
        drop(held);
        assert!(again().is_some());
    }
}
