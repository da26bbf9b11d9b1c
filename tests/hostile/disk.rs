//! What lies in a store, and what may have come to it by a pull that failed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::sha256;

/// The most that parts may have together: more is promised by no case that comes to write a part.
const MAX_PARTS: u64 = 64 * 1024 * 1024;

/// By path below the root: the mode, the length and the digest of each file, folders without.
pub(crate) type Listing = BTreeMap<String, (u32, u64, String)>;

pub(crate) fn list(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the store") {
            let path = entry.expect("an entry").path();
            let found = fs::symlink_metadata(&path).expect("nobody else is here");
            let name = path.strip_prefix(root).expect("it is below").display().to_string();
            let (length, digest) = match found.is_dir() {
                true => (0, String::new()),
                false => (found.len(), sha256(&fs::read(&path).expect("a file of the store"))),
            };
            listing.insert(name, (found.mode(), length, digest));
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    listing
}

/// What processes agree on about a host: who asks it, and until when nobody may. It is no image's.
const HOSTS: &str = ".layerstore/hosts";
/// The most that is kept of one host, in bytes.
const MAX_HOST: u64 = 256;

/// The hashes of a blob's groups, which come with a whole blob that is large.
const OUTBOARD: &str = ".layerstore/outboard";

/// When an image was used last: empty files.
const USED: &str = ".layerstore/used";

/// The copy of `index.json`, which a collection makes where there was none.
const COPY: &str = ".layerstore/refs";

/// What is different and may not be: nothing may have gone or changed, and what is new is a part,
/// a whole blob that has the digest it is named by, the hashes of its groups, or a note about a host
/// or about use.
pub(crate) fn harm(before: &Listing, after: &Listing) -> Vec<String> {
    let mut harm = Vec::new();
    for (name, entry) in before {
        if after.get(name) != Some(entry) {
            harm.push(format!("{name} was {entry:?} and is {:?}", after.get(name)));
        }
    }
    let mut parts = 0;
    for (name, entry @ (mode, length, digest)) in after {
        if before.contains_key(name) {
            continue;
        }
        let part = name.starts_with(".layerstore/parts/sha256-");
        parts += if part { *length } else { 0 };
        let hex = digest.trim_start_matches("sha256:");
        let blob = *name == format!("blobs/sha256/{hex}") && mode & 0o7777 == 0o1444;
        let host = name.starts_with(HOSTS) && *length <= MAX_HOST;
        // A folder, or the hashes of a blob that is there.
        let outboard = name
            .strip_prefix(OUTBOARD)
            .is_some_and(|rest| digest.is_empty() || after.contains_key(&format!("blobs{rest}")));
        let used = name.starts_with(USED) && *length == 0;
        if !part && !blob && !host && !outboard && !used {
            harm.push(format!("{name} is new: {entry:?}"));
        }
    }
    if parts > MAX_PARTS {
        harm.push(format!("there are {parts} bytes of parts"));
    }
    harm
}

/// A listing without what a collection leaves: parts, what is known of hosts, and folders of hashes.
pub(crate) fn collected(listing: &Listing) -> Listing {
    let folders = [OUTBOARD.to_owned(), format!("{OUTBOARD}/sha256")];
    let stays = |name: &str| {
        name.starts_with(".layerstore/parts/")
            || name.starts_with(HOSTS)
            || name.starts_with(USED)
            || name == COPY
            || folders.iter().any(|folder| folder == name)
    };
    listing.iter().filter(|(name, _)| !stays(name)).map(|(n, e)| (n.clone(), e.clone())).collect()
}

/// Every byte of every file, as text to look for secrets in.
pub(crate) fn text(root: &Path) -> String {
    let mut all = String::new();
    let listing = list(root);
    for name in listing.keys() {
        let path = root.join(name);
        all.push_str(name);
        if path.is_file() {
            let bytes = fs::read(path).expect("a file of the store");
            all.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    all
}
