//! Blobs that are damaged and cannot be had: `.layerstore/quarantine/ALGORITHM-HEX`.
//!
//! They are out of the way there, so that every reader is told that the blob is missing; and what is
//! good of them is used by the next download. A collection removes them when the blob is there again,
//! or nothing needs it any more.

use std::fs::File;

use super::gate;
use super::layout::Layout;
use super::leases;
use super::suspect;
use crate::error::{Error, IoContext, Result};
use crate::oci::Digest;
use crate::store::LeaseState;
use crate::sys;

/// What became of a blob that was to be put in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there.
    Moved,
    /// The blob has its digest, or has gone: somebody else has seen to it.
    Good,
    /// Somebody is working with it.
    InUse,
}

pub(crate) fn name(digest: &Digest) -> String {
    suspect::name(digest)
}

/// Whose blob has this name there.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    suspect::digest_of(name)
}

/// What is there of a blob.
pub(crate) fn open(layout: &Layout, digest: &Digest) -> Result<Option<File>> {
    match layout.quarantine.open_file(&name(digest)) {
        Err(Error::Damaged { .. }) => Ok(None),
        opened => opened,
    }
}

/// Puts a blob there whose bytes are wrong, or cannot be read. Durable on return.
///
/// Only with the gate shut, and if no live lease has pinned the blob: whoever is about to give its
/// name to good bytes has pinned it. So it is the file that was read that is moved.
pub(crate) fn put(layout: &Layout, digest: &Digest) -> Result<Fate> {
    let Some((file, own)) = layout.open_blob(digest)? else {
        return Ok(Fate::Good);
    };
    if is_good(&file, digest)? {
        layout.suspects.clear(digest)?;
        return Ok(Fate::Good);
    }
    let Some(dir) = layout.algorithm(digest.algorithm())? else {
        return Ok(Fate::Good);
    };
    // Where locks do not hold between machines, nothing is taken away.
    if layout.filesystem()?.network.is_some() {
        return Ok(Fate::InUse);
    }
    let gate = gate::shut(&layout.locks)?;
    let pins = leases::list(layout)?;
    if pins.iter().any(|it| it.state == LeaseState::Live && it.blobs.contains(digest)) {
        return Ok(Fate::InUse);
    }
    if layout.blob_meta(digest)?.is_none_or(|meta| meta.id != own.id) {
        return Ok(Fate::Good);
    }
    dir.rename(&digest.hex(), &layout.quarantine, &name(digest))?;
    drop(gate);
    // There first: of two names one is left by a power cut, or both.
    layout.quarantine.sync()?;
    dir.sync()?;
    layout.suspects.clear(digest)?;
    Ok(Fate::Moved)
}

/// Whether a file has the bytes of a digest. What the disk does not give back is not.
pub(crate) fn is_good(file: &File, digest: &Digest) -> Result<bool> {
    let mut hasher = digest.algorithm().hasher();
    let (mut buffer, mut at) = (vec![0; 1024 * 1024], 0);
    loop {
        match sys::read_some_at(file, &mut buffer, at) {
            Ok(0) => return Ok(hasher.finish() == *digest),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                at += read as u64;
            }
            Err(error) if sys::is_bad_disk(&error) => return Ok(false),
            read => drop(read.context("read", digest.to_string())?),
        }
    }
}
