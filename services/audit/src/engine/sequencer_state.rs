//! The sequencer's cache of logs, their keys and the ids in them, and how it is filled. All of it can be read again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use tsujiban_history::merkle::{Hash, Range};
use tsujiban_history::{Day, DayKeyId, LogId};
use tsujiban_sealing::{KeyError, Keyring, Wrapping};

use super::cache::Cache;
use super::load::{self, LoadedKey, LoadedLog};
use super::recent::Recent;
use super::rows::{Conn, KeyRow, LogRow, Rows};
use super::{Addition, Adopted, EngineError, EngineParts, Request, Work};
use crate::bodies::{self, DayKey};
use crate::owner::{Owner, unclaimed};
use crate::seals;

/// For how long an id is remembered.
pub const REMEMBERED_US: i64 = 48 * 60 * 60 * 1_000_000;
/// How many logs are cached: at least so many, and at most twice as many.
const LOGS: usize = 32_768;

/// The cached state of a log.
pub struct LogState {
    pub log_id: LogId,
    pub edge: Range,
    /// The day of the newest entry: a log's days never decrease.
    pub day: Day,
    pub key: Option<DayKey>,
    pub(super) touched: bool,
}

/// Whether there are other writers, which decides what can be cached.
pub enum Writers {
    /// There is no other writer, so the ids in the database are cached.
    Single { recent: Recent, segment: i64, began_us: i64, in_segment: u64, next_number: i64, open: HashSet<(i64, [u8; 16])> },
    /// There are other writers, so every batch reads from the database.
    Shared,
}

/// The sequencer's cache.
pub struct SequencerState {
    pub owners: Cache<Owner, i64>,
    pub logs: Cache<i64, LogState>,
    pub memory: Writers,
    /// Logs that the batch requested to make, and logs that it requested to restore.
    pub(super) made: HashMap<Owner, i64>,
    pub(super) adopted: HashMap<LogId, i64>,
    /// Logs whose rows do not prove their owner, or whose heads cannot be read: they accept no entries.
    refused: HashMap<i64, EngineError>,
    /// Until when entries of a group without a log are refused, in microseconds since 1970.
    holding: Arc<AtomicI64>,
}

/// Ids of one batch, and where their entries are.
pub type Ids = HashMap<(i64, [u8; 16]), u64>;

impl SequencerState {
    pub fn new(memory: Writers, holding: Arc<AtomicI64>) -> Self {
        Self {
            owners: Cache::new(LOGS),
            logs: Cache::new(LOGS),
            memory,
            made: HashMap::new(),
            adopted: HashMap::new(),
            refused: HashMap::new(),
            holding,
        }
    }

    /// Whether a batch can be prepared without reading a log or a key.
    pub fn covers(&mut self, requests: &[Request], today: Day) -> bool {
        requests.iter().all(|request| match &request.work {
            Work::Append(additions) => additions.iter().all(|addition| {
                let Some(number) = self.owners.get(&addition.owner).copied() else { return false };
                self.logs.get(&number).is_some_and(|log| log.key.as_ref().is_some_and(|key| key.day == log.day.max(today)))
            }),
            Work::Statement(statement) => self.logs.get(&statement.log).is_some(),
            Work::Make { .. } | Work::Adopt(_) | Work::Restore { .. } | Work::Forget => false,
        })
    }

    /// Reads the logs and keys that a batch needs and that are not cached, and makes those that do not exist. Returns the logs that accept
    /// no entries, each with the reason.
    pub async fn learn(
        &mut self,
        parts: &EngineParts,
        conn: &mut Conn<'_>,
        requests: &[Request],
        now: Timestamp,
        rows: &mut Rows,
    ) -> Result<HashMap<i64, EngineError>, EngineError> {
        let forgets = requests.iter().any(|request| matches!(request.work, Work::Forget));
        if forgets {
            self.logs.clear();
        }
        if forgets || matches!(self.memory, Writers::Shared) {
            // another replica may have made a newer log
            self.owners.clear();
            self.refused.clear();
        }
        self.make_logs(parts, conn, requests, now, rows).await?;
        self.adopt_logs(parts, conn, requests, now, rows).await?;
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
            Work::Restore { log, .. } => Some(*log),
            Work::Append(_) | Work::Make { .. } | Work::Adopt(_) | Work::Forget => None,
        }));
        let lost: Vec<i64> = numbers.iter().copied().filter(|number| !self.logs.contains(number)).collect();
        for log in load::logs(conn, &lost).await? {
            // a log whose head cannot be read must not fail the entries of other logs
            if let Err(error) = self.take(&log) {
                self.refused.insert(log.number, error);
            }
        }
        if matches!(self.memory, Writers::Shared) {
            self.lock(conn, &numbers).await?;
        }
        numbers.truncate(with_bodies);
        let mut failed = self.learn_keys(parts, conn, &numbers, now, rows).await?;
        failed.extend(self.refused.iter().map(|(number, error)| (*number, error.clone())));
        Ok(failed)
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
        if matches!(self.memory, Writers::Shared) && found.len() < names.len() {
            // waits for other replicas that make logs, and reads again
            load::lock_making(conn).await?;
            found = load::newest_logs(conn, &names).await?;
        }
        let by_name: HashMap<&str, &LoadedLog> = found.iter().map(|log| (log.group.as_str(), log)).collect();
        let mut next = match &self.memory {
            Writers::Single { next_number, .. } => *next_number,
            Writers::Shared if by_name.len() < names.len() => {
                load::newest_number(conn).await? + 1 + i64::try_from(rows.logs.len()).unwrap_or_default()
            }
            Writers::Shared => 0,
        };
        for owner in unknown {
            if let Some(log) = by_name.get(owner.as_str()) {
                self.owners.insert((*owner).clone(), log.number);
                if let Err(error) = self.take(log) {
                    self.refused.insert(log.number, error);
                    continue;
                }
                let log_id = self.logs.get(&log.number).map(|state| state.log_id).ok_or(EngineError::Damaged(log.number))?;
                if !seals::is_sealed(&parts.keyring, log.number, &log_id, owner.as_str(), log.seal.as_deref()) {
                    self.refused.insert(log.number, EngineError::OtherOwner(seals::other_owner(log.number, owner.as_str()).into()));
                }
                continue;
            }
            if **owner != Owner::Platform && now.as_microsecond() < self.holding.load(Ordering::Relaxed) {
                continue;
            }
            self.make_log(parts, (next, owner, None), now, rows)?;
            next += 1;
        }
        if let Writers::Single { next_number, .. } = &mut self.memory {
            *next_number = next;
        }
        Ok(())
    }

    fn make_log(
        &mut self,
        parts: &EngineParts,
        (number, owner, incarnation): (i64, &Owner, Option<String>),
        now: Timestamp,
        rows: &mut Rows,
    ) -> Result<(), EngineError> {
        let mut log_id = [0; 16];
        parts.random.fill(&mut log_id)?;
        let group = owner.as_str().to_owned();
        let seal = Some(seals::seal(&parts.keyring, number, &LogId::from_bytes(log_id), &group));
        rows.logs.push(LogRow { number, log_id, group, incarnation, made_at: now.as_microsecond(), seal });
        self.owners.insert(owner.clone(), number);
        self.begin_log(number, LogId::from_bytes(log_id));
        Ok(())
    }

    fn begin_log(&mut self, number: i64, log_id: LogId) {
        self.logs.insert(number, LogState { log_id, edge: Range::empty(0), day: first_day(), key: None, touched: false });
    }

    /// The number of the next log.
    async fn next_number(&mut self, conn: &mut Conn<'_>, rows: &Rows) -> Result<i64, EngineError> {
        match &mut self.memory {
            Writers::Single { next_number, .. } => {
                *next_number += 1;
                Ok(*next_number - 1)
            }
            Writers::Shared => Ok(load::newest_number(conn).await? + 1 + i64::try_from(rows.logs.len()).unwrap_or_default()),
        }
    }

    /// Restores the logs that a batch requests. A log whose group is not known is unclaimed until the operator claims it for a group.
    async fn adopt_logs(
        &mut self,
        parts: &EngineParts,
        conn: &mut Conn<'_>,
        requests: &[Request],
        now: Timestamp,
        rows: &mut Rows,
    ) -> Result<(), EngineError> {
        self.adopted.clear();
        for request in requests {
            let Work::Adopt(Adopted { id, is_platform }) = &request.work else { continue };
            if self.adopted.contains_key(id) {
                continue;
            }
            load::lock_making(conn).await?;
            let number = if let Some(number) = load::by_log_id(conn, id.as_bytes()).await? {
                number
            } else {
                // the platform has only one log
                let is_platform = *is_platform && load::present(conn, Owner::Platform.as_str()).await?.is_none();
                let group = if is_platform { Owner::Platform.as_str().to_owned() } else { unclaimed(id) };
                let number = self.next_number(conn, rows).await?;
                // an unclaimed log is sealed when it is claimed
                let seal = is_platform.then(|| seals::seal(&parts.keyring, number, id, &group));
                rows.logs.push(LogRow { number, log_id: *id.as_bytes(), group, incarnation: None, made_at: now.as_microsecond(), seal });
                self.begin_log(number, *id);
                number
            };
            self.adopted.insert(*id, number);
        }
        Ok(())
    }

    /// Makes the logs that a batch requests, unless the group has a log that was not erased.
    async fn make_logs(
        &mut self,
        parts: &EngineParts,
        conn: &mut Conn<'_>,
        requests: &[Request],
        now: Timestamp,
        rows: &mut Rows,
    ) -> Result<(), EngineError> {
        self.made.clear();
        for request in requests {
            let Work::Make { owner, incarnation } = &request.work else { continue };
            if self.made.contains_key(owner) {
                continue;
            }
            load::lock_making(conn).await?;
            let number = if let Some(number) = load::present(conn, owner.as_str()).await? {
                number
            } else {
                let number = self.next_number(conn, rows).await?;
                self.make_log(parts, (number, owner, Some(incarnation.clone())), now, rows)?;
                number
            };
            self.made.insert(owner.clone(), number);
        }
        Ok(())
    }

    /// PostgreSQL: locks these logs until the end of the transaction, and updates the cache with what other replicas wrote meanwhile.
    async fn lock(&mut self, conn: &mut Conn<'_>, numbers: &[i64]) -> Result<(), EngineError> {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        for (number, size, peaks, day) in load::lock_heads(conn, &numbers).await? {
            let Some(log) = self.logs.get(&number) else { continue };
            if log.edge.end() != size.cast_unsigned() {
                log.edge = edge(size, &peaks).ok_or(EngineError::Damaged(number))?;
            }
            log.day = Day::from_number(day).ok_or(EngineError::Damaged(number))?;
        }
        Ok(())
    }

    fn take(&mut self, log: &LoadedLog) -> Result<(), EngineError> {
        let damaged = || EngineError::Damaged(log.number);
        let edge = edge(log.size, &log.peaks).ok_or_else(damaged)?;
        let log_id = LogId::from_bytes(log.log_id.as_slice().try_into().map_err(|_| damaged())?);
        let day = Day::from_number(log.day).ok_or_else(damaged)?;
        self.logs.insert(log.number, LogState { log_id, edge, day, key: None, touched: false });
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
        let today = Day::of(now);
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
        for key in load::day_keys(conn, &wanted.iter().map(|(day, log)| (day.number(), *log)).collect::<Vec<_>>()).await? {
            stored.entry((key.day, key.log)).or_default().push(key);
        }
        let mut failed = HashMap::new();
        for (day, number) in wanted {
            let Some(log) = self.logs.get(&number) else { continue };
            let first = log.edge.end().cast_signed();
            let key = match stored.get(&(day.number(), number)) {
                Some(wrappings) => open(&parts.keyring, &log.log_id, day, wrappings),
                None => make(parts, &log.log_id, (day, number, first), now).map(|(key, made)| {
                    rows.keys.extend(made);
                    key
                }),
            };
            match key {
                Ok(key) => log.key = Some(key),
                Err(error) => drop(failed.insert(number, error)),
            }
        }
        Ok(failed)
    }

    /// The ids of a batch, and those of the outcomes of its intents: an intent that is added again may come after its outcome.
    pub(super) fn named(&mut self, requests: &[Request]) -> Vec<(i64, [u8; 16])> {
        let mut named = Vec::new();
        for addition in additions(requests) {
            let Some(log) = self.owners.get(&addition.owner).copied() else { continue };
            named.extend([Some(addition.id), addition.ended_by()].into_iter().flatten().map(|id| (log, id)));
        }
        named
    }

    /// Which ids of a batch are in the database, added in the past 48 hours.
    pub(super) async fn find_duplicates(
        &mut self,
        conn: &mut Conn<'_>,
        requests: &[Request],
        now_us: i64,
        today: Day,
    ) -> Result<Ids, EngineError> {
        let named = self.named(requests);
        let mut there = Ids::new();
        let young = |appended_us: i64| appended_us >= now_us - REMEMBERED_US;
        match &self.memory {
            Writers::Single { recent, .. } => {
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
            Writers::Shared => {
                let days = [1, 0, -1, -2].map(|days| today.number() + days);
                for (log, id, sequence, appended_us) in load::by_ids(conn, &days, named.iter().map(|(_, id)| id.to_vec()).collect()).await?
                {
                    if young(appended_us)
                        && let Ok(id) = id.try_into()
                    {
                        there.insert((log, id), sequence.cast_unsigned());
                    }
                }
            }
        }
        Ok(there)
    }
}

/// The right edge of a tree, from the stored peaks.
pub fn edge(size: i64, peaks: &[u8]) -> Option<Range> {
    let (peaks, rest) = peaks.as_chunks::<32>();
    let peaks: Vec<Hash> = peaks.iter().copied().map(Hash::from_bytes).collect();
    if rest.is_empty() { Range::from_hashes(0, size.cast_unsigned(), &peaks).ok() } else { None }
}

/// The day of a log without entries.
fn first_day() -> Day {
    Day::of(Timestamp::UNIX_EPOCH)
}

pub(super) fn additions(requests: &[Request]) -> impl Iterator<Item = &Addition> {
    requests.iter().flat_map(|request| match &request.work {
        Work::Append(additions) => additions.as_slice(),
        Work::Statement(_) | Work::Make { .. } | Work::Adopt(_) | Work::Restore { .. } | Work::Forget => &[],
    })
}

/// A new key for a log's day, wrapped by every live epoch key.
fn make(
    parts: &EngineParts,
    log_id: &LogId,
    (day, log, first): (Day, i64, i64),
    now: Timestamp,
) -> Result<(DayKey, Vec<KeyRow>), EngineError> {
    let made = parts.keyring.new_data_key(&bodies::subject(log_id, day), &parts.random, now)?;
    let id = DayKeyId::try_from(&made.id).map_err(|_| EngineError::Damaged(log))?;
    let row = |wrapping: Wrapping| KeyRow {
        day: day.number(),
        log,
        epoch: wrapping.wrapped.epoch.to_string(),
        key_id: *id.as_bytes(),
        first,
        wrapped: wrapping.wrapped.bytes,
        superseded_at: wrapping.superseded_at.map(Timestamp::as_microsecond),
    };
    Ok((DayKey::new(day, id, made.key), made.wrappings.into_iter().map(row).collect()))
}

/// Opens a day's key with any of its wrappings whose epoch key is mounted.
fn open(keyring: &Keyring, log_id: &LogId, day: Day, wrappings: &[LoadedKey]) -> Result<DayKey, EngineError> {
    let first = wrappings.first().ok_or(KeyError::Destroyed)?;
    let id = DayKeyId::from_bytes(first.key_id.as_slice().try_into().map_err(|_| EngineError::Damaged(first.log))?);
    let wrapped = wrappings.iter().map(|stored| &stored.wrapped);
    let key = keyring.unwrap(&id.into(), &bodies::subject(log_id, day), wrapped)?;
    Ok(DayKey::new(day, id, key))
}
