//! Who may use a store: its owner alone, or with `shared` all who may write to its root.
//!
//! Whoever may write to a store can put any bytes into it and take any out. So a store that others
//! may write to is refused unless the caller says that they are trusted: all of them are one trust
//! domain then, and whoever knows a digest can read its blob.

use std::path::Path;

use crate::error::{Error, IoContext, Result};
use crate::sys::{self, Dir, Share};

/// The group's bit in the mode of a directory that gives its group to what is made in it.
const SETGID: u32 = 0o2000;
/// In a directory with this bit nobody can remove what another user has made.
const STICKY: u32 = 0o1000;

/// Whose a store may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// This user's alone.
    Private,
    /// Also a group's, or everybody's, as the mode of the root says.
    Shared,
}

/// Opens the root of a store that is going to be made, and makes it if there is none: for this user
/// alone, or for the group that it gets.
pub(crate) fn make_root(path: &Path, sharing: Sharing) -> Result<Dir> {
    let is_new =
        matches!(Dir::open_root(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    let root = Dir::create_root(path)?;
    if is_new && sharing == Sharing::Shared {
        root.share_with_group().context("share with its group", path)?;
    }
    check_root(root, sharing)
}

/// The root, with what is made below it shared as it is itself, if that is what the caller wants.
pub(crate) fn check_root(root: Dir, sharing: Sharing) -> Result<Dir> {
    let meta = root.meta_of_self()?;
    let share = Share::of(meta.mode);
    if sharing == Sharing::Private || share.is_none() {
        is_own(&root)?;
        return Ok(root);
    }
    let refuse = |reason: &str| {
        Err(Error::Unsafe { path: root.path().to_path_buf(), reason: reason.to_owned() })
    };
    if meta.mode & STICKY != 0 {
        return refuse(
            "its users could not remove what another has made; take its sticky bit away with \
             `chmod -t`",
        );
    }
    if meta.mode & 0o020 != 0 && meta.mode & SETGID == 0 {
        return refuse(
            "what is made in it would not be its group's; set that right with `chmod g+s`",
        );
    }
    Ok(root.shared(share))
}

/// Refuses a directory of the store that more may write to than to the root.
pub(crate) fn check(dir: &Dir, root: &Dir) -> Result<()> {
    if root.share().is_none() {
        return is_own(dir);
    }
    let (meta, of_root) = (dir.meta_of_self()?, root.meta_of_self()?);
    let share = Share::of(meta.mode);
    let is_same_group = meta.mode & 0o020 == 0 || meta.group == of_root.group;
    if share.is_within(root.share()) && is_same_group {
        return Ok(());
    }
    let reason = format!(
        "others may write to it than to the store (mode {:03o}, group {}); give it the mode and \
         the group of {}",
        meta.mode,
        meta.group,
        root.path().display()
    );
    Err(Error::Unsafe { path: dir.path().to_path_buf(), reason })
}

fn is_own(dir: &Dir) -> Result<()> {
    let (meta, user) = (dir.meta_of_self()?, sys::current_user());
    let unsafe_because = |reason| Err(Error::Unsafe { path: dir.path().to_path_buf(), reason });
    if meta.owner != user {
        return unsafe_because(format!(
            "it belongs to user {}, and this program runs as user {user}; use --root for a store \
             of your own, run as its owner, or use --shared if it is meant for several users",
            meta.owner
        ));
    }
    if meta.mode & 0o022 != 0 {
        return unsafe_because(format!(
            "others may write to it (mode {:03o}); take that away with `chmod go-w`, or use \
             --shared if you trust them",
            meta.mode
        ));
    }
    Ok(())
}
