//! What pulls, tags, removals and lasting leases do: W1 to W7.

use crate::protocol::{Protocol, Task};
use crate::state::{Bytes, IMAGE, LAYER, Lease, MANIFEST, PartLock, Promise, State, Step, TREE};
use crate::weakness::Weakness;

impl Protocol {
    /// Where a process begins.
    pub fn first_step(&self, n: usize) -> Step {
        match self.tasks[n] {
            Task::Remove(_) => Step::ReadIndex,
            Task::Pull(_) | Task::Tag { .. } | Task::Keep | Task::Put => Step::MakeLease,
        }
    }

    /// The next step of a process; nothing where it has to wait or has none. `other` is what it may
    /// do instead.
    pub fn step(&self, before: &State, n: usize, other: bool) -> Option<State> {
        let at = before.processes[n].at;
        if other && at != Step::TryPartLock {
            return None;
        }
        let mut state = before.clone();
        let next = match at {
            Step::MakeLease | Step::LockLease => self.make_lease(&mut state, n),
            Step::PinManifest | Step::LookForManifest => self.pin(&mut state, n, MANIFEST)?,
            Step::PinLayer | Step::LookForLayer => self.pin(&mut state, n, LAYER)?,
            Step::BringManifest => self.name(&mut state, n, MANIFEST, self.after_manifest(n)),
            Step::BringLayer => self.name(&mut state, n, LAYER, Step::SyncNames),
            Step::OpenPartLock
            | Step::TryPartLock
            | Step::IsPartLockCurrent
            | Step::Fetch
            | Step::NameLayer
            | Step::RemovePartLock
            | Step::RemovePartLockLate => self.download(&mut state, n, other)?,
            Step::PinSource | Step::FoundSource => self.pin_source(&mut state, n)?,
            Step::PinRoot | Step::LookForRoot => self.pin_root(&mut state, n)?,
            Step::SyncNames => self.sync_names(&mut state, n),
            Step::LookAgain => self.look_again(&mut state, n),
            Step::ReadIndex | Step::WriteIndex | Step::SyncRoot => self.publish(&mut state, n)?,
            Step::SyncLease => {
                state.lasting.durable |= !self.is(Weakness::LastingUnsynced);
                state.lasting.promised = true;
                state.processes[n].lease = Lease::None;
                Step::Done
            }
            Step::Release => self.release(&mut state, n),
            Step::Done => return None,
        };
        state.processes[n].at = next;
        Some(state)
    }

    fn make_lease(&self, state: &mut State, n: usize) -> Step {
        let process = &mut state.processes[n];
        if process.at == Step::MakeLease && self.is(Weakness::LockLeaseAfterNaming) {
            process.lease = Lease::Unlocked;
            return Step::LockLease;
        }
        // Who was taken for dead in between locks a file that has no name any more.
        if process.lease != Lease::Lost {
            process.lease = Lease::Held;
        }
        match self.tasks[n] {
            Task::Tag { .. } => Step::PinSource,
            Task::Keep => Step::PinRoot,
            Task::Pull(_) | Task::Remove(_) | Task::Put => Step::PinManifest,
        }
    }

    /// W2: the gate is entered with the first of two steps, and left with the second.
    fn pin(&self, state: &mut State, n: usize, blob: u8) -> Option<Step> {
        let there = state.disk.named & blob;
        let shut = state.is_shut() && !self.is(Weakness::NoGate);
        let process = &mut state.processes[n];
        let first = matches!(process.at, Step::PinManifest | Step::PinLayer);
        if self.is(Weakness::LookBeforeTheGate) {
            if first {
                process.relies |= there;
            } else if shut {
                return None;
            } else {
                process.pins |= blob;
            }
        } else if first {
            if shut {
                return None;
            }
            process.pins |= blob;
        } else {
            process.relies |= there;
        }
        Some(match (process.at, process.relies & blob != 0) {
            (Step::PinManifest, _) => Step::LookForManifest,
            (Step::PinLayer, _) => Step::LookForLayer,
            (Step::LookForManifest, true) => self.after_manifest(n),
            (Step::LookForManifest, false) => Step::BringManifest,
            (_, true) => Step::SyncNames,
            (_, false) if self.parts => Step::OpenPartLock,
            (_, false) => Step::BringLayer,
        })
    }

    fn after_manifest(&self, n: usize) -> Step {
        if self.tasks[n] == Task::Put { Step::SyncNames } else { Step::PinLayer }
    }

    /// W3: a blob whose bytes are synced gets its name, unless that is taken by the same bytes.
    fn name(&self, state: &mut State, n: usize, blob: u8, next: Step) -> Step {
        if state.disk.named & blob == 0 {
            state.disk.named |= blob;
            if self.is(Weakness::NameBeforeSync) {
                state.disk.unsynced |= blob;
            }
        }
        state.processes[n].relies |= blob;
        state.processes[n].brought |= blob;
        next
    }

    /// W3 of the layer, whose part any process may continue.
    fn download(&self, state: &mut State, n: usize, other: bool) -> Option<Step> {
        let file = state.processes[n].file;
        Some(match state.processes[n].at {
            Step::OpenPartLock => {
                state.processes[n].file = state.open_part_lock();
                Step::TryPartLock
            }
            // A holder that stands still is overtaken: a file of one's own.
            Step::TryPartLock if other => {
                if !state.is_locked(file.inode) {
                    return None;
                }
                state.processes[n].file = PartLock::default();
                Step::BringLayer
            }
            Step::TryPartLock if state.is_locked(file.inode) => {
                state.processes[n].file = PartLock::default();
                Step::OpenPartLock
            }
            Step::TryPartLock => {
                state.processes[n].file.locked = true;
                Step::IsPartLockCurrent
            }
            Step::IsPartLockCurrent => self.claim(state, n),
            Step::Fetch => match state.part.bytes {
                // The digest of the whole is wrong: the part goes, and all begins anew.
                Bytes::Damaged if !self.is(Weakness::PartNotHashed) => {
                    state.part.bytes = Bytes::Absent;
                    Step::RemovePartLock
                }
                Bytes::Damaged => Step::NameLayer,
                Bytes::Absent | Bytes::Some | Bytes::Whole => {
                    state.part.bytes = Bytes::Whole;
                    Step::NameLayer
                }
            },
            Step::NameLayer => {
                if state.part.bytes == Bytes::Damaged && state.disk.named & LAYER == 0 {
                    state.disk.rotten |= LAYER;
                }
                state.part.bytes = Bytes::Absent;
                self.name(state, n, LAYER, Step::RemovePartLock)
            }
            Step::RemovePartLock if self.is(Weakness::PartLockRemovedLate) => {
                state.processes[n].file = PartLock::default();
                Step::RemovePartLockLate
            }
            _ => {
                self.let_part_go(state, n);
                let named = state.processes[n].relies & LAYER != 0;
                if named { Step::SyncNames } else { Step::OpenPartLock }
            }
        })
    }

    /// What a lock on a part is good for, once it was got.
    fn claim(&self, state: &mut State, n: usize) -> Step {
        let current = state.processes[n].file.inode == state.part.lock;
        if !current && !self.is(Weakness::PartLockNotLookedAt) {
            state.processes[n].file = PartLock::default();
            return Step::OpenPartLock;
        }
        if state.disk.named & LAYER != 0 {
            state.processes[n].relies |= LAYER;
            self.let_part_go(state, n);
            return Step::SyncNames;
        }
        if state.part.bytes == Bytes::Absent {
            state.part.bytes = Bytes::Some;
        }
        Step::Fetch
    }

    /// Removes the part and, last, the file of its lock, which is held.
    fn let_part_go(&self, state: &mut State, n: usize) {
        state.part.bytes = Bytes::Absent;
        state.part.lock = 0;
        state.processes[n].file = PartLock::default();
    }

    fn pin_source(&self, state: &mut State, n: usize) -> Option<Step> {
        let Task::Tag { from, .. } = self.tasks[n] else {
            unreachable!("only a tag has a source");
        };
        let (late, shut) = (self.is(Weakness::TagFindsBeforeTheGate), state.is_shut());
        let first = state.processes[n].at == Step::PinSource;
        if shut && first != late {
            return None;
        }
        let process = &mut state.processes[n];
        Some(match first {
            true if state.disk.index & from == 0 => Step::Release,
            true => Step::FoundSource,
            false if self.is(Weakness::TagWithoutPin) => Step::SyncNames,
            false => {
                process.pins |= TREE;
                process.relies |= IMAGE;
                Step::SyncNames
            }
        })
    }

    fn pin_root(&self, state: &mut State, n: usize) -> Option<Step> {
        Some(match state.processes[n].at {
            Step::PinRoot if state.is_shut() => return None,
            Step::PinRoot => {
                state.lasting.written = true;
                // It is a new lease, which no collector has read.
                state.collectors.iter_mut().for_each(|it| it.ownerless.lasting = false);
                Step::LookForRoot
            }
            _ if state.disk.named & MANIFEST != 0 => Step::LookAgain,
            _ => self.give_up(state, n),
        })
    }

    fn sync_names(&self, state: &mut State, n: usize) -> Step {
        let (pull, lasting) = (matches!(self.tasks[n], Task::Pull(_)), self.tasks[n] == Task::Keep);
        let left_out = pull && self.is(Weakness::RefBeforeNames)
            || self.is(Weakness::NoSyncOfOthersNames) && state.processes[n].brought == 0
            || lasting && self.is(Weakness::LastingBeforeNames);
        if !left_out {
            state.disk.durable = state.disk.named;
        }
        match self.tasks[n] {
            Task::Pull(_) => Step::LookAgain,
            Task::Keep => Step::SyncLease,
            Task::Put => Step::Release,
            Task::Tag { .. } | Task::Remove(_) => Step::ReadIndex,
        }
    }

    /// W5, and of a lasting lease the look for what it pins.
    fn look_again(&self, state: &mut State, n: usize) -> Step {
        let whole = state.disk.named & IMAGE == IMAGE;
        match (whole, self.tasks[n]) {
            (true, Task::Keep) => Step::SyncNames,
            (true, _) => Step::ReadIndex,
            (false, _) => self.give_up(state, n),
        }
    }

    fn give_up(&self, state: &mut State, n: usize) -> Step {
        if self.tasks[n] == Task::Keep {
            state.lasting.written = false;
            state.processes[n].lease = Lease::None;
            return Step::Done;
        }
        Step::Release
    }

    /// W6, with the lock of `index.json` from the first of three steps to the last.
    fn publish(&self, state: &mut State, n: usize) -> Option<Step> {
        let (name, there) = match self.tasks[n] {
            Task::Pull(name) | Task::Tag { to: name, .. } => (name, true),
            Task::Remove(name) => (name, false),
            Task::Keep | Task::Put => unreachable!("a lease and a put name nothing"),
        };
        // Names are the bits 1 and 2.
        let promise = usize::from(name) - 1;
        Some(match state.processes[n].at {
            Step::ReadIndex => {
                let taken = state.processes.iter().any(|other| other.has_index());
                if taken && !self.is(Weakness::NoIndexLock) {
                    return None;
                }
                state.processes[n].read = state.disk.index;
                Step::WriteIndex
            }
            Step::WriteIndex => {
                let read = std::mem::take(&mut state.processes[n].read);
                state.disk.index = if there { read | name } else { read & !name };
                state.promised[promise] = Promise::Nothing;
                Step::SyncRoot
            }
            _ => {
                if !self.is(Weakness::NoSyncOfTheRoot) {
                    state.disk.durable_index = state.disk.index;
                }
                if self.is(Weakness::RefBeforeNames) {
                    state.disk.durable = state.disk.named;
                }
                state.promised[promise] = if there { Promise::There } else { Promise::Gone };
                if there { Step::Release } else { Step::Done }
            }
        })
    }

    /// W7.
    fn release(&self, state: &mut State, n: usize) -> Step {
        let unlinks = !state.is_collected() || self.is(Weakness::UnlinkUnderCollection);
        if unlinks {
            state.processes[n].lease = Lease::None;
        }
        state.end_process(n, Step::Done);
        Step::Done
    }
}
