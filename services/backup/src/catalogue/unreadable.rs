//! Rows that cannot be decoded. Such a row hides no other row of a list: it is left out, remembered here, and reported as damaged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_database::{Columns, on, transaction};

use super::{Catalogue, CatalogueError};

/// A table whose rows may be left out one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    Snapshots,
    Devices,
    Attempts,
    Groups,
    Keys,
    Erasures,
    Leftovers,
}

/// A row that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub table: Rows,
    pub key: String,
    pub group: Option<IncarnationId>,
    pub device: Option<IncarnationId>,
    pub column: &'static str,
}

/// Rows that were left out since the last [`Catalogue::take_unreadable`], by their names.
pub(super) type Noted = Arc<Mutex<BTreeMap<String, Unreadable>>>;

impl Rows {
    pub const ALL: [Self; 7] = [Self::Snapshots, Self::Devices, Self::Attempts, Self::Groups, Self::Keys, Self::Erasures, Self::Leftovers];

    const fn name(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::Devices => "devices",
            Self::Attempts => "attempts",
            Self::Groups => "groups",
            Self::Keys => "keys",
            Self::Erasures => "erasures",
            Self::Leftovers => "leftovers",
        }
    }

    /// The columns that name a row, its group and its device.
    const fn columns(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Snapshots => ("id", "group_incarnation", "device"),
            Self::Devices => ("incarnation", "group_incarnation", "incarnation"),
            Self::Attempts => ("device", "", "device"),
            Self::Groups => ("incarnation", "incarnation", ""),
            Self::Keys => ("key_id", "group_incarnation", ""),
            Self::Erasures => ("subject", "group_incarnation", ""),
            Self::Leftovers => ("object", "group_incarnation", ""),
        }
    }

    /// All rows with a key, as text; `NULL` for all of the table.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Snapshots => snapshots!("FROM snapshots WHERE $1 IS NULL OR id = $1"),
            Self::Devices => "SELECT * FROM devices WHERE $1 IS NULL OR incarnation = $1",
            Self::Attempts => "SELECT * FROM attempts WHERE $1 IS NULL OR device = $1",
            Self::Groups => "SELECT * FROM groups WHERE $1 IS NULL OR incarnation = $1",
            Self::Keys => "SELECT * FROM keys WHERE $1 IS NULL OR key_id = $1",
            Self::Erasures => "SELECT * FROM erasures WHERE $1 IS NULL OR subject = $1",
            Self::Leftovers => "SELECT * FROM leftovers WHERE $1 IS NULL OR object = $1",
        }
    }
}

/// The prefix of the names of damaged rows.
pub const ROW: &str = "row ";

impl Unreadable {
    pub fn name(&self) -> String {
        format!("{ROW}{} of table {}", self.key, self.table.name())
    }

    /// The table and the key in a name that [`name`](Self::name) made.
    pub fn of_name(name: &str) -> Option<(Rows, &str)> {
        let (key, table) = name.strip_prefix(ROW)?.rsplit_once(" of table ")?;
        Rows::ALL.into_iter().find(|known| known.name() == table).map(|table| (table, key))
    }

    fn of(table: Rows, row: &impl Columns, column: &'static str) -> Self {
        let (key, group, device) = table.columns();
        let id = |column: &str| row.text(column).ok().and_then(|id| id.parse().ok());
        Self { table, key: row.text(key).unwrap_or_else(|_| "without a key".to_owned()), group: id(group), device: id(device), column }
    }
}

impl Catalogue {
    /// The rows that can be decoded. The others are noted.
    pub(super) fn readable<R: Columns, T>(
        &self,
        table: Rows,
        rows: &[R],
        read: impl Fn(&R) -> Result<T, CatalogueError>,
    ) -> Result<Vec<T>, CatalogueError> {
        let mut readable = Vec::with_capacity(rows.len());
        for row in rows {
            match read(row) {
                Ok(row) => readable.push(row),
                Err(CatalogueError::Corrupt { column, .. }) => {
                    let row = Unreadable::of(table, row, column);
                    self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(row.name(), row);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(readable)
    }

    /// The rows that were left out since the last call.
    pub fn take_unreadable(&self) -> Vec<Unreadable> {
        std::mem::take(&mut *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }

    /// The group and the device of a snapshot, even if other columns of its row cannot be decoded.
    pub async fn place_of(&self, id: &SnapshotId) -> Result<Option<(IncarnationId, IncarnationId)>, CatalogueError> {
        let text = "SELECT group_incarnation, device FROM snapshots WHERE id = $1";
        on!(self.database.reads(), p => {
            let Some(row) = sqlx::query(text).bind(id.as_str()).fetch_optional(p).await? else { return Ok(None) };
            let id = |column: &str| row.text(column).ok().and_then(|id| id.parse().ok());
            Ok(id("group_incarnation").zip(id("device")))
        })
    }

    /// Deletes a row that cannot be decoded, so that the snapshot can be adopted from its object.
    pub async fn drop_snapshot_row(&self, id: &SnapshotId) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => {
            on!(tx.on(), c => sqlx::query("DELETE FROM snapshots WHERE id = $1").bind(id.as_str()).execute(c).await.map(drop))?;
            Ok(())
        })
    }
}
