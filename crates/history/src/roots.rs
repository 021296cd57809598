//! Root lists: signed notes with the sizes and roots of all logs, locked in object storage. Each has the hash of the previous list, so
//! that a verifier detects an omitted or replaced list. They name logs by opaque ids.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use tsujiban_core::history::JstTime;

use crate::merkle::sha256;
use crate::note::{self, InvalidKey, NoteError};
use crate::{EnvironmentOrigin, Hash, LogId, SigningKey, TreeHead, VerifierKey, decimal};

mod skipped;

pub use skipped::Skipped;

/// The prefix of the line with the skipped numbers. No log id begins with it.
const SKIPPED: &str = "skipped ";

/// Which logs a list contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every log.
    Full,
    /// The logs that have grown since the previous list.
    Changed,
}

/// One list. The first has number 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootList {
    pub environment: EnvironmentOrigin,
    pub number: u64,
    pub time: JstTime,
    pub scope: Scope,
    /// SHA-256 of the text of the newest earlier list that is not skipped; for the first list, of the empty text.
    pub previous: Hash,
    /// Numbers whose objects are not lists of this chain: staff declared them missing, damaged or foreign. Empty except in full lists.
    pub skipped: Skipped,
    pub roots: BTreeMap<LogId, TreeHead>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootListError {
    #[error("the signed note does not hold")]
    Note(#[from] NoteError),
    #[error("the key does not speak for root lists")]
    Key(#[from] InvalidKey),
    #[error("this is not a root list")]
    Malformed,
}

impl RootList {
    /// The name of the object that holds list `number`.
    pub fn object_name(number: u64) -> String {
        format!("roots/{number:012}")
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let scope = if self.scope == Scope::Full { "full" } else { "changed" };
        let origin = self.environment.roots();
        let mut text = format!("{origin}\n{}\n{}\n{scope}\n{}\n", self.number, self.time, self.previous);
        if !self.skipped.is_empty() {
            let _ = writeln!(text, "{SKIPPED}{}", self.skipped);
        }
        for (log, head) in &self.roots {
            // writing to a String does not fail
            let _ = writeln!(text, "{log} {} {}", head.size, head.root);
        }
        text
    }

    /// The hash that the next list has to have as `previous`.
    pub fn digest(&self) -> Hash {
        sha256(self.text().as_bytes())
    }

    pub fn sign(&self, key: &SigningKey) -> Result<String, RootListError> {
        let text = self.text();
        if Self::parse(&text).as_ref() != Some(self) {
            return Err(RootListError::Malformed);
        }
        Ok(note::sign(&text, key, &self.environment.roots().parse()?)?)
    }

    /// A list that the key of the environment has signed.
    pub fn open(signed: &[u8], key: &VerifierKey, environment: &EnvironmentOrigin) -> Result<Self, RootListError> {
        let key = key.for_origin(&environment.roots())?;
        let list = Self::parse(note::open(signed, &key)?).filter(|list| list.environment == *environment);
        list.ok_or(RootListError::Malformed)
    }

    /// Accepts only what [`RootList::text`] writes.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let environment = EnvironmentOrigin::of_roots(lines.next()?)?;
        let number = decimal::parse(lines.next()?)?;
        let time = lines.next()?.parse().ok()?;
        let scope = match lines.next()? {
            "full" => Scope::Full,
            "changed" => Scope::Changed,
            _ => return None,
        };
        let previous = lines.next()?.parse().ok()?;
        let mut lines = lines.peekable();
        let skipped = match lines.next_if(|line| line.starts_with(SKIPPED)) {
            Some(line) => line.strip_prefix(SKIPPED)?.parse().ok()?,
            None => Skipped::default(),
        };
        if skipped.contains(number) || (scope == Scope::Changed && !skipped.is_empty()) {
            return None;
        }
        let mut roots = BTreeMap::new();
        for line in lines {
            let (log, head) = line.split_once(' ')?;
            let (size, root) = head.split_once(' ')?;
            let head = TreeHead { size: decimal::parse(size)?, root: root.parse().ok()? };
            let log: LogId = log.parse().ok()?;
            // in order, each once
            if roots.last_key_value().is_some_and(|(last, _)| *last >= log) || head.size == 0 {
                return None;
            }
            roots.insert(log, head);
        }
        let first = number == 1 && previous == Hash::EMPTY;
        (first || number > 1).then_some(Self { environment, number, time, scope, previous, skipped, roots })
    }
}

/// How many of the last lists a chain retains: a list that skips all of these is not checked against an earlier list.
const REMEMBERED: usize = 64;

/// Checks that each list continues the previous one.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    links: VecDeque<Link>,
    skipped: Skipped,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    number: u64,
    time: JstTime,
    digest: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenChain {
    #[error("list {found} stands where list {} has to be", .last.saturating_add(1))]
    Number { last: u64, found: u64 },
    #[error("the list names another one than the list {before} that is here as the list before it")]
    Previous { before: u64 },
    #[error("the list is older than the list {before} before it")]
    Time { before: u64 },
}

impl Chain {
    pub fn new() -> Self {
        Self::default()
    }

    /// A chain that continues after a list that is known to be valid, such as the newest one in the bucket.
    pub fn after(list: &RootList) -> Self {
        let mut chain = Self::default();
        chain.take(list);
        chain
    }

    /// The number that the next list has to have, unless that list skips this number. `None` if the chain accepts any number.
    pub fn next(&self) -> Option<u64> {
        self.links.back().map(|link| self.skipped.next_after(link.number))
    }

    /// Whether a list skipped this number.
    pub fn skips(&self, number: u64) -> bool {
        self.skipped.contains(number)
    }

    /// Whether lists skipped all of these numbers.
    pub fn skips_all(&self, numbers: &RangeInclusive<u64>) -> bool {
        self.skipped.contains_all(numbers)
    }

    /// Advances to `list`, even if it does not continue the chain. A list may skip numbers, including those of earlier lists: it then has
    /// to continue the newest list that it does not skip.
    pub fn follow(&mut self, list: &RootList) -> Result<(), BrokenChain> {
        self.skipped.extend(&list.skipped);
        while self.links.pop_back_if(|link| list.skipped.contains(link.number)).is_some() {}
        let (before, next) = (self.links.back().copied(), self.next());
        self.take(list);
        let (Some(link), Some(next)) = (before, next) else { return Ok(()) };
        let before = link.number;
        if list.number != next {
            return Err(BrokenChain::Number { last: before, found: list.number });
        }
        if list.previous != link.digest {
            return Err(BrokenChain::Previous { before });
        }
        if list.time < link.time { Err(BrokenChain::Time { before }) } else { Ok(()) }
    }

    /// Advances to a list that is no longer readable, but whose time and digest the caller has from another source.
    pub fn pass(&mut self, number: u64, time: JstTime, digest: Hash) {
        if self.links.len() >= REMEMBERED {
            self.links.pop_front();
        }
        self.links.push_back(Link { number, time, digest });
    }

    fn take(&mut self, list: &RootList) {
        self.skipped.extend(&list.skipped);
        self.pass(list.number, list.time, list.digest());
    }
}

#[cfg(test)]
mod tests;
