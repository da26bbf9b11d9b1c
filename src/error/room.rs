//! Why something has no room.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// What an image needs, and what there is. All in bytes on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// The store.
    pub path: PathBuf,
    /// What the image needs beside what is there, or being brought by others.
    pub needed: u64,
    /// What the file system has free for this user.
    pub free: u64,
    /// What other pulls, and puts, have still to write.
    pub reserved: u64,
    /// The store's limits, if it has any.
    pub cap: Option<Cap>,
}

/// The limits of a store, and what fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cap {
    /// The most that it may take.
    pub max_used: Option<u64>,
    /// What has to stay free on its file system.
    pub min_free: Option<u64>,
    /// What it takes.
    pub used: u64,
    /// What of that is not dropped.
    pub kept: Kept,
}

/// What is not dropped to make room, and why: each byte is counted where it comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Kept {
    /// The names that are pinned.
    pub pinned_names: Vec<String>,
    /// The bytes of their images.
    pub pinned: u64,
    /// Of images that a lease keeps.
    pub leased: u64,
    /// Of images that have no name, which nobody could be told of.
    pub unnamed: u64,
    /// Of images that were used within the time for which they are kept.
    pub recent: u64,
    /// Of blobs that no image has, and that are younger than the grace time.
    pub young: u64,
}

impl Room {
    pub(crate) fn new(path: PathBuf, needed: u64, free: u64, reserved: u64) -> Room {
        Room { path, needed, free, reserved, cap: None }
    }
}

impl Cap {
    pub(crate) fn new(max_used: Option<u64>, min_free: Option<u64>, used: u64, kept: Kept) -> Cap {
        Cap { max_used, min_free, used, kept }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Room { path, needed, free, reserved, cap } = self;
        write!(f, "there is no room for {needed} bytes in {}: {free} are free", path.display())?;
        if let Some(Cap { min_free: Some(min), .. }) = cap {
            write!(f, " and {min} have to stay free (min-free-space)")?;
        }
        if let Some(Cap { max_used: Some(max), used, .. }) = cap {
            write!(f, ", the store takes {used} and may take {max} (max-used-space)")?;
        }
        write!(f, ", and {reserved} are reserved for others; ")?;
        match cap {
            None => {
                let missing = needed.saturating_add(*reserved).saturating_sub(*free);
                write!(f, "{missing} are missing, and `store gc` frees what no image uses")
            }
            Some(cap) => write!(
                f,
                "nothing was dropped, for that would not be enough: {}; unpin or remove images, or \
                 change the limit with `store config`",
                cap.kept
            ),
        }
    }
}

impl Kept {
    /// All of them.
    pub fn bytes(&self) -> u64 {
        let reasons = [self.pinned, self.leased, self.unnamed, self.recent, self.young];
        reasons.into_iter().fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A message is not a list of all names.
        const FEW: usize = 5;
        let reasons = [
            ("pins", self.pinned),
            ("leases", self.leased),
            ("entries without a name", self.unnamed),
            ("use within the keep-duration", self.recent),
            ("the grace time of young blobs", self.young),
        ];
        let mut some = reasons.iter().filter(|(_, bytes)| *bytes > 0).peekable();
        if some.peek().is_none() {
            return f.write_str("no image is kept by anything");
        }
        for (n, (what, bytes)) in some.enumerate() {
            write!(f, "{}{what} keep{} {bytes} bytes", if n == 0 { "" } else { ", " }, verb(what))?;
            if *what == "pins" {
                let names = &self.pinned_names;
                let more = if names.len() > FEW { ", …" } else { "" };
                write!(f, " ({}{more})", names[..names.len().min(FEW)].join(", "))?;
            }
        }
        Ok(())
    }
}

fn verb(subject: &str) -> &'static str {
    if subject.starts_with("use") || subject.starts_with("the") { "s" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_all_numbers() {
        let mut room = Room::new("/srv/x".into(), 100, 40, 7);
        assert_eq!(
            room.to_string(),
            "there is no room for 100 bytes in /srv/x: 40 are free, and 7 are reserved for other \
             pulls; 67 are missing, and `store gc` frees what no image uses"
        );
        let pinned_names = vec!["a:1".to_owned(), "b:1".to_owned()];
        let kept = Kept { pinned_names, pinned: 11, recent: 12, ..Kept::default() };
        room.cap = Some(Cap::new(Some(90), Some(20), 80, kept));
        let text = room.to_string();
        for part in [
            "40 are free and 20 have to stay free (min-free-space), the store takes 80 and may take 90",
            "pins keep 11 bytes (a:1, b:1), use within the keep-duration keeps 12 bytes; unpin",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
