use jiff::Timestamp;
use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_core::outcome::Reason;
use tsujiban_database::{Columns, Tx, on, transaction};

use super::{Catalogue, CatalogueError, Rows, lives, row};
use crate::life::DeviceUidHash;

/// An attempt that ended just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    pub device: IncarnationId,
    pub group: IncarnationId,
    /// Of the Device for which the attempt was made.
    pub life: Option<DeviceUidHash>,
    pub time: Timestamp,
    /// `None`: the config was stored or seen again.
    pub reason: Option<Reason>,
    pub changed: bool,
    /// The sealed message.
    pub sealed: Vec<u8>,
    /// The snapshot that was stored or seen again.
    pub snapshot: Option<SnapshotId>,
    /// `None`: no caller can repeat it.
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

/// The recorded answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub device: IncarnationId,
    pub snapshot: Option<SnapshotId>,
    pub changed: bool,
}

impl AttemptRow {
    pub(super) fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
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
    /// A cursor is the time in microseconds, or one above the highest cursor, so that cursors keep rising in a rebuilt catalogue.
    pub(super) async fn put(&self, tx: &mut Tx) -> Result<(), CatalogueError> {
        let text = "INSERT INTO attempts (device, cursor, time, reason, changed, sealed)
             VALUES ($1, (SELECT CASE WHEN MAX(cursor) >= $2 THEN MAX(cursor) + 1 ELSE $2 END FROM attempts), $2, $3, $4, $5)
             ON CONFLICT (device) DO UPDATE SET cursor = excluded.cursor, time = excluded.time, reason = excluded.reason,
                 changed = excluded.changed, sealed = excluded.sealed";
        on!(tx.on(), c => {
            sqlx::query(text)
                .bind(self.device.as_str())
                .bind(self.time.as_microsecond())
                .bind(self.reason.map(Reason::as_str))
                .bind(self.changed)
                .bind(&self.sealed)
                .execute(c)
                .await?;
        });
        let Some(key) = &self.idempotency_key else { return Ok(()) };
        let text = "INSERT INTO idempotency (group_incarnation, key, device, snapshot, changed, at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING";
        on!(tx.on(), c => {
            sqlx::query(text)
                .bind(self.group.as_str())
                .bind(key)
                .bind(self.device.as_str())
                .bind(self.snapshot.as_ref().map(SnapshotId::as_str))
                .bind(self.changed)
                .bind(self.time.as_microsecond())
                .execute(c)
                .await?;
        });
        Ok(())
    }
}

impl Catalogue {
    pub async fn record_attempt(&self, attempt: &NewAttempt) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => {
            lives::admit(tx, attempt.life.as_ref()).await?;
            attempt.put(tx).await
        })
    }

    /// The newest attempt of each device that has one after the cursor, oldest first.
    pub async fn attempts_after(&self, cursor: u64, limit: u32) -> Result<Vec<AttemptRow>, CatalogueError> {
        let text = "SELECT * FROM attempts WHERE cursor > $1 ORDER BY cursor LIMIT $2";
        on!(self.database.reads(), p => {
            let rows = sqlx::query(text).bind(row::integer(cursor)).bind(i64::from(limit)).fetch_all(p).await?;
            self.readable(Rows::Attempts, &rows, AttemptRow::read)
        })
    }

    /// Whether an attempt of this device is recorded.
    pub async fn has_attempt(&self, device: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM attempts WHERE device = $1) AS noted";
        on!(self.database.reads(), p => row::flag(&sqlx::query(text).bind(device.as_str()).fetch_one(p).await?, "noted"))
    }

    /// The recorded answer to the call with this idempotency key.
    pub async fn answered(&self, group: &IncarnationId, key: &str) -> Result<Option<Answered>, CatalogueError> {
        let text = "SELECT * FROM idempotency WHERE group_incarnation = $1 AND key = $2";
        on!(self.database.reads(), p => {
            let Some(row) = sqlx::query(text).bind(group.as_str()).bind(key).fetch_optional(p).await? else { return Ok(None) };
            Ok(Some(Answered {
                device: row::parsed(&row, "device")?,
                snapshot: row::parsed_or_none(&row, "snapshot")?,
                changed: row::flag(&row, "changed")?,
            }))
        })
    }

    /// Forgets the answers to calls before a moment.
    pub async fn forget_answers(&self, before: Timestamp) -> Result<(), CatalogueError> {
        let text = "DELETE FROM idempotency WHERE at < $1";
        on!(self.database.writes(), p => sqlx::query(text).bind(before.as_microsecond()).execute(p).await.map(drop))?;
        Ok(())
    }
}
