use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, UTIME_NOW,
};
use rustix::io::Errno;

use super::sync;
use crate::error::{Error, IoContext, Result};

/// An open directory. All its methods take the name of one entry, never a path.
#[derive(Clone, Debug)]
pub(crate) struct Dir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

/// What is known of a directory entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    /// Whether it is a regular file.
    pub(crate) is_file: bool,
    /// Whether it is a directory.
    pub(crate) is_dir: bool,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// What it takes on disk, in bytes.
    pub(crate) disk: u64,
    /// The owner's user id.
    pub(crate) owner: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    /// When its content last changed.
    pub(crate) modified: SystemTime,
    /// How many names it has.
    pub(crate) links: u64,
    /// Device and inode: equal only for the same file.
    pub(crate) id: (u64, u64),
}

impl Dir {
    /// Opens a directory by its path, which may lead through symbolic links: it is the user's.
    pub(crate) fn open_root(path: &Path) -> io::Result<Dir> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Dir::new(fd, path.to_path_buf()))
    }

    /// Makes a directory, its parents too, for its owner alone whatever the umask. Each new name
    /// is made durable.
    pub(crate) fn create_root(path: &Path) -> Result<Dir> {
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Dir::open_root(path).context("open", path),
        };
        let parent = match Dir::open_root(parent) {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Dir::create_root(parent)?,
            Err(error) => return Err(error).context("open", parent),
        };
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            return Dir::open_root(path).context("open", path);
        };
        match parent.open_dir(name) {
            Ok(Some(dir)) => Ok(dir),
            // A symbolic link that the user made: it is theirs to follow.
            Err(_) => Dir::open_root(path).context("open", path),
            Ok(None) => {
                let made = parent.make_dir(name)?;
                parent.sync()?;
                Ok(made)
            }
        }
    }

    fn new(fd: OwnedFd, path: PathBuf) -> Dir {
        Dir(Arc::new(Inner { fd, path }))
    }

    /// The path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// The path of an entry, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    pub(super) fn fd(&self) -> impl AsFd + '_ {
        &self.0.fd
    }

    /// Opens a directory in this one; `None` if there is none.
    pub(crate) fn open_dir(&self, name: &str) -> Result<Option<Dir>> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir::new(fd, self.path_of(name)))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context("open the directory", self.path_of(name)),
        }
    }

    /// Opens a directory in this one, making it with mode 0700 if there is none. A new name is
    /// durable after [`sync`](Dir::sync); so is one that somebody else has just made.
    pub(crate) fn make_dir(&self, name: &str) -> Result<Dir> {
        match rustix::fs::mkdirat(&self.0.fd, name, Mode::RWXU) {
            Ok(()) => self.grant(name).context("set the mode of", self.path_of(name))?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context("make the directory", self.path_of(name)),
        }
        self.open_dir(name)?.ok_or_else(|| Error::Damaged {
            path: self.path_of(name),
            reason: "it was removed while it was being made".to_owned(),
        })
    }

    /// Gives the owner of a new directory what the umask took away. With a umask of 0777 it cannot
    /// be opened before, but for its path.
    fn grant(&self, name: &str) -> rustix::io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.0.fd, name, flags, Mode::empty())?;
        if Meta::from(&rustix::fs::fstat(&fd)?).mode & 0o700 == 0o700 {
            return Ok(());
        }
        rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RWXU)
    }

    /// Opens a regular file for reading; `None` if there is nothing of that name.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<File>> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens a regular file for reading and writing; `None` if there is nothing of that name.
    pub(crate) fn open_writable(&self, name: &str) -> Result<Option<File>> {
        self.open_with(name, OFlags::RDWR)
    }

    /// Opens a regular file for reading and writing, making it with mode 0600 if there is none.
    pub(crate) fn open_or_create(&self, name: &str) -> Result<File> {
        let file = self.open_with(name, OFlags::RDWR | OFlags::CREATE)?;
        let file = file.ok_or(Errno::NOENT).context("open", self.path_of(name))?;
        // The umask may have taken bits away, and then nobody could open it again.
        if Meta::of(&file).context("look at", self.path_of(name))?.mode & 0o600 != 0o600 {
            sync::set_mode(&file, 0o600, &self.path_of(name))?;
        }
        Ok(file)
    }

    /// Opens a regular file to write at its end, making it with mode 0600 if there is none.
    pub(crate) fn open_append(&self, name: &str) -> Result<File> {
        let file = self.open_with(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
        let file = file.ok_or(Errno::NOENT).context("open", self.path_of(name))?;
        // The umask may have taken bits away, and whoever comes next must be able to open it.
        sync::set_mode(&file, 0o600, &self.path_of(name))?;
        Ok(file)
    }

    /// Gives an entry the time of now, as if it had just been written.
    pub(crate) fn touch(&self, name: &str) -> Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(&self.0.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .context("touch", self.path_of(name))
    }

    fn open_with(&self, name: &str, flags: OFlags) -> Result<Option<File>> {
        // Without NONBLOCK, a FIFO put in the file's place would hold the opener for ever.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&self.0.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).context("open", self.path_of(name)),
        };
        let stat = rustix::fs::fstat(&fd).context("look at", self.path_of(name))?;
        if !Meta::from(&stat).is_file {
            let path = self.path_of(name);
            return Err(Error::Damaged { path, reason: "it is not a regular file".to_owned() });
        }
        Ok(Some(File::from(fd)))
    }

    /// What an entry is; `None` if there is none. Symbolic links are not followed.
    pub(crate) fn meta(&self, name: &str) -> Result<Option<Meta>> {
        let meta = match rustix::fs::statat(&self.0.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Meta::from(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context("look at", self.path_of(name)),
        };
        #[cfg(planted_faults)]
        super::planted::after(super::planted::Next::Look);
        meta
    }

    /// What this directory itself is.
    pub(crate) fn meta_of_self(&self) -> Result<Meta> {
        let stat = rustix::fs::fstat(&self.0.fd).context("look at", self.path())?;
        Ok(Meta::from(&stat))
    }

    /// The names in this directory, in no order, without `.` and `..`. Names that are not UTF-8
    /// are nobody's that the store knows; they are given with the replacement character.
    pub(crate) fn names(&self) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        let path = self.path().to_path_buf();
        let entries = rustix::fs::Dir::read_from(&self.0.fd).context("list", &path)?;
        Ok(entries
            .map(move |entry| {
                let entry = entry.context("list", &path)?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                Ok(name.to_string_lossy().into_owned())
            })
            .filter(|name| !matches!(name.as_deref(), Ok("." | ".."))))
    }

    /// Removes a file; whether there was one.
    pub(crate) fn unlink(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.0.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).context("remove", self.path_of(name)),
        }
    }

    /// Moves an entry to another directory, over whatever has the name there.
    pub(crate) fn rename(&self, name: &str, to: &Dir, new: &str) -> Result<()> {
        rustix::fs::renameat(&self.0.fd, name, &to.0.fd, new)
            .map_err(|error| to.refuses(new, error))
            .or_else(|error| error)?;
        #[cfg(planted_faults)]
        super::planted::after(super::planted::Next::Name);
        Ok(())
    }

    /// Moves an entry to another directory unless the name is taken there; whether it was moved.
    pub(crate) fn rename_new(&self, name: &str, to: &Dir, new: &str) -> Result<bool> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.0.fd, name, &to.0.fd, new, flags) {
            Ok(()) => {
                #[cfg(planted_faults)]
                super::planted::after(super::planted::Next::Name);
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            // NFS, among others, has no such rename; a link refuses to replace as well.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match rustix::fs::linkat(&self.0.fd, name, &to.0.fd, new, AtFlags::empty()) {
                    Ok(()) => self.unlink(name),
                    Err(Errno::EXIST) => Ok(false),
                    Err(error) => to.refuses(new, error)?,
                }
            }
            Err(error) => to.refuses(new, error)?,
        }
    }

    /// The error of a name that could not be made here. A full directory says "no space" too.
    pub(super) fn refuses<T>(&self, name: &str, error: Errno) -> Result<T> {
        const ROOM: u64 = 64 * 1024 * 1024;
        if error == Errno::NOSPC
            && let Ok(stat) = rustix::fs::fstatvfs(&self.0.fd)
            && stat.f_bavail.saturating_mul(stat.f_frsize) > ROOM
            && stat.f_favail > 1024
        {
            return Err(Error::DirectoryFull { path: self.path().to_path_buf() });
        }
        Err(error).context("make the name", self.path_of(name))
    }

    /// Makes the names in this directory durable.
    #[cfg_attr(planted_faults, track_caller)]
    pub(crate) fn sync(&self) -> Result<()> {
        sync::sync_all(&self.0.fd, self.path())
    }
}

impl From<&Stat> for Meta {
    // The fields differ in type and sign between architectures.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    fn from(stat: &Stat) -> Meta {
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Meta {
            is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            disk: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            modified: SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos),
            links: stat.st_nlink as u64,
            id: (stat.st_dev as u64, stat.st_ino as u64),
        }
    }
}

impl Meta {
    /// What an open file is.
    pub(crate) fn of(file: &File) -> io::Result<Meta> {
        Ok(Meta::from(&rustix::fs::fstat(file)?))
    }
}
