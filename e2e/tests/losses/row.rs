//! What a row of the table says: an input, what has to be seen of it, and what has to be healed, each within a time.

use tsujiban_core::workload::{Service, Workload};

/// A loss, damage or clumsy hand.
#[derive(Debug)]
pub struct Row {
    /// A short name of its own.
    pub id: &'static str,
    /// What is done, in words: the first column of docs/losses.md.
    pub input: &'static str,
    pub steps: &'static [Step],
    pub seen: &'static [Sign],
    pub seen_within_s: u64,
    /// What the documents tell people to do. Empty: it heals by itself.
    pub remedy: &'static [Step],
    /// That nothing acknowledged is missing is always asked besides, unless the row says what is lost.
    pub healed: &'static [Sign],
    pub healed_within_s: u64,
    /// What this loss takes for ever, and is named as lost.
    pub loses: Loses,
    /// Whether `make test` runs it.
    pub is_short: bool,
}

/// What a row takes for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loses {
    Nothing,
    /// The contents of objects that were damaged: they stay listed, as damaged.
    Contents,
    /// Entries that no caller keeps any more: a signed gap names them.
    Entries,
}

/// The bucket of a service on the test cluster.
pub const fn bucket(service: Service) -> &'static str {
    // the first one's is called as the product
    if matches!(service, Service::FIRST) { "tsujiban" } else { service.row().host }
}

/// Something that is done to the cluster.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The routers' configs change, and the group is backed up. Whatever comes of it.
    BackUp,
    /// As `BackUp`, and every config has to be stored.
    BackUpWell,
    /// The group is backed up with configs that did not change.
    BackUpAgain,
    /// The Tenant is edited so many times, and each edit has to come into the history unless that is away.
    Declare(u32),
    /// Sites are made and deleted.
    Sites(u32),
    /// So many reads through the backup service, each of which is an entry of the group's history.
    Calls(u32),
    /// The second Device is deleted, and its data erased with it.
    EraseDevice,
    /// Damages objects in a bucket.
    Object(Pick, Damage),
    /// Stops the service, changes rows of its database, starts it.
    Rows(Service, &'static str),
    Volume(Service, VolumeLoss),
    Stop(Service),
    Start(Service),
    /// Ends the process by signal 9; the kubelet starts it again.
    Kill(Workload),
    StopStorage,
    StartStorage,
    /// What is left of the storage's disk is taken, until `EmptyStorage`.
    FillStorage,
    EmptyStorage,
    /// Deletes an object of Kubernetes and remembers it: kind, namespace (empty: none), name.
    TakeAway(&'static str, &'static str, &'static str),
    /// Makes what was taken away again, in the order in which it went.
    PutBack,
    /// Puts the chart over what is there.
    Deploy,
    /// A command of `tsujiban` that has to end with 0. `GROUP` is the group.
    Run(&'static [&'static str]),
    /// An auditor takes an export and a checkpoint.
    Export,
    Wait(u64),
}

/// Which objects of a bucket.
#[derive(Debug, Clone, Copy)]
pub enum Pick {
    /// The sealed configs of the group's first device.
    Newest,
    Oldest,
    /// Both of the first device's, the older one first.
    Both,
    /// All of the bucket.
    All,
    KeyTable,
    /// The newest root list.
    RootList,
    RootLists,
}

/// What is done to objects.
#[derive(Debug, Clone, Copy)]
pub enum Damage {
    /// One bit in the middle.
    Flip,
    /// The same, and the storage's own checksum of it goes: it gives the object without a fault.
    FlipUnsummed,
    /// The last 100 bytes go.
    Cut,
    Empty,
    /// The file goes, and every older version of it.
    Remove,
    /// Two objects get each other's contents, and keep their attributes.
    SwapContents,
    /// Two objects get each other's names.
    SwapFiles,
    /// It is copied as it is now, for `Older`.
    Keep,
    /// The copy is put in its place.
    Older,
    /// A copy of it under a name that is so many numbers further on: a root list that nobody signed as that one.
    CopyAhead(u64),
}

/// What becomes of a volume.
#[derive(Debug, Clone, Copy)]
pub enum VolumeLoss {
    /// It is copied as it is now, for `Older`.
    Keep,
    /// The copy is put in its place.
    Older,
    /// Everything on it goes while the service is stopped.
    Lost,
    /// Only the database's files go, while the service is stopped.
    Database,
    /// The database's log file goes, while the service is stopped.
    Wal,
    /// The database's file is removed under the running service.
    Unlinked,
    /// A copy of the database's file is put in its place under the running service.
    Replaced,
    /// A page of the database in the middle is overwritten, while the service is stopped.
    Page,
    /// The first page of an index of the database, while the service is stopped.
    IndexPage(&'static str),
    /// One byte of the newest spool file changes, while the service is stopped.
    SpoolByte,
    /// The spool's folder goes, while the service is stopped.
    Spool,
    /// It has this many MiB free from now on, and no more.
    Small(u64),
    /// What is left of it is taken, until `Emptied`.
    Filled,
    Emptied,
}

/// Something that has to be seen. `GROUP` in texts is the group.
#[derive(Debug, Clone, Copy)]
pub enum Sign {
    /// A condition of the group's Tenant with this status, and this reason unless it is empty.
    Condition(&'static str, &'static str, &'static str),
    /// A condition of the group's first Device.
    Device(&'static str, &'static str),
    /// A metric of a service, summed over its labels.
    Metric(Workload, &'static str, Comparison),
    /// A line of a log that holds these words.
    Log(Workload, &'static str),
    /// What `tsujiban` answers to a command: its exit code, and words of its output.
    Cli(&'static [&'static str], i32, &'static str),
    Ready(Service),
    NotReady(Service),
    /// Nothing of its database lies beside the database's file: a copy of the file is a copy.
    Checkpointed(Service),
    /// A new entry of this method and operation, in the group's history or in the platform's own.
    Entry(&'static str, &'static str),
    /// What `verify` says of a fresh export with every checkpoint that the auditor has.
    Verdict(&'static str),
    /// As many entries for Sites as were made and deleted.
    SitesRecorded,
}

/// What a metric has to be.
#[derive(Debug, Clone, Copy)]
pub enum Comparison {
    Is(f64),
    AtLeast(f64),
}

impl Comparison {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Is(wanted) => (value - wanted).abs() < f64::EPSILON,
            Self::AtLeast(wanted) => value >= wanted,
        }
    }
}
