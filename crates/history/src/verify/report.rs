use std::fmt;

use tsujiban_core::history::{Day, JstTime};

use crate::checkpoint::CheckpointError;
use crate::export::{InvalidDamage, Loss};
use crate::merkle::NotProven;
use crate::roots::{BrokenChain, RootListError};
use crate::show::escape_line;
use crate::{Hash, TreeHead};

/// How many findings are named. The rest is counted.
const NAMED: usize = 50;

/// The verifier's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub verdict: Verdict,
    /// The log's head when it was exported. `None` if the checkpoint of the export is not valid.
    pub head: Option<TreeHead>,
    /// The range of the export.
    pub first: u64,
    pub end: u64,
    /// How many entries were read, and how many bodies.
    pub entries: u64,
    pub bodies: u64,
    /// How many heads of checkpoints and lists the auditor provided, and how many of them could not be compared with the export.
    pub heads: u64,
    pub unconnected: u64,
    pub lists: u64,
    /// The gaps that staff declared, whatever the verdict.
    pub gaps: Vec<DeclaredGap>,
    /// The first entries that signed statements declare damaged, and how many there are.
    pub damaged: Vec<DamagedEntry>,
    pub damaged_count: u64,
    /// The earliest and the latest time in the bodies that were read.
    pub times: Option<(JstTime, JstTime)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Intact,
    /// Nothing was altered; bodies of these days expired lawfully.
    Expired(Vec<Day>),
    /// Nothing was altered except entries that the service has signed as damaged; bodies of these days expired lawfully.
    Damaged(Vec<Day>),
    Tampered {
        findings: Vec<Finding>,
        /// How many more findings there are.
        more: u64,
    },
}

/// Where something is wrong, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub place: Location,
    pub flaw: Flaw,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A line of the export, counted from 1, and the entry that has to be there, if one has to.
    Line {
        line: u64,
        entry: Option<u64>,
    },
    Entry {
        sequence: u64,
    },
    /// Somewhere from `from` to before `to`.
    Entries {
        from: u64,
        to: u64,
    },
    /// The checkpoint in the export.
    Head,
    /// A checkpoint that the auditor provided.
    Checkpoint {
        name: String,
    },
    List {
        name: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the line is not the canonical JSON that an export writes; it was edited or re-encoded")]
    Line,
    #[error("the export is cut")]
    Cut,
    #[error("something follows the end")]
    Trailing,
    #[error("there is more here than any log has")]
    TooMuch,
    #[error("the export is of another log: {0:?}")]
    OtherLog(String),
    #[error("the export names another key than the one that was brought")]
    OtherKey,
    #[error("the range does not fit into the log")]
    Range,
    #[error("the entries are missing")]
    Missing,
    #[error("the entry stands here again, or too late")]
    Repeated,
    #[error("the leaf says that it is of entry {0}")]
    OtherEntry(u64),
    #[error("the leaf is not that of any entry")]
    Leaf,
    #[error("the leaf is not the one whose hash stands beside it")]
    Check,
    #[error("the body is not the one to which the leaf commits")]
    Body,
    #[error("the leaf is not the one of which the statement of damage speaks")]
    OtherLeaf,
    #[error("the statement of damage does not hold: {0}")]
    Damage(InvalidDamage),
    #[error("the entry is not an operation, so it must have no body, and it has one")]
    NoOperation,
    #[error("the body is missing, of {0} entries of one day in all, and no retention says that the day has gone")]
    NoBody(u64),
    #[error("the entry says that {0} has gone, which has not expired yet")]
    TooEarly(Day),
    #[error("the entry says that {day} has gone, and counts entries {first} to {last}, {count} in all, where others are")]
    OtherCount { day: Day, first: u64, last: u64, count: u64 },
    #[error(
        "the entry says that {day} has gone, and list {list} shows entries of it that were there before it began or came after its end"
    )]
    OtherDay { day: Day, list: u64 },
    #[error("the entry says that {day} has gone, of which no entry can be that came after an operation of {after}")]
    Younger { day: Day, after: JstTime },
    #[error("the gap is not signed by the log's key for this place")]
    Gap,
    #[error("the entries are not those of the signed root")]
    OtherRoot,
    #[error("the signed checkpoint does not hold: {0}")]
    Checkpoint(CheckpointError),
    #[error("the signed checkpoint is of {found} entries, the export of {wanted}")]
    OtherSize { found: u64, wanted: u64 },
    #[error("the list does not hold: {0}")]
    List(RootListError),
    #[error("the chain of lists is broken: {0}")]
    Chain(BrokenChain),
    #[error("the full list does not name the log, which an earlier one names")]
    Unlisted,
    #[error(
        "the history was rewritten: what is exported is not what {size} entries were then, whose root was {root}; they differ somewhere from entry {from} on"
    )]
    Rewritten { size: u64, root: Hash, from: u64 },
    #[error(
        "the log had {known} entries then, and what is exported ends with {exported}: take a new export; if it ends there, too, entries were cut off"
    )]
    Shorter { known: u64, exported: u64 },
    #[error("the log had {before} entries in list {list} before, and {size} here")]
    Shrunk { list: u64, before: u64, size: u64 },
    #[error("the list goes back behind the gap at entry {gap}, after list {list} had gone on from it")]
    BackBehindGap { gap: u64, list: u64 },
    #[error("the proof does not hold: {0}")]
    Proof(NotProven),
}

/// An entry that is damaged where it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedEntry {
    pub sequence: u64,
    pub loss: Loss,
}

/// Entries that were lost, and whose loss staff declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredGap {
    /// The entry that declares it.
    pub sequence: u64,
    /// From this entry to before `newest.size`, entries were lost or replaced by others.
    pub agreed: u64,
    pub newest: TreeHead,
    pub since: JstTime,
    pub by: String,
    pub reason: Hash,
    /// How many of the auditor's heads cover lost entries.
    pub excuses: u64,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    named: Vec<Finding>,
    more: u64,
}

impl Findings {
    pub(super) fn add(&mut self, place: Location, flaw: Flaw) {
        let finding = Finding { place, flaw };
        if self.named.len() < NAMED {
            self.named.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    pub(super) fn verdict(self, expired: Vec<Day>, damaged: u64) -> Verdict {
        match (self.named, expired) {
            (named, expired) if named.is_empty() && damaged > 0 => Verdict::Damaged(expired),
            (named, expired) if named.is_empty() && expired.is_empty() => Verdict::Intact,
            (named, expired) if named.is_empty() => Verdict::Expired(expired),
            (findings, _) => Verdict::Tampered { findings, more: self.more },
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, entry: None } => write!(f, "line {line}"),
            Self::Line { line, entry: Some(entry) } => write!(f, "line {line}, where entry {entry} has to stand"),
            Self::Entry { sequence } => write!(f, "entry {sequence}"),
            Self::Entries { from, to } if to.saturating_sub(*from) == 1 => write!(f, "entry {from}"),
            Self::Entries { from, to } => write!(f, "entries {from} to {}", to.saturating_sub(1)),
            Self::Head => f.write_str("the export's checkpoint"),
            Self::Checkpoint { name } => write!(f, "checkpoint {}", escape_line(name)),
            Self::List { name } => write!(f, "list {}", escape_line(name)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, escape_line(&self.flaw.to_string()))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intact => f.write_str("intact"),
            Self::Expired(days) => expired(f, days),
            Self::Damaged(days) => {
                f.write_str("DAMAGED")?;
                if days.is_empty() {
                    return Ok(());
                }
                f.write_str("; ")?;
                expired(f, days)
            }
            Self::Tampered { findings, more } => {
                f.write_str("TAMPERED")?;
                findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))?;
                if *more > 0 { write!(f, "\n  and {more} more") } else { Ok(()) }
            }
        }
    }
}

fn expired(f: &mut fmt::Formatter<'_>, days: &[Day]) -> fmt::Result {
    let days: Vec<String> = days.iter().map(Day::to_string).collect();
    write!(f, "lawfully expired: {}", days.join(", "))
}

impl fmt::Display for DamagedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.loss {
            Loss::Entry => "nothing of it is left where it was stored",
            Loss::Body => "its body is damaged where it was stored; its leaf is there",
        };
        write!(f, "entry {}: {what}", self.sequence)
    }
}

/// Several lines: the verdict, what is damaged, and the gaps.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        self.damaged.iter().try_for_each(|damaged| write!(f, "\n  {damaged}"))?;
        let named = u64::try_from(self.damaged.len()).unwrap_or(u64::MAX);
        if self.damaged_count > named {
            write!(f, "\n  and {} more", self.damaged_count.saturating_sub(named))?;
        }
        for gap in &self.gaps {
            let DeclaredGap { sequence, agreed, newest, since, by, .. } = gap;
            write!(f, "\ngap declared by {} at entry {sequence}, since {since}: ", escape_line(by))?;
            write!(f, "what were entries {agreed} to {} is lost", newest.size.saturating_sub(1))?;
        }
        Ok(())
    }
}
