//! Turns requests into rows: everything that happens in memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tsujiban_history::merkle::{Hash, Node, leaf_hash};
use tsujiban_history::tile::HEIGHT;
use tsujiban_history::{Day, Leaf};
use tsujiban_sealing::{KeyError, Random};

use super::recent::SEGMENT;
use super::rows::{Conn, EntryRow, HeadRow, Rows};
use super::sequencer_state::{Ids, LogState, REMEMBERED_US, SequencerState, Writers, additions};
use super::{Added, Addition, EngineError, Phase, RefusedLogs, Request, Restored, RestoredHashes, Standing, Work};

/// A batch that can be written.
pub struct Prepared {
    pub rows: Rows,
    pub answers: Vec<Result<Vec<Added>, EngineError>>,
    pub ids: Ids,
}

/// What may be written.
pub struct May {
    pub standing: Standing,
    /// Logs that accept no entries.
    pub refused: Arc<RefusedLogs>,
}

impl May {
    /// Why a log accepts no entries; `None` if it accepts them.
    fn refuses(&self, number: i64, owner: &dyn fmt::Display) -> Option<EngineError> {
        let why = self.refused.get(&number)?.clone();
        Some(EngineError::LogRefused { owner: owner.to_string().into(), why })
    }
}

impl SequencerState {
    /// Decides the answer to each request, and grows the trees. `before` are the ids of the batch that is being written.
    pub async fn prepare(
        &mut self,
        random: &dyn Random,
        conn: &mut Conn<'_>,
        requests: &[Request],
        (failed, before): (&HashMap<i64, EngineError>, Option<&Ids>),
        (now, may): (Timestamp, &May),
        mut rows: Rows,
    ) -> Result<Prepared, EngineError> {
        let now_us = now.as_microsecond();
        let today = Day::of(now);
        let count = additions(requests).count();
        let mut ids = Ids::with_capacity(count);
        let mut there = self.find_duplicates(conn, requests, now_us, today).await?;
        if let Some(before) = before {
            for (log, id) in self.named(requests) {
                if let Some(sequence) = before.get(&(log, id)) {
                    there.insert((log, id), *sequence);
                }
            }
        }
        rows.entries.reserve(count);
        let mut touched = Vec::new();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let lawful = match &request.work {
                Work::Statement(statement) => statement.lawful,
                Work::Restore { .. } | Work::Adopt(_) | Work::Forget => true,
                Work::Append(_) | Work::Make { .. } => false,
            };
            if let (Standing::Forked(why), false) = (&may.standing, lawful) {
                answers.push(Err(EngineError::ReadOnly(why.clone())));
                continue;
            }
            match &request.work {
                Work::Append(all) => {
                    let refused = all.iter().find_map(|addition| match self.owners.get(&addition.owner) {
                        Some(number) => may.refuses(*number, &addition.owner).or_else(|| failed.get(number).cloned()),
                        None => Some(EngineError::Unclaimed),
                    });
                    if let Some(error) = refused {
                        answers.push(Err(error));
                        continue;
                    }
                    let mut added = Vec::with_capacity(all.len());
                    for addition in all {
                        let number = self.owners.get(&addition.owner).copied().ok_or(EngineError::Stopped)?;
                        let name = (number, addition.id);
                        if let Some(sequence) = there.get(&name).or_else(|| ids.get(&name)) {
                            added.push(Added { sequence: *sequence, is_duplicate: true });
                            continue;
                        }
                        let ended = addition.ended_by().map(|id| (number, id));
                        let is_ended = ended.is_some_and(|name| there.contains_key(&name) || ids.contains_key(&name));
                        let sequence = self.add(random, number, (addition, is_ended), (now_us, today), &mut rows, &mut touched)?;
                        ids.insert(name, sequence);
                        added.push(Added { sequence, is_duplicate: false });
                    }
                    answers.push(Ok(added));
                }
                Work::Statement(statement) => {
                    if let Some(error) = may.refuses(statement.log, &format_args!("log {}", statement.log)).filter(|_| !lawful) {
                        answers.push(Err(error));
                        continue;
                    }
                    // refuses only the request with the invalid leaf: else the other requests of the batch would get this error, too
                    answers.push(match self.state(statement, (now_us, today), &mut rows, &mut touched) {
                        Err(EngineError::NoLeaf(error)) => Err(error.into()),
                        stated => Ok(vec![stated?]),
                    });
                }
                Work::Restore { log, entries, hashes } => {
                    answers.push(Ok(self.restore(*log, (entries, hashes.as_ref()), (now_us, today), &mut rows, &mut touched)?));
                }
                Work::Make { owner, .. } => {
                    let number = self.made.get(owner).copied().ok_or(EngineError::Stopped)?;
                    answers.push(Ok(vec![Added { sequence: number.cast_unsigned(), is_duplicate: false }]));
                }
                Work::Forget => answers.push(Ok(Vec::new())),
                Work::Adopt(log) => {
                    let number = self.adopted.get(&log.id).copied().ok_or(EngineError::Stopped)?;
                    answers.push(Ok(vec![Added { sequence: number.cast_unsigned(), is_duplicate: false }]));
                }
            }
        }
        for number in touched {
            let Some(log) = self.logs.get(&number) else { continue };
            log.touched = false;
            rows.heads.push(HeadRow {
                log: number,
                size: log.edge.end().cast_signed(),
                peaks: log.edge.hashes().flat_map(|hash| *hash.as_bytes()).collect(),
                day: log.day.number(),
            });
        }
        // new logs without an entry get a head, too
        for made in &rows.logs {
            if self.logs.get(&made.number).is_none_or(|log| log.edge.end() == 0) {
                rows.heads.push(HeadRow { log: made.number, size: 0, peaks: Vec::new(), day: 0 });
            }
        }
        Ok(Prepared { rows, answers, ids })
    }

    /// Adds a leaf that is no operation: a gap or a retention.
    fn state(
        &mut self,
        statement: &super::Statement,
        (now_us, today): (i64, Day),
        rows: &mut Rows,
        touched: &mut Vec<i64>,
    ) -> Result<Added, EngineError> {
        let segment = self.segment(rows, now_us, today);
        let log = self.logs.get(&statement.log).ok_or(EngineError::Damaged(statement.log))?;
        let sequence = log.edge.end();
        let leaf = (statement.leaf)(sequence)?.encode();
        log.push(statement.log, &leaf, &mut rows.nodes, touched)?;
        log.day = log.day.max(today);
        rows.entries.push(EntryRow {
            log: statement.log,
            sequence: sequence.cast_signed(),
            day: log.day.number(),
            time_us: now_us,
            appended_us: now_us,
            segment,
            id: None,
            leaf,
            sealed: None,
        });
        rows.gone.extend(statement.gone);
        Ok(Added { sequence, is_duplicate: false })
    }

    fn add(
        &mut self,
        random: &dyn Random,
        number: i64,
        (addition, is_ended): (&Addition, bool),
        (now_us, today): (i64, Day),
        rows: &mut Rows,
        touched: &mut Vec<i64>,
    ) -> Result<u64, EngineError> {
        let segment = self.segment(rows, now_us, today);
        let log = self.logs.get(&number).ok_or(EngineError::Damaged(number))?;
        let key = log.key.as_ref().ok_or_else(|| EngineError::from(KeyError::Destroyed))?;
        let sequence = log.edge.end();
        let leaf = Leaf::entry(sequence, key.id, key.mac.opening(sequence).commit(&addition.body)).encode();
        let sealed = key.seal(&log.log_id, sequence, &addition.body, random)?;
        log.day = key.day;
        let day = key.day.number();
        log.push(number, &leaf, &mut rows.nodes, touched)?;
        match &mut self.memory {
            Writers::Single { recent, open, .. } => {
                recent.note(number, &addition.id);
                match addition.phase {
                    Phase::Intent if is_ended => {}
                    Phase::Intent => {
                        open.insert((number, addition.operation));
                        rows.begun.push((number, addition.operation, sequence.cast_signed()));
                    }
                    Phase::Outcome if open.remove(&(number, addition.operation)) => rows.ended.push((number, addition.operation)),
                    Phase::Outcome | Phase::Observed => {}
                }
            }
            Writers::Shared => match addition.phase {
                Phase::Intent if is_ended => {}
                Phase::Intent => rows.begun.push((number, addition.operation, sequence.cast_signed())),
                Phase::Outcome => rows.ended.push((number, addition.operation)),
                Phase::Observed => {}
            },
        }
        rows.entries.push(EntryRow {
            log: number,
            sequence: sequence.cast_signed(),
            day,
            time_us: addition.time.as_microsecond(),
            appended_us: now_us,
            segment,
            id: Some(addition.id),
            leaf,
            sealed: Some(sealed),
        });
        Ok(sequence)
    }

    /// Appends lost entries after the last one, and returns those that were missing.
    fn restore(
        &mut self,
        number: i64,
        (entries, hashes): (&[Restored], Option<&RestoredHashes>),
        (now_us, today): (i64, Day),
        rows: &mut Rows,
        touched: &mut Vec<i64>,
    ) -> Result<Vec<Added>, EngineError> {
        let mut added = Vec::new();
        for entry in entries {
            let segment = self.segment(rows, now_us, today);
            let log = self.logs.get(&number).ok_or(EngineError::Damaged(number))?;
            let is_next = if hashes.is_some() { entry.sequence >= log.edge.end() } else { entry.sequence == log.edge.end() };
            if !is_next {
                continue;
            }
            if hashes.is_none() {
                log.push(number, &entry.leaf, &mut rows.restored_nodes, touched)?;
            }
            log.day = log.day.max(Day::from_number(entry.day).ok_or(EngineError::Damaged(number))?);
            if let (Writers::Single { recent, .. }, Some(id)) = (&mut self.memory, &entry.id) {
                recent.note(number, id);
            }
            rows.restored.push(EntryRow {
                log: number,
                sequence: entry.sequence.cast_signed(),
                day: entry.day,
                time_us: entry.time_us,
                appended_us: entry.appended_us,
                segment,
                id: entry.id,
                leaf: entry.leaf.clone(),
                sealed: entry.sealed.clone(),
            });
            added.push(Added { sequence: entry.sequence, is_duplicate: false });
        }
        let log = self.logs.get(&number).ok_or(EngineError::Damaged(number))?;
        if let Some(hashes) = hashes.filter(|hashes| hashes.edge.end() > log.edge.end()) {
            log.edge = hashes.edge.clone();
            rows.restored_nodes.extend(hashes.nodes.iter().map(|(node, hash)| (number, *node, *hash)));
            log.touch(number, touched);
        }
        Ok(added)
    }

    /// The segment of the next entry. With PostgreSQL segments are days, since several writers have no common counter.
    fn segment(&mut self, rows: &mut Rows, now_us: i64, today: Day) -> i64 {
        match &mut self.memory {
            Writers::Single { recent, segment, began_us, in_segment, .. } => {
                // an id may be added again after 48 hours: the segment that has it must end before that
                if *in_segment == SEGMENT || now_us - *began_us > REMEMBERED_US {
                    (*segment, *began_us, *in_segment) = (*segment + 1, now_us, 0);
                    recent.begin(*segment, now_us, now_us - REMEMBERED_US);
                    rows.segments.push((*segment, now_us));
                }
                *in_segment += 1;
                *segment
            }
            Writers::Shared => today.number(),
        }
    }
}

impl LogState {
    /// Adds a leaf, and adds to `nodes` the stored nodes that it completes.
    fn push(&mut self, number: i64, leaf: &[u8], nodes: &mut Vec<(i64, Node, Hash)>, touched: &mut Vec<i64>) -> Result<(), EngineError> {
        let stored = |node: Node, hash: Hash| {
            if node.level > 0 && node.level.is_multiple_of(HEIGHT) {
                nodes.push((number, node, hash));
            }
        };
        self.edge.append_hash(leaf_hash(leaf), stored).map_err(|_| EngineError::Damaged(number))?;
        self.touch(number, touched);
        Ok(())
    }

    /// Marks the log, so that its head is written with the batch.
    fn touch(&mut self, number: i64, touched: &mut Vec<i64>) {
        if !std::mem::replace(&mut self.touched, true) {
            touched.push(number);
        }
    }
}
