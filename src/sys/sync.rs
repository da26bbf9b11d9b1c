use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

/// As many pieces as Linux takes in one call (writev(2)).
const MOST_PIECES: usize = 1024;
/// How many syncs of small files run side by side.
const SYNC_THREADS: usize = 8;

/// Makes a file's bytes and length durable.
///
/// A failure is final for this file: Linux reports a lost write once, and the next sync would
/// return success with the data gone. The caller gives the file up.
#[cfg_attr(planted_faults, track_caller)]
pub(crate) fn sync_data(file: &File, path: &Path) -> Result<()> {
    sync_all(file, path)
}

#[cfg_attr(planted_faults, track_caller)]
pub(super) fn sync_all(fd: impl AsFd, path: &Path) -> Result<()> {
    #[cfg(planted_faults)]
    if super::planted::takes_sync(&fd, path) {
        return Ok(());
    }
    rustix::fs::fsync(&fd)
        .and_then(|()| ask_for_status(&fd, path))
        .map_err(|error| Error::NotDurable { path: path.to_path_buf(), source: error.into() })
}

/// XFS, once it has shut down after an error, says of a directory whose changes it dropped that there
/// is nothing to sync; but of no file of it can anything be known any more.
fn ask_for_status(fd: impl AsFd, _path: &Path) -> rustix::io::Result<()> {
    #[cfg(planted_faults)]
    if super::planted::omits_look(_path) {
        return Ok(());
    }
    rustix::fs::fstat(fd).map(drop)
}

/// Makes the bytes and lengths of many files durable; `path` is where they lie, for messages.
///
/// For small files a sync is waiting for the journal, which a transaction for all of them costs no
/// more than one for each. So all bytes are sent to the disk first, and then waited for: only when
/// they are there does a file system that allocates late know what belongs in its journal. The first
/// sync then commits what all of them need, and the others, on a few threads, find it done. Whatever
/// of this a file system does otherwise, each file is synced.
pub(crate) fn sync_together(files: &[&File], path: &Path) -> Result<()> {
    for file in files {
        write_out(file, false, 0, 0, path)?;
    }
    for file in files {
        write_out(file, true, 0, 0, path)?;
    }
    let Some((first, rest)) = files.split_first() else {
        return Ok(());
    };
    let sync_all = |files: &[&File]| files.iter().try_for_each(|file| sync_data(file, path));
    sync_all(std::slice::from_ref(first))?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = rest
            .chunks(rest.len().div_ceil(SYNC_THREADS).max(1))
            .map(|share| {
                let builder = std::thread::Builder::new();
                (share, builder.spawn_scoped(scope, move || sync_all(share)))
            })
            .collect();
        // Each is waited for, whatever the others say. Where no thread is to be had, this one does it.
        let end = |(share, thread): (_, std::io::Result<std::thread::ScopedJoinHandle<'_, _>>)| {
            thread.map_or_else(|_| Ok(sync_all(share)), |thread| thread.join())
        };
        let ends: Vec<_> = threads.into_iter().map(end).collect();
        ends.into_iter().try_for_each(|end| end.unwrap_or_else(|it| std::panic::resume_unwind(it)))
    })
}

/// Writes all bytes from `start` on, wherever the file's own position is.
pub(crate) fn write_at(file: &File, bytes: &[u8], start: u64, path: &Path) -> Result<()> {
    file.write_all_at(bytes, start).context("write to", path)
}

/// Writes pieces, none of them empty, one after the other from `start` on, with one call where the
/// kernel takes them all.
pub(crate) fn write_pieces_at(
    file: &File,
    pieces: &[&[u8]],
    mut start: u64,
    path: &Path,
) -> Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(MOST_PIECES)];
        let written = match rustix::io::pwritev(file, some, start) {
            Err(Errno::INTR) => continue,
            Ok(0) => Err(std::io::Error::from(ErrorKind::WriteZero)),
            written => written.map_err(Into::into),
        };
        let written = written.context("write to", path)?;
        start += written as u64;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

/// Writes all bytes at the end of a file that was opened to be appended to, or of a new one.
#[cfg_attr(planted_faults, track_caller)]
pub(crate) fn append(mut file: &File, bytes: &[u8], path: &Path) -> Result<()> {
    #[cfg(planted_faults)]
    if super::planted::takes_append(file, bytes, path) {
        return Ok(());
    }
    file.write_all(bytes).context("write", path)
}

/// Whether the disk, or the file system on it, does not give back what it was given.
pub(crate) fn is_bad_disk(error: &std::io::Error) -> bool {
    [Errno::IO, Errno::UCLEAN, Errno::BADMSG]
        .map(Errno::raw_os_error)
        .map(Some)
        .contains(&error.raw_os_error())
}

/// Whether a symbolic link was in the way.
pub(crate) fn is_link(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Fills a buffer from a place of a file.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    file.read_exact_at(bytes, start)
}

/// Fills pieces one after the other from a place of a file, with one call where the kernel can.
pub(crate) fn read_pieces_at(
    file: &File,
    pieces: &mut [&mut [u8]],
    mut start: u64,
) -> std::io::Result<()> {
    let filled = pieces.iter_mut().filter(|piece| !piece.is_empty());
    let mut slices: Vec<_> = filled.map(|piece| IoSliceMut::new(piece)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let most = rest.len().min(MOST_PIECES);
        match rustix::io::preadv(file, &mut rest[..most], start) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            read => {
                let read = read?;
                start += read as u64;
                IoSliceMut::advance_slices(&mut rest, read);
            }
        }
    }
    Ok(())
}

/// Reads from a place of a file what one call gives; 0 at its end.
pub(crate) fn read_some_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(bytes, start) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Sets the permission bits of an open file, whatever the umask.
pub(crate) fn set_mode(file: &File, mode: u32, path: &Path) -> Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).context("set the mode of", path)
}

/// Gives an open file the time of now.
pub(crate) fn set_time(file: &File, path: &Path) -> Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    rustix::fs::futimens(file, &times).context("set the time of", path)
}

/// Takes all bytes out of a file and goes back to its start.
pub(crate) fn empty(file: &File) -> std::io::Result<()> {
    rustix::fs::ftruncate(file, 0)?;
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0))?;
    Ok(())
}

/// Sets `len` bytes of space aside from `start` on without changing the file's length, so that a
/// full disk is met before the bytes are fetched. Does nothing where the file system cannot.
pub(crate) fn preallocate(file: &File, start: u64, len: u64, path: &Path) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, start, len) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT) => Err(Error::NoSpace {
            action: "set space aside for",
            path: path.to_path_buf(),
            needed: Some(len),
            available: rustix::fs::fstatvfs(file)
                .ok()
                .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
        }),
        Err(error) => Err(error).context("set space aside for", path),
    }
}

/// Lets the kernel begin to write out a range that was just written, without waiting for it: the
/// sync at the end then finds little to do. No promise of durability.
pub(crate) fn start_writeback(file: &File, start: u64, len: u64, path: &Path) -> Result<()> {
    write_out(file, false, start, len, path)
}

/// Sends a range to the disk, and waits for it if asked to; a length of 0 stands for all that
/// follows. Without the metadata, so this too is no promise.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix has no sync_file_range")]
fn write_out(file: &File, wait: bool, start: u64, len: u64, path: &Path) -> Result<()> {
    let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(len)) else {
        return Ok(());
    };
    let flags = match wait {
        false => libc::SYNC_FILE_RANGE_WRITE,
        true => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and no memory is passed.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, flags) };
    if result == 0 {
        return Ok(());
    }
    match std::io::Error::last_os_error() {
        // Not every file system has it, and a signal may come at any time: it is only a hint.
        error
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ESPIPE | libc::EINTR)) =>
        {
            Ok(())
        }
        error => Err(Error::NotDurable { path: path.to_path_buf(), source: error }),
    }
}

/// Only Linux can be asked.
#[cfg(not(target_os = "linux"))]
fn write_out(_: &File, _: bool, _: u64, _: u64, _: &Path) -> Result<()> {
    Ok(())
}
