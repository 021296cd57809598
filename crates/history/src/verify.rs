//! The offline verifier. It trusts the key that the auditor provides. It believes nothing in an export, a checkpoint or a root list
//! before it has verified that this key has signed it.
//!
//! It answers one of four: intact; lawfully expired (which days); DAMAGED (which entries: the log's key has signed that they are damaged where
//! they are stored, and the rest is unchanged); TAMPERED (where, and why). A gap that staff declared is
//! named beside the answer, whatever the answer is. When the files are not enough for an answer, there is an error instead.

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

/// How many objects that are no lists a list may skip.
const MOST_UNLISTED: usize = 1024;

/// Why there is no answer.
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

/// Gathers what an auditor has, and verifies an export against it.
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
    /// What is wrong with objects that are no lists, or that are not there, and their numbers: a list may say that they are skipped.
    unlisted: Vec<(Option<RangeInclusive<u64>>, Location, Flaw)>,
    findings: Findings,
}

impl Verifier {
    /// `key` is that of the environment, or of the one log; `origin` says which log the export has to be of; `now` judges
    /// whether a day has expired.
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

    /// A checkpoint that the auditor has from earlier. `name` is what the answer calls it.
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

    /// A proof of consistency between the size of a checkpoint and that of the export. It need not be trusted.
    pub fn add_growth(&mut self, from: u64, proof: Vec<Hash>) {
        self.growths.push((from, proof));
    }

    /// The next root list. Lists come in the order of their numbers, without gaps, from whichever number on.
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

    /// Reads the export once, in memory that does not grow with it.
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

    /// The log that a checkpoint is of, if the auditor's key has signed it, but for another log.
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
