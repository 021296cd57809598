//! Checks wrapped keys: a wrapping that does not open is healed from another wrapping of the same key, or reported when there is none.

use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_sealing::KeyError;

use crate::catalogue::KeyRow;
use crate::damage::{DamageScope, Damaged, key_name};
use crate::error::Result;
use crate::keys;
use crate::service::Backup;

/// After how many keys the check yields to other tasks: each key costs some microseconds.
const TURN: usize = 200;
/// How many snapshots of a device are read again when its key is damaged or sound again.
const READ: u32 = 50;

/// The result of a check of all wrapped keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrappings {
    pub keys: u64,
    /// Wrappings that were damaged and were made anew from another one.
    pub healed: u64,
    /// Keys of which no wrapping opens and at least one is damaged.
    pub damaged: u64,
    /// Keys that nothing opens, the damaged ones included.
    pub unopened: u64,
}

/// The state of one wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opens,
    /// Its epoch key is not mounted, so that it cannot be checked.
    NotKnown,
    Damaged,
}

/// What has to be done about the wrappings of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Sound,
    /// Some are damaged, and another one opens.
    Heal,
    Unopened,
    Damaged,
}

fn judge(states: &[State]) -> Verdict {
    let has = |state| states.contains(&state);
    match (has(State::Opens), has(State::Damaged)) {
        (true, false) => Verdict::Sound,
        (true, true) => Verdict::Heal,
        (false, true) => Verdict::Damaged,
        (false, false) => Verdict::Unopened,
    }
}

impl Backup {
    /// Opens every wrapping of every data key.
    pub async fn check_wrappings(&self) -> Result<Wrappings> {
        let table = self.catalogue.key_table().await?;
        let mut found = Wrappings::default();
        let was_damaged = self.catalogue.damaged_count().await? > 0;
        for (number, rows) in table.chunk_by(|a, b| a.key_id == b.key_id).enumerate() {
            if number % TURN == 0 {
                tokio::task::yield_now().await;
            }
            let Some(first) = rows.first() else { continue };
            found.keys += 1;
            let states: Vec<State> = rows.iter().map(|row| self.state(row)).collect();
            let verdict = judge(&states);
            // a key that nothing opens matters only while no other key has replaced it
            let matters = u64::from(verdict < Verdict::Unopened || !self.catalogue.is_replaced(&first.key_id, &first.subject).await?);
            match verdict {
                Verdict::Sound => {}
                Verdict::Heal => found.healed += self.heal(rows, &states).await?,
                Verdict::Unopened => found.unopened += matters,
                Verdict::Damaged => {
                    (found.damaged, found.unopened) = (found.damaged + matters, found.unopened + matters);
                    self.found_damaged_key(first, matters > 0).await?;
                }
            }
            let name = key_name(&first.key_id, &first.subject);
            if was_damaged && verdict < Verdict::Unopened && self.found_sound(&name).await? {
                self.check_snapshots_of(&first.group, &first.subject).await?;
            }
        }
        self.metrics.keys_unopened.set(i64::try_from(found.unopened).unwrap_or(i64::MAX));
        Ok(found)
    }

    /// Notes a key that nothing opens, and the snapshots that it seals, as damaged; a key that was replaced only while its device has
    /// damaged snapshots.
    async fn found_damaged_key(&self, row: &KeyRow, is_in_use: bool) -> Result<()> {
        let damaged = Damaged::key(&row.key_id, &row.subject, "its wrapping does not open, and there is no other one");
        if !is_in_use && !self.catalogue.has_damaged_snapshots(&row.subject).await? {
            return Ok(self.catalogue.forget_damage(&damaged.name).await?);
        }
        let device = (row.subject != row.group).then(|| row.subject.clone());
        if !self.catalogue.is_damaged(&damaged.name).await? {
            self.check_snapshots_of(&row.group, &row.subject).await?;
        }
        self.found_damaged(&damaged, &DamageScope { group: Some(row.group.clone()), device, snapshot: None }).await.map(drop)
    }

    /// Reads the newest snapshots of a device again, since its key has been found damaged or sound. A scrub reads the others.
    pub(crate) async fn check_snapshots_of(&self, group: &IncarnationId, device: &IncarnationId) -> Result<()> {
        for row in self.catalogue.snapshots(group, Some(device), None, READ).await? {
            // a snapshot that was listed without having been read is sealed with an earlier, lost key
            if row.driver.is_some() {
                self.check_snapshot(&row).await?;
            }
        }
        Ok(())
    }

    fn state(&self, row: &KeyRow) -> State {
        match keys::unwrap(&self.keyring, std::slice::from_ref(row)) {
            Ok(_) => State::Opens,
            Err(KeyError::Sealing(_)) => State::Damaged,
            Err(_) => State::NotKnown,
        }
    }

    async fn heal(&self, rows: &[KeyRow], states: &[State]) -> Result<u64> {
        let mut healed = 0;
        for (row, _) in rows.iter().zip(states).filter(|(_, state)| **state == State::Damaged) {
            let epoch = self.keyring.epoch(&row.wrapped.epoch)?;
            let anew = keys::rewrap(&self.keyring, rows, &epoch, &self.random)?;
            self.catalogue.replace_wrapping(&KeyRow { superseded_at: row.superseded_at, ..anew }).await?;
            healed += 1;
            let (key, epoch): (&KeyId, &KeyId) = (&row.key_id, &row.wrapped.epoch);
            tracing::warn!(%key, %epoch, "a wrapping of a data key was damaged; it was made anew from another one");
        }
        Ok(healed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_damaged_only_when_no_wrapping_opens() {
        use State::{Damaged, NotKnown, Opens};
        for (states, verdict) in [
            (vec![Opens], Verdict::Sound),
            (vec![Opens, NotKnown], Verdict::Sound),
            (vec![Damaged, Opens], Verdict::Heal),
            (vec![Damaged], Verdict::Damaged),
            (vec![Damaged, NotKnown], Verdict::Damaged),
            (vec![NotKnown, NotKnown], Verdict::Unopened),
            (vec![], Verdict::Unopened),
        ] {
            assert_eq!(judge(&states), verdict, "{states:?}");
        }
    }
}
