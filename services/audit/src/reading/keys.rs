//! The day keys, by the ids that leaves name. The wrapping binds a key to its day, so that an entry's day is that of the key that opens it,
//! regardless of the columns of its row.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use tsujiban_core::id::KeyId;
use tsujiban_database::on;
use tsujiban_history::leaf::Content;
use tsujiban_history::merkle::leaf_hash;
use tsujiban_history::{Day, DayKeyId, Leaf};
use tsujiban_sealing::{KeyError, WrappedKey};

use super::Log;
use crate::bodies::{self, DayKey};
use crate::error::Result;
use crate::service::Audit;

/// The state of the key that a leaf names.
#[derive(Debug, Clone)]
pub enum KeyState {
    Open(Box<DayKey>),
    /// Its day has expired: the bodies that it seals are not shown, even if they are not destroyed yet.
    Expired(Day),
    /// It is missing, or none of its wrappings opens, and no retention of its day exists.
    Missing,
    /// It is wrapped by an epoch key that is not mounted: nothing of it is lost.
    NotMounted(KeyId),
}

/// Day keys that one call needs. They are not retained longer, so that a destroyed key is not used.
#[derive(Debug, Default)]
pub struct DayKeys {
    states: HashMap<(i64, DayKeyId), KeyState>,
    /// Days whose keys were read, and logs whose keys were all read.
    days: HashSet<(i64, Day)>,
    logs: HashSet<i64>,
    /// The retentions of a log, by the destroyed keys.
    gone: HashMap<i64, HashMap<DayKeyId, (Leaf, Day)>>,
}

impl DayKeys {
    pub fn state(&self, log: i64, id: DayKeyId) -> &KeyState {
        self.states.get(&(log, id)).unwrap_or(&KeyState::Missing)
    }

    /// The keys of a log that can be used.
    pub fn open(&self, log: i64) -> impl Iterator<Item = &DayKey> {
        self.states.iter().filter_map(move |((of, _), state)| match state {
            KeyState::Open(key) if *of == log => Some(key.as_ref()),
            _ => None,
        })
    }

    fn has(&self, log: i64, id: DayKeyId) -> bool {
        self.states.contains_key(&(log, id))
    }
}

impl Audit {
    /// Reads the keys that leaves name. Looks among the keys of the given days first.
    pub(crate) async fn find_keys(&self, log: &Log, wanted: &[(Option<DayKeyId>, Option<Day>)], keys: &mut DayKeys) -> Result<()> {
        for (id, day) in wanted {
            if id.is_some_and(|id| keys.has(log.number, id)) {
                continue;
            }
            if let Some(day) = day.filter(|day| !keys.logs.contains(&log.number) && keys.days.insert((log.number, *day))) {
                self.read_keys(log, (day.number(), day.number()), keys).await?;
            }
            let Some(id) = id.filter(|id| !keys.has(log.number, *id)) else { continue };
            if keys.logs.insert(log.number) {
                self.read_keys(log, (i64::MIN, i64::MAX), keys).await?;
            }
            if !keys.has(log.number, id) {
                let state = self.gone(log, id, keys).await?.map_or(KeyState::Missing, KeyState::Expired);
                keys.states.insert((log.number, id), state);
            }
        }
        Ok(())
    }

    async fn read_keys(&self, log: &Log, (from, to): (i64, i64), keys: &mut DayKeys) -> Result<()> {
        const OF: &str = "SELECT day, epoch, key_id, wrapped FROM day_keys WHERE log = $1 AND day >= $2 AND day <= $3
             ORDER BY superseded_at IS NOT NULL";
        let rows: Vec<(i64, String, Vec<u8>, Vec<u8>)> =
            on!(self.database.reads(), p => sqlx::query_as(OF).bind(log.number).bind(from).bind(to).fetch_all(p).await)?;
        let mut wrappings: BTreeMap<(i64, DayKeyId), Vec<WrappedKey>> = BTreeMap::new();
        for (day, epoch, id, bytes) in rows {
            // no key has an invalid id
            let Ok(id) = id.try_into().map(DayKeyId::from_bytes) else { continue };
            let of_day = wrappings.entry((day, id)).or_default();
            of_day.extend(epoch.parse::<KeyId>().ok().map(|epoch| WrappedKey { epoch, bytes }));
        }
        for ((day, id), wrapped) in wrappings {
            let Some(day) = Day::from_number(day) else { continue };
            let state = self.state_of(log, day, id, &wrapped);
            let known = keys.states.entry((log.number, id)).or_insert(KeyState::Missing);
            // of two rows with the same id, the one whose wrapping opens is right
            if matches!(known, KeyState::Missing | KeyState::NotMounted(_)) {
                *known = state;
            }
        }
        Ok(())
    }

    fn state_of(&self, log: &Log, day: Day, id: DayKeyId, wrapped: &[WrappedKey]) -> KeyState {
        match self.keyring.unwrap(&id.into(), &bodies::subject(&log.id, day), wrapped) {
            Ok(_) if day.is_expired(self.now()) => KeyState::Expired(day),
            Ok(key) => KeyState::Open(Box::new(DayKey::new(day, id, key))),
            Err(KeyError::EpochMissing(epoch)) => KeyState::NotMounted(epoch),
            Err(_) => KeyState::Missing,
        }
    }

    /// The day of a destroyed key, if a retention in the tree names the key and the day has expired.
    async fn gone(&self, log: &Log, id: DayKeyId, keys: &mut DayKeys) -> Result<Option<Day>> {
        if let Entry::Vacant(vacant) = keys.gone.entry(log.number) {
            vacant.insert(self.retentions(log).await?);
        }
        let Some((leaf, day)) = keys.gone.get(&log.number).and_then(|gone| gone.get(&id)) else { return Ok(None) };
        let is_there = day.is_expired(self.now()) && self.is_in_tree(log, leaf.sequence, leaf_hash(&leaf.encode())).await?;
        Ok(is_there.then_some(*day))
    }

    async fn retentions(&self, log: &Log) -> Result<HashMap<DayKeyId, (Leaf, Day)>> {
        const OF: &str = "SELECT leaf FROM entries WHERE log = $1 AND id IS NULL ORDER BY sequence";
        let leaves: Vec<Vec<u8>> = on!(self.database.reads(), p => sqlx::query_scalar(OF).bind(log.number).fetch_all(p).await)?;
        let retention = |leaf: Vec<u8>| {
            let leaf = Leaf::parse(&leaf).ok()?;
            let Content::Retention(retention) = &leaf.content else { return None };
            Some((retention.key, (leaf.clone(), retention.day)))
        };
        Ok(leaves.into_iter().filter_map(retention).collect())
    }
}

#[cfg(test)]
impl DayKeys {
    pub(super) fn of(log: i64, states: impl IntoIterator<Item = (DayKeyId, KeyState)>) -> Self {
        Self { states: states.into_iter().map(|(id, state)| ((log, id), state)).collect(), ..Self::default() }
    }
}
