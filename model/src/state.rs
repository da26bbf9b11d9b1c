//! What there is: the disk, the processes, the collectors.
//!
//! One image of two blobs, a manifest and a layer, and two names that may lead to it. Sets are bits.

/// The manifest, whose bytes say that the layer belongs to it.
pub const MANIFEST: u8 = 1;
/// The layer.
pub const LAYER: u8 = 2;
/// Both.
pub const IMAGE: u8 = MANIFEST | LAYER;
/// In a lease: the manifest and all that it leads to.
pub const TREE: u8 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub disk: Disk,
    pub part: Part,
    pub processes: Vec<Process>,
    pub collectors: Vec<Collector>,
    /// Leases whose process has ended: bit *n* is set if there is one that pins the set *n*.
    pub ended: u8,
    pub lasting: Lasting,
    /// What each name was acknowledged to be.
    pub promised: [Promise; 2],
    /// What may still happen.
    pub left: Left,
}

/// Directories and `index.json`, as they are and as they would be after a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Blobs that have their name.
    pub named: u8,
    /// Blobs whose name is on disk.
    pub durable: u8,
    /// Blobs that got their name before their bytes were synced.
    pub unsynced: u8,
    /// Names that stand for other bytes than they should.
    pub rotten: u8,
    pub trash: u8,
    /// The names in `index.json`.
    pub index: u8,
    pub durable_index: u8,
}

/// `parts/` of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    pub bytes: Bytes,
    /// The inode of the lock file; 0 where there is none.
    pub lock: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bytes {
    Absent,
    Some,
    Whole,
    /// A power cut took what was not synced.
    Damaged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub at: Step,
    pub lease: Lease,
    /// What its lease pins.
    pub pins: u8,
    /// The blobs that it relies on: it has found them, or has brought them itself.
    pub relies: u8,
    /// Those that it has brought itself.
    pub brought: u8,
    /// `index.json` as it has read it.
    pub read: u8,
    pub file: PartLock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lease {
    None,
    /// Its file has a name.
    Held,
    /// It has a name and is not locked yet. Only in a weakened protocol.
    Unlocked,
    /// It was taken for an ended one and removed. Only in a weakened protocol.
    Lost,
}

/// An open lock file of the part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartLock {
    /// 0 where none is open.
    pub inode: u8,
    pub locked: bool,
}

/// Where a process stands: what it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    MakeLease,
    LockLease,
    PinManifest,
    LookForManifest,
    BringManifest,
    PinLayer,
    LookForLayer,
    BringLayer,
    OpenPartLock,
    TryPartLock,
    IsPartLockCurrent,
    Fetch,
    NameLayer,
    RemovePartLock,
    RemovePartLockLate,
    PinSource,
    FoundSource,
    PinRoot,
    LookForRoot,
    SyncNames,
    LookAgain,
    ReadIndex,
    WriteIndex,
    SyncRoot,
    SyncLease,
    Release,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Collector {
    pub at: Phase,
    /// The refs that were read in G2.
    pub refs: u8,
    /// What is not to be removed.
    pub marked: u8,
    pub candidates: u8,
    /// What is looked at with the gate shut.
    pub batch: u8,
    /// Leases that were read when they had no owner any more.
    pub ownerless: Ownerless,
    /// Whether the pin of a tree was read, and the tree followed as far as it was there.
    pub tree_read: bool,
    pub file: PartLock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    Reap,
    ReadRefs,
    SyncRefs,
    Mark,
    List,
    FindOwnerless,
    Shut,
    Remove,
    Unlink,
    OpenPartLock,
    TryPartLock,
    RemovePart,
    End,
}

/// Leases that have no owner, so that nobody adds to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ownerless {
    /// Those whose process has ended, by what they pin, as in [`State::ended`].
    pub ended: u8,
    /// The lasting one.
    pub lasting: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lasting {
    pub written: bool,
    pub durable: bool,
    pub promised: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    Nothing,
    There,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    pub collections: u8,
    pub kills: u8,
    pub power_cuts: u8,
}

impl Process {
    pub fn at(at: Step) -> Process {
        let file = PartLock::default();
        Process { at, lease: Lease::None, pins: 0, relies: 0, brought: 0, read: 0, file }
    }

    /// Whether it holds `index`.
    pub fn has_index(&self) -> bool {
        matches!(self.at, Step::WriteIndex | Step::SyncRoot)
    }

    /// Whether it writes to the part.
    pub fn has_part(&self) -> bool {
        matches!(self.at, Step::Fetch | Step::NameLayer)
    }
}

impl Collector {
    pub const IDLE: Collector = Collector {
        at: Phase::Idle,
        refs: 0,
        marked: 0,
        candidates: 0,
        batch: 0,
        ownerless: Ownerless { ended: 0, lasting: false },
        tree_read: false,
        file: PartLock { inode: 0, locked: false },
    };
}

impl State {
    /// Whether a collector holds the gate.
    pub fn is_shut(&self) -> bool {
        self.collectors.iter().any(|it| it.at == Phase::Remove)
    }

    /// Whether a collector holds `gc`.
    pub fn is_collected(&self) -> bool {
        self.collectors.iter().any(|it| it.at != Phase::Idle)
    }

    /// What the leases pin, those too whose process has ended, but for some.
    pub fn pins(&self, but: Ownerless) -> u8 {
        let live =
            self.processes.iter().filter(|it| !matches!(it.lease, Lease::None | Lease::Lost));
        let ended = (0..8).filter(|pins| (self.ended & !but.ended) >> pins & 1 == 1);
        let lasting = if self.lasting.written && !but.lasting { TREE } else { 0 };
        live.map(|it| it.pins).chain(ended).fold(lasting, |all, pins| all | pins)
    }

    fn part_locks(&self) -> impl Iterator<Item = PartLock> {
        let collectors = self.collectors.iter().map(|it| it.file);
        self.processes.iter().map(|it| it.file).chain(collectors)
    }

    /// Whether an inode is locked by anybody.
    pub fn is_locked(&self, inode: u8) -> bool {
        self.part_locks().any(|it| it.locked && it.inode == inode)
    }

    /// The lock file that an `open` with O_CREAT gives.
    pub fn open_part_lock(&mut self) -> PartLock {
        if self.part.lock == 0 {
            let free = |inode: &u8| self.part_locks().all(|it| it.inode != *inode);
            self.part.lock = (1..).find(free).expect("there are more numbers than processes");
        }
        PartLock { inode: self.part.lock, locked: false }
    }

    /// A process ends, and the kernel lets go what it had. Its lease stays as a file.
    pub fn end_process(&mut self, n: usize, again: Step) {
        let process = &mut self.processes[n];
        if matches!(process.lease, Lease::Held | Lease::Unlocked) {
            self.ended |= 1 << process.pins;
        }
        *process = Process::at(again);
    }
}
