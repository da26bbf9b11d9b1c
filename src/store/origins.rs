//! Where blobs came from: `.layerstore/origins/NAME`, a file for each repository.
//!
//! ```text
//! repository REGISTRY/REPOSITORY CRC
//! blob DIGEST CRC
//! ```
//!
//! Lines are only appended, a call of `write` for each pull, and none where a pull brings nothing new.
//! Nothing here is synced, and a line that is not as it was written says nothing: what is lost with
//! it is that a blob can be repaired, until the next pull of its image writes it again. The name is
//! a hash of the repository's, so that what comes from the network never becomes one.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, SystemTime};

use super::access;
use super::layout::Layout;
use super::line;
use crate::error::{IoContext, Result};
use crate::oci::{Algorithm, Digest, Reference};
use crate::sys::{Aside, Dir, Lock, LockMode, Meta};

/// The folder, below `.layerstore`.
pub(crate) const FOLDER: &str = "origins";
/// Of a longer file, in bytes, a pull does not look for what it has: some 50,000 blobs. What was just
/// fetched is appended unseen, and a collection takes out what is there twice.
const MAX_READ: u64 = 4 * 1024 * 1024;
/// The longest line that may be good, in bytes: a name of 512 bytes twice over.
const MAX_LINE: u64 = 1024;
/// How many origins of a blob are told, those first that were written to last.
const MAX_ORIGINS: usize = 16;
/// How often the lock of a file is tried, which a collection has while it writes the file anew.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(2);
/// A file up to this length is written anew for one blob that has gone; a longer one for a quarter.
const SMALL: u64 = 64 * 1024;

/// A good line.
#[derive(Debug, PartialEq)]
pub(super) enum Record {
    Repository(String),
    Blob(Digest),
}

impl Record {
    fn to_line(&self) -> String {
        match self {
            Record::Repository(name) => line::seal(&format!("repository {name}")),
            Record::Blob(digest) => line::seal(&format!("blob {digest}")),
        }
    }

    pub(super) fn parse(line: &[u8]) -> Option<Record> {
        match line::open(line)?.split_once(' ')? {
            ("repository", name) => Some(Record::Repository(name.to_owned())),
            ("blob", digest) => digest.parse().ok().map(Record::Blob),
            _ => None,
        }
    }
}

/// Writes down that blobs are to be had from the repository of `image`; of each is said whether it
/// was just fetched. That this fails takes nothing from a pull.
pub(crate) fn record(layout: &Layout, image: &Reference, blobs: &[(Digest, bool)]) {
    if let Err(error) = try_record(layout, image, blobs) {
        tracing::debug!(%image, %error, "where the blobs came from is not kept");
    }
}

fn try_record(layout: &Layout, image: &Reference, blobs: &[(Digest, bool)]) -> Result<()> {
    let repository = repository_of(image);
    let name = stem(&repository);
    let dir = layout.private.make_dir(FOLDER)?;
    access::check(&dir, &layout.root)?;
    let mut missing: HashSet<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    let mut is_named = false;
    if let Some((file, meta)) = dir.open_file_meta(&name)? {
        is_named = meta.len > MAX_READ;
        match is_named {
            true => {
                let fetched = blobs.iter().filter(|(_, fetched)| *fetched);
                missing = fetched.map(|(digest, _)| *digest).collect();
            }
            false => each(&file, |record| match record {
                Record::Repository(found) => is_named |= found == repository,
                Record::Blob(digest) => drop(missing.remove(&digest)),
            })
            .context("read", dir.path_of(&name))?,
        }
    }
    if missing.is_empty() && is_named {
        return Ok(());
    }
    let text = addition((!is_named).then_some(repository), missing);
    for _ in 0..TRIES {
        let file = dir.open_append(&name)?;
        let mut end = file.try_clone().context("write to", dir.path_of(&name))?;
        // Shared: those who append are in nobody's way but that of who writes it anew.
        match Lock::try_on(file, LockMode::Shared, &dir.path_of(&name))? {
            Some(lock) if lock.is_current(&dir, &name)? => {
                return end.write_all(text.as_bytes()).context("write to", dir.path_of(&name));
            }
            Some(_) | None => std::thread::sleep(PAUSE),
        }
    }
    tracing::debug!(%image, "where the blobs came from is not kept: a collection has the file");
    Ok(())
}

/// What is appended for these blobs, and for the repository where the file does not say it yet.
pub(super) fn addition(
    repository: Option<String>,
    blobs: impl IntoIterator<Item = Digest>,
) -> String {
    // It begins with an empty line, in case somebody before died in the middle of one.
    let records = repository.map(Record::Repository).into_iter();
    let records = records.chain(blobs.into_iter().map(Record::Blob));
    std::iter::once("\n".to_owned()).chain(records.map(|it| it.to_line())).collect()
}

/// The repositories that have these blobs, each as a name with the blob's digest.
pub(crate) fn of(
    layout: &Layout,
    wanted: &HashSet<Digest>,
) -> Result<HashMap<Digest, Vec<Reference>>> {
    let mut found: HashMap<Digest, Vec<Reference>> = HashMap::new();
    let Some(dir) = layout.private.open_dir(FOLDER)? else {
        return Ok(found);
    };
    access::check(&dir, &layout.root)?;
    let mut files: Vec<(SystemTime, String)> = Vec::new();
    for name in dir.names()? {
        let name = name?;
        if let Some(meta) = dir.meta(&name)?
            && is_name(&name)
        {
            files.push((meta.modified, name));
        }
    }
    files.sort_by(|one, other| other.cmp(one));
    for (_, name) in files {
        let Some(file) = dir.open_file(&name)? else {
            continue;
        };
        let (mut repository, mut blobs) = (None, HashSet::new());
        each(&file, |record| match record {
            Record::Repository(text) => repository = named(&name, text).or(repository.take()),
            Record::Blob(digest) if wanted.contains(&digest) => drop(blobs.insert(digest)),
            Record::Blob(_) => {}
        })
        .context("read", dir.path_of(&name))?;
        let Some(repository) = repository else {
            continue;
        };
        for digest in blobs {
            let origins = found.entry(digest).or_default();
            if origins.len() < MAX_ORIGINS
                && let Ok(origin) = format!("{repository}@{digest}").parse()
            {
                origins.push(origin);
            }
        }
    }
    Ok(found)
}

/// Takes out what is not `kept`, and what is there twice. For the collector.
pub(crate) fn tidy(
    layout: &Layout,
    mut kept: impl FnMut(&Digest) -> Result<bool>,
    mut is_old: impl FnMut(SystemTime) -> bool,
) -> Result<()> {
    let Some(dir) = layout.private.open_dir(FOLDER)? else {
        return Ok(());
    };
    for name in dir.names()? {
        let name = name?;
        match dir.meta(&name)? {
            Some(meta) if meta.is_file && is_name(&name) => tidy_file(&dir, &name, &mut kept)?,
            Some(meta) if Aside::is_leftover(&name) && is_old(meta.modified) => {
                dir.unlink(&name)?;
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn tidy_file(dir: &Dir, name: &str, kept: &mut impl FnMut(&Digest) -> Result<bool>) -> Result<()> {
    let Some(file) = dir.open_writable(name)? else {
        return Ok(());
    };
    let reader = file.try_clone().context("read", dir.path_of(name))?;
    let Some(lock) = Lock::try_on(file, LockMode::Exclusive, &dir.path_of(name))? else {
        return Ok(());
    };
    if !lock.is_current(dir, name)? {
        return Ok(());
    }
    let (mut repository, mut all, mut lines) = (None, 0, 0_u64);
    let mut left: Vec<Digest> = Vec::new();
    let mut outcome = Ok(());
    let mut seen = HashSet::new();
    each(&reader, |record| match record {
        Record::Repository(text) => repository = named(name, text).or(repository.take()),
        Record::Blob(digest) => {
            lines += 1;
            match seen.insert(digest).then(|| kept(&digest)) {
                Some(Ok(true)) => left.push(digest),
                Some(Ok(false)) | None => all += 1,
                Some(Err(error)) => outcome = Err(error),
            }
        }
    })
    .context("read", dir.path_of(name))?;
    outcome?;
    let Some(repository) = repository.filter(|_| !left.is_empty()) else {
        return dir.unlink(name).map(drop);
    };
    let len = Meta::of(&reader).context("look at", dir.path_of(name))?.len;
    if all == 0 || len > SMALL && all * 4 < lines {
        return Ok(());
    }
    let mut text = Record::Repository(repository).to_line();
    text.extend(left.into_iter().map(|digest| Record::Blob(digest).to_line()));
    let aside = Aside::new(dir)?;
    aside.file().write_all(text.as_bytes()).context("write to", dir.path_of(name))?;
    aside.set_mode(dir.file_mode())?;
    aside.name_over(dir, name)?;
    drop(lock);
    Ok(())
}

/// Reads the good lines of a file, whatever else there is in it.
pub(super) fn each(file: impl Read, mut each: impl FnMut(Record)) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let (mut line, mut is_rest) = (Vec::new(), false);
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        // One that is too long comes in pieces, and one that was cut short without its line feed.
        let whole = line.strip_suffix(b"\n");
        if let Some(record) = whole.filter(|_| !is_rest).and_then(Record::parse) {
            each(record);
        }
        is_rest = whole.is_none();
    }
}

/// A repository, if that is what the text is, and this is the file of it.
pub(super) fn named(name: &str, text: String) -> Option<String> {
    let is_own = |it: &Reference| repository_of(it) == text && stem(&text) == name;
    Reference::of_repository(&text).ok().filter(is_own).map(|_| text)
}

/// The text by which a repository is known.
pub(super) fn repository_of(image: &Reference) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

pub(super) fn stem(repository: &str) -> String {
    let mut hex = Algorithm::Sha256.digest(repository.as_bytes()).hex();
    hex.truncate(32);
    hex
}

/// Whether a name is one of these.
pub(crate) fn is_name(name: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    name.len() == 32 && name.bytes().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BlobStore;

    fn digest(n: u32) -> Digest {
        Algorithm::Sha256.digest(&n.to_le_bytes())
    }

    fn store() -> (tempfile::TempDir, BlobStore) {
        let temp = tempfile::tempdir().unwrap();
        let store = BlobStore::init(temp.path()).unwrap();
        (temp, store)
    }

    fn image(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn origins(store: &BlobStore, n: u32) -> Vec<String> {
        let wanted = HashSet::from([digest(n)]);
        let mut found = of(store.layout(), &wanted).unwrap();
        let found = found.remove(&digest(n)).unwrap_or_default();
        let end = format!("@{}", digest(n));
        found.iter().map(|it| it.to_string().strip_suffix(&end).unwrap().to_owned()).collect()
    }

    fn bytes(temp: &tempfile::TempDir, repository: &str) -> Vec<u8> {
        std::fs::read(path(temp, repository)).unwrap()
    }

    fn path(temp: &tempfile::TempDir, repository: &str) -> std::path::PathBuf {
        temp.path().join(".layerstore/origins").join(stem(repository))
    }

    #[test]
    fn several_are_told_and_each_is_written_once() {
        let (temp, store) = store();
        let layout = store.layout();
        record(layout, &image("alpine:1"), &[(digest(1), true), (digest(2), true)]);
        record(layout, &image("r.example/a:1"), &[(digest(1), false)]);
        assert_eq!(origins(&store, 2), ["docker.io/library/alpine"]);
        let mut both = origins(&store, 1);
        both.sort();
        assert_eq!(both, ["docker.io/library/alpine", "r.example/a"]);
        assert!(origins(&store, 3).is_empty());
        let before = bytes(&temp, "docker.io/library/alpine");
        record(layout, &image("alpine:2"), &[(digest(2), false), (digest(1), true)]);
        assert!(bytes(&temp, "docker.io/library/alpine") == before, "nothing is new");
        record(layout, &image("alpine:2"), &[(digest(2), false), (digest(3), true)]);
        let after = bytes(&temp, "docker.io/library/alpine");
        assert!(after.starts_with(&before) && after.len() < before.len() + 100);
        assert!(!String::from_utf8(after).unwrap().contains(":2 "), "never a tag");
    }

    /// Whatever bytes are lost or changed, what is left says nothing that was not written.
    #[test]
    fn a_crash_at_any_byte_loses_no_more_than_lines_and_they_come_back() {
        let (temp, store) = store();
        let layout = store.layout();
        let (one, two) = ([(digest(1), true)], [(digest(1), false), (digest(2), true)]);
        record(layout, &image("a:1"), &one);
        let short = bytes(&temp, "docker.io/library/a").len();
        record(layout, &image("a:1"), &two);
        let whole = bytes(&temp, "docker.io/library/a");
        for cut in 0..whole.len() {
            for tail in [Vec::new(), vec![0; whole.len() - cut]] {
                std::fs::write(path(&temp, "docker.io/library/a"), [&whole[..cut], &tail].concat())
                    .unwrap();
                assert_eq!(origins(&store, 1).len(), usize::from(cut >= short), "{cut}");
                assert!(origins(&store, 2).is_empty());
                record(layout, &image("a:1"), &two);
                assert_eq!(origins(&store, 1), ["docker.io/library/a"], "{cut}");
                assert_eq!(origins(&store, 2), ["docker.io/library/a"], "{cut}");
            }
        }
    }

    #[test]
    fn a_file_says_nothing_of_another_repository() {
        let (temp, store) = store();
        record(store.layout(), &image("a:1"), &[(digest(1), true)]);
        let from = path(&temp, "docker.io/library/a");
        std::fs::copy(&from, path(&temp, "docker.io/library/b")).unwrap();
        for text in ["docker.io/library/c:latest", "c", "docker.io/library/../c", "\u{1b}[31m"] {
            let lines =
                Record::Repository(text.to_owned()).to_line() + &Record::Blob(digest(1)).to_line();
            std::fs::write(path(&temp, text), lines).unwrap();
        }
        std::fs::write(path(&temp, "big"), vec![b'x'; 3 << 20]).unwrap();
        // What stands at the end of a line that is too long was not written as a line.
        let long = Record::Repository("r.example/d".to_owned()).to_line()
            + &"x".repeat(MAX_LINE as usize)
            + &Record::Blob(digest(1)).to_line();
        std::fs::write(path(&temp, "r.example/d"), long).unwrap();
        assert_eq!(origins(&store, 1), ["docker.io/library/a"]);
    }

    #[test]
    fn what_is_told_of_a_blob_is_bounded() {
        let (_temp, store) = store();
        for n in 0..40 {
            record(store.layout(), &image(&format!("r.example/a{n}:1")), &[(digest(1), true)]);
        }
        assert_eq!(origins(&store, 1).len(), MAX_ORIGINS);
    }

    #[test]
    fn blobs_that_have_gone_are_taken_out() {
        let (temp, store) = store();
        let layout = store.layout();
        record(layout, &image("a:1"), &[(digest(1), true), (digest(2), true)]);
        record(layout, &image("b:1"), &[(digest(2), true)]);
        tidy(layout, |it| Ok(*it == digest(1)), |_| true).unwrap();
        assert_eq!(origins(&store, 1), ["docker.io/library/a"]);
        assert!(origins(&store, 2).is_empty());
        assert!(!path(&temp, "docker.io/library/b").exists(), "nothing was left in it");
        let before = bytes(&temp, "docker.io/library/a");
        tidy(layout, |_| Ok(true), |_| true).unwrap();
        assert_eq!(bytes(&temp, "docker.io/library/a"), before);
    }

    #[test]
    fn a_long_file_is_appended_to_unseen() {
        let (temp, store) = store();
        let layout = store.layout();
        let many: Vec<_> = (0..60_000).map(|n| (digest(n), true)).collect();
        record(layout, &image("a:1"), &many);
        let before = bytes(&temp, "docker.io/library/a").len() as u64;
        assert!(before > MAX_READ);
        record(layout, &image("a:1"), &[(digest(70_000), true), (digest(5), false)]);
        let after = bytes(&temp, "docker.io/library/a").len() as u64;
        assert!(after - before < 100, "what was there is not written again");
        assert_eq!(origins(&store, 70_000).len(), 1);
        record(layout, &image("a:1"), &[(digest(5), true)]);
        assert_eq!(origins(&store, 5).len(), 1, "twice in the file, and told once");
        tidy(layout, |it| Ok(*it == digest(5) || *it == digest(6)), |_| true).unwrap();
        assert!(bytes(&temp, "docker.io/library/a").len() < 500);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, text in "(repository|blob) .{0,80}") {
            let _ = Record::parse(&bytes);
            if let Some(Record::Repository(text)) = Record::parse(line::seal(&text).trim_end().as_bytes()) {
                let _ = named(&stem(&text), text);
            }
        }
    }
}
