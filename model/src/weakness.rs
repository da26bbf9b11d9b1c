//! The protocol with one rule left out. Each has to be refuted.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    LockLeaseAfterNaming,
    LookBeforeTheGate,
    NoGate,
    NameBeforeSync,
    NoSyncOfOthersNames,
    RefBeforeNames,
    NoIndexLock,
    NoSyncOfTheRoot,
    UnlinkUnderCollection,
    TagWithoutPin,
    TagFindsBeforeTheGate,
    RootWithoutTree,
    LastingUnsynced,
    LastingBeforeNames,
    SeveralCollectors,
    RefsBeforeReaping,
    RefsUnsynced,
    SyncBeforeRead,
    NoPinsUnderTheGate,
    EndedInBetweenUnread,
    LateRootUnfollowed,
    PartLockNotLookedAt,
    PartLockRemovedLate,
    PartTakenWithoutLock,
    PartNotHashed,
}

use Weakness::*;

/// Which actors a weakness shows with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    Pulls,
    Tag,
    Lasting,
    Put,
    Parts,
}

impl Weakness {
    pub const ALL: [Weakness; 25] = [
        LockLeaseAfterNaming,
        LookBeforeTheGate,
        NoGate,
        NameBeforeSync,
        NoSyncOfOthersNames,
        RefBeforeNames,
        NoIndexLock,
        NoSyncOfTheRoot,
        UnlinkUnderCollection,
        TagWithoutPin,
        TagFindsBeforeTheGate,
        RootWithoutTree,
        LastingUnsynced,
        LastingBeforeNames,
        SeveralCollectors,
        RefsBeforeReaping,
        RefsUnsynced,
        SyncBeforeRead,
        NoPinsUnderTheGate,
        EndedInBetweenUnread,
        LateRootUnfollowed,
        PartLockNotLookedAt,
        PartLockRemovedLate,
        PartTakenWithoutLock,
        PartNotHashed,
    ];

    /// What is done differently.
    pub fn describe(self) -> &'static str {
        match self {
            LockLeaseAfterNaming => "W1 names the lease, and locks it then",
            LookBeforeTheGate => "W2 looks for a blob before it enters the gate and pins it",
            NoGate => "W2 pins and looks without entering the gate",
            NameBeforeSync => "W3 names a blob whose bytes are not synced",
            NoSyncOfOthersNames => "W4 is left out where every blob was there",
            RefBeforeNames => "W4 comes after W6",
            NoIndexLock => "W6 changes index.json without its lock",
            NoSyncOfTheRoot => "W6 acknowledges a rename that is not synced",
            UnlinkUnderCollection => "W7 unlinks the lease whether a collection runs or not",
            TagWithoutPin => "a tag pins nothing",
            TagFindsBeforeTheGate => "a tag looks up its source before it enters the gate",
            RootWithoutTree => "G3 and G5 take a pinned tree for its root alone",
            LastingUnsynced => "a lasting lease is acknowledged before it is synced",
            LastingBeforeNames => "a lasting lease is acknowledged before its blobs' names are",
            SeveralCollectors => "G0 does not take the lock",
            RefsBeforeReaping => "G2 comes before G1",
            RefsUnsynced => "G2 believes what it has read without a sync",
            SyncBeforeRead => "G2 syncs, and reads then",
            NoPinsUnderTheGate => "G5 does not read the leases again once the gate is shut",
            EndedInBetweenUnread => {
                "G5 does not read a lease whose owner ended before the gate was shut"
            }
            LateRootUnfollowed => "G5 does not follow a pinned tree whose root came late",
            PartLockNotLookedAt => "whoever gets a part's lock does not look whether it is current",
            PartLockRemovedLate => "a part's lock file is removed after it was let go",
            PartTakenWithoutLock => "G6 removes a part without its lock",
            PartNotHashed => "a part is continued without being hashed",
        }
    }

    pub fn scene(self) -> Scene {
        match self {
            TagWithoutPin | TagFindsBeforeTheGate => Scene::Tag,
            RootWithoutTree | LastingUnsynced | LastingBeforeNames => Scene::Lasting,
            LateRootUnfollowed => Scene::Put,
            PartLockNotLookedAt | PartLockRemovedLate | PartTakenWithoutLock | PartNotHashed => {
                Scene::Parts
            }
            _ => Scene::Pulls,
        }
    }
}
