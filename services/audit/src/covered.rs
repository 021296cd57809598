//! Whether an entry is in the database, and whether a root list in the bucket covers it. Callers retain an entry until it is covered.
//!
//! An answer is valid only while the history is sound. A database that was replaced by an older copy of itself, but has all entries that
//! the root lists cover, is sound: entries that it lacks are `Unknown` here, and their callers add them again.

use std::collections::{HashMap, HashSet};

use tsujiban_database::on;

use crate::engine;
use crate::error::Result;
use crate::owner::Owner;
use crate::seals;
use crate::service::Audit;

/// The most ids that one call may ask for.
pub const MOST: usize = 1000;

/// How safe an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The newest root list that names its log has a size beyond it.
    Covered,
    /// It is in the database and not covered yet, or its log is refused.
    Pending,
    /// It is not in the database, or its body was damaged before it was archived.
    Unknown,
}

/// How safe the entries are that a call asked for in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCoverage {
    /// The group was erased.
    pub is_erased: bool,
    pub entries: Vec<Coverage>,
}

/// A log of a group.
#[derive(Debug)]
struct OwnerLogs {
    number: i64,
    is_erased: bool,
    /// Its size in the newest root list that names it.
    listed: u64,
    /// Whether a seal proves that it is the group's.
    is_sealed: bool,
}

impl Audit {
    /// How safe entries are, by groups and ids, in the order of `asked`.
    pub async fn coverage(&self, asked: &[(Owner, Vec<[u8; 16]>)]) -> Result<Vec<GroupCoverage>> {
        self.engine.sound()?;
        let mut owners: Vec<&Owner> = asked.iter().map(|(owner, _)| owner).collect();
        owners.sort_unstable();
        owners.dedup();
        // the sizes first: an entry that a list covers meanwhile is reported as covered at the next call
        let lives = self.lives(&owners).await?;
        let place = |owner: &Owner| owners.binary_search(&owner).unwrap_or_default();
        let groups = lives.iter().flat_map(|(owner, logs)| logs.iter().map(|log| (log.number, place(owner)))).collect();
        let wanted: HashSet<_> = asked.iter().flat_map(|(owner, ids)| ids.iter().map(|id| (place(owner), *id))).collect();
        let mut found = engine::locate(&self.database, &groups, wanted.clone(), self.now()).await?;
        let unknown = asked.iter().filter(|(owner, ids)| ids.iter().any(|id| !found.contains_key(&(place(owner), *id))));
        let unknown: Vec<i64> = unknown.flat_map(|(owner, _)| lives.get(owner).into_iter().flatten()).map(|log| log.number).collect();
        if self.fill_holes(&unknown).await? {
            found = engine::locate(&self.database, &groups, wanted, self.now()).await?;
        }
        let refused = self.engine.refused().all();
        let answers = asked.iter().map(|(owner, ids)| {
            let logs = lives.get(owner).map(Vec::as_slice).unwrap_or_default();
            let entries = ids.iter().map(|id| match found.get(&(place(owner), *id)) {
                // the rows of an inconsistent log are not trusted: callers have to retain their entries
                _ if logs.iter().any(|lives| !lives.is_sealed || refused.contains_key(&lives.number)) => Coverage::Pending,
                None => Coverage::Unknown,
                // its body is damaged, and is restored when its caller adds the entry again
                Some((log, sequence)) if self.waiting.has(*log, *sequence) => Coverage::Unknown,
                Some((log, sequence)) if logs.iter().any(|lives| lives.number == *log && *sequence < lives.listed) => Coverage::Covered,
                Some(_) => Coverage::Pending,
            });
            GroupCoverage { is_erased: logs.last().is_some_and(|newest| newest.is_erased && newest.is_sealed), entries: entries.collect() }
        });
        let answers = answers.collect();
        // a comparison may have found meanwhile that this is not the newest history
        self.engine.sound()?;
        Ok(answers)
    }

    /// Restores missing rows from the archive: otherwise callers would add their entries again, and restored rows would be duplicates.
    async fn fill_holes(&self, logs: &[i64]) -> Result<bool> {
        let mut came_back = false;
        for number in logs {
            if let Ok(Some(log)) = self.log_by_number(*number).await {
                came_back |= self.mend_rows(&log).await?;
            }
        }
        Ok(came_back)
    }

    /// The logs of these owners, from old to new.
    async fn lives(&self, owners: &[&Owner]) -> Result<HashMap<Owner, Vec<OwnerLogs>>> {
        type Row = (i64, String, i64, Vec<u8>, Option<Vec<u8>>);
        const OF: &str = "SELECT l.number, l.state, COALESCE(s.size, 0), l.log_id, k.seal FROM logs l
             LEFT JOIN listed s ON s.log = l.number LEFT JOIN log_seals k ON k.log = l.number
             WHERE l.group_id = $1 ORDER BY l.number";
        let mut lives = HashMap::new();
        for owner in owners {
            let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(owner.as_str()).fetch_all(p).await)?;
            let log = |(number, state, listed, id, seal): Row| {
                let is_sealed = seals::is_sealed_row(&self.keyring, number, &id, owner.as_str(), seal.as_deref());
                OwnerLogs { number, is_erased: state == "erased", listed: listed.cast_unsigned(), is_sealed }
            };
            lives.insert((*owner).clone(), rows.into_iter().map(log).collect());
        }
        Ok(lives)
    }
}
