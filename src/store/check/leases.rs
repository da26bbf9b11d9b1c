use super::bad::Bad;
use super::images::Walk;
use super::structure::finding;
use super::{Finding, Findings};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::store::layout::Layout;
use crate::store::leases::{self, LeaseState};
use crate::store::reading;

/// Follows what lasting leases keep: what a process leases may not be there yet, and it knows that.
///
/// A lease that is removed meanwhile may lose its blobs to a collection, so a verdict of damage counts
/// only if it is there still.
pub(super) fn follow(
    layout: &Layout,
    bad: &Bad,
    findings: &mut Findings,
    notes: &mut Findings,
) -> Result<()> {
    for id in layout.leases.names()? {
        // What is wrong with a lease itself is told where they are looked at.
        let lease = match id.map(|id| leases::is_id(&id).then(|| leases::get(layout, id)))? {
            Some(Ok(Some(lease))) if lease.state == LeaseState::Lasting => lease,
            _ => continue,
        };
        let (mut damage, mut remarks) = (Vec::new(), Vec::new());
        for root in &lease.trees {
            match reading::descriptor_of(layout, root) {
                Ok(Some(root)) => {
                    let walk = Walk::all(layout, bad, &root);
                    damage.extend(walk.damage);
                    remarks.extend(walk.notes);
                }
                // A blob that is no document has nothing below it.
                Ok(None) => damage.extend(alone(layout, bad, root)),
                Err(error) => damage.push(finding(*root, &error)),
            }
        }
        if damage.is_empty() && remarks.is_empty() || layout.leases.meta(&lease.id)?.is_none() {
            continue;
        }
        let told = |found: Finding| {
            let message = format!("{}; the lease {} keeps it", found.message, lease.id);
            Finding { message, ..found }
        };
        damage.into_iter().for_each(|found| findings.add_blob(told(found), &[]));
        remarks.into_iter().for_each(|found| notes.add_blob(told(found), &[]));
    }
    Ok(())
}

fn alone(layout: &Layout, bad: &Bad, digest: &Digest) -> Option<Finding> {
    match layout.blob_meta(digest) {
        Ok(Some(_)) => bad.finding(layout, digest),
        Ok(None) => Some(finding(*digest, &Error::BlobNotFound { digest: *digest })),
        Err(error) => Some(finding(*digest, &error)),
    }
}
