//! `store blob`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use layerstore::oci::{Algorithm, MediaType};
use layerstore::{Blob, BlobInfo, BlobStore, Digest, Error, Pinned, Role, gc};
use serde::Serialize;

use super::gc::warn_of_dropped;
use super::{Outcome, Place};
use crate::args::BlobCommand;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Output, Report};
use crate::values::ByteRange;

/// How much of a blob is in memory at a time.
const BUFFER: usize = 1024 * 1024;

pub(super) fn run(place: &Place, command: BlobCommand, out: &mut Output) -> Outcome {
    match command {
        BlobCommand::Ls => list(&place.open()?, out),
        BlobCommand::Stat { digest } => stat(&place.open()?, digest, out),
        BlobCommand::Cat { digest, range } => cat(&place.open()?, &digest, range, out),
        BlobCommand::Put { files, algorithm } => put(place, &files, algorithm, out),
    }
}

#[derive(Serialize)]
struct Listed {
    digest: Digest,
    size: u64,
    disk: u64,
    modified: u64,
}

impl Listed {
    fn new(info: &BlobInfo) -> Listed {
        let BlobInfo { digest, size, disk, modified, .. } = *info;
        Listed { digest, size, disk, modified: human::unix(modified) }
    }
}

/// Not sorted and not held in memory: a store has millions of blobs.
fn list(store: &BlobStore, out: &mut Output) -> Outcome {
    let blobs = store.blobs()?;
    if out.is_json() {
        out.array(blobs.map(|info| Ok(Listed::new(&info?))))?;
        return Ok(Exit::Ok);
    }
    let row = |digest: &str, size: &str, age: &str| format!("{digest:<71}  {size:>10}  {age:>6}");
    out.heading(&row("DIGEST", "SIZE", "AGE"))?;
    for info in blobs {
        let info = info?;
        let (size, age) = (human::size(info.size), human::age(info.modified));
        out.line(row(&info.digest.to_string(), &size, &age))?;
        if out.is_closed() {
            break;
        }
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stat {
    digest: Digest,
    size: u64,
    /// What it is to the images that use it; none if no image does.
    role: Option<Role>,
    media_type: Option<MediaType>,
    used_by: Vec<Option<String>>,
}

impl Report for Stat {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.field(0, "digest", self.digest)?;
        out.field(0, "size", format!("{} ({} bytes)", human::size(self.size), self.size))?;
        out.field(0, "role", self.role.map_or("of no image", |role| human::role(Some(role))))?;
        if let Some(media_type) = &self.media_type {
            out.field(0, "media type", media_type)?;
        }
        out.items(0, "used by", self.used_by.iter().map(|name| name.as_deref().unwrap_or("<none>")))
    }
}

fn stat(store: &BlobStore, digest: Digest, out: &mut Output) -> Outcome {
    let size = store.open_blob(&digest)?.len();
    let mut stat = Stat { digest, size, role: None, media_type: None, used_by: Vec::new() };
    let mut exit = Exit::Ok;
    for entry in store.refs()? {
        let nodes = match store.closure(&entry.descriptor) {
            Ok(nodes) => nodes,
            Err(error) => {
                let name = entry.name.as_deref().unwrap_or("<none>");
                out.error(format!("cannot tell whether {name} uses it: {error}"));
                exit = Exit::Partial;
                continue;
            }
        };
        if let Some(node) = nodes.into_iter().find(|node| node.descriptor.digest == digest) {
            stat.role = Some(node.role);
            stat.media_type = Some(node.descriptor.media_type);
            stat.used_by.push(entry.name);
        }
    }
    stat.used_by.sort();
    out.report(&stat)?;
    Ok(exit)
}

fn cat(store: &BlobStore, digest: &Digest, range: Option<ByteRange>, out: &mut Output) -> Outcome {
    let mut blob = store.open_blob(digest)?;
    let len = blob.len();
    let Some(range) = range else {
        let mut hasher = digest.algorithm().hasher();
        copy(&mut blob, u64::MAX, out, |bytes| hasher.update(bytes))?;
        let actual = hasher.finish();
        if actual != *digest && !out.is_closed() {
            let origin = format!("the stored blob {digest}");
            let actual = Box::new(actual);
            return Err(Error::DigestMismatch { origin, expected: *digest, actual }.into());
        }
        return Ok(Exit::Ok);
    };
    let range = range.of(len).ok_or_else(|| {
        Failure::Usage(format!("the range has no byte of the blob, which is {len} bytes long"))
    })?;
    blob.seek(SeekFrom::Start(range.start)).map_err(|source| unreadable(digest, source))?;
    copy(&mut blob, range.end - range.start, out, |_| ())?;
    Ok(Exit::Ok)
}

/// Prints so many bytes, or all to the end, until nobody reads any more.
fn copy(
    blob: &mut Blob,
    count: u64,
    out: &mut Output,
    mut see: impl FnMut(&[u8]),
) -> Result<(), Failure> {
    let digest = *blob.digest();
    let mut reader = blob.take(count);
    let mut buffer = vec![0; BUFFER];
    while !out.is_closed() {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                see(&buffer[..read]);
                out.bytes(&buffer[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&digest, error)),
        }
    }
    out.flush()
}

fn unreadable(digest: &Digest, source: io::Error) -> Failure {
    let source = match source.downcast::<Error>() {
        Ok(own) => return own.into(),
        Err(source) => source,
    };
    Failure::Input { path: format!("the blob {digest}"), source }
}

#[derive(Serialize)]
struct Put {
    digest: Digest,
    size: u64,
}

impl Report for Put {
    fn text(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(self.digest.to_string())
    }
}

fn put(place: &Place, files: &[PathBuf], algorithm: Algorithm, out: &mut Output) -> Outcome {
    // Before the store is made: a wrong path leaves nothing behind.
    let mut sizes = Vec::new();
    for file in files {
        sizes.extend(open(file)?.size);
    }
    let store = place.open_or_init()?;
    let lease = store.lease("store blob put")?;
    let (dropped, outcome) = gc::make_room_for(&store, &lease, &sizes);
    warn_of_dropped(&dropped, out);
    outcome?;
    let mut batch = store.ingest_batch(&lease, algorithm, u64::MAX)?;
    for file in files {
        let Input { reader, origin, .. } = open(file)?;
        batch.put(reader, &origin)?;
    }
    let put = |pinned: Pinned| Put { digest: *pinned.digest(), size: pinned.size() };
    let mut puts: Vec<_> = batch.commit()?.into_iter().map(put).collect();
    match puts.pop() {
        Some(only) if puts.is_empty() => out.report(&only)?,
        last if out.is_json() => out.array(puts.into_iter().chain(last).map(Ok))?,
        last => puts.iter().chain(&last).try_for_each(|put| put.text(out))?,
    }
    Ok(Exit::Ok)
}

/// A file, or the standard input.
struct Input {
    reader: Box<dyn Read>,
    /// What to call it.
    origin: String,
    /// How long it is, where that is known.
    size: Option<u64>,
}

fn open(file: &Path) -> Result<Input, Failure> {
    if file.to_str() == Some("-") {
        let (reader, origin) = (Box::new(io::stdin().lock()), "the standard input".to_owned());
        return Ok(Input { reader, origin, size: None });
    }
    let path = file.display().to_string();
    let opened = File::open(file).and_then(|input| input.metadata().map(|meta| (input, meta)));
    match opened {
        Ok((input, meta)) => {
            let size = meta.is_file().then_some(meta.len());
            Ok(Input { reader: Box::new(input), origin: path, size })
        }
        Err(source) => Err(Failure::Input { path, source }),
    }
}
