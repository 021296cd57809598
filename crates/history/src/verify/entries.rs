//! Reads an export line by line.

use std::io::{BufRead, Read as _};

use super::bodies::{Bodies, Body};
use super::damage::Damages;
use super::heads::Heads;
use super::judge::{self, Read};
use super::report::{Findings, Flaw, Location, Report};
use super::{Verifier, VerifyError};
use crate::Leaf;
use crate::export::{Damage, EntryLine, Footer, Header, Line, Loss, MAX_LINE, Outside, UnsignedDamage};
use crate::leaf::{Content, InvalidLeaf};
use crate::merkle::{MAX_SIZE, Range, leaf_hash, root_from_inclusion};

/// More gaps, retentions and proofs than any log has.
const MOST_OUTSIDE: usize = 1 << 16;

pub(super) fn read(mut export: impl BufRead, mut verifier: Verifier) -> Result<Report, VerifyError> {
    let mut buffer = Vec::new();
    let mut line = 1_u64;
    let header = match next_line(&mut export, &mut buffer)? {
        Text::Line => Header::parse(&buffer),
        Text::End | Text::Broken => None,
    };
    let Some(mut reading) = header.and_then(|header| Reading::begin(&header, &mut verifier)) else {
        if verifier.findings.is_empty() {
            verifier.findings.add(Location::Line { line, entry: None }, Flaw::Line);
        }
        return Ok(judge::without_export(verifier));
    };
    let mut footer: Option<Footer> = None;
    loop {
        line = line.saturating_add(1);
        let text = next_line(&mut export, &mut buffer)?;
        let place = Location::Line { line, entry: reading.wanted() };
        match (text, &footer) {
            (Text::End, _) => break,
            (_, Some(_)) => {
                verifier.findings.add(place, Flaw::Trailing);
                break;
            }
            (Text::Broken, None) => {
                reading.lost();
                verifier.findings.add(place, Flaw::Line);
            }
            (Text::Line, None) => match Line::parse(&buffer) {
                Some(Line::Entry(entry)) => reading.entry(&entry, place, &mut verifier),
                Some(Line::Damage(damage)) => reading.damage(damage, place, &mut verifier),
                Some(Line::Outside(outside)) => reading.outside(&outside, place, &mut verifier),
                Some(Line::Growth(growth)) if reading.read.outside.len() + verifier.growths.len() < MOST_OUTSIDE => {
                    verifier.growths.push((growth.from, growth.proof));
                }
                Some(Line::Growth(_)) => verifier.findings.add(place, Flaw::TooMuch),
                Some(Line::Footer(found)) => footer = Some(found),
                None => {
                    reading.lost();
                    verifier.findings.add(place, Flaw::Line);
                }
            },
        }
    }
    let Reading { mut read, expected, .. } = reading;
    if expected < read.end {
        read.is_whole = false;
        verifier.findings.add(Location::Entries { from: expected, to: read.end }, Flaw::Missing);
    }
    if footer.is_none() {
        verifier.findings.add(Location::Line { line, entry: None }, Flaw::Cut);
    }
    judge::export(read, footer.as_ref(), verifier)
}

enum Text {
    Line,
    /// Too long, or without its line break.
    Broken,
    End,
}

/// Reads a line into `buffer`, without its line break.
fn next_line(export: &mut impl BufRead, buffer: &mut Vec<u8>) -> std::io::Result<Text> {
    buffer.clear();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    export.by_ref().take(limit).read_until(b'\n', buffer)?;
    match buffer.pop() {
        None => Ok(Text::End),
        Some(b'\n') => Ok(Text::Line),
        Some(_) => Ok(Text::Broken),
    }
}

struct Reading {
    read: Read,
    /// The entry that the next line has to be of.
    expected: u64,
}

impl Reading {
    /// `None` if the lines after this header cannot be verified.
    fn begin(header: &Header, verifier: &mut Verifier) -> Option<Self> {
        let place = || Location::Line { line: 1, entry: None };
        if header.origin != verifier.origin.to_string() || header.log != verifier.origin.log.to_string() {
            verifier.findings.add(place(), Flaw::OtherLog(header.origin.chars().take(120).collect()));
            return None;
        }
        if header.key != verifier.key.to_string() {
            verifier.findings.add(place(), Flaw::OtherKey);
        }
        let left = Range::from_hashes(0, header.first, &header.left);
        let Some(tree) = left.ok().filter(|_| header.first <= header.end && header.end <= header.size && header.size <= MAX_SIZE) else {
            verifier.findings.add(place(), Flaw::Range);
            return None;
        };
        let mut heads = Heads::new(std::mem::take(&mut verifier.heads));
        heads.reached(&tree);
        let read = Read {
            size: header.size,
            first: header.first,
            end: header.end,
            tree,
            is_whole: true,
            heads,
            entries: 0,
            opened: 0,
            bodies: Bodies::default(),
            records: Vec::new(),
            outside: Vec::new(),
            damages: Damages::default(),
        };
        Some(Self { expected: header.first, read })
    }

    fn wanted(&self) -> Option<u64> {
        (self.expected < self.read.end).then_some(self.expected)
    }

    /// Counts a line that could not be parsed as the entry that has to be there.
    fn lost(&mut self) {
        if self.expected < self.read.end {
            self.read.is_whole = false;
            self.pass(self.expected);
        }
    }

    /// Advances past an entry, and past the lost entries after it.
    fn pass(&mut self, sequence: u64) {
        self.expected = self.read.damages.skip_lost(sequence.saturating_add(1));
        self.close();
    }

    /// Ends a statement whose entries were all read. If some are lost, appends the hash of their subtree instead of their hashes.
    fn close(&mut self) {
        let Some(statement) = self.read.damages.at.take_if(|statement| statement.end <= self.expected) else { return };
        if self.read.is_whole && statement.is_open() {
            let subtree = Range::from_hashes(statement.damaged, statement.end, &[statement.hash]);
            self.read.is_whole = subtree.is_ok_and(|subtree| self.read.tree.join(&subtree).is_ok());
            self.read.heads.reached(&self.read.tree);
        }
    }

    fn damage(&mut self, damage: Damage, place: Location, verifier: &mut Verifier) {
        let (begin, end) = (damage.unsigned.damaged, damage.unsigned.end);
        if begin < self.expected || end > self.read.end || self.read.damages.at.is_some() {
            verifier.findings.add(place, Flaw::Repeated);
            return;
        }
        if damage.unsigned.size != self.read.size {
            verifier.findings.add(place, Flaw::OtherSize { found: damage.unsigned.size, wanted: self.read.size });
            return;
        }
        if let Err(error) = damage.verify(&verifier.key, &verifier.origin) {
            verifier.findings.add(place, Flaw::Damage(error));
            return;
        }
        if begin > self.expected {
            self.read.is_whole = false;
            verifier.findings.add(Location::Entries { from: self.expected, to: begin }, Flaw::Missing);
        }
        self.read.damages.begin(damage.unsigned);
        self.expected = self.read.damages.skip_lost(begin);
        self.close();
    }

    fn entry(&mut self, entry: &EntryLine<'_>, place: Location, verifier: &mut Verifier) {
        let findings = &mut verifier.findings;
        let (sequence, leaf) = (entry.sequence, Leaf::parse(entry.leaf()));
        if let Some(other) = leaf.as_ref().ok().map(|leaf| leaf.sequence).filter(|other| entry.is_sound && *other != sequence) {
            self.lost();
            findings.add(place, Flaw::OtherEntry(other));
            return;
        }
        if sequence >= self.read.end || sequence < self.expected {
            findings.add(place, Flaw::Repeated);
            return;
        }
        if sequence > self.expected {
            self.read.is_whole = false;
            findings.add(Location::Entries { from: self.expected, to: sequence }, Flaw::Missing);
        }
        let stated = self.read.damages.of(sequence);
        let (is_open, loss) = (stated.is_some_and(UnsignedDamage::is_open), stated.and_then(|stated| stated.loss(sequence)));
        let is_other = stated.is_some_and(|stated| stated.leaf(sequence) != Some(entry.hash));
        self.read.entries = self.read.entries.saturating_add(1);
        let place = Location::Entry { sequence };
        if !entry.is_sound {
            // the line is damaged: nothing else of it can be checked, and its hash does not lead to the root
            self.read.is_whole = false;
            findings.add(place, Flaw::Check);
            self.pass(sequence);
            return;
        }
        if is_other {
            self.read.is_whole = false;
            findings.add(place.clone(), Flaw::OtherLeaf);
        }
        if self.read.is_whole && !is_open {
            if self.read.tree.append_hash(entry.hash, |_, _| ()).is_err() {
                self.read.is_whole = false;
            }
            self.read.heads.reached(&self.read.tree);
        }
        self.pass(sequence);
        self.content(entry, leaf, loss, place, findings);
    }

    fn content(
        &mut self,
        entry: &EntryLine<'_>,
        leaf: Result<Leaf, InvalidLeaf>,
        loss: Option<Loss>,
        place: Location,
        findings: &mut Findings,
    ) {
        let sequence = entry.sequence;
        let Ok(leaf) = leaf else {
            findings.add(place, Flaw::Leaf);
            return;
        };
        match (leaf.content, &entry.opened) {
            (Content::Entry { key, commitment }, opened) => {
                let body = match opened {
                    Some(opened) => {
                        self.read.opened = self.read.opened.saturating_add(1);
                        if !commitment.is_to(opened.body, &opened.opening) {
                            findings.add(place.clone(), Flaw::Body);
                        }
                        Body::Here(opened.body)
                    }
                    None if loss == Some(Loss::Body) => Body::Damaged,
                    None => Body::Missing,
                };
                if !self.read.bodies.count(sequence, key, body) {
                    findings.add(place, Flaw::TooMuch);
                }
            }
            (_, Some(_)) => findings.add(place, Flaw::NoOperation),
            (_, None) if self.read.records.len() >= MOST_OUTSIDE => findings.add(place, Flaw::TooMuch),
            (content, None) => self.read.records.push((sequence, content)),
        }
    }

    fn outside(&mut self, outside: &Outside, place: Location, verifier: &mut Verifier) {
        let findings = &mut verifier.findings;
        let sequence = outside.outside;
        let is_next = self.read.outside.last().is_none_or(|(last, ..)| *last < sequence);
        if !is_next || (self.read.first..self.read.end).contains(&sequence) {
            findings.add(place, Flaw::Repeated);
            return;
        }
        let bytes = outside.leaf();
        let leaf = bytes.as_deref().and_then(|bytes| Leaf::parse(bytes).ok());
        let (Some(bytes), Some(leaf)) = (bytes, leaf.filter(|leaf| leaf.sequence == sequence)) else {
            findings.add(place, Flaw::Leaf);
            return;
        };
        if matches!(leaf.content, Content::Entry { .. }) {
            findings.add(place, Flaw::Leaf);
            return;
        }
        if self.read.outside.len() >= MOST_OUTSIDE {
            findings.add(place, Flaw::TooMuch);
            return;
        }
        match root_from_inclusion(sequence, self.read.size, leaf_hash(&bytes), &outside.proof) {
            Ok(root) => self.read.outside.push((sequence, leaf.content, root)),
            Err(error) => findings.add(Location::Entry { sequence }, Flaw::Proof(error)),
        }
    }
}
