//! The offline verifier. It trusts the key that the auditor provides. It trusts nothing in an export, a checkpoint or a root list
//! before it has verified that this key has signed it.
//!
//! The verdict is one of four: intact; lawfully expired (which days); DAMAGED (which entries: the log's key has signed that they are
//! damaged in storage, and the rest is unchanged); TAMPERED (where, and why). The report names every gap that staff declared, whatever
//! the verdict. If the files do not suffice for a verdict, the result is an error.

mod bodies;
mod damage;
mod entries;
mod heads;
mod judge;
mod report;
mod stored;

pub use report::{DamagedEntry, DeclaredGap, Finding, Flaw, Location, Report, Verdict};
pub use stored::{StoredFlaw, TileSource, verify_stored};

use std::io::BufRead;
use std::ops::RangeInclusive;

use jiff::Timestamp;

use crate::note::InvalidKey;
use crate::roots::{BrokenChain, Chain, RootList, RootListError, Scope};
use crate::{Checkpoint, Hash, Origin, VerifierKey};
use heads::{Head, Source};
use report::Findings;

/// For how many missing or invalid lists the verifier waits until it knows whether a later list skips them.
const MOST_UNLISTED: usize = 1024;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the export cannot be read")]
    Read(#[from] std::io::Error),
    #[error("the key does not speak for what was brought")]
    Key(#[from] InvalidKey),
    #[error("{name} is a checkpoint of {found}, and what is verified is {wanted}")]
    OtherLog { name: String, found: String, wanted: String },
    #[error(
        "{name} is of {size} entries, which lie outside of the exported range, and no proof of consistency connects them; export \
         the whole log, or bring the proof"
    )]
    Unconnected { name: String, size: u64 },
}

/// Collects the checkpoints, root lists and proofs that an auditor has, and verifies an export against them.
#[derive(Debug)]
pub struct Verifier {
    environment_key: VerifierKey,
    key: VerifierKey,
    origin: Origin,
    now: Timestamp,
    heads: Vec<Head>,
    growths: Vec<(u64, Vec<Hash>)>,
    chain: Chain,
    lists: u64,
    is_listed: bool,
    /// Missing and invalid lists: their numbers, and what is wrong. They become findings unless a later list skips them.
    unlisted: Vec<(Option<RangeInclusive<u64>>, Location, Flaw)>,
    findings: Findings,
}

impl Verifier {
    /// `key` is the key of the environment, or of the one log; the export has to be of the log `origin`; `now` decides whether a
    /// day has expired.
    pub fn new(key: VerifierKey, origin: Origin, now: Timestamp) -> Result<Self, InvalidKey> {
        Ok(Self {
            key: key.for_origin(&origin.to_string())?,
            environment_key: key,
            origin,
            now,
            heads: Vec::new(),
            growths: Vec::new(),
            chain: Chain::new(),
            lists: 0,
            is_listed: false,
            unlisted: Vec::new(),
            findings: Findings::default(),
        })
    }

    /// Adds a checkpoint that the auditor has retained. The report calls it `name`.
    pub fn add_checkpoint(&mut self, name: &str, signed: &[u8]) -> Result<(), VerifyError> {
        let wanted = self.origin.to_string();
        match Checkpoint::open(signed, &self.key, &wanted) {
            Ok(checkpoint) => {
                let source = Source::Checkpoint { name: name.to_owned() };
                self.heads.push(Head { head: checkpoint.head, source });
            }
            Err(error) => {
                if let Some(found) = self.other_log(signed) {
                    return Err(VerifyError::OtherLog { name: name.to_owned(), found, wanted });
                }
                self.findings.add(Location::Checkpoint { name: name.to_owned() }, Flaw::Checkpoint(error));
            }
        }
        Ok(())
    }

    /// Adds a proof of consistency between the sizes of a checkpoint and of the export. The proof need not be trusted.
    pub fn add_growth(&mut self, from: u64, proof: Vec<Hash>) {
        self.growths.push((from, proof));
    }

    /// Adds the next root list. Callers add lists in the order of their numbers, without gaps, starting with any number.
    pub fn add_list(&mut self, name: &str, signed: &[u8]) -> Result<(), VerifyError> {
        self.lists = self.lists.saturating_add(1);
        let place = || Location::List { name: name.to_owned() };
        let list = match RootList::open(signed, &self.environment_key, &self.origin.environment) {
            Ok(list) => list,
            Err(RootListError::Key(error)) => return Err(error.into()),
            Err(error) => {
                self.add_unlisted(number_of(name).map(|number| number..=number), place(), Flaw::List(error));
                return Ok(());
            }
        };
        match self.chain.follow(&list) {
            Ok(()) => {}
            Err(BrokenChain::Number { last, found }) if last < found => {
                let missing = last.saturating_add(1)..=found.saturating_sub(1);
                self.add_unlisted(Some(missing), place(), Flaw::Chain(BrokenChain::Number { last, found }));
            }
            Err(broken) => self.findings.add(place(), Flaw::Chain(broken)),
        }
        match list.roots.get(&self.origin.log) {
            Some(head) => {
                self.is_listed = true;
                let source = Source::List { number: list.number, time: list.time, name: name.to_owned() };
                self.heads.push(Head { head: *head, source });
            }
            None if self.is_listed && list.scope == Scope::Full => self.findings.add(place(), Flaw::Unlisted),
            None => (),
        }
        Ok(())
    }

    /// Reads the export once. Memory does not grow with the size of the export.
    pub fn verify(mut self, export: impl BufRead) -> Result<Report, VerifyError> {
        for (numbers, place, flaw) in std::mem::take(&mut self.unlisted) {
            if !numbers.is_some_and(|numbers| self.chain.skips_all(&numbers)) {
                self.findings.add(place, flaw);
            }
        }
        entries::read(export, self)
    }

    fn add_unlisted(&mut self, numbers: Option<RangeInclusive<u64>>, place: Location, flaw: Flaw) {
        if self.unlisted.len() < MOST_UNLISTED {
            self.unlisted.push((numbers, place, flaw));
        } else {
            self.findings.add(place, flaw);
        }
    }

    /// The origin of a checkpoint that the auditor's key has signed, but for another log.
    fn other_log(&self, signed: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(signed).ok()?;
        let origin = text.lines().next().filter(|origin| *origin != self.origin.to_string())?;
        let key = self.environment_key.for_origin(origin).ok()?;
        Checkpoint::open(signed, &key, origin).ok().map(|checkpoint| checkpoint.origin)
    }
}

/// The number of a root list, from the name of its object or file.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.rsplit('/').next()?.trim_start_matches('0');
    crate::decimal::parse(digits)
}

#[cfg(test)]
mod tests;
