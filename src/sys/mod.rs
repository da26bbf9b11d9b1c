//! What the operating system does for the store, and nothing about images.
//!
//! The only module with `unsafe`, platform code, locks, syncs and renames. Files are reached
//! through the descriptor of their directory and by a single name, never through a symbolic link,
//! so that nobody who swaps a part of a path can lead the store outside its root.

mod aside;
#[cfg(feature = "fetch")]
mod config;
mod dir;
mod filesystem;
mod lock;
mod map;
mod open;
#[cfg(planted_faults)]
mod planted;
mod sha256;
mod sync;
#[cfg(feature = "fetch")]
mod user_file;
mod xxh3;

pub(crate) use aside::Aside;
#[cfg(feature = "fetch")]
pub(crate) use config::{list_config, read_config};
pub(crate) use dir::{Dir, Meta, Share};
pub(crate) use filesystem::{Filesystem, current_user};
pub(crate) use lock::{Lock, LockMode, SAY_AFTER};
pub(crate) use map::Map;
#[cfg(planted_faults)]
pub(crate) use planted::omits_look;
pub(crate) use sha256::Sha256;
pub(crate) use sync::{
    append, empty, is_bad_disk, is_link, preallocate, read_at, read_pieces_at, read_some_at,
    set_mode, set_time, start_writeback, sync_data, sync_together, write_at, write_pieces_at,
};
#[cfg(feature = "fetch")]
pub(crate) use user_file::{change_user_file, read_user_file};
pub(crate) use xxh3::xxh3;

/// 128 random bits in hexadecimal, for names that nobody else may have chosen.
pub(crate) fn random_name() -> std::io::Result<String> {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Lets others run before this thread, for good: it cannot take that back. Linux alone has priorities of
/// threads; elsewhere it goes on as it was.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "a thread does not give way");
    }
}
