//! The protocol as a model: who takes part, what may happen, and what has to hold.

use stateright::{Model, Property};

use crate::state::{
    Bytes, Collector, Disk, IMAGE, LAYER, Lasting, Lease, Left, MANIFEST, Part, Phase, Process,
    Promise, State, Step, TREE,
};
use crate::weakness::Weakness;

/// What a process is for. Names are the bits 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Pull(u8),
    Tag {
        from: u8,
        to: u8,
    },
    Remove(u8),
    /// Makes a lasting lease.
    Keep,
    /// Puts the manifest.
    Put,
}

#[derive(Clone, Debug)]
pub struct Protocol {
    pub tasks: Vec<Task>,
    pub collectors: usize,
    /// Whether a layer comes by way of its part.
    pub parts: bool,
    pub left: Left,
    pub weakness: Option<Weakness>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The next step of a process, or what it may do instead.
    Step(usize, bool),
    Collect(usize, u8),
    Kill(usize),
    KillCollector(usize),
    WriteBack(Written),
    /// All machines stop. What was not synced of a part may be damaged.
    PowerCut(bool),
}

/// What the kernel writes when it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    Name(u8),
    Index,
    Lease,
}

impl Protocol {
    pub fn is(&self, weakness: Weakness) -> bool {
        self.weakness == Some(weakness)
    }

    /// Whether a process holds `gate` shared.
    pub fn is_inside(&self, process: &Process) -> bool {
        match process.at {
            Step::LookForManifest | Step::LookForLayer => {
                !self.is(Weakness::NoGate) && !self.is(Weakness::LookBeforeTheGate)
            }
            Step::FoundSource => !self.is(Weakness::TagFindsBeforeTheGate),
            Step::LookForRoot => true,
            _ => false,
        }
    }

    fn write_back(&self, before: &State, what: Written) -> Option<State> {
        let mut state = before.clone();
        match what {
            Written::Name(blob) => {
                state.disk.durable = state.disk.durable & !blob | state.disk.named & blob;
            }
            Written::Index => state.disk.durable_index = state.disk.index,
            Written::Lease => state.lasting.durable = state.lasting.written,
        }
        (state != *before).then_some(state)
    }

    fn power_cut(&self, before: &State, damages: bool) -> Option<State> {
        let part = before.part.bytes;
        if before.left.power_cuts == 0 || damages && !matches!(part, Bytes::Some | Bytes::Whole) {
            return None;
        }
        let mut state = before.clone();
        state.left.power_cuts -= 1;
        if damages {
            state.part.bytes = Bytes::Damaged;
        }
        let disk = &mut state.disk;
        disk.named = disk.durable;
        disk.rotten |= std::mem::take(&mut disk.unsynced) & disk.named;
        disk.trash &= !disk.named;
        disk.index = disk.durable_index;
        state.lasting.written = state.lasting.durable;
        for n in 0..self.tasks.len() {
            if state.processes[n].at != Step::Done {
                state.end_process(n, self.first_step(n));
            }
        }
        state.collectors.fill(Collector::IDLE);
        Some(state)
    }

    fn kill(&self, before: &State, n: usize) -> Option<State> {
        let at = before.processes[n].at;
        if before.left.kills == 0 || at == Step::Done || at == self.first_step(n) {
            return None;
        }
        let mut state = before.clone();
        state.left.kills -= 1;
        state.end_process(n, self.first_step(n));
        Some(state)
    }

    fn kill_collector(&self, before: &State, n: usize) -> Option<State> {
        if before.left.kills == 0 || before.collectors[n].at == Phase::Idle {
            return None;
        }
        let mut state = before.clone();
        state.left.kills -= 1;
        state.collectors[n] = Collector::IDLE;
        Some(state)
    }

    /// A store with nothing in it; one with an image that has the first name; one in which
    /// somebody died between naming blobs and syncing their names; and for a put one with a layer alone.
    fn stores(&self) -> Vec<(Disk, Promise)> {
        let image = Disk { named: IMAGE, durable: IMAGE, ..Disk::default() };
        let mut stores = vec![
            (Disk::default(), Promise::Nothing),
            (Disk { index: 1, durable_index: 1, ..image }, Promise::There),
            (Disk { durable: 0, ..image }, Promise::Nothing),
        ];
        if self.tasks.contains(&Task::Put) {
            let layer = Disk { named: LAYER, durable: LAYER, ..Disk::default() };
            stores.push((layer, Promise::Nothing));
        }
        stores
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let state = |(disk, promise)| State {
            disk,
            part: Part { bytes: Bytes::Absent, lock: 0 },
            processes: (0..self.tasks.len()).map(|n| Process::at(self.first_step(n))).collect(),
            collectors: vec![Collector::IDLE; self.collectors],
            ended: 0,
            lasting: Lasting::default(),
            promised: [promise, Promise::Nothing],
            left: self.left,
        };
        self.stores().into_iter().map(state).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for n in 0..self.tasks.len() {
            actions.push(Action::Step(n, false));
            if state.processes[n].at == Step::TryPartLock {
                actions.push(Action::Step(n, true));
            }
            actions.push(Action::Kill(n));
        }
        for (n, collector) in state.collectors.iter().enumerate() {
            let choices = match collector.at {
                Phase::Reap => 9 + self.tasks.len() as u8,
                Phase::Shut | Phase::OpenPartLock => 2,
                _ => 1,
            };
            actions.extend((0..choices).map(|choice| Action::Collect(n, choice)));
            actions.push(Action::KillCollector(n));
        }
        let written =
            [Written::Name(MANIFEST), Written::Name(LAYER), Written::Index, Written::Lease];
        actions.extend(written.map(Action::WriteBack));
        actions.extend([Action::PowerCut(false), Action::PowerCut(true)]);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        match action {
            Action::Step(n, other) => self.step(state, n, other),
            Action::Collect(n, choice) => self.collect(state, n, choice),
            Action::Kill(n) => self.kill(state, n),
            Action::KillCollector(n) => self.kill_collector(state, n),
            Action::WriteBack(what) => self.write_back(state, what),
            Action::PowerCut(damages) => self.power_cut(state, damages),
        }
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        let mut properties = vec![
            Property::<Protocol>::always("a ref leads to blobs that are there", |_, state| {
                state.disk.index == 0 || state.disk.named & IMAGE == IMAGE
            }),
            Property::<Protocol>::always("a name stands for its bytes", |_, state| {
                state.disk.named & state.disk.rotten == 0
            }),
            Property::<Protocol>::always("what was acknowledged stays", |_, state| {
                state.promised.iter().enumerate().all(|(n, promise)| match promise {
                    Promise::Nothing => true,
                    Promise::There => state.disk.index >> n & 1 == 1,
                    Promise::Gone => state.disk.index >> n & 1 == 0,
                })
            }),
            Property::<Protocol>::always("a lasting lease keeps its image", |_, state| {
                let kept = state.lasting.written && state.disk.named & IMAGE == IMAGE;
                !state.lasting.promised || kept
            }),
            Property::<Protocol>::always("what is pinned and was found stays", |_, state| {
                let pinned = |pins: u8| if pins & TREE != 0 { IMAGE } else { pins };
                state.processes.iter().all(|process| {
                    process.lease == Lease::None
                        || process.relies & pinned(process.pins) & !state.disk.named == 0
                })
            }),
            Property::<Protocol>::always("one process at a time has a part", |_, state| {
                state.processes.iter().filter(|process| process.has_part()).count() <= 1
            }),
            Property::<Protocol>::always("a part is not taken from its holder", |_, state| {
                let held = state.processes.iter().any(|process| process.has_part());
                !held || state.part.bytes != Bytes::Absent
            }),
        ];
        properties.extend(self.reached());
        properties
    }
}

impl Protocol {
    /// What must come to pass on some way, or the rest would hold for want of anything happening.
    fn reached(&self) -> Vec<Property<Protocol>> {
        let mut reached = vec![
            Property::<Protocol>::sometimes("everybody comes to an end", |_, state| {
                state.processes.iter().all(|process| process.at == Step::Done)
            }),
            Property::<Protocol>::sometimes("a blob is removed", |_, state| state.disk.trash != 0),
            Property::<Protocol>::sometimes("a candidate is pinned in time", |_, state| {
                state
                    .collectors
                    .iter()
                    .any(|it| it.at == Phase::Remove && it.batch & it.marked != 0)
            }),
            Property::<Protocol>::sometimes("an owner ends before the gate is shut", |_, state| {
                state
                    .collectors
                    .iter()
                    .any(|it| it.at == Phase::Shut && state.ended & !it.ownerless.ended != 0)
            }),
            Property::<Protocol>::sometimes("a process leaves its lease", |_, state| {
                state.ended != 0 && state.processes.iter().all(|process| process.at == Step::Done)
            }),
        ];
        if self.parts {
            reached.push(Property::<Protocol>::sometimes(
                "a lock is got that is not current",
                |_, state| {
                    state.processes.iter().any(|process| {
                        process.at == Step::IsPartLockCurrent
                            && process.file.inode != state.part.lock
                    })
                },
            ));
            reached.push(Property::<Protocol>::sometimes(
                "a damaged part is adopted",
                |_, state| {
                    state.part.bytes == Bytes::Damaged
                        && state.processes.iter().any(|process| process.at == Step::Fetch)
                },
            ));
        }
        if self.tasks.contains(&Task::Keep) {
            reached.push(Property::<Protocol>::sometimes("a lasting lease is made", |_, state| {
                state.lasting.promised && state.disk.index == 0
            }));
        }
        reached
    }
}
