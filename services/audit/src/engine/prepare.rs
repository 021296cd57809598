//! From what callers want to what is written: everything that happens in memory.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tsujiban_core::id::KeyId;
use tsujiban_sealing::{Context, DataKey, Random};

use super::cache::Cache;
use super::frontier::Frontier;
use super::load::{self, LoadedKey, LoadedLog};
use super::recent::{Recent, SEGMENT};
use super::rows::{Conn, EntryRow, HeadRow, KeyRow, LogRow, Rows};
use super::{Added, Addition, EngineError, EngineParts, Phase, Request, Standing, Work};
use crate::keyring::{KeyError, Keyring};
use crate::leaf;
use crate::owner::Owner;

/// For how long an id is remembered.
pub const REMEMBERED_US: i64 = 48 * 60 * 60 * 1_000_000;
/// How many logs are kept in memory: at least so many, and at most twice.
const LOGS: usize = 32_768;
/// What a sealed body is.
pub const SEALED: &str = "history entry";

/// What is known of a log that is written to.
pub struct LogState {
    pub log_id: [u8; 16],
    pub frontier: Frontier,
    /// The day of the newest entry: a log's days never go back.
    pub day: i64,
    pub key: Option<DayKey>,
    touched: bool,
}

/// The key of the day that a log is in.
pub struct DayKey {
    pub day: i64,
    pub key_id: [u8; 16],
    pub key: DataKey,
}

/// Which database it is, as far as it changes what is known.
pub enum Memory {
    /// Nobody else writes: which ids were there is known.
    Alone { recent: Recent, segment: i64, in_segment: u64, next_number: i64, open: HashSet<(i64, [u8; 16])> },
    /// Others write, too: they are asked for everything.
    Shared,
}

/// What the sequencer remembers. All of it can be read again.
pub struct Known {
    pub owners: Cache<Owner, i64>,
    pub logs: Cache<i64, LogState>,
    pub memory: Memory,
}

/// Ids of one batch, and where their entries are.
pub type Ids = HashMap<(i64, [u8; 16]), u64>;

/// A batch that can be written.
pub struct Prepared {
    pub rows: Rows,
    pub answers: Vec<Result<Vec<Added>, EngineError>>,
    pub ids: Ids,
}

impl Known {
    pub fn new(memory: Memory) -> Self {
        Self { owners: Cache::new(LOGS), logs: Cache::new(LOGS), memory }
    }

    /// Whether a batch can be prepared without reading a log or a key.
    pub fn suffices(&mut self, requests: &[Request], today: i64) -> bool {
        requests.iter().all(|request| match &request.work {
            Work::Append(additions) => additions.iter().all(|addition| {
                let Some(number) = self.owners.get(&addition.owner).copied() else { return false };
                self.logs.get(&number).is_some_and(|log| log.key.as_ref().is_some_and(|key| key.day == log.day.max(today)))
            }),
            Work::Statement(statement) => self.logs.get(&statement.log).is_some(),
        })
    }

    /// Reads the logs and keys that a batch needs and that are not known, and makes those that are not there. Logs whose keys cannot be had
    /// are answered with the reason.
    pub async fn learn(
        &mut self,
        parts: &EngineParts,
        conn: &mut Conn<'_>,
        requests: &[Request],
        now: Timestamp,
        rows: &mut Rows,
    ) -> Result<HashMap<i64, EngineError>, EngineError> {
        let mut owners: Vec<&Owner> = additions(requests).map(|addition| &addition.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        let unknown: Vec<&Owner> = owners.iter().copied().filter(|owner| !self.owners.contains(owner)).collect();
        if !unknown.is_empty() {
            self.learn_owners(parts, conn, &unknown, now, rows).await?;
        }
        let mut numbers: Vec<i64> = owners.iter().filter_map(|owner| self.owners.get(owner).copied()).collect();
        let with_bodies = numbers.len();
        numbers.extend(requests.iter().filter_map(|request| match &request.work {
            Work::Statement(statement) => Some(statement.log),
            Work::Append(_) => None,
        }));
        let lost: Vec<i64> = numbers.iter().copied().filter(|number| !self.logs.contains(number)).collect();
        for log in load::logs(conn, &lost).await? {
            self.take(&log)?;
        }
        if matches!(self.memory, Memory::Shared) {
            self.lock(conn, &numbers).await?;
        }
        numbers.truncate(with_bodies);
        self.learn_keys(parts, conn, &numbers, now, rows).await
    }

    async fn learn_owners(
        &mut self,
        parts: &EngineParts,
        conn: &mut Conn<'_>,
        unknown: &[&Owner],
        now: Timestamp,
        rows: &mut Rows,
    ) -> Result<(), EngineError> {
        let names: Vec<&str> = unknown.iter().map(|owner| owner.as_str()).collect();
        let mut found = load::newest_logs(conn, &names).await?;
        if matches!(self.memory, Memory::Shared) && found.len() < names.len() {
            // whoever makes a log waits for others who do, and looks again
            load::lock_making(conn).await?;
            found = load::newest_logs(conn, &names).await?;
        }
        let by_name: HashMap<&str, &LoadedLog> = found.iter().map(|log| (log.group.as_str(), log)).collect();
        let mut next = match &self.memory {
            Memory::Alone { next_number, .. } => *next_number,
            Memory::Shared if by_name.len() < names.len() => load::newest_number(conn).await? + 1,
            Memory::Shared => 0,
        };
        for owner in unknown {
            if let Some(log) = by_name.get(owner.as_str()) {
                self.take(log)?;
                self.owners.insert((*owner).clone(), log.number);
                continue;
            }
            let mut log_id = [0; 16];
            parts.random.fill(&mut log_id)?;
            rows.logs.push(LogRow { number: next, log_id, group: owner.as_str().to_owned(), made_at: now.as_microsecond() });
            self.owners.insert((*owner).clone(), next);
            let state = LogState { log_id, frontier: Frontier::default(), day: 0, key: None, touched: false };
            self.logs.insert(next, state);
            next += 1;
        }
        if let Memory::Alone { next_number, .. } = &mut self.memory {
            *next_number = next;
        }
        Ok(())
    }

    /// PostgreSQL: nobody else writes to these logs before the end of the transaction. What others wrote meanwhile is taken over.
    async fn lock(&mut self, conn: &mut Conn<'_>, numbers: &[i64]) -> Result<(), EngineError> {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        for (number, size, peaks, day) in load::lock_heads(conn, &numbers).await? {
            let Some(log) = self.logs.get(&number) else { continue };
            if log.frontier.size() != size.cast_unsigned() {
                log.frontier = Frontier::from_bytes(size.cast_unsigned(), &peaks).ok_or(EngineError::Damaged(number))?;
            }
            log.day = day;
        }
        Ok(())
    }

    fn take(&mut self, log: &LoadedLog) -> Result<(), EngineError> {
        let damaged = || EngineError::Damaged(log.number);
        let frontier = Frontier::from_bytes(log.size.cast_unsigned(), &log.peaks).ok_or_else(damaged)?;
        let log_id = log.log_id.as_slice().try_into().map_err(|_| damaged())?;
        self.logs.insert(log.number, LogState { log_id, frontier, day: log.day, key: None, touched: false });
        Ok(())
    }

    async fn learn_keys(
        &mut self,
        parts: &EngineParts,
        conn: &mut Conn<'_>,
        numbers: &[i64],
        now: Timestamp,
        rows: &mut Rows,
    ) -> Result<HashMap<i64, EngineError>, EngineError> {
        let today = leaf::day_of(now);
        let mut wanted = Vec::new();
        for number in numbers {
            let Some(log) = self.logs.get(number) else { continue };
            let day = log.day.max(today);
            if log.key.as_ref().is_none_or(|key| key.day != day) {
                log.key = None;
                wanted.push((day, *number));
            }
        }
        let mut stored: HashMap<(i64, i64), Vec<LoadedKey>> = HashMap::new();
        for key in load::day_keys(conn, &wanted).await? {
            stored.entry((key.day, key.log)).or_default().push(key);
        }
        let mut failed = HashMap::new();
        for (day, number) in wanted {
            let Some(log) = self.logs.get(&number) else { continue };
            let first = log.frontier.size().cast_signed();
            let key = match stored.get(&(day, number)) {
                Some(wrappings) => open(&parts.keyring, &log.log_id, wrappings),
                None => make(parts, &log.log_id, (day, number, first), now).map(|(key, made)| {
                    rows.keys.extend(made);
                    key
                }),
            };
            match key {
                Ok(key) => log.key = Some(key),
                Err(error) => drop(failed.insert(number, EngineError::from(error))),
            }
        }
        Ok(failed)
    }

    /// Decides what each request gets, and grows the trees. `before` are the ids of the batch that is being written.
    pub async fn prepare(
        &mut self,
        random: &dyn Random,
        conn: &mut Conn<'_>,
        requests: &[Request],
        failed: &HashMap<i64, EngineError>,
        (now, standing): (Timestamp, &Standing),
        before: Option<&Ids>,
        mut rows: Rows,
    ) -> Result<Prepared, EngineError> {
        let now_us = now.as_microsecond();
        let today = leaf::day_of(now);
        let count = additions(requests).count();
        let mut ids = Ids::with_capacity(count);
        let mut there = self.there(conn, requests, now_us, today).await?;
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
            let lawful = matches!(&request.work, Work::Statement(statement) if statement.lawful);
            if let (Standing::Forked(why), false) = (standing, lawful) {
                answers.push(Err(EngineError::ReadOnly(why.clone())));
                continue;
            }
            match &request.work {
                Work::Append(all) => {
                    let refused = all.iter().find_map(|a| self.owners.get(&a.owner).and_then(|number| failed.get(number)));
                    if let Some(error) = refused {
                        answers.push(Err(error.clone()));
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
                        let sequence = self.add(random, number, addition, (now_us, today), &mut rows, &mut touched)?;
                        ids.insert(name, sequence);
                        added.push(Added { sequence, is_duplicate: false });
                    }
                    answers.push(Ok(added));
                }
                Work::Statement(statement) => {
                    let segment = self.segment(&mut rows, now_us, today);
                    let log = self.logs.get(&statement.log).ok_or(EngineError::Damaged(statement.log))?;
                    let sequence = log.frontier.size();
                    let leaf = (statement.leaf)(sequence);
                    log.push(statement.log, &leaf, &mut rows, &mut touched);
                    log.day = log.day.max(today);
                    rows.entries.push(EntryRow {
                        log: statement.log,
                        sequence: sequence.cast_signed(),
                        day: log.day,
                        time_us: now_us,
                        appended_us: now_us,
                        segment,
                        id: None,
                        leaf,
                        sealed: None,
                    });
                    rows.gone.extend(statement.gone);
                    answers.push(Ok(vec![Added { sequence, is_duplicate: false }]));
                }
            }
        }
        for number in touched {
            let Some(log) = self.logs.get(&number) else { continue };
            log.touched = false;
            rows.heads.push(HeadRow {
                log: number,
                size: log.frontier.size().cast_signed(),
                peaks: log.frontier.to_bytes(),
                day: log.day,
            });
        }
        // logs without an entry have a head, too
        let headless = rows.logs.iter().map(|log| log.number).filter(|number| !rows.heads.iter().any(|head| head.log == *number));
        let headless: Vec<_> = headless.map(|log| HeadRow { log, size: 0, peaks: Vec::new(), day: 0 }).collect();
        rows.heads.extend(headless);
        Ok(Prepared { rows, answers, ids })
    }

    fn named(&mut self, requests: &[Request]) -> Vec<(i64, [u8; 16])> {
        additions(requests).filter_map(|addition| Some((self.owners.get(&addition.owner).copied()?, addition.id))).collect()
    }

    /// Which ids of a batch are in the database, added in the past 48 hours.
    async fn there(&mut self, conn: &mut Conn<'_>, requests: &[Request], now_us: i64, today: i64) -> Result<Ids, EngineError> {
        let named = self.named(requests);
        let mut there = Ids::new();
        let young = |appended_us: i64| appended_us >= now_us - REMEMBERED_US;
        match &self.memory {
            Memory::Alone { recent, .. } => {
                for (log, id) in named {
                    for segment in recent.candidates(log, &id) {
                        if let Some((sequence, appended_us)) = load::by_id(conn, segment, log, &id).await?
                            && young(appended_us)
                        {
                            there.insert((log, id), sequence.cast_unsigned());
                            break;
                        }
                    }
                }
            }
            Memory::Shared => {
                let days = [today, today - 1, today - 2, today + 1];
                for (log, id, sequence, appended_us) in load::by_ids(conn, &days, named.iter().map(|(_, id)| id.to_vec()).collect()).await? {
                    if young(appended_us) && let Ok(id) = id.try_into() {
                        there.insert((log, id), sequence.cast_unsigned());
                    }
                }
            }
        }
        Ok(there)
    }

    fn add(
        &mut self,
        random: &dyn Random,
        number: i64,
        addition: &Addition,
        (now_us, today): (i64, i64),
        rows: &mut Rows,
        touched: &mut Vec<i64>,
    ) -> Result<u64, EngineError> {
        let segment = self.segment(rows, now_us, today);
        let log = self.logs.get(&number).ok_or(EngineError::Damaged(number))?;
        let key = log.key.as_ref().ok_or_else(|| EngineError::from(KeyError::Destroyed))?;
        let sequence = log.frontier.size();
        let commitment = leaf::commitment(&key.key, sequence, &addition.body);
        let leaf = leaf::entry(sequence, &key.key_id, &commitment);
        let record = leaf::record(&log.log_id, sequence);
        let sealed = key.key.seal(Context { class: SEALED, record: &record }, &addition.body, random)?;
        log.day = key.day;
        let day = key.day;
        log.push(number, &leaf, rows, touched);
        match &mut self.memory {
            Memory::Alone { recent, open, .. } => {
                recent.note(number, &addition.id);
                match addition.phase {
                    Phase::Intent => {
                        open.insert((number, addition.operation));
                        rows.begun.push((number, addition.operation, sequence.cast_signed()));
                    }
                    Phase::Outcome if open.remove(&(number, addition.operation)) => rows.ended.push((number, addition.operation)),
                    Phase::Outcome | Phase::Observed => {}
                }
            }
            Memory::Shared => match addition.phase {
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

    /// The segment of the next entry. PostgreSQL's are days: several writers cannot count together.
    fn segment(&mut self, rows: &mut Rows, now_us: i64, today: i64) -> i64 {
        match &mut self.memory {
            Memory::Alone { recent, segment, in_segment, .. } => {
                if *in_segment == SEGMENT {
                    (*segment, *in_segment) = (*segment + 1, 0);
                    recent.begin(*segment, now_us, now_us - REMEMBERED_US);
                    rows.segments.push((*segment, now_us));
                }
                *in_segment += 1;
                *segment
            }
            Memory::Shared => today,
        }
    }
}

impl LogState {
    fn push(&mut self, number: i64, leaf: &[u8], rows: &mut Rows, touched: &mut Vec<i64>) {
        self.frontier.push(leaf::hash(leaf), |node| rows.nodes.push((number, node)));
        if !std::mem::replace(&mut self.touched, true) {
            touched.push(number);
        }
    }
}

fn additions(requests: &[Request]) -> impl Iterator<Item = &Addition> {
    requests.iter().flat_map(|request| match &request.work {
        Work::Append(additions) => additions.as_slice(),
        Work::Statement(_) => &[],
    })
}

/// A new key for a log's day, wrapped by every live epoch key.
fn make(
    parts: &EngineParts,
    log_id: &[u8; 16],
    (day, log, first): (i64, i64, i64),
    now: Timestamp,
) -> Result<(DayKey, Vec<KeyRow>), KeyError> {
    let mut key_id = [0; 16];
    parts.random.fill(&mut key_id)?;
    let key = DataKey::generate(&parts.random)?;
    let subject = leaf::subject(log_id, day);
    let wrap = |epoch: crate::keyring::LiveEpoch| {
        let wrapped = epoch.key.wrap(&KeyId::from_bytes(key_id), &subject, &key, &parts.random)?;
        let superseded_at = epoch.superseded_at.map(Timestamp::as_microsecond);
        Ok(KeyRow { day, log, epoch: wrapped.epoch.to_string(), key_id, first, wrapped: wrapped.bytes, superseded_at })
    };
    let rows = parts.keyring.live_epochs(now)?.into_iter().map(wrap).collect::<Result<Vec<_>, KeyError>>()?;
    Ok((DayKey { day, key_id, key }, rows))
}

/// Opens a day's key by whichever of its wrappings has its epoch key here.
pub fn open(keyring: &Keyring, log_id: &[u8; 16], wrappings: &[LoadedKey]) -> Result<DayKey, KeyError> {
    let mut failed = KeyError::Destroyed;
    for stored in wrappings {
        let Ok(key_id) = <[u8; 16]>::try_from(stored.key_id.as_slice()) else { continue };
        let opened = keyring.epoch(&stored.wrapped.epoch).and_then(|epoch| {
            Ok(epoch.unwrap(&KeyId::from_bytes(key_id), &leaf::subject(log_id, stored.day), &stored.wrapped)?)
        });
        match opened {
            Ok(key) => return Ok(DayKey { day: stored.day, key_id, key }),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
