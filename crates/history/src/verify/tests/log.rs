//! A small log, stored as the audit service stores it.

use std::ops::Range as Numbers;

use jiff::Timestamp;

use crate::export::{Footer, Growth, Header, Opened, Outside, entry_line};
use crate::leaf::{Content, DayMac, Opening, Retention, UnsignedGap};
use crate::merkle::{HashReader, Node, Range, leaf_hash, prove_consistency, prove_inclusion, root_of, sha256};
use crate::operation::{Access, Actor, ActorKind, Outcome, Phase};
use crate::roots::{RootList, Scope, Skipped};
use crate::tile::TileSet;
use crate::verify::{Report, Verifier};
use crate::{Checkpoint, Day, DayKeyId, EntryId, Hash, JstTime, Leaf, Operation, Origin, SigningKey, TreeHead, VerifierKey};

pub const ENVIRONMENT: &str = "audit.tsujiban.dev/test";

/// 12:00 JST of a day.
pub fn at(day: &str) -> Timestamp {
    format!("{day}T12:00:00+09:00").parse().unwrap()
}

pub struct Log {
    pub origin: Origin,
    pub seed: [u8; 32],
    pub day: Day,
    pub now: Timestamp,
    pub stored: Vec<Stored>,
    tiles: TileSet,
    tree: Range,
}

#[derive(Clone)]
pub struct Stored {
    pub leaf: Vec<u8>,
    pub opened: Option<(Opening, Vec<u8>)>,
}

impl Log {
    pub fn new(size: u64) -> Self {
        Self::signed_by([42; 32], size)
    }

    pub fn signed_by(seed: [u8; 32], size: u64) -> Self {
        let mut log = Self {
            origin: format!("{ENVIRONMENT}/00112233445566778899aabbccddeeff").parse().unwrap(),
            seed,
            day: "2026-11-26".parse().unwrap(),
            now: at("2026-12-01"),
            stored: Vec::new(),
            tiles: TileSet::new(),
            tree: Range::empty(0),
        };
        log.grow(size);
        log
    }

    pub fn of_other_group(size: u64) -> Self {
        let mut log = Self::new(0);
        log.origin = format!("{ENVIRONMENT}/ffeeddccbbaa99887766554433221100").parse().unwrap();
        log.grow(size);
        log
    }

    /// The same log up to `size`, as a restored copy of the database has it.
    pub fn restored(&self, size: u64) -> Self {
        let mut log = Self::signed_by(self.seed, 0);
        (log.origin, log.day, log.now) = (self.origin.clone(), self.day, self.now);
        for stored in self.stored.iter().take(usize::try_from(size).unwrap()) {
            log.push(stored.clone());
        }
        log
    }

    pub fn size(&self) -> u64 {
        self.tree.end()
    }

    pub fn grow(&mut self, by: u64) {
        for _ in 0..by {
            self.append_target(&format!("target {} of {}", self.size(), self.day));
        }
    }

    pub fn append_target(&mut self, target: &str) {
        self.append(target, self.day.starts());
    }

    pub fn append_at(&mut self, time: Timestamp) {
        self.append("", time);
    }

    fn append(&mut self, target: &str, time: Timestamp) {
        let operation = Operation {
            id: EntryId::from_bytes([7; 16]),
            phase: Phase::Outcome,
            time: JstTime::new(time),
            actor: Actor { kind: ActorKind::Staff, id: "taro".to_owned() },
            from: String::new(),
            service: String::new(),
            method: "M".to_owned(),
            function: "f".to_owned(),
            operation: Access::View,
            target: target.to_owned(),
            result: Outcome::Allowed,
            code: "OK".to_owned(),
            reason: String::new(),
            duration_us: 1,
            request_id: String::new(),
            trace_id: String::new(),
            detail: std::collections::BTreeMap::new(),
        };
        self.append_body(&operation.encode().unwrap());
    }

    pub fn append_body(&mut self, body: &[u8]) {
        let opening = self.mac().opening(self.size());
        let leaf = Leaf::entry(self.size(), self.key_of_day(), opening.commit(body));
        self.push(Stored { leaf: leaf.encode(), opened: Some((opening, body.to_vec())) });
    }

    pub fn append_record(&mut self, content: Content) {
        let leaf = Leaf { sequence: self.size(), content };
        self.push(Stored { leaf: leaf.encode(), opened: None });
    }

    pub fn push(&mut self, stored: Stored) {
        let tiles = &mut self.tiles;
        let keep = |node, hash| {
            tiles.store(node, hash);
        };
        self.tree.append_hash(leaf_hash(&stored.leaf), keep).unwrap();
        self.stored.push(stored);
    }

    /// The same log with other entries, hashed and signed as if they had always been there.
    pub fn rewritten(&self, rewrite: impl FnOnce(&mut Vec<Stored>)) -> Self {
        let mut stored = self.stored.clone();
        rewrite(&mut stored);
        let mut log = self.restored(0);
        for stored in stored {
            log.push(stored);
        }
        log
    }

    /// Destroys the bodies of the day, and says so, as the service does. Returns what was said.
    pub fn expire(&mut self, day: Day) -> Retention {
        let key = key_of(day);
        let of_day = |stored: &Stored| matches!(Leaf::parse(&stored.leaf).unwrap().content, Content::Entry { key: k, .. } if k == key);
        let numbers: Vec<u64> = (0..).zip(&self.stored).filter(|(_, stored)| of_day(stored)).map(|(number, _)| number).collect();
        let (first, last) = (numbers[0], *numbers.last().unwrap());
        let retention = Retention { day, key, first, last, count: numbers.len().try_into().unwrap() };
        self.append_record(Content::Retention(retention.clone()));
        self.forget(day);
        retention
    }

    /// Only destroys the bodies.
    pub fn forget(&mut self, day: Day) {
        for stored in &mut self.stored {
            if matches!(Leaf::parse(&stored.leaf).unwrap().content, Content::Entry { key, .. } if key == key_of(day)) {
                stored.opened = None;
            }
        }
    }

    pub fn declare_gap(&mut self, agreed: u64, newest: TreeHead) {
        let (by, since) = ("staff-taro".to_owned(), JstTime::new(self.now));
        let gap = UnsignedGap { agreed, newest, since, by, reason: sha256(b"the disk broke"), damaged: Vec::new(), lists: Vec::new() };
        self.append_record(Content::Gap(gap.sign(&self.key(), &self.origin, self.size()).unwrap()));
    }

    pub fn key(&self) -> SigningKey {
        SigningKey::from_seed(&self.seed).unwrap()
    }

    pub fn verifier_key(&self) -> VerifierKey {
        self.key().verifier(self.origin.to_string().parse().unwrap())
    }

    pub fn verifier(&self) -> Verifier {
        let key = self.key().verifier(ENVIRONMENT.parse().unwrap());
        Verifier::new(key, self.origin.clone(), self.now).unwrap()
    }

    pub fn verify(&self, export: &[u8]) -> Report {
        self.verifier().verify(export).unwrap()
    }

    pub fn head(&self, size: u64) -> TreeHead {
        TreeHead { size, root: root_of(&self.tiles, size).unwrap() }
    }

    pub fn checkpoint(&self, size: u64) -> String {
        Checkpoint::new(&self.origin, self.head(size)).sign(&self.key()).unwrap()
    }

    /// The next list after `previous`, with a log beside this one.
    pub fn list(&self, previous: Option<&RootList>, time: Timestamp, scope: Scope) -> RootList {
        let other = Log::of_other_group(3);
        RootList {
            environment: self.origin.environment.clone(),
            number: previous.map_or(1, |list| list.number + 1),
            time: JstTime::new(time),
            scope,
            previous: previous.map_or(Hash::EMPTY, RootList::digest),
            skipped: Skipped::default(),
            roots: [(self.origin.log, self.head(self.size())), (other.origin.log, other.head(3))].into(),
        }
    }

    pub fn signed(&self, list: &RootList) -> String {
        list.sign(&self.key()).unwrap()
    }

    pub fn export(&self) -> Vec<u8> {
        self.export_range(0..self.size(), self.size())
    }

    pub fn export_as(&self, key: &VerifierKey) -> Vec<u8> {
        self.lines(0..self.size(), self.size(), key).concat()
    }

    pub fn export_range(&self, range: Numbers<u64>, size: u64) -> Vec<u8> {
        self.lines(range, size, &self.verifier_key()).concat()
    }

    pub fn growth(&self, from: u64, to: u64) -> Growth {
        Growth { from, proof: prove_consistency(&self.tiles, from, to).unwrap() }
    }

    pub fn read(&self, begin: u64, end: u64) -> Vec<Hash> {
        Node::cover(begin, end).into_iter().map(|node| self.tiles.read(node).unwrap()).collect()
    }

    pub fn lines(&self, range: Numbers<u64>, size: u64, key: &VerifierKey) -> Vec<Vec<u8>> {
        let mut lines = vec![Header::new(&self.origin, key, size, range.clone(), self.read(0, range.start)).line()];
        for (sequence, stored) in (0..).zip(&self.stored).filter(|(sequence, _)| range.contains(sequence)) {
            let opened = stored.opened.as_ref().map(|(opening, body)| Opened { opening: *opening, body });
            let mut line = Vec::new();
            entry_line(&mut line, sequence, &stored.leaf, opened);
            lines.push(line);
        }
        for (sequence, stored) in (0..size).zip(&self.stored).filter(|(sequence, _)| !range.contains(sequence)) {
            let leaf = Leaf::parse(&stored.leaf).unwrap();
            if !matches!(leaf.content, Content::Entry { .. }) {
                lines.push(Outside::new(&leaf, prove_inclusion(&self.tiles, sequence, size).unwrap()).line());
            }
        }
        lines.push(Footer { right: self.read(range.end, size), checkpoint: self.checkpoint(size) }.line());
        lines
    }

    fn mac(&self) -> DayMac {
        let number = u8::try_from(self.day.number() % 251).unwrap();
        DayMac::new(&[number; 32])
    }

    fn key_of_day(&self) -> DayKeyId {
        key_of(self.day)
    }
}

/// The key of a day: in these tests, the day's number.
pub fn key_of(day: Day) -> DayKeyId {
    DayKeyId::from_bytes(i128::from(day.number()).to_be_bytes())
}
