//! Marks on blobs whose bytes were found to be wrong, or are not given by the disk: `.layerstore/suspect/ALGORITHM-HEX`, empty files.
//!
//! A blob with a mark counts as missing to whoever asks whether it is there, so that the next pull of
//! an image that needs it brings it anew; its commit replaces what is there, whatever its length,
//! and takes the mark away. Readers that have the old file open keep it. Nothing is synced: a mark
//! that a power cut takes away is made again by the next who reads the blob, and one that it brings
//! back costs a download, or goes when a check finds the blob good.

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, IoContext, Result};
use crate::oci::{Algorithm, Digest};
use crate::sys::{self, Dir, Meta};

#[derive(Clone, Debug)]
pub(crate) struct Suspects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    private: Dir,
    blobs: Dir,
    /// The directory of the marks, once there is one: it is never removed.
    dir: OnceLock<Dir>,
}

/// Which blobs are marked, for who asks it of many. The answer is that of when this was made, or a
/// later one.
#[derive(Debug)]
pub(crate) struct Marks<'a>(Option<&'a Dir>);

impl Marks<'_> {
    /// Whether a blob has a mark.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool> {
        match self.0 {
            Some(dir) => Ok(dir.meta(&name(digest))?.is_some()),
            None => Ok(false),
        }
    }
}

impl Suspects {
    pub(crate) fn new(private: &Dir, blobs: &Dir) -> Suspects {
        let (private, blobs, dir) = (private.clone(), blobs.clone(), OnceLock::new());
        Suspects(Arc::new(Inner { private, blobs, dir }))
    }

    /// The directory of the marks; `None` if there was never one.
    pub(crate) fn dir(&self) -> Result<Option<&Dir>> {
        if let Some(dir) = self.0.dir.get() {
            return Ok(Some(dir));
        }
        let opened = self.0.private.open_dir("suspect")?;
        Ok(opened.map(|dir| self.0.dir.get_or_init(|| dir)))
    }

    /// The marks, from now on.
    pub(crate) fn marks(&self) -> Result<Marks<'_>> {
        self.dir().map(Marks)
    }

    /// Whether a blob has a mark.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool> {
        self.marks()?.has(digest)
    }

    /// Marks a blob whose bytes are not its digest's, if that file still has its name. That this fails
    /// takes nothing from the error that is told in any case.
    pub(crate) fn mark(&self, digest: &Digest, file: &File) {
        if let Err(error) = self.try_mark(digest, file) {
            tracing::debug!(%digest, %error, "the damaged blob is not marked");
        }
    }

    /// Fills the buffer with a blob's bytes from a place on, but at its end; how many that were. What the disk
    /// does not give is marked.
    pub(crate) fn fill(
        &self,
        digest: &Digest,
        file: &File,
        buffer: &mut [u8],
        at: u64,
    ) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = sys::read_some_at(file, &mut buffer[filled..], at + filled as u64)
                .inspect_err(|error| self.mark_unread(digest, file, error));
            match read.context("read", format!("the blob {digest}"))? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// Marks a blob that could not be read, if the disk does not give its bytes: another time it may, and
    /// then a check takes the mark away.
    pub(crate) fn mark_unread(&self, digest: &Digest, file: &File, error: &io::Error) {
        if sys::is_bad_disk(error) {
            self.mark(digest, file);
        }
    }

    fn try_mark(&self, digest: &Digest, file: &File) -> Result<()> {
        let own = Meta::of(file).context("look at", digest.to_string())?.id;
        let blobs = self.0.blobs.open_dir(digest.algorithm().name())?;
        let is_named = || -> Result<bool> {
            let named = blobs.as_ref().map_or(Ok(None), |dir| dir.meta(&digest.hex()))?;
            Ok(named.is_some_and(|named| named.id == own))
        };
        // It may have been healed, or collected, since it was opened.
        if is_named()? {
            self.0.private.make_dir("suspect")?.open_or_create(&name(digest))?;
            // Or just now: then whoever healed it may have looked for a mark before there was one.
            if !is_named()? {
                self.clear(digest)?;
            }
        }
        Ok(())
    }

    /// Takes the mark from a blob, for good bytes have its name now.
    pub(crate) fn clear(&self, digest: &Digest) -> Result<()> {
        match self.dir()? {
            // To remove what is not there is an error where nothing may be written.
            Some(dir) if dir.meta(&name(digest))?.is_some() => dir.unlink(&name(digest)).map(drop),
            _ => Ok(()),
        }
    }
}

/// Whether an error says that the bytes of a blob that is there are not its digest's, or that the disk
/// does not give them: what to do is to bring it anew.
pub(crate) fn is_of_bad_bytes(error: &Error) -> bool {
    match error {
        Error::DigestMismatch { .. } | Error::CorruptBlob { .. } => true,
        Error::Io { source, .. } => sys::is_bad_disk(source),
        _ => false,
    }
}

/// The name of what the store keeps of a blob beside it.
pub(crate) fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// Of which blob it is that has this name.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::from_hex(algorithm.parse::<Algorithm>().ok()?, hex).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::sys::Aside;

    /// Between the look at the name and the mark somebody may put good bytes there.
    #[test]
    fn no_mark_stays_on_a_blob_that_is_healed_meanwhile() {
        const ROUNDS: usize = 3000;
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open_root(temp.path()).unwrap();
        let (private, blobs) = (root.make_dir("private").unwrap(), root.make_dir("blobs").unwrap());
        let suspects = Suspects::new(&private, &blobs);
        let dir = blobs.make_dir("sha256").unwrap();
        let digest = Algorithm::Sha256.digest(b"x");
        let (barrier, mut left) = (Barrier::new(2), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let good = Aside::hidden(&dir).unwrap();
                    barrier.wait();
                    good.name_over(&dir, &digest.hex()).unwrap();
                    suspects.clear(&digest).unwrap();
                    barrier.wait();
                    barrier.wait();
                }
            });
            for _ in 0..ROUNDS {
                let bad = dir.open_or_create(&digest.hex()).unwrap();
                barrier.wait();
                suspects.mark(&digest, &bad);
                barrier.wait();
                left += usize::from(suspects.has(&digest).unwrap());
                barrier.wait();
            }
        });
        assert_eq!(left, 0, "of {ROUNDS}");
    }
}
