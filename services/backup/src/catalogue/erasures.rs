//! Records of erased devices, by incarnation. A missing key means an erasure only if one is recorded here or its whole group is erased;
//! otherwise it is damage.

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::commitments::SNAPSHOTS;
use tsujiban_core::id::IncarnationId;
use tsujiban_database::{Columns, Tx, on, transaction};

use super::{Catalogue, CatalogueError, GroupRow, Rows, erasure, row};

/// For how long an erasure is on record: the last lock of an object ends 35 days after it.
pub const ERASURES_KEPT: SignedDuration = SignedDuration::from_hours(36 * 24);

/// The erasure of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureRow {
    pub subject: IncarnationId,
    pub group: IncarnationId,
    pub erased_at: Timestamp,
}

impl ErasureRow {
    pub(super) fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
        Ok(Self {
            subject: row::parsed(row, "subject")?,
            group: row::parsed(row, "group_incarnation")?,
            erased_at: row::time(row, "erased_at")?,
        })
    }

    pub(super) async fn put(&self, tx: &mut Tx) -> Result<(), CatalogueError> {
        let text = "INSERT INTO erasures (subject, group_incarnation, erased_at) VALUES ($1, $2, $3)
             ON CONFLICT (subject) DO UPDATE SET group_incarnation = excluded.group_incarnation, erased_at = excluded.erased_at";
        on!(tx.on(), c => {
            let query = sqlx::query(text).bind(self.subject.as_str()).bind(self.group.as_str()).bind(self.erased_at.as_microsecond());
            query.execute(c).await.map(drop)
        })?;
        Ok(())
    }
}

impl Catalogue {
    /// Records the erasures of versions that did not record them: a leftover whose device is not in the catalogue is of an erased device.
    /// In the name of an object the incarnation of its device begins at the 37th character.
    pub(super) async fn record_past_erasures(&self) -> Result<(), CatalogueError> {
        let text = "INSERT INTO erasures (subject, group_incarnation, erased_at)
             SELECT substr(object, 37, 32), group_incarnation, MAX(locked_until) - $1 FROM leftovers
             WHERE substr(object, 37, 32) NOT IN (SELECT incarnation FROM devices)
                 AND substr(object, 37, 32) NOT IN (SELECT subject FROM erasures)
             GROUP BY substr(object, 37, 32), group_incarnation
             ON CONFLICT DO NOTHING";
        let kept = i64::try_from(SNAPSHOTS.as_micros()).unwrap_or(i64::MAX);
        transaction!(self.database, tx => {
            let recorded = on!(tx.on(), c => sqlx::query(text).bind(kept).execute(c).await?.rows_affected());
            if recorded > 0 {
                super::keys::changed(tx).await?;
            }
            Ok(())
        })
    }

    /// All erasures that are on record.
    pub async fn erasures(&self) -> Result<Vec<ErasureRow>, CatalogueError> {
        let text = "SELECT * FROM erasures ORDER BY subject";
        on!(self.database.reads(), p => self.readable(Rows::Erasures, &sqlx::query(text).fetch_all(p).await?, ErasureRow::read))
    }

    /// Whether it is on record that a device, or its whole group, was erased.
    pub async fn is_erased(&self, group: &IncarnationId, device: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM erasures WHERE subject = $2)
                 OR EXISTS (SELECT 1 FROM groups WHERE incarnation = $1 AND state = 'erased') AS erased";
        on!(self.database.reads(), p => {
            row::flag(&sqlx::query(text).bind(group.as_str()).bind(device.as_str()).fetch_one(p).await?, "erased")
        })
    }

    /// Whether the key of a device or group is missing because of an erasure. The caller has just read the row: if that is gone, it was
    /// erased.
    pub async fn was_destroyed(&self, subject: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM erasures WHERE subject = $1)
                 OR NOT (EXISTS (SELECT 1 FROM devices WHERE incarnation = $1)
                     OR EXISTS (SELECT 1 FROM groups WHERE incarnation = $1 AND state <> 'erased')) AS destroyed";
        on!(self.database.reads(), p => row::flag(&sqlx::query(text).bind(subject.as_str()).fetch_one(p).await?, "destroyed"))
    }

    /// Erased devices and groups of which the bucket has no record yet.
    pub async fn unrecorded_erasures(&self) -> Result<(Vec<ErasureRow>, Vec<GroupRow>), CatalogueError> {
        let devices = "SELECT * FROM erasures WHERE subject NOT IN (SELECT subject FROM erasure_records)";
        let groups = "SELECT * FROM groups WHERE state = 'erased' AND incarnation NOT IN (SELECT subject FROM erasure_records)";
        on!(self.database.reads(), p => {
            let devices = sqlx::query(devices).fetch_all(p).await?.iter().map(ErasureRow::read).collect::<Result<_, _>>()?;
            Ok((devices, sqlx::query(groups).fetch_all(p).await?.iter().map(GroupRow::read).collect::<Result<_, _>>()?))
        })
    }

    /// Notes that the bucket has the record of an erasure.
    pub async fn erasure_recorded(&self, subject: &IncarnationId) -> Result<(), CatalogueError> {
        let text = "INSERT INTO erasure_records (subject) VALUES ($1) ON CONFLICT DO NOTHING";
        on!(self.database.writes(), p => sqlx::query(text).bind(subject.as_str()).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Notes that the bucket no longer has the record of an erasure.
    pub async fn forget_erasure_record(&self, subject: &IncarnationId) -> Result<(), CatalogueError> {
        let text = "DELETE FROM erasure_records WHERE subject = $1";
        on!(self.database.writes(), p => sqlx::query(text).bind(subject.as_str()).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Applies the erasures that the bucket has on record.
    pub async fn take_in_erasures(&self, devices: &[ErasureRow], groups: &[GroupRow]) -> Result<(), CatalogueError> {
        let text = "INSERT INTO erasure_records (subject) VALUES ($1) ON CONFLICT DO NOTHING";
        transaction!(self.database, tx => {
            for device in devices {
                device.put(tx).await?;
            }
            for group in groups {
                erasure::erase_group_rows(tx, group).await?;
            }
            for subject in devices.iter().map(|device| &device.subject).chain(groups.iter().map(|group| &group.incarnation)) {
                on!(tx.on(), c => sqlx::query(text).bind(subject.as_str()).execute(c).await.map(drop))?;
            }
            if !devices.is_empty() || !groups.is_empty() {
                super::keys::changed(tx).await?;
            }
            Ok(())
        })
    }

    /// Forgets erasures after [`ERASURES_KEPT`], unless they have leftovers.
    pub async fn forget_erasures(&self, now: Timestamp) -> Result<(), CatalogueError> {
        let text = "DELETE FROM erasures WHERE erased_at <= $1 AND subject NOT IN (SELECT substr(object, 37, 32) FROM leftovers)";
        let before = now - ERASURES_KEPT;
        transaction!(self.database, tx => {
            let forgotten = on!(tx.on(), c => sqlx::query(text).bind(before.as_microsecond()).execute(c).await?.rows_affected());
            if forgotten > 0 {
                super::keys::changed(tx).await?;
            }
            Ok(())
        })
    }
}
