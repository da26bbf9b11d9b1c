//! A disk that remembers the order of what was done to it.
//!
//!     blocklog DIR IMAGE LOG
//!
//! Mounts a file system on DIR with two files, until it is unmounted:
//!
//! - `disk`, the bytes of IMAGE, to be put under a loop device. Each write goes to IMAGE and to the
//!   end of LOG, and so does each sync, which is what the loop device makes of a flush. The loop
//!   device has no FUA: the kernel turns a FUA write into a write and a flush.
//! - `mark`, whose writes go to LOG alone. What was acknowledged is told there, so that it stands
//!   in its place between the writes and flushes.
//!
//! A record of LOG is its kind (`W`, `F` or `M`), its offset and its length, both 8 bytes
//! little-endian, and as many bytes. Requests are served by one thread, in turn, and answered when
//! they are in LOG: a write that was answered before a sync was asked for stands before it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};

const DISK: INodeNo = INodeNo(2);
const MARK: INodeNo = INodeNo(3);
/// How long the kernel may remember attributes: they never change.
const TTL: Duration = Duration::from_secs(3600);

struct BlockLog {
    image: File,
    size: u64,
    log: Mutex<BufWriter<File>>,
}

impl BlockLog {
    fn record(&self, kind: u8, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.write_all(&[kind])?;
        log.write_all(&offset.to_le_bytes())?;
        log.write_all(&(bytes.len() as u64).to_le_bytes())?;
        log.write_all(bytes)
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            DISK => (FileType::RegularFile, 0o600, self.size),
            MARK => (FileType::RegularFile, 0o600, 0),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for BlockLog {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // One request for each request of the block layer, as far as the kernel goes.
        if let Err(largest) = config.set_max_write(1024 * 1024) {
            let _ = config.set_max_write(largest);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = match name.to_str() {
            Some("disk") if parent == INodeNo::ROOT => DISK,
            Some("mark") if parent == INodeNo::ROOT => MARK,
            _ => return reply.error(Errno::ENOENT),
        };
        match self.attributes(inode) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Opening `mark` with O_TRUNC asks for this; the size of `disk` does not change.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attributes(inode) {
            Some(attributes) if size.is_none_or(|size| size == attributes.size) => {
                reply.attr(&TTL, &attributes);
            }
            _ => reply.error(Errno::EPERM),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // A mark must arrive as it was written, whatever the size of its file.
        let flags = if inode == MARK { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = if inode == DISK { self.size } else { 0 };
        let mut bytes = vec![0; u64::from(size).min(end.saturating_sub(offset)) as usize];
        match self.image.read_exact_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = match inode {
            DISK => {
                self.image.write_all_at(data, offset).and_then(|()| self.record(b'W', offset, data))
            }
            _ => self.record(b'M', 0, data),
        };
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match if inode == DISK { self.record(b'F', 0, &[]) } else { Ok(()) } {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn destroy(&mut self) {
        let log = self.log.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.flush() {
            eprintln!("blocklog: the log is not whole: {error}");
            std::process::exit(1);
        }
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [dir, image, log] = &arguments[..] else {
        eprintln!("usage: blocklog DIR IMAGE LOG");
        std::process::exit(2);
    };
    let image = File::options().read(true).write(true).open(image)?;
    let size = image.metadata()?.len();
    let log = Mutex::new(BufWriter::with_capacity(1 << 20, File::create(log)?));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("blocklog".to_owned())];
    let session = Session::new(BlockLog { image, size, log }, dir, &config)?;
    println!("ready");
    session.run()
}
