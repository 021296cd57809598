//! What was found damaged, until it is sound again or gone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_database::{Columns, on, transaction};

use super::{Catalogue, CatalogueError, row};
use crate::damage::{DamageScope, Damaged};

/// How many names of damaged things are reported.
const TOLD: usize = 10;

/// Something damaged, or healed and not yet recorded as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageRow {
    pub name: String,
    pub group: Option<IncarnationId>,
    pub snapshot: Option<SnapshotId>,
    pub detail: String,
    pub found_at: Timestamp,
    pub healed_at: Option<Timestamp>,
    pub recorded: bool,
}

/// How much is damaged, and the names of some of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    pub count: u64,
    pub names: Vec<String>,
}

impl DamageRow {
    fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
        Ok(Self {
            name: row::text(row, "name")?,
            group: row::parsed_or_none(row, "group_incarnation")?,
            snapshot: row::parsed_or_none(row, "snapshot")?,
            detail: row::text(row, "detail")?,
            found_at: row::time(row, "found_at")?,
            healed_at: row::time_or_none(row, "healed_at")?,
            recorded: row::flag(row, "recorded")?,
        })
    }
}

/// Gives the newest attempt of a damaged snapshot's device a new cursor, so that the operator reads it again.
const SHOW_AGAIN: &str = "UPDATE attempts SET cursor = (SELECT MAX(cursor) + 1 FROM attempts)
     WHERE device = (SELECT device FROM damage WHERE name = $1 AND snapshot IS NOT NULL)";

impl Catalogue {
    /// Notes that something is damaged. `false`: it was already noted.
    pub async fn note_damage(&self, damaged: &Damaged, whose: &DamageScope, now: Timestamp) -> Result<bool, CatalogueError> {
        let known = "SELECT EXISTS (SELECT 1 FROM damage WHERE name = $1 AND healed_at IS NULL) AS known";
        let text = "INSERT INTO damage (name, group_incarnation, device, snapshot, detail, found_at, healed_at, recorded)
             VALUES ($1, $2, $3, $4, $5, $6, NULL, FALSE)
             ON CONFLICT (name) DO UPDATE SET detail = excluded.detail, found_at = excluded.found_at, healed_at = NULL, recorded = FALSE";
        transaction!(self.database, tx => {
            let known = on!(tx.on(), c => row::flag(&sqlx::query(known).bind(&damaged.name).fetch_one(c).await?, "known"))?;
            if known {
                return Ok(false);
            }
            on!(tx.on(), c => {
                sqlx::query(text)
                    .bind(&damaged.name)
                    .bind(whose.group.as_ref().map(IncarnationId::as_str))
                    .bind(whose.device.as_ref().map(IncarnationId::as_str))
                    .bind(whose.snapshot.as_ref().map(SnapshotId::as_str))
                    .bind(&damaged.detail)
                    .bind(now.as_microsecond())
                    .execute(&mut *c)
                    .await?;
                sqlx::query(SHOW_AGAIN).bind(&damaged.name).execute(c).await?;
            });
            Ok(true)
        })
    }

    /// Notes that something is sound. `false`: it was not noted as damaged.
    pub async fn note_healed(&self, name: &str, now: Timestamp) -> Result<bool, CatalogueError> {
        let known = "SELECT EXISTS (SELECT 1 FROM damage WHERE name = $1 AND healed_at IS NULL) AS known";
        // nearly always there is nothing to note, and nothing to write
        let known = on!(self.database.reads(), p => row::flag(&sqlx::query(known).bind(name).fetch_one(p).await?, "known"))?;
        if !known {
            return Ok(false);
        }
        let text = "UPDATE damage SET healed_at = $2 WHERE name = $1 AND healed_at IS NULL";
        transaction!(self.database, tx => {
            let healed = on!(tx.on(), c => {
                let healed = sqlx::query(text).bind(name).bind(now.as_microsecond()).execute(&mut *c).await?.rows_affected();
                sqlx::query(SHOW_AGAIN).bind(name).execute(c).await?;
                healed
            });
            Ok(healed > 0)
        })
    }

    /// What is damaged, by the incarnation of the group that it belongs to; under `None` what concerns all groups.
    pub async fn damage(&self) -> Result<BTreeMap<Option<IncarnationId>, Damage>, CatalogueError> {
        let text = "SELECT group_incarnation, name FROM damage WHERE healed_at IS NULL ORDER BY name";
        let rows: Vec<(Option<IncarnationId>, String)> = on!(self.database.reads(), p => {
            let rows = sqlx::query(text).fetch_all(p).await?;
            let read = |row| Ok::<_, CatalogueError>((row::parsed_or_none(row, "group_incarnation")?, row::text(row, "name")?));
            rows.iter().map(read).collect::<Result<_, _>>()?
        });
        let mut damage: BTreeMap<_, Damage> = BTreeMap::new();
        for (group, name) in rows {
            let known = damage.entry(group).or_default();
            known.count += 1;
            if known.names.len() < TOLD {
                known.names.push(name);
            }
        }
        Ok(damage)
    }

    /// How much is damaged.
    pub async fn damaged_count(&self) -> Result<u64, CatalogueError> {
        let text = "SELECT COUNT(*) AS damaged FROM damage WHERE healed_at IS NULL";
        on!(self.database.reads(), p => row::count(&sqlx::query(text).fetch_one(p).await?, "damaged"))
    }

    /// The names of damaged things that begin with `prefix`.
    pub async fn damaged_names(&self, prefix: &str) -> Result<Vec<String>, CatalogueError> {
        let text = "SELECT name FROM damage WHERE healed_at IS NULL AND substr(name, 1, length($1)) = $1 ORDER BY name";
        on!(self.database.reads(), p => {
            sqlx::query(text).bind(prefix).fetch_all(p).await?.iter().map(|row| row::text(row, "name")).collect()
        })
    }

    /// Whether something is damaged, by its name.
    pub async fn is_damaged(&self, name: &str) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM damage WHERE name = $1 AND healed_at IS NULL) AS damaged";
        on!(self.database.reads(), p => row::flag(&sqlx::query(text).bind(name).fetch_one(p).await?, "damaged"))
    }

    /// Whether any snapshot of a device is damaged.
    pub async fn has_damaged_snapshots(&self, device: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM damage WHERE device = $1 AND snapshot IS NOT NULL AND healed_at IS NULL) AS damaged";
        on!(self.database.reads(), p => row::flag(&sqlx::query(text).bind(device.as_str()).fetch_one(p).await?, "damaged"))
    }

    /// At most `limit` rows about damage or healing that the operation history lacks.
    pub async fn unrecorded_damage(&self, limit: u32) -> Result<Vec<DamageRow>, CatalogueError> {
        let text = "SELECT * FROM damage WHERE NOT recorded OR healed_at IS NOT NULL ORDER BY found_at, name LIMIT $1";
        on!(self.database.reads(), p => {
            sqlx::query(text).bind(i64::from(limit)).fetch_all(p).await?.iter().map(DamageRow::read).collect()
        })
    }

    /// Notes that the operation history has the entry of this damage.
    pub async fn damage_recorded(&self, name: &str) -> Result<(), CatalogueError> {
        let text = "UPDATE damage SET recorded = TRUE WHERE name = $1";
        on!(self.database.writes(), p => sqlx::query(text).bind(name).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Forgets damage that no longer affects anything, once the operation history has it.
    pub async fn forget_damage(&self, name: &str) -> Result<(), CatalogueError> {
        let text = "DELETE FROM damage WHERE name = $1 AND recorded";
        on!(self.database.writes(), p => sqlx::query(text).bind(name).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Forgets healed damage, once the operation history has it.
    pub async fn forget_healed(&self, name: &str) -> Result<(), CatalogueError> {
        let text = "DELETE FROM damage WHERE name = $1 AND healed_at IS NOT NULL";
        on!(self.database.writes(), p => sqlx::query(text).bind(name).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Damaged objects that are no snapshots in the catalogue.
    pub async fn unlisted_damage(&self) -> Result<Vec<DamageRow>, CatalogueError> {
        let text = "SELECT * FROM damage WHERE healed_at IS NULL AND snapshot IS NOT NULL AND snapshot NOT IN (SELECT id FROM snapshots)";
        on!(self.database.reads(), p => sqlx::query(text).fetch_all(p).await?.iter().map(DamageRow::read).collect())
    }
}
