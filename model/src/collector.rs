//! What a collection does: G0 to G6. The grace time is none, since nothing rests on it.

use crate::protocol::Protocol;
use crate::state::{Bytes, Collector, IMAGE, LAYER, Lease, MANIFEST, PartLock, Phase, State, TREE};
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
                Phase::Shut
            }
            Phase::Shut => self.shut(&mut state, n, choice)?,
            Phase::Remove => self.remove(&mut state, n),
            Phase::Unlink => {
                state.disk.trash = 0;
                Phase::Shut
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
        self.mark_pins(state, n);
        Phase::List
    }

    fn mark_pins(&self, state: &mut State, n: usize) {
        let pins = state.pins();
        let mut marked = pins & IMAGE;
        if pins & TREE != 0 {
            let followed = state.disk.named & MANIFEST != 0 && !self.is(Weakness::RootWithoutTree);
            marked |= if followed { IMAGE } else { MANIFEST };
        }
        state.collectors[n].marked |= marked;
    }

    /// G5: the gate is shut, and the leases are read again. One blob a batch, any of them.
    fn shut(&self, state: &mut State, n: usize, choice: u8) -> Option<Phase> {
        let candidates = state.collectors[n].candidates;
        if candidates == 0 {
            let parts = self.parts && choice == 0;
            let end = if parts { Phase::OpenPartLock } else { Phase::End };
            return (choice == 0).then_some(end);
        }
        let blob = 1 << choice;
        let entered = state.processes.iter().any(|process| self.is_inside(process));
        if choice > 1 || candidates & blob == 0 || entered || state.is_shut() {
            return None;
        }
        if !self.is(Weakness::NoPinsUnderTheGate) {
            self.mark_pins(state, n);
        }
        state.collectors[n].batch = blob;
        Some(Phase::Remove)
    }

    /// G5: what is still not kept goes, the layer by way of the trash; then the gate is opened.
    fn remove(&self, state: &mut State, n: usize) -> Phase {
        let blob = std::mem::take(&mut state.collectors[n].batch);
        state.collectors[n].candidates &= !blob;
        if state.collectors[n].marked & blob != 0 {
            return Phase::Shut;
        }
        state.disk.named &= !blob;
        state.disk.unsynced &= !blob;
        state.disk.rotten &= !blob;
        if blob != LAYER {
            return Phase::Shut;
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
