//! Leases that outlive the process that makes them.

use std::sync::Arc;
use std::time::Duration;

use super::BlobStore;
use super::layout::Layout;
use super::lease::{Lease, unix_now};
use super::lease_record::Record;
use super::{adopt, closure, gate};
use crate::error::{Error, Result};
use crate::oci::Digest;

impl BlobStore {
    /// Pins blobs, and all that they are made of, beyond the end of this process: for `ttl`, or
    /// until [`remove_lease`](BlobStore::remove_lease). The lease's id; it is durable. What another
    /// program wrote of it is replaced by a copy first, which takes as much space for a while.
    ///
    /// # Errors
    ///
    /// [`Error::BlobNotFound`] if one is not there, [`Error::Damaged`] if another program wrote one and
    /// its bytes are wrong, [`Error::NoSpace`], [`Error::NotDurable`], [`Error::Io`].
    pub fn lasting_lease(
        &self,
        holder: &str,
        roots: &[Digest],
        ttl: Option<Duration>,
    ) -> Result<String> {
        let layout = self.layout();
        let lease = Lease::born_locked(layout, holder, false)?;
        match keep_existing(layout, &lease, holder, roots, ttl) {
            Ok(()) => Ok(lease.id().to_owned()),
            Err(error) => {
                layout.leases.unlink(lease.id())?;
                Err(error)
            }
        }
    }
}

fn keep_existing(
    layout: &Arc<Layout>,
    lease: &Lease,
    holder: &str,
    roots: &[Digest],
    ttl: Option<Duration>,
) -> Result<()> {
    // Over as soon as this process is, until its id can be given out: nobody could remove it by that.
    let mut records = vec![Record::Until(Some(0))];
    records.extend(roots.iter().map(|root| Record::Tree(*root)));
    let gate = gate::enter(&layout.locks)?;
    lease.append(&records)?;
    for root in roots {
        if !layout.blob_meta(root)?.is_some_and(|meta| meta.is_file) {
            return Err(Error::BlobNotFound { digest: *root });
        }
    }
    drop(gate);
    // What is there stays from now on; what is not is not kept by anybody's word.
    let copying = Lease::new(layout, holder)?;
    let mut blobs = Vec::new();
    for root in roots {
        blobs.extend(closure::whole(layout, root)?);
    }
    adopt::settle_found(layout, &copying, &blobs)?;
    // To copy may take long, and the time is for who gets the lease.
    let until = ttl.map(|ttl| unix_now().saturating_add(ttl.as_secs()));
    lease.append(&[Record::Until(until)])?;
    lease.settle()
}
