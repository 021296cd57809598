//! The verdict, from everything that was read.

use super::bodies::{Bodies, Judge};
use super::damage::Damages;
use super::heads::Heads;
use super::report::{DeclaredGap, Flaw, Location, Report};
use super::{Verifier, VerifyError};
use crate::export::Footer;
use crate::leaf::{Content, Gap, Retention};
use crate::merkle::Range;
use crate::{Checkpoint, Hash, TreeHead};

/// The content of an export, before anything is proven.
pub(super) struct Read {
    pub size: u64,
    pub first: u64,
    pub end: u64,
    /// All entries before `end`, or before the first line that is damaged or missing.
    pub tree: Range,
    pub is_whole: bool,
    pub heads: Heads,
    pub entries: u64,
    pub opened: u64,
    pub bodies: Bodies,
    /// The gaps and retentions of the range.
    pub records: Vec<(u64, Content)>,
    /// Gaps and retentions outside of the range, and the roots to which their proofs lead.
    pub outside: Vec<(u64, Content, Hash)>,
    pub damages: Damages,
}

/// The report on an export whose first line is not usable.
pub(super) fn without_export(verifier: Verifier) -> Report {
    Report {
        verdict: verifier.findings.verdict(Vec::new(), 0),
        head: None,
        first: 0,
        end: 0,
        entries: 0,
        bodies: 0,
        heads: 0,
        unconnected: 0,
        lists: verifier.lists,
        gaps: Vec::new(),
        damaged: Vec::new(),
        damaged_count: 0,
        times: None,
    }
}

pub(super) fn export(mut read: Read, footer: Option<&Footer>, mut verifier: Verifier) -> Result<Report, VerifyError> {
    let head = footer.and_then(|footer| signed_head(&read, footer, &mut verifier));
    if let (Some(footer), Some(head)) = (footer, head) {
        hold_to_root(&mut read, footer, head, &mut verifier);
    }
    let Damages { lost, named, count, open, .. } = std::mem::take(&mut read.damages);
    let times = read.bodies.times();
    let (mut gaps, retentions) = records(&mut read, head, &mut verifier);
    let (mut unconnected, mut expired) = (0, Vec::new());
    // nothing more can be verified about entries that do not lead to the signed root
    if let Some(head) = head.filter(|_| read.is_whole) {
        read.heads.connect(head, &verifier.growths);
        unconnected = match read.heads.judge(head, &open, &mut gaps, &mut verifier.findings) {
            // findings are reported even if a head cannot be compared
            Err(error) if verifier.findings.is_empty() => return Err(error),
            Err(_) => 0,
            Ok(unconnected) => unconnected,
        };
        let listed = read.heads.listed(head, &gaps, &mut verifier.findings);
        let judge = Judge { now: verifier.now, first: read.first, end: read.end, listed: &listed, lost: &lost };
        expired = read.bodies.judge(&retentions, &judge, &mut verifier.findings);
    }
    if verifier.findings.is_empty() && (head.is_none() || !read.is_whole) {
        // unreachable as far as we know; but without a verified root the verdict must not be intact
        verifier.findings.add(Location::Head, Flaw::Cut);
    }
    Ok(Report {
        verdict: verifier.findings.verdict(expired, count),
        head,
        first: read.first,
        end: read.end,
        entries: read.entries,
        bodies: read.opened,
        heads: read.heads.len(),
        unconnected,
        lists: verifier.lists,
        gaps,
        damaged: named,
        damaged_count: count,
        times,
    })
}

/// The head that the key has signed, if it is the head of this export.
fn signed_head(read: &Read, footer: &Footer, verifier: &mut Verifier) -> Option<TreeHead> {
    match Checkpoint::open(footer.checkpoint.as_bytes(), &verifier.key, &verifier.origin.to_string()) {
        Ok(checkpoint) if checkpoint.head.size == read.size => Some(checkpoint.head),
        Ok(checkpoint) => {
            verifier.findings.add(Location::Head, Flaw::OtherSize { found: checkpoint.head.size, wanted: read.size });
            None
        }
        Err(error) => {
            verifier.findings.add(Location::Head, Flaw::Checkpoint(error));
            None
        }
    }
}

/// Checks that all entries lead to the signed root. If they do not, the auditor's heads narrow down where they differ.
fn hold_to_root(read: &mut Read, footer: &Footer, head: TreeHead, verifier: &mut Verifier) {
    if !read.is_whole || whole_root(&read.tree, read.end, read.size, &footer.right) == Some(head.root) {
        return;
    }
    read.is_whole = false;
    let to = read.heads.first_differing().unwrap_or(read.size);
    verifier.findings.add(Location::Entries { from: read.heads.sound_before(to), to }, Flaw::OtherRoot);
}

/// The gaps and retentions that are proven to be in the log, in order.
fn records(read: &mut Read, head: Option<TreeHead>, verifier: &mut Verifier) -> (Vec<DeclaredGap>, Vec<(u64, Retention)>) {
    let mut all = std::mem::take(&mut read.records);
    for (sequence, content, root) in std::mem::take(&mut read.outside) {
        if head.is_some_and(|head| head.root == root) {
            all.push((sequence, content));
        } else if head.is_some() {
            verifier.findings.add(Location::Entry { sequence }, Flaw::OtherRoot);
        }
    }
    all.sort_by_key(|(sequence, _)| *sequence);
    let (mut gaps, mut retentions) = (Vec::new(), Vec::new());
    for (sequence, content) in all {
        match content {
            Content::Gap(gap) if gap.verify(&verifier.key, &verifier.origin, sequence).is_ok() => gaps.push(declared(sequence, &gap)),
            Content::Gap(_) => verifier.findings.add(Location::Entry { sequence }, Flaw::Gap),
            Content::Retention(retention) => retentions.push((sequence, retention)),
            Content::Entry { .. } => (),
        }
    }
    (gaps, retentions)
}

fn declared(sequence: u64, gap: &Gap) -> DeclaredGap {
    let unsigned = &gap.unsigned;
    DeclaredGap {
        sequence,
        agreed: unsigned.agreed,
        newest: unsigned.newest,
        since: unsigned.since,
        by: unsigned.by.clone(),
        reason: unsigned.reason,
        excuses: 0,
    }
}

/// The root that follows from the entries before `end` and from `right`, the hashes of the subtrees after them.
fn whole_root(tree: &Range, end: u64, size: u64, right: &[Hash]) -> Option<Hash> {
    let mut tree = tree.clone();
    tree.join(&Range::from_hashes(end, size, right).ok()?).ok()?;
    tree.root()
}
