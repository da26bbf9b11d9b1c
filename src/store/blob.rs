use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::BlobStore;
use super::layout::Layout;
use super::outboard::Outboards;
use super::suspect::Suspects;
use super::verified::{Guard, Source};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Descriptor, Digest, Document, MAX_CONFIG_SIZE, MAX_DOCUMENT_SIZE};
use crate::sys::{self, Map};

/// An open blob.
///
/// It can be read to its end whatever is collected meanwhile: a removed file lives on until it is
/// closed.
///
/// What is read is compared with what was stored, in pages of 4 KiB of which the hashes are kept: a
/// disk that has changed a byte gives an error, never the byte. Where a blob has no such hashes,
/// since another tool put it there, the first read reads it whole, compares it with its digest, and
/// keeps them. A read of a few bytes costs that of their page. This guards against rot. It does not
/// guard against somebody who can write to the store, who could change the hashes too; against that,
/// [`verify`](Blob::verify) the whole.
#[derive(Debug)]
pub struct Blob {
    file: File,
    digest: Digest,
    len: u64,
    position: u64,
    guard: Guard,
    outboards: Outboards,
    suspects: Suspects,
}

/// What is read of a blob at once to see what it is.
const FIRST_READ: usize = 4096;
/// How much is read at once where all is read, in bytes.
const PIECE: u64 = 256 * 1024;

/// A blob's bytes in memory, as [`Blob::map_unverified`] gives them.
#[derive(Debug)]
pub struct BlobMap(Map);

impl Blob {
    /// Opens a blob.
    ///
    /// # Errors
    ///
    /// [`Error::BlobNotFound`], [`Error::Io`], [`Error::Damaged`] if something other than a file
    /// has the blob's name.
    pub(crate) fn open(layout: &Layout, digest: &Digest) -> Result<Blob> {
        let opened = layout.open_blob(digest)?;
        let (file, meta) = opened.ok_or_else(|| Error::BlobNotFound { digest: *digest })?;
        let (guard, outboards) = (Guard::default(), layout.outboards.clone());
        let (len, suspects) = (meta.len, layout.suspects.clone());
        Ok(Blob { file, digest: *digest, len, position: 0, guard, outboards, suspects })
    }

    /// The blob's name.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The blob's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the blob has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads from `offset` on, wherever [`Read`] stands; how many bytes it was, 0 only at the end.
    ///
    /// # Errors
    ///
    /// [`Error::CorruptBlob`] or [`Error::DigestMismatch`] if the bytes are not the blob's, and then
    /// the buffer has none that is wrong; [`Error::Io`].
    pub fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let Blob { file, digest, len, outboards, suspects, guard, .. } = self;
        guard.read(Source { file, digest, len: *len, outboards, suspects }, buffer, offset)
    }

    /// The file, whose bytes nobody has compared with anything: for `sendfile` and the like. It must
    /// not be written to, and cannot be.
    pub fn into_unverified_file(self) -> File {
        self.file
    }

    /// Whether it is small enough for an index or a manifest, and begins as a JSON object does (RFC
    /// 8259, section 2), and no compressed layer. One byte of it is read, and compared with nothing.
    pub(crate) fn may_be_document(&self) -> Result<bool> {
        Ok(self.len <= MAX_DOCUMENT_SIZE && begins_as_object(self.begin(&mut [0])?))
    }

    /// Whether it may be an index or a manifest that has a member of this name: it has the name
    /// somewhere, or an escape, behind which a name can hide. What is read is compared with nothing.
    pub(crate) fn may_be_document_with(&self, name: &str) -> Result<bool> {
        let mut first = [0; FIRST_READ];
        let first = self.begin(&mut first)?;
        if self.len > MAX_DOCUMENT_SIZE || !begins_as_object(first) {
            return Ok(false);
        }
        if first.len() as u64 >= self.len {
            return Ok(has_or_hides(first, name));
        }
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(0)];
        match sys::read_at(&self.file, &mut bytes, 0) {
            // Shorter than when it was opened, and so no blob any more.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.context("read", self.digest.to_string())?,
        }
        Ok(has_or_hides(&bytes, name))
    }

    fn begin<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        let read = sys::read_some_at(&self.file, buffer, 0);
        Ok(&buffer[..read.context("read", self.digest.to_string())?])
    }

    /// Maps the blob into memory without checking its bytes against the digest.
    ///
    /// Reading from the map raises `SIGBUS` if somebody truncates the file meanwhile, or if the
    /// disk fails. The store itself never changes a blob.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn map_unverified(&self) -> Result<BlobMap> {
        Map::new(&self.file).map(BlobMap).context("map", self.digest.to_string())
    }

    /// Reads the whole blob and checks it against its digest.
    ///
    /// # Errors
    ///
    /// [`Error::DigestMismatch`] if the bytes are not the digest's, [`Error::Io`].
    pub fn verify(&self) -> Result<()> {
        // Not by a map: what the disk does not give has to be an error, and not the end of the process.
        let mut hasher = self.digest.algorithm().hasher();
        // At most a piece, which is a usize.
        let mut piece = vec![0; self.len.clamp(1, PIECE) as usize];
        let mut at = 0;
        loop {
            let read = self.suspects.fill(&self.digest, &self.file, &mut piece, at)?;
            if read == 0 {
                return self.compare(hasher.finish());
            }
            hasher.update(&piece[..read]);
            at += read as u64;
        }
    }

    fn compare(&self, actual: Digest) -> Result<()> {
        if actual == self.digest {
            return Ok(());
        }
        self.suspects.mark(&self.digest, &self.file);
        let origin = format!("the stored blob {}", self.digest);
        Err(Error::DigestMismatch { origin, expected: self.digest, actual: Box::new(actual) })
    }

    /// Reads a manifest or an index into memory and checks length and digest.
    pub(crate) fn read_small(self, expected: u64) -> Result<Vec<u8>> {
        let what = || format!("the manifest {}", self.digest);
        self.read_whole(expected, MAX_DOCUMENT_SIZE, what)
    }

    fn read_whole(&self, expected: u64, limit: u64, what: impl Fn() -> String) -> Result<Vec<u8>> {
        if expected > limit {
            return Err(Error::TooLarge { what: what(), limit });
        }
        if self.len != expected {
            let origin = format!("the stored blob {}", self.digest);
            return Err(Error::SizeMismatch { origin, expected, actual: self.len, more: false });
        }
        // The file's own length, which is small. Should it be shorter by now, the digest tells.
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(0)];
        match sys::read_at(&self.file, &mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bytes.clear(),
            read => read
                .inspect_err(|error| self.suspects.mark_unread(&self.digest, &self.file, error))
                .context("read", self.digest.to_string())?,
        }
        self.compare(self.digest.algorithm().digest(&bytes))?;
        Ok(bytes)
    }

    /// Reads and parses the manifest or index that a descriptor points to.
    pub(super) fn into_document(self, descriptor: &Descriptor) -> Result<Document> {
        Document::parse(&self.read_small(descriptor.size)?, &descriptor.media_type)
            .map_err(|error| error.of_document(&descriptor.digest))
    }
}

/// Reads and parses the manifest or index that a descriptor points to.
pub(crate) fn read_document(layout: &Layout, descriptor: &Descriptor) -> Result<Document> {
    Blob::open(layout, &descriptor.digest)?.into_document(descriptor)
}

fn begins_as_object(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| b"{ \t\r\n".contains(first))
}

fn has_or_hides(json: &[u8], name: &str) -> bool {
    // What is no text stays where it is: only what is wrong in it is replaced.
    let text = String::from_utf8_lossy(json);
    text.contains(name) || text.contains('\\')
}

impl BlobStore {
    /// Reads the config of an image, checked against its descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::BlobNotFound`]; [`Error::SizeMismatch`] and [`Error::DigestMismatch`] if it is
    /// another than the descriptor's; [`Error::TooLarge`] if that is over
    /// [`MAX_CONFIG_SIZE`](crate::oci::MAX_CONFIG_SIZE); [`Error::Io`].
    pub fn image_config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let what = || format!("the config {}", descriptor.digest);
        let blob = Blob::open(self.layout(), &descriptor.digest)?;
        blob.read_whole(descriptor.size, MAX_CONFIG_SIZE, what)
    }
}

/// An error is that of [`Blob::read_at`], in an [`io::Error`] of the kind `InvalidData` where bytes
/// are wrong: `downcast` gives it back.
impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(buffer, self.position).map_err(|error| match error {
            Error::Io { source, .. } => source,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        })?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Blob {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let to = match position {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl AsRef<[u8]> for BlobMap {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}
