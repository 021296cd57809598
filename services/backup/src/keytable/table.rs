//! The content of a key table, and the merge of two. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tsujiban_core::id::{GroupId, IncarnationId, KeyId};

use crate::catalogue::{ERASURES_KEPT, ErasureRow, GroupRow, GroupState, KeyRow};
use crate::life::{DeviceUidHash, REMEMBERED};

/// Groups, keys and erasures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// How often it was changed.
    pub generation: u64,
    pub groups: Vec<GroupRow>,
    pub keys: Vec<KeyRow>,
    /// Devices that were erased, by the life of their resource, so that nothing is stored for them.
    pub lives: Vec<(DeviceUidHash, Timestamp)>,
    /// The same by incarnation, so that nothing of them is read.
    pub erasures: Vec<ErasureRow>,
}

impl Table {
    /// Whether both have the same content, whatever their generations.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let sorted = |table: &Self| {
            let Self { mut groups, mut keys, mut lives, mut erasures, .. } = table.clone();
            groups.sort_by(|a, b| a.incarnation.cmp(&b.incarnation));
            keys.sort_by(|a, b| (&a.key_id, &a.wrapped.epoch).cmp(&(&b.key_id, &b.wrapped.epoch)));
            lives.sort();
            erasures.sort_by(|a, b| a.subject.cmp(&b.subject));
            (groups, keys, lives, erasures)
        };
        sorted(self) == sorted(other)
    }

    /// Whether it has a key or a wrapping that another one lacks.
    pub fn has_keys_missing_in(&self, other: &Self) -> bool {
        self.keys.iter().any(|row| !other.keys.contains(row))
    }

    /// Merges two tables, such as the database's and that of its copy. Whatever their generations:
    ///
    /// - what is erased in either is erased, and its key is in neither;
    /// - a key that only one of them has is kept: without a record of an erasure the other one lost it by damage;
    /// - of two different wrappings the one that opens is kept; if both open, or neither does, that of the newer table.
    #[must_use]
    pub fn merge(&self, other: &Self, opens: impl Fn(&KeyRow) -> bool) -> Self {
        let (newer, older) = if other.generation > self.generation { (other, self) } else { (self, other) };
        let mut erasures: BTreeMap<&IncarnationId, &ErasureRow> = BTreeMap::new();
        for row in newer.erasures.iter().chain(&older.erasures) {
            erasures.entry(&row.subject).or_insert(row);
        }
        let mut lives: BTreeMap<&DeviceUidHash, Timestamp> = BTreeMap::new();
        for (life, at) in newer.lives.iter().chain(&older.lives) {
            lives.entry(life).or_insert(*at);
        }
        let groups = merged_groups(newer, older);
        let is_erased = |group: &IncarnationId| groups.iter().any(|row| row.incarnation == *group && row.state == GroupState::Erased);
        let living = |row: &&KeyRow| !erasures.contains_key(&row.subject) && !is_erased(&row.group);
        let (mut newer_keys, older_keys) = (by_id(newer.keys.iter().filter(living)), by_id(older.keys.iter().filter(living)));
        for (id, rows) in older_keys {
            match newer_keys.get_mut(id) {
                None => drop(newer_keys.insert(id, rows)),
                Some(known) if known.iter().any(|row| opens(row)) => {}
                Some(known) if rows.iter().any(|row| opens(row)) => *known = rows,
                // neither opens now: an older table's wrapping may open when its epoch key is restored
                Some(known) => {
                    let epochs: BTreeSet<&KeyId> = known.iter().map(|row| &row.wrapped.epoch).collect();
                    let others: Vec<_> = rows.into_iter().filter(|row| !epochs.contains(&row.wrapped.epoch)).collect();
                    known.extend(others);
                }
            }
        }
        let mut merged = Self {
            generation: newer.generation,
            keys: newer_keys.into_values().flatten().cloned().collect(),
            groups,
            lives: lives.into_iter().map(|(life, at)| (life.clone(), at)).collect(),
            erasures: erasures.into_values().cloned().collect(),
        };
        if !merged.says_the_same(newer) {
            merged.generation += 1;
        }
        merged
    }

    /// Drops records that are past their time and that `newer` has forgotten, so that an older table does not restore them.
    pub fn leave_out_forgotten(&mut self, newer: &Self, now: Timestamp) {
        self.lives.retain(|(life, at)| now.duration_since(*at) < REMEMBERED || newer.lives.iter().any(|(known, _)| known == life));
        self.erasures.retain(|row| {
            now.duration_since(row.erased_at) < ERASURES_KEPT || newer.erasures.iter().any(|known| known.subject == row.subject)
        });
        self.groups.retain(|row| {
            row.state != GroupState::Erased
                || row.id_free_at.is_none_or(|free_at| free_at > now)
                || newer.groups.iter().any(|known| known.incarnation == row.incarnation)
        });
    }

    /// The erasures of a version that did not record them: devices that have a key in this table and none in the newer one, which that
    /// version wrote.
    pub fn erased_without_record(&self, newer: &Self, at: Timestamp) -> Vec<ErasureRow> {
        let kept: BTreeSet<&IncarnationId> = newer.keys.iter().map(|row| &row.subject).collect();
        let gone = self.keys.iter().filter(|row| row.subject != row.group && !kept.contains(&row.subject));
        gone.map(|row| ErasureRow { subject: row.subject.clone(), group: row.group.clone(), erased_at: at }).collect()
    }
}

/// An incarnation that is erased in either is erased. If both have an incarnation of one group with data, that of the newer table is kept.
fn merged_groups(newer: &Table, older: &Table) -> Vec<GroupRow> {
    let mut groups: BTreeMap<&IncarnationId, &GroupRow> = newer.groups.iter().map(|row| (&row.incarnation, row)).collect();
    for row in &older.groups {
        let known = groups.entry(&row.incarnation).or_insert(row);
        if row.state == GroupState::Erased && known.state != GroupState::Erased {
            *known = row;
        }
    }
    let newer_has: BTreeSet<&IncarnationId> = newer.groups.iter().map(|row| &row.incarnation).collect();
    let present: BTreeSet<&GroupId> = groups
        .values()
        .filter(|row| row.state != GroupState::Erased && newer_has.contains(&row.incarnation))
        .map(|row| &row.group)
        .collect();
    let stays = |row: &&GroupRow| row.state == GroupState::Erased || newer_has.contains(&row.incarnation) || !present.contains(&row.group);
    groups.values().copied().filter(stays).cloned().collect()
}

fn by_id<'a>(rows: impl Iterator<Item = &'a KeyRow>) -> BTreeMap<&'a KeyId, Vec<&'a KeyRow>> {
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        keys.entry(&row.key_id).or_default().push(row);
    }
    keys
}

#[cfg(test)]
mod tests {
    use tsujiban_sealing::WrappedKey;

    use super::*;

    const GOOD: u8 = 1;
    const BAD: u8 = 0;

    fn incarnation(number: u8) -> IncarnationId {
        IncarnationId::from_bytes([number; 16])
    }

    fn key(subject: u8, epoch: u8, bytes: u8) -> KeyRow {
        KeyRow {
            key_id: KeyId::from_bytes([subject; 16]),
            subject: incarnation(subject),
            group: incarnation(100),
            wrapped: WrappedKey { epoch: KeyId::from_bytes([epoch; 16]), bytes: vec![bytes] },
            superseded_at: None,
        }
    }

    fn group(number: u8, state: GroupState) -> GroupRow {
        GroupRow {
            incarnation: incarnation(number),
            group: "acme".parse().unwrap(),
            state,
            key_id: KeyId::from_bytes([number; 16]),
            prepared_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
            id_free_at: None,
        }
    }

    fn table(generation: u64, keys: Vec<KeyRow>) -> Table {
        Table { generation, keys, groups: vec![group(100, GroupState::Living)], ..Table::default() }
    }

    fn erased(subject: u8) -> ErasureRow {
        ErasureRow { subject: incarnation(subject), group: incarnation(100), erased_at: Timestamp::UNIX_EPOCH }
    }

    fn opens(row: &KeyRow) -> bool {
        row.wrapped.bytes == [GOOD]
    }

    #[test]
    fn two_that_say_the_same_stay_as_they_are() {
        let one = table(3, vec![key(1, 1, GOOD), key(2, 1, GOOD)]);
        let other = table(2, vec![key(2, 1, GOOD), key(1, 1, GOOD)]);
        assert!(one.says_the_same(&other));
        assert_eq!(one.merge(&other, opens).generation, 3);
        assert!(one.merge(&other, opens).says_the_same(&one));
    }

    /// C24: an erasure that either has on record wins over a key in the other, whichever is newer.
    #[test]
    fn an_erasure_in_either_wins() {
        for generations in [(1, 2), (2, 1), (2, 2)] {
            let here = table(generations.0, vec![key(1, 1, GOOD), key(2, 1, GOOD)]);
            let there = Table { erasures: vec![erased(1)], ..table(generations.1, vec![key(2, 1, GOOD)]) };
            for merged in [here.merge(&there, opens), there.merge(&here, opens)] {
                assert_eq!((merged.keys, merged.erasures), (vec![key(2, 1, GOOD)], vec![erased(1)]), "{generations:?}");
            }
            let there = Table { groups: vec![group(100, GroupState::Erased)], ..table(generations.1, Vec::new()) };
            for merged in [here.merge(&there, opens), there.merge(&here, opens)] {
                assert!(merged.keys.is_empty() && merged.groups == [group(100, GroupState::Erased)], "{generations:?}");
            }
        }
    }

    /// A key that one of them lost without a record comes from the other, and changes the table.
    #[test]
    fn a_key_without_a_recorded_erasure_is_kept() {
        for generations in [(1, 2), (2, 1), (2, 2)] {
            let (here, there) = (table(generations.0, vec![key(1, 1, GOOD)]), table(generations.1, vec![key(2, 1, GOOD)]));
            let merged = here.merge(&there, opens);
            assert_eq!((merged.keys, merged.generation), (vec![key(1, 1, GOOD), key(2, 1, GOOD)], 3), "{generations:?}");
        }
    }

    /// What does not open never takes the place of what does.
    #[test]
    fn of_two_wrappings_the_one_that_opens_is_kept() {
        let one = |bytes| vec![key(1, 1, bytes)];
        for (here, there, kept) in [
            (table(2, one(BAD)), table(1, one(GOOD)), one(GOOD)),
            (table(1, one(BAD)), table(2, one(GOOD)), one(GOOD)),
            (table(1, one(GOOD)), table(2, one(BAD)), one(GOOD)),
            (table(2, one(GOOD)), table(1, one(BAD)), one(GOOD)),
            // a superseded wrapping that the newer table dropped does not come back
            (table(2, vec![key(1, 2, GOOD)]), table(1, vec![key(1, 1, GOOD), key(1, 2, GOOD)]), vec![key(1, 2, GOOD)]),
            (table(2, vec![key(1, 2, BAD)]), table(1, vec![key(1, 1, BAD)]), vec![key(1, 2, BAD), key(1, 1, BAD)]),
        ] {
            assert_eq!(here.merge(&there, opens).keys, kept);
        }
    }

    #[test]
    fn a_group_has_one_incarnation_with_data_and_no_key_is_lost() {
        let here = Table { groups: vec![group(1, GroupState::Living)], ..table(2, vec![key(1, 1, GOOD)]) };
        let there = Table { groups: vec![group(2, GroupState::Living)], ..table(1, vec![key(2, 1, GOOD)]) };
        let merged = here.merge(&there, opens);
        assert_eq!((merged.groups, merged.keys.len()), (vec![group(1, GroupState::Living)], 2));
    }

    /// C25: what is forgotten in its time does not come back from a copy that still has it.
    #[test]
    fn what_is_past_its_time_is_not_remembered_again() {
        let (life, now) = (DeviceUidHash::of(&uuid::Uuid::from_u128(1)), Timestamp::UNIX_EPOCH + ERASURES_KEPT);
        let gone = GroupRow { id_free_at: Some(now), ..group(7, GroupState::Erased) };
        let old = Table { groups: vec![gone], lives: vec![(life, Timestamp::UNIX_EPOCH)], erasures: vec![erased(1)], ..Table::default() };
        let left = |known: &Table, now: Timestamp| {
            let mut old = old.clone();
            old.leave_out_forgotten(known, now);
            (old.groups.len(), old.lives.len(), old.erasures.len())
        };
        assert_eq!(left(&Table::default(), now), (0, 0, 0));
        assert_eq!(left(&old, now), (1, 1, 1), "it is not forgotten here either");
        assert_eq!(left(&Table::default(), Timestamp::UNIX_EPOCH), (1, 1, 1));
    }

    #[test]
    fn what_an_earlier_version_erased_is_what_its_newer_table_lacks() {
        let (old, new) = (table(1, vec![key(1, 1, GOOD), key(2, 1, GOOD)]), table(2, vec![key(2, 2, GOOD)]));
        assert_eq!(old.erased_without_record(&new, Timestamp::UNIX_EPOCH), [erased(1)]);
    }
}
