use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use tsujiban_core::id::{GroupId, IncarnationId, KeyId};
use tsujiban_database::{Columns, Tx, on, transaction};

use super::{Catalogue, CatalogueError, KeyRow, Rows, row};

/// The state of an incarnation of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Living,
    /// Its Tenant was deleted, its data is kept.
    Retained,
    Erased,
}

impl GroupState {
    pub const ALL: [Self; 3] = [Self::Living, Self::Retained, Self::Erased];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Living => "living",
            Self::Retained => "retained",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GroupState {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == s).ok_or(())
    }
}

/// One incarnation of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    pub incarnation: IncarnationId,
    pub group: GroupId,
    pub state: GroupState,
    pub key_id: KeyId,
    pub prepared_at: Timestamp,
    /// When it became retained or erased.
    pub ended_at: Option<Timestamp>,
    /// When its id may be used again, once it is erased.
    pub id_free_at: Option<Timestamp>,
}

impl GroupRow {
    pub(super) fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
        Ok(Self {
            incarnation: row::parsed(row, "incarnation")?,
            group: row::parsed(row, "group_id")?,
            state: row::parsed(row, "state")?,
            key_id: row::parsed(row, "key_id")?,
            prepared_at: row::time(row, "prepared_at")?,
            ended_at: row::time_or_none(row, "ended_at")?,
            id_free_at: row::time_or_none(row, "id_free_at")?,
        })
    }

    /// Inserts the row, or updates the row of the same incarnation but for its key id, if that row has one: the group's data in this
    /// database is sealed with that key.
    pub(super) async fn put(&self, tx: &mut Tx) -> Result<(), CatalogueError> {
        let text = "INSERT INTO groups (incarnation, group_id, state, key_id, prepared_at, ended_at, id_free_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (incarnation) DO UPDATE SET group_id = excluded.group_id, prepared_at = excluded.prepared_at,
                 key_id = CASE WHEN length(groups.key_id) = length(excluded.key_id) THEN groups.key_id ELSE excluded.key_id END,
                 state = excluded.state, ended_at = excluded.ended_at, id_free_at = excluded.id_free_at";
        on!(tx.on(), c => {
            sqlx::query(text)
                .bind(self.incarnation.as_str())
                .bind(self.group.as_str())
                .bind(self.state.as_str())
                .bind(self.key_id.as_str())
                .bind(self.prepared_at.as_microsecond())
                .bind(self.ended_at.map(Timestamp::as_microsecond))
                .bind(self.id_free_at.map(Timestamp::as_microsecond))
                .execute(c)
                .await?;
        });
        Ok(())
    }
}

/// How much an incarnation of a group holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupUse {
    pub devices: u64,
    pub snapshots: u64,
    /// Sealed objects in the storage, those of what was erased included.
    pub stored_bytes: u64,
}

impl Catalogue {
    /// The incarnation of a group that has data: living or retained.
    pub async fn present_group(&self, group: &GroupId) -> Result<Option<GroupRow>, CatalogueError> {
        let text = "SELECT * FROM groups WHERE group_id = $1 AND state <> 'erased'";
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(group.as_str()).fetch_optional(p).await?;
            row.as_ref().map(GroupRow::read).transpose()
        })
    }

    pub async fn group(&self, incarnation: &IncarnationId) -> Result<Option<GroupRow>, CatalogueError> {
        let text = "SELECT * FROM groups WHERE incarnation = $1";
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(incarnation.as_str()).fetch_optional(p).await?;
            row.as_ref().map(GroupRow::read).transpose()
        })
    }

    /// All incarnations, or those of one group, oldest first.
    pub async fn groups(&self, of: Option<&GroupId>) -> Result<Vec<GroupRow>, CatalogueError> {
        let text = "SELECT * FROM groups WHERE $1 IS NULL OR group_id = $1 ORDER BY prepared_at, incarnation";
        on!(self.database.reads(), p => {
            let rows = sqlx::query(text).bind(of.map(GroupId::as_str)).fetch_all(p).await?;
            self.readable(Rows::Groups, &rows, GroupRow::read)
        })
    }

    /// Notes a new incarnation with the wrappings of its key.
    pub async fn add_group(&self, group: &GroupRow, key: &[KeyRow]) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => {
            group.put(tx).await?;
            for wrapping in key {
                wrapping.put(tx).await?;
            }
            super::keys::changed(tx).await
        })
    }

    /// Changes the state of an incarnation that exists.
    pub async fn update_group(&self, group: &GroupRow) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => {
            group.put(tx).await?;
            super::keys::changed(tx).await
        })
    }

    /// Forgets erased groups whose id is free again and of which nothing is left in the storage (C25).
    pub async fn forget_erased_groups(&self, now: Timestamp) -> Result<(), CatalogueError> {
        let text = "DELETE FROM groups WHERE state = 'erased' AND id_free_at <= $1
                 AND incarnation NOT IN (SELECT group_incarnation FROM leftovers)";
        transaction!(self.database, tx => {
            let forgotten = on!(tx.on(), c => sqlx::query(text).bind(now.as_microsecond()).execute(c).await?.rows_affected());
            if forgotten > 0 {
                super::keys::changed(tx).await?;
            }
            Ok(())
        })
    }

    pub async fn use_of_group(&self, incarnation: &IncarnationId) -> Result<GroupUse, CatalogueError> {
        let text = "SELECT (SELECT COUNT(*) FROM devices WHERE group_incarnation = $1) AS devices,
                    (SELECT COUNT(*) FROM snapshots WHERE group_incarnation = $1) AS snapshots,
                    CAST((SELECT COALESCE(SUM(stored_bytes), 0) FROM snapshots WHERE group_incarnation = $1)
                       + (SELECT COALESCE(SUM(stored_bytes), 0) FROM leftovers WHERE group_incarnation = $1) AS BIGINT) AS stored_bytes";
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(incarnation.as_str()).fetch_one(p).await?;
            Ok(GroupUse {
                devices: row::count(&row, "devices")?,
                snapshots: row::count(&row, "snapshots")?,
                stored_bytes: row::count(&row, "stored_bytes")?,
            })
        })
    }
}
