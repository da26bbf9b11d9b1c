//! What a collection does: G0 to G6. The grace time is none, since nothing rests on it.

use crate::protocol::{Protocol, Task};
use crate::state::{
    Bytes, Collector, IMAGE, LAYER, Lease, MANIFEST, Ownerless, PartLock, Phase, State, TREE,
};
use crate::weakness::Weakness;

impl Protocol {
    /// The next step of a collection; nothing where it has to wait. `choice` tells apart what it may
    /// do at one point.
    pub fn collect(&self, before: &State, n: usize, choice: u8) -> Option<State> {
        let at = before.collectors[n].at;
        if choice > 0 && !matches!(at, Phase::Reap | Phase::OpenPartLock | Phase::Shut) {
            return None;
        }
        let mut state = before.clone();
        let early = self.is(Weakness::RefsBeforeReaping);
        let next = match at {
            Phase::Idle => self.begin(&mut state, n)?,
            Phase::Reap => self.reap(&mut state, choice)?,
            // Elsewhere G2 is a read and a sync, in this order.
            Phase::ReadRefs if self.is(Weakness::SyncBeforeRead) => {
                state.disk.durable_index = state.disk.index;
                Phase::SyncRefs
            }
            Phase::SyncRefs if self.is(Weakness::SyncBeforeRead) => {
                state.collectors[n].refs = state.disk.index;
                Phase::Mark
            }
            Phase::ReadRefs => {
                state.collectors[n].refs = state.disk.index;
                if self.is(Weakness::RefsUnsynced) { Phase::Mark } else { Phase::SyncRefs }
            }
            Phase::SyncRefs => {
                state.disk.durable_index = state.disk.index;
                if early { Phase::Reap } else { Phase::Mark }
            }
            Phase::Mark => self.mark(&mut state, n),
            Phase::List => {
                let collector = &mut state.collectors[n];
                collector.candidates = state.disk.named & !collector.marked;
                collector.refs = 0;
                Phase::FindOwnerless
            }
            Phase::FindOwnerless => self.find_ownerless(&mut state, n),
            Phase::Shut => self.shut(&mut state, n, choice)?,
            Phase::Remove => self.remove(&mut state, n),
            Phase::Unlink => {
                state.disk.trash = 0;
                Phase::FindOwnerless
            }
            Phase::OpenPartLock | Phase::TryPartLock | Phase::RemovePart => {
                self.expire_part(&mut state, n, choice)?
            }
            Phase::End => {
                state.collectors[n] = Collector::IDLE;
                Phase::Idle
            }
        };
        state.collectors[n].at = next;
        Some(state)
    }

    /// G0.
    fn begin(&self, state: &mut State, n: usize) -> Option<Phase> {
        if state.left.collections == 0
            || state.is_collected() && !self.is(Weakness::SeveralCollectors)
        {
            return None;
        }
        state.left.collections -= 1;
        state.disk.trash = 0;
        state.collectors[n] = Collector::IDLE;
        Some(if self.is(Weakness::RefsBeforeReaping) { Phase::ReadRefs } else { Phase::Reap })
    }

    /// G1: any of the leases that are to be had, one by one, and then on: a listing may miss one.
    fn reap(&self, state: &mut State, choice: u8) -> Option<Phase> {
        match choice {
            0 if self.is(Weakness::RefsBeforeReaping) => return Some(Phase::Mark),
            0 => return Some(Phase::ReadRefs),
            1..=8 => {
                let lease = 1 << (choice - 1);
                if state.ended & lease == 0 {
                    return None;
                }
                state.ended &= !lease;
            }
            _ => {
                let process = state.processes.get_mut(usize::from(choice) - 9)?;
                if process.lease != Lease::Unlocked {
                    return None;
                }
                process.lease = Lease::Lost;
            }
        }
        Some(Phase::Reap)
    }

    /// G3. A ref whose manifest is missing ends the collection.
    fn mark(&self, state: &mut State, n: usize) -> Phase {
        let manifest = state.disk.named & MANIFEST != 0;
        let refs = state.collectors[n].refs != 0;
        if refs && !manifest {
            return Phase::End;
        }
        if refs {
            state.collectors[n].marked |= IMAGE;
        }
        self.mark_pins(state, n, Ownerless::default());
        Phase::List
    }

    /// A tree is followed when its pin is read first, and with the gate shut once more.
    fn mark_pins(&self, state: &mut State, n: usize, but: Ownerless) {
        let pins = state.pins(but);
        let is_shut = state.collectors[n].at == Phase::Shut;
        let again = is_shut && !self.is(Weakness::LateRootUnfollowed);
        let collector = &mut state.collectors[n];
        collector.marked |= pins & IMAGE;
        if collector.tree_read && again || pins & TREE != 0 && !collector.tree_read {
            collector.tree_read = true;
            let followed = state.disk.named & MANIFEST != 0 && !self.is(Weakness::RootWithoutTree);
            collector.marked |= if followed { IMAGE } else { MANIFEST };
        }
    }

    /// G5: the leases are read, and from then on no more those of them that have no owner.
    fn find_ownerless(&self, state: &mut State, n: usize) -> Phase {
        if state.collectors[n].candidates == 0 {
            return if self.parts { Phase::OpenPartLock } else { Phase::End };
        }
        self.mark_pins(state, n, Ownerless::default());
        state.collectors[n].ownerless = self.ownerless(state);
        Phase::Shut
    }

    /// The leases that have no owner.
    fn ownerless(&self, state: &State) -> Ownerless {
        let owned = (self.tasks.iter().zip(&state.processes))
            .any(|(task, process)| *task == Task::Keep && process.lease == Lease::Held);
        Ownerless { ended: state.ended, lasting: state.lasting.written && !owned }
    }

    /// G5: the gate is shut, and the leases are read again that had an owner before, be it that it has
    /// ended since. One blob a batch, any of them.
    fn shut(&self, state: &mut State, n: usize, choice: u8) -> Option<Phase> {
        let candidates = state.collectors[n].candidates;
        let blob = 1 << choice;
        let entered = state.processes.iter().any(|process| self.is_inside(process));
        if choice > 1 || candidates & blob == 0 || entered || state.is_shut() {
            return None;
        }
        let known = std::mem::take(&mut state.collectors[n].ownerless);
        match self.weakness {
            Some(Weakness::NoPinsUnderTheGate) => {}
            Some(Weakness::EndedInBetweenUnread) => {
                let ended = self.ownerless(state);
                self.mark_pins(state, n, ended);
            }
            _ => self.mark_pins(state, n, known),
        }
        state.collectors[n].batch = blob;
        Some(Phase::Remove)
    }

    /// G5: what is still not kept goes, the layer by way of the trash; then the gate is opened.
    fn remove(&self, state: &mut State, n: usize) -> Phase {
        let blob = std::mem::take(&mut state.collectors[n].batch);
        state.collectors[n].candidates &= !blob;
        if state.collectors[n].marked & blob != 0 {
            return Phase::FindOwnerless;
        }
        state.disk.named &= !blob;
        state.disk.unsynced &= !blob;
        state.disk.rotten &= !blob;
        if blob != LAYER {
            return Phase::FindOwnerless;
        }
        state.disk.trash |= blob;
        Phase::Unlink
    }

    /// G6. Whether a part is old is anybody's guess.
    fn expire_part(&self, state: &mut State, n: usize, choice: u8) -> Option<Phase> {
        let file = state.collectors[n].file;
        let nothing = state.part.bytes == Bytes::Absent && state.part.lock == 0;
        Some(match state.collectors[n].at {
            Phase::OpenPartLock if choice == 1 || nothing => Phase::End,
            Phase::OpenPartLock if choice > 1 => return None,
            Phase::OpenPartLock if self.is(Weakness::PartTakenWithoutLock) => Phase::RemovePart,
            Phase::OpenPartLock => {
                state.collectors[n].file = state.open_part_lock();
                Phase::TryPartLock
            }
            Phase::TryPartLock => {
                let current = file.inode == state.part.lock;
                if state.is_locked(file.inode) || !current {
                    state.collectors[n].file = PartLock::default();
                    return Some(Phase::End);
                }
                state.collectors[n].file.locked = true;
                Phase::RemovePart
            }
            _ => {
                state.part.bytes = Bytes::Absent;
                state.part.lock = 0;
                state.collectors[n].file = PartLock::default();
                Phase::End
            }
        })
    }
}
