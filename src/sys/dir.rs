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

use super::open::open_beneath;
use super::sync;
use crate::error::{Error, IoContext, Result};

/// An open directory. All its methods take the name of one entry, never a path.
#[derive(Clone, Debug)]
pub(crate) struct Dir(Arc<Inner>, Share);

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

/// Who may write beside the owner to what is made in a directory: the bits `020` and `002` of modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    /// As a directory of this mode has it.
    pub(crate) fn of(mode: u32) -> Share {
        Share(mode & 0o022)
    }

    /// Whether there is nobody.
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether this lets nobody write whom the other keeps out.
    pub(crate) fn is_within(self, other: Share) -> bool {
        self.0 & !other.0 == 0
    }

    /// Who may write may read.
    fn of_files(self) -> u32 {
        0o600 | self.0 | self.0 << 1
    }

    /// And list. What is made in a directory of a group is the group's, whoever makes it.
    fn of_dirs(self) -> u32 {
        0o700 | self.0 | self.0 << 1 | self.0 >> 1 | (self.0 & 0o020) << 6
    }
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
    /// The group's id.
    pub(crate) group: u32,
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
    /// is made durable, and that of the last directory that was there: another process that makes
    /// the same ones syncs each before it makes the next.
    pub(crate) fn create_root(path: &Path) -> Result<Dir> {
        let above = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Dir::open_root(path).context("open", path),
        };
        let (parent, was_there) = match Dir::open_root(above) {
            Ok(parent) => (parent, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Dir::create_root(above)?, false)
            }
            Err(error) => return Err(error).context("open", above),
        };
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            return Dir::open_root(path).context("open", path);
        };
        match parent.open_dir(name) {
            Ok(Some(dir)) => {
                parent.sync_name_of(&dir)?;
                Ok(dir)
            }
            // A symbolic link that the user made: it is theirs to follow.
            Err(_) => Dir::open_root(path).context("open", path),
            Ok(None) => {
                // Who may not open it has not made what is in it either.
                if was_there && let Ok(grandparent) = Dir::open_root(&above.join("..")) {
                    grandparent.sync_name_of(&parent)?;
                }
                let made = parent.make_dir(name)?;
                parent.sync()?;
                Ok(made)
            }
        }
    }

    /// Makes the name of a directory in this one durable, unless something is mounted there: then it
    /// is nobody's to make, and this one may be of a file system that nobody can write to.
    fn sync_name_of(&self, dir: &Dir) -> Result<()> {
        match self.meta_of_self()?.id.0 == dir.meta_of_self()?.id.0 {
            true => self.sync(),
            false => Ok(()),
        }
    }

    /// Lets the group of this directory use it as its owner does.
    pub(crate) fn share_with_group(&self) -> io::Result<()> {
        let mode = Mode::from_raw_mode(Share(0o020).of_dirs());
        Ok(rustix::fs::fchmod(&self.0.fd, mode)?)
    }

    fn new(fd: OwnedFd, path: PathBuf) -> Dir {
        Dir(Arc::new(Inner { fd, path }), Share::default())
    }

    /// The same directory, in which others may write to what is made.
    pub(crate) fn shared(self, share: Share) -> Dir {
        Dir(self.0, share)
    }

    /// Who may write to what is made here.
    pub(crate) fn share(&self) -> Share {
        self.1
    }

    /// The mode of a file that is made here and that is going to be changed.
    pub(crate) fn file_mode(&self) -> u32 {
        self.1.of_files()
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
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        match open_beneath(&self.0.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir::new(fd, self.path_of(name)).shared(self.1))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context("open the directory", self.path_of(name)),
        }
    }

    /// Opens a directory in this one, making it if there is none, with mode 0700 and what this one
    /// is shared with. A new name is durable after [`sync`](Dir::sync); so is one that somebody else
    /// has just made.
    pub(crate) fn make_dir(&self, name: &str) -> Result<Dir> {
        match rustix::fs::mkdirat(&self.0.fd, name, Mode::RWXU) {
            // Its maker may have died before it had its mode.
            Ok(()) | Err(Errno::EXIST) => {
                self.grant(name).context("set the mode of", self.path_of(name))?;
            }
            Err(error) => return Err(error).context("make the directory", self.path_of(name)),
        }
        self.open_dir(name)?.ok_or_else(|| Error::Damaged {
            path: self.path_of(name),
            reason: "it was removed while it was being made".to_owned(),
        })
    }

    /// Gives a directory what the umask took away. With a umask of 0777 it cannot be opened
    /// before, but for its path. What another user made is for them to set right, and what is no
    /// directory is for who opens it to refuse.
    fn grant(&self, name: &str) -> rustix::io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match open_beneath(&self.0.fd, name, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        let (meta, wanted) = (Meta::from(&rustix::fs::fstat(&fd)?), self.1.of_dirs());
        if meta.mode & wanted == wanted || meta.owner != super::current_user() {
            return Ok(());
        }
        let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::chmod(own, Mode::from_raw_mode(wanted))
    }

    /// Opens a regular file for reading; `None` if there is nothing of that name.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<File>> {
        Ok(self.open_file_meta(name)?.map(|(file, _)| file))
    }

    /// Opens a regular file for reading, and says what it is: that is looked at in any case.
    pub(crate) fn open_file_meta(&self, name: &str) -> Result<Option<(File, Meta)>> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens a regular file for reading and writing; `None` if there is nothing of that name.
    pub(crate) fn open_writable(&self, name: &str) -> Result<Option<File>> {
        Ok(self.open_with(name, OFlags::RDWR)?.map(|(file, _)| file))
    }

    /// Opens a regular file for reading and writing, making it if there is none, with mode 0600 and
    /// what the directory is shared with.
    pub(crate) fn open_or_create(&self, name: &str) -> Result<File> {
        self.create(name, OFlags::RDWR)
    }

    /// As [`open_or_create`](Dir::open_or_create), to write at its end.
    pub(crate) fn open_append(&self, name: &str) -> Result<File> {
        self.create(name, OFlags::WRONLY | OFlags::APPEND)
    }

    fn create(&self, name: &str, flags: OFlags) -> Result<File> {
        let opened = self.open_with(name, flags | OFlags::CREATE)?;
        let (file, meta) = opened.ok_or(Errno::NOENT).context("open", self.path_of(name))?;
        let wanted = self.file_mode();
        // The umask may have taken bits away, and whoever comes next must be able to open it. What
        // another user made is for them to set right.
        if meta.mode & wanted != wanted && meta.owner == super::current_user() {
            sync::set_mode(&file, wanted, &self.path_of(name))?;
        }
        Ok(file)
    }

    /// Gives an entry the time of now, as if it had just been written. `false`: it is another
    /// user's, and this one may not write to it.
    pub(crate) fn touch(&self, name: &str) -> Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        match rustix::fs::utimensat(&self.0.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::ACCESS) => Ok(false),
            Err(error) => Err(error).context("touch", self.path_of(name)),
        }
    }

    fn open_with(&self, name: &str, flags: OFlags) -> Result<Option<(File, Meta)>> {
        // Without NONBLOCK, a FIFO put in the file's place would hold the opener for ever.
        let mode = Mode::from_raw_mode(self.file_mode());
        let fd = match open_beneath(&self.0.fd, name, flags | OFlags::NONBLOCK, mode) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).context("open", self.path_of(name)),
        };
        let stat = rustix::fs::fstat(&fd).context("look at", self.path_of(name))?;
        let meta = Meta::from(&stat);
        if !meta.is_file {
            let path = self.path_of(name);
            return Err(Error::Damaged { path, reason: "it is not a regular file".to_owned() });
        }
        #[cfg(planted_faults)]
        super::planted::after_open(name);
        Ok(Some((File::from(fd), meta)))
    }

    /// What an entry is; `None` if there is none. Symbolic links are not followed.
    pub(crate) fn meta(&self, name: &str) -> Result<Option<Meta>> {
        let meta = match rustix::fs::statat(&self.0.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Meta::from(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context("look at", self.path_of(name)),
        };
        #[cfg(planted_faults)]
        super::planted::after_look();
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
    #[cfg_attr(planted_faults, track_caller)]
    pub(crate) fn unlink(&self, name: &str) -> Result<bool> {
        #[cfg(planted_faults)]
        if super::planted::takes_unlink(&self.0.fd, name, self.path()) {
            return Ok(true);
        }
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
        super::planted::after_name(new, false);
        Ok(())
    }

    /// Moves an entry to another directory unless the name is taken there; whether it was moved.
    pub(crate) fn rename_new(&self, name: &str, to: &Dir, new: &str) -> Result<bool> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.0.fd, name, &to.0.fd, new, flags) {
            Ok(()) => {
                #[cfg(planted_faults)]
                super::planted::after_name(new, true);
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
            group: stat.st_gid,
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
