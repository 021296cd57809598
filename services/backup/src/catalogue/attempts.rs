use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_core::outcome::Reason;

use super::{Catalogue, CatalogueError, row};
use crate::life::Life;

/// An attempt that ended just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    pub device: IncarnationId,
    pub group: IncarnationId,
    /// Of the Device for which the attempt was made.
    pub life: Option<Life>,
    pub time: Timestamp,
    /// `None`: the config was stored or seen again.
    pub reason: Option<Reason>,
    pub changed: bool,
    /// The sealed message.
    pub sealed: Vec<u8>,
    /// The snapshot that was stored or seen again.
    pub snapshot: Option<SnapshotId>,
    /// `None`: nobody will repeat the call under a key.
    pub idempotency_key: Option<String>,
}

/// The newest attempt of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    pub cursor: u64,
    pub device: IncarnationId,
    pub time: Timestamp,
    pub reason: Option<Reason>,
    pub changed: bool,
    pub sealed: Vec<u8>,
}

/// What a call was answered before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub device: IncarnationId,
    pub snapshot: Option<SnapshotId>,
    pub changed: bool,
}

impl AttemptRow {
    fn read(row: &SqliteRow) -> Result<Self, CatalogueError> {
        let reason = row::parsed_or_none::<String>(row, "reason")?;
        let reason = reason.map(|value| {
            let known = Reason::ALL.into_iter().find(|reason| reason.as_str() == value);
            known.ok_or(CatalogueError::Corrupt { column: "reason", value })
        });
        Ok(Self {
            cursor: row::count(row, "cursor")?,
            device: row::parsed(row, "device")?,
            time: row::time(row, "time")?,
            reason: reason.transpose()?,
            changed: row::flag(row, "changed")?,
            sealed: row::bytes(row, "sealed")?,
        })
    }
}

impl NewAttempt {
    /// Cursors follow the time, so that they go on rising in a catalogue that was rebuilt.
    pub(super) async fn put(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<(), CatalogueError> {
        sqlx::query(
            "INSERT INTO attempts (device, cursor, time, reason, changed, sealed)
             VALUES ($1, (SELECT MAX($2, COALESCE(MAX(cursor) + 1, 0)) FROM attempts), $2, $3, $4, $5)
             ON CONFLICT (device) DO UPDATE SET cursor = excluded.cursor, time = excluded.time, reason = excluded.reason,
                 changed = excluded.changed, sealed = excluded.sealed",
        )
        .bind(self.device.as_str())
        .bind(self.time.as_microsecond())
        .bind(self.reason.map(Reason::as_str))
        .bind(self.changed)
        .bind(&self.sealed)
        .execute(&mut **tx)
        .await?;
        let Some(key) = &self.idempotency_key else { return Ok(()) };
        sqlx::query(
            "INSERT INTO idempotency (group_incarnation, key, device, snapshot, changed, at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        )
        .bind(self.group.as_str())
        .bind(key)
        .bind(self.device.as_str())
        .bind(self.snapshot.as_ref().map(SnapshotId::as_str))
        .bind(self.changed)
        .bind(self.time.as_microsecond())
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

impl Catalogue {
    pub async fn record_attempt(&self, attempt: &NewAttempt) -> Result<(), CatalogueError> {
        let mut tx = self.write_for(attempt.life.as_ref()).await?;
        attempt.put(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// The newest attempts of devices whose newest is after the cursor, oldest first.
    pub async fn attempts_after(&self, cursor: u64, limit: u32) -> Result<Vec<AttemptRow>, CatalogueError> {
        let query = sqlx::query("SELECT * FROM attempts WHERE cursor > $1 ORDER BY cursor LIMIT $2");
        let rows = query.bind(row::integer(cursor)).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(AttemptRow::read).collect()
    }

    /// Whether anybody noted an attempt of this device.
    pub async fn has_attempt(&self, device: &IncarnationId) -> Result<bool, CatalogueError> {
        let query = sqlx::query("SELECT EXISTS (SELECT 1 FROM attempts WHERE device = $1) AS noted").bind(device.as_str());
        row::flag(&query.fetch_one(&self.readers).await?, "noted")
    }

    /// What a call with this idempotency key was answered.
    pub async fn answered(&self, group: &IncarnationId, key: &str) -> Result<Option<Answered>, CatalogueError> {
        let query = sqlx::query("SELECT * FROM idempotency WHERE group_incarnation = $1 AND key = $2").bind(group.as_str()).bind(key);
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        Ok(Some(Answered {
            device: row::parsed(&row, "device")?,
            snapshot: row::parsed_or_none(&row, "snapshot")?,
            changed: row::flag(&row, "changed")?,
        }))
    }

    /// Forgets the answers to calls before a moment.
    pub async fn forget_answers(&self, before: Timestamp) -> Result<(), CatalogueError> {
        sqlx::query("DELETE FROM idempotency WHERE at < $1").bind(before.as_microsecond()).execute(&self.writer).await?;
        Ok(())
    }
}
