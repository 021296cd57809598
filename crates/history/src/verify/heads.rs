//! The tree heads that the auditor provides, from checkpoints and root lists, and whether the log is consistent with them.

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::history::JstTime;

use super::VerifyError;
use super::report::{DeclaredGap, Findings, Flaw, Location};
use crate::merkle::{Range, verify_consistency};
use crate::{Hash, TreeHead};

/// How far the clocks of services may be apart, and how long a list may take to be written.
pub(super) const TOLERANCE: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, Clone)]
pub(super) struct Head {
    pub head: TreeHead,
    pub source: Source,
}

#[derive(Debug, Clone)]
pub(super) enum Source {
    Checkpoint { name: String },
    List { number: u64, time: JstTime, name: String },
}

impl Source {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Checkpoint { .. } => None,
            Self::List { number, .. } => Some(*number),
        }
    }

    fn place(&self) -> Location {
        match self {
            Self::Checkpoint { name } => Location::Checkpoint { name: name.clone() },
            Self::List { name, .. } => Location::List { name: name.clone() },
        }
    }
}

/// Heads in the order of their sizes, with which a growing tree is compared.
#[derive(Debug)]
pub(super) struct Heads {
    known: Vec<Head>,
    /// Whether the export agrees with each head. `None` if the two could not be compared.
    agrees: Vec<Option<bool>>,
    next: usize,
}

impl Heads {
    pub(super) fn new(mut heads: Vec<Head>) -> Self {
        heads.sort_by_key(|head| head.head.size);
        let agrees = vec![None; heads.len()];
        Self { known: heads, agrees, next: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.known.len()).unwrap_or(u64::MAX)
    }

    /// Called for every size that the tree reaches, in order.
    pub(super) fn reached(&mut self, tree: &Range) {
        let mut root = None;
        while let Some(head) = self.known.get(self.next).filter(|head| head.head.size <= tree.end()) {
            if head.head.size == tree.end() {
                let root = *root.get_or_insert_with(|| tree.root());
                if let Some(agrees) = self.agrees.get_mut(self.next) {
                    *agrees = root.map(|root| root == head.head.root);
                }
            }
            self.next += 1;
        }
    }

    /// Compares the remaining heads with the head of the whole log, with the empty log, and by proofs that the log grew from or to a head.
    pub(super) fn connect(&mut self, whole: TreeHead, growths: &[(u64, Vec<Hash>)]) {
        for (head, agrees) in self.known.iter().zip(&mut self.agrees).filter(|(_, agrees)| agrees.is_none()) {
            let known = head.head;
            if known.size == whole.size || known.size == 0 {
                *agrees = Some(known.root == if known.size == 0 { Hash::EMPTY } else { whole.root });
                continue;
            }
            let (old, new) = if known.size < whole.size { (known, whole) } else { (whole, known) };
            let proven = |(from, proof): &(u64, Vec<Hash>)| *from == known.size && verify_consistency(old, new, proof).is_ok();
            if growths.iter().any(proven) {
                *agrees = Some(true);
            }
        }
    }

    /// The last size below `size` at which the export agrees with a head: all entries before it are unchanged.
    pub(super) fn sound_before(&self, size: u64) -> u64 {
        let agreeing = self.known.iter().zip(&self.agrees).filter(|(head, agrees)| **agrees == Some(true) && head.head.size < size);
        agreeing.map(|(head, _)| head.head.size).max().unwrap_or(0)
    }

    /// The first size at which the export differs from a head.
    pub(super) fn first_differing(&self) -> Option<u64> {
        self.known.iter().zip(&self.agrees).find(|(_, agrees)| **agrees == Some(false)).map(|(head, _)| head.head.size)
    }

    /// Judges the heads, given the head of the export. Returns how many heads could not be compared with the export, including those whose
    /// size is within an `open` subtree, which has a lost entry.
    pub(super) fn judge(
        &self,
        whole: TreeHead,
        open: &[(u64, u64)],
        gaps: &mut [DeclaredGap],
        findings: &mut Findings,
    ) -> Result<u64, VerifyError> {
        let (mut unconnected, mut newest, mut sound) = (0_u64, None, 0);
        let mut gaps: Vec<(&mut DeclaredGap, Option<u64>)> = gaps.iter_mut().map(|gap| self.with_newest(gap)).collect();
        for (head, agrees) in self.known.iter().zip(&self.agrees) {
            let TreeHead { size, root } = head.head;
            if *agrees == Some(true) {
                sound = size;
                continue;
            }
            let may_be_lost = *agrees == Some(false) || size > whole.size;
            if let Some((gap, _)) = gaps.iter_mut().find(|(gap, newest)| may_be_lost && is_lost(head, gap, *newest)) {
                gap.excuses = gap.excuses.saturating_add(1);
            } else if *agrees == Some(false) {
                findings.add(head.source.place(), Flaw::Rewritten { size, root, from: sound });
            } else if size > whole.size {
                findings.add(head.source.place(), Flaw::Shorter { known: size, exported: whole.size });
            } else if open.iter().any(|(begin, end)| *begin < size && size < *end) {
                unconnected = unconnected.saturating_add(1);
            } else if let Source::Checkpoint { name } = &head.source {
                return Err(VerifyError::Unconnected { name: name.clone(), size });
            } else {
                unconnected = unconnected.saturating_add(1);
                newest = Some(head);
            }
        }
        // the head of a list may be outside of the range, but not the head of the newest list
        let listed = self.known.iter().zip(&self.agrees).filter(|(head, _)| matches!(head.source, Source::List { .. }));
        let connected = listed.filter(|(_, agrees)| **agrees == Some(true)).map(|(head, _)| head.head.size).max();
        match newest {
            Some(Head { head, source: Source::List { name, .. } }) if connected < Some(head.size) => {
                Err(VerifyError::Unconnected { name: name.clone(), size: head.size })
            }
            _ => Ok(unconnected),
        }
    }

    /// A gap, and the number of the first list that has the newest head of the lost log.
    fn with_newest<'a>(&self, gap: &'a mut DeclaredGap) -> (&'a mut DeclaredGap, Option<u64>) {
        let newest = self.known.iter().filter(|known| known.head == gap.newest).filter_map(|known| known.source.number()).min();
        (gap, newest)
    }

    /// The heads of lists that agree with the log, in the order of the lists. Adds a finding for each error in that order.
    pub(super) fn listed(&self, whole: TreeHead, gaps: &[DeclaredGap], findings: &mut Findings) -> Listed {
        let mut lists: Vec<(u64, JstTime, u64, bool, &Source)> = Vec::new();
        for (head, agrees) in self.known.iter().zip(&self.agrees) {
            let size = head.head.size;
            // a head larger than the exported log does not agree: it is of another log or of a newer state
            let agrees = agrees.or((size > whole.size).then_some(false));
            if let (Source::List { number, time, .. }, Some(agrees)) = (&head.source, agrees) {
                lists.push((*number, *time, size, agrees, &head.source));
            }
        }
        lists.sort_by_key(|(number, ..)| *number);
        let mut heads: Vec<Agreed> = Vec::with_capacity(lists.len());
        for (number, time, size, agrees, source) in lists {
            match heads.last() {
                Some(last) if agrees && size < last.size => {
                    findings.add(source.place(), Flaw::Shrunk { list: last.number, before: last.size, size });
                }
                Some(last) if !agrees => {
                    let behind = gaps.iter().find(|gap| gap.sequence < last.size && gap.agreed < size && size <= gap.newest.size);
                    if let Some(gap) = behind {
                        findings.add(source.place(), Flaw::BackBehindGap { gap: gap.sequence, list: last.number });
                    }
                }
                _ => (),
            }
            if agrees {
                heads.push(Agreed { number, time: time.timestamp(), size });
            }
        }
        Listed(heads)
    }
}

/// Whether a head covers entries that a gap declares lost. Lists show the lost log growing up to its newest head, in list
/// `newest`, and never again after that list.
fn is_lost(head: &Head, gap: &DeclaredGap, newest: Option<u64>) -> bool {
    let TreeHead { size, root } = head.head;
    let is_within = gap.agreed < size && size <= gap.newest.size && (size < gap.newest.size || root == gap.newest.root);
    let is_after = matches!((head.source.number(), newest), (Some(list), Some(newest)) if list > newest);
    is_within && (!is_after || head.head == gap.newest)
}

#[derive(Debug)]
struct Agreed {
    number: u64,
    time: Timestamp,
    size: u64,
}

/// What root lists prove about the time at which entries existed. Sizes and times grow from list to list.
#[derive(Debug)]
pub(super) struct Listed(Vec<Agreed>);

impl Listed {
    /// The list that shows that the log had the entry before `time`, if one does.
    pub(super) fn had(&self, sequence: u64, time: Timestamp) -> Option<u64> {
        let at = self.0.partition_point(|list| list.size <= sequence);
        let earliest = self.0.get(at)?;
        let before = earliest.time.checked_add(TOLERANCE).is_ok_and(|latest| latest < time);
        before.then_some(earliest.number)
    }

    /// The list that shows that the log did not have the entry at `time`, if one does.
    pub(super) fn had_not(&self, sequence: u64, time: Timestamp) -> Option<u64> {
        let after = self.0.partition_point(|list| list.size <= sequence);
        let latest = self.0.get(after.checked_sub(1)?)?;
        let after = latest.time.checked_sub(TOLERANCE).is_ok_and(|earliest| earliest >= time);
        after.then_some(latest.number)
    }
}
