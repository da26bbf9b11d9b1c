//! How a protocol was broken, in the words of docs/protocol.md.

use stateright::Path;

use crate::protocol::{Action, Protocol, Task, Written};
use crate::state::{MANIFEST, Phase, State, Step};
use crate::weakness::Weakness;

/// The steps, one a line.
pub fn of(protocol: &Protocol, path: Path<State, Action>) -> String {
    let steps = path.into_vec().into_iter().filter_map(|(state, action)| {
        let line = action.map(|action| step(protocol, &state, action));
        line.map(|line| format!("  {line}\n"))
    });
    steps.collect()
}

fn step(protocol: &Protocol, state: &State, action: Action) -> String {
    let who = |n: usize| match protocol.tasks[n] {
        Task::Pull(name) => format!("pull {} of name {name}", n + 1),
        Task::Tag { from, to } => format!("tag of {from} as {to}"),
        Task::Remove(name) => format!("removal of name {name}"),
        Task::Put => "put of the manifest".to_owned(),
        Task::Keep => "lasting lease".to_owned(),
    };
    let collection = |n: usize| match protocol.collectors {
        1 => "collection".to_owned(),
        _ => format!("collection {}", n + 1),
    };
    match action {
        Action::Step(n, other) => {
            let usual = process(state, n, other);
            format!("{}: {}", who(n), weakened(protocol, state.processes[n].at).unwrap_or(usual))
        }
        Action::Collect(n, choice) => {
            let usual = phase(state, n, choice);
            let swapped = protocol.is(Weakness::SyncBeforeRead);
            let what = match state.collectors[n].at {
                Phase::ReadRefs if swapped => "G2 sync index.json and the root".to_owned(),
                Phase::SyncRefs if swapped => "G2 read index.json".to_owned(),
                Phase::Shut if protocol.is(Weakness::NoPinsUnderTheGate) => {
                    "G5 shut the gate".to_owned()
                }
                Phase::Shut if protocol.is(Weakness::EndedInBetweenUnread) => {
                    "G5 shut the gate, read the leases that have an owner now".to_owned()
                }
                _ => usual,
            };
            format!("{}: {what}", collection(n))
        }
        Action::Kill(n) => format!("{}: killed", who(n)),
        Action::KillCollector(n) => format!("{}: killed", collection(n)),
        Action::WriteBack(Written::Name(blob)) => {
            format!("kernel: writes what the directory says of the {}", name_of(blob))
        }
        Action::WriteBack(Written::Index) => "kernel: writes index.json".to_owned(),
        Action::WriteBack(Written::Lease) => "kernel: writes the lasting lease".to_owned(),
        Action::PowerCut(false) => "power cut".to_owned(),
        Action::PowerCut(true) => "power cut, which damages the part".to_owned(),
    }
}

fn name_of(blob: u8) -> &'static str {
    if blob == MANIFEST { "manifest" } else { "layer" }
}

/// What a step has become in a weakened protocol.
fn weakened(protocol: &Protocol, at: Step) -> Option<&'static str> {
    use Weakness::*;
    Some(match (protocol.weakness?, at) {
        (LookBeforeTheGate, Step::PinManifest) => "W2 look for the manifest",
        (LookBeforeTheGate, Step::LookForManifest) => "W2 enter the gate, pin the manifest",
        (LookBeforeTheGate, Step::PinLayer) => "W2 look for the layer",
        (LookBeforeTheGate, Step::LookForLayer) => "W2 enter the gate, pin the layer",
        (NoGate, Step::PinManifest) => "W2 pin the manifest",
        (NoGate, Step::LookForManifest) => "W2 look for the manifest",
        (NoGate, Step::PinLayer) => "W2 pin the layer",
        (NoGate, Step::LookForLayer) => "W2 look for the layer",
        (TagFindsBeforeTheGate, Step::PinSource) => "W2 find the source",
        (TagFindsBeforeTheGate, Step::FoundSource) => "W2 enter the gate, pin the tree",
        (TagWithoutPin, Step::FoundSource) => "W2 pin nothing, leave the gate",
        (NoSyncOfOthersNames | RefBeforeNames | LastingBeforeNames, Step::SyncNames) => {
            "W4 left out"
        }
        (NoIndexLock, Step::ReadIndex) => "W6 read index.json",
        (NoSyncOfTheRoot, Step::SyncRoot) => "W6 let index go; acknowledged",
        (LastingUnsynced, Step::SyncLease) => "acknowledged",
        (PartLockRemovedLate, Step::RemovePartLock) => "W3 let the lock go",
        (PartLockNotLookedAt, Step::IsPartLockCurrent) => "W3 look for the blob",
        _ => return None,
    })
}

fn process(state: &State, n: usize, other: bool) -> &'static str {
    match state.processes[n].at {
        Step::MakeLease => "W1 make a lease",
        Step::LockLease => "W1 lock the lease",
        Step::PinManifest => "W2 enter the gate, pin the manifest",
        Step::LookForManifest => "W2 look for the manifest, leave the gate",
        Step::BringManifest => "W3 name the manifest",
        Step::PinLayer => "W2 enter the gate, pin the layer",
        Step::LookForLayer => "W2 look for the layer, leave the gate",
        Step::BringLayer => "W3 name the layer",
        Step::OpenPartLock => "W3 open the part's lock",
        Step::TryPartLock if other => "W3 the holder stands still: download aside",
        Step::TryPartLock => "W3 try the part's lock",
        Step::IsPartLockCurrent => "W3 look whether the lock is current, and for the blob",
        Step::Fetch => "W3 download what is missing, compare the digest, sync",
        Step::NameLayer => "W3 rename the part to the layer's name",
        Step::RemovePartLock => "W3 remove the lock's file, let the lock go",
        Step::RemovePartLockLate => "W3 remove the lock's file",
        Step::PinSource => "W2 enter the gate, find the source",
        Step::FoundSource => "W2 pin the tree of the source, leave the gate",
        Step::PinRoot => "W2 enter the gate, pin the tree for good",
        Step::LookForRoot => "W2 look for the root, leave the gate",
        Step::SyncNames => "W4 sync blobs/",
        Step::LookAgain => "W5 look at the closure",
        Step::ReadIndex => "W6 lock index, read index.json",
        Step::WriteIndex => "W6 write, sync and rename index.json",
        Step::SyncRoot => "W6 sync the root, let index go; acknowledged",
        Step::SyncLease => "sync the lease and leases/; acknowledged",
        Step::Release => "W7 let the lease go",
        Step::Done => "nothing more",
    }
}

fn phase(state: &State, n: usize, choice: u8) -> String {
    let collector = &state.collectors[n];
    match collector.at {
        Phase::Idle => "G0 take gc, empty the trash".to_owned(),
        Phase::Reap if choice == 0 => "G1 done".to_owned(),
        Phase::Reap if choice > 8 => "G1 remove a lease that is not locked yet".to_owned(),
        Phase::Reap => "G1 remove a lease whose process has ended".to_owned(),
        Phase::ReadRefs => "G2 read index.json".to_owned(),
        Phase::SyncRefs => "G2 sync index.json and the root".to_owned(),
        Phase::Mark => "G3 read the leases, mark".to_owned(),
        Phase::List => "G4 list the blobs".to_owned(),
        Phase::FindOwnerless if collector.candidates == 0 => "G5 done".to_owned(),
        Phase::FindOwnerless => "G5 read the leases, and which have no owner any more".to_owned(),
        Phase::Shut => "G5 shut the gate, read the leases that had an owner".to_owned(),
        Phase::Remove if collector.marked & collector.batch != 0 => {
            format!("G5 keep the {}, open the gate", name_of(collector.batch))
        }
        Phase::Remove => format!("G5 remove the {}, open the gate", name_of(collector.batch)),
        Phase::Unlink => "G5 empty the trash".to_owned(),
        Phase::OpenPartLock if choice == 1 => "G6 no part is old".to_owned(),
        Phase::OpenPartLock => "G6 open the lock of an old part".to_owned(),
        Phase::TryPartLock => "G6 try the part's lock".to_owned(),
        Phase::RemovePart => "G6 remove the part and its lock's file".to_owned(),
        Phase::End => "let gc go".to_owned(),
    }
}
