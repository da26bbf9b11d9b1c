use std::fs::File;
use std::io;

/// A file's bytes in memory, read-only and shared with the page cache.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps a whole file. A file of length 0 gives an empty slice.
    #[expect(unsafe_code, reason = "mapping a file is unsafe by nature")]
    pub(crate) fn new(file: &File) -> io::Result<Map> {
        // SAFETY: a map is sound while nobody changes the file under it. Only committed blobs are
        // mapped: nobody may write to them, they are never written again under their name, and the store
        // keeps no writable descriptor of them. Whoever owns the store could still truncate one
        // and raise SIGBUS in the reader, which `Blob::map_unverified` documents.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Map(map))
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
