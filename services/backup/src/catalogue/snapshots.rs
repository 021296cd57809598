use jiff::Timestamp;
use tsujiban_core::driver::StoredDriver;
use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_database::{Columns, Tx, on, transaction};
use tsujiban_objects::Version;

use super::{Catalogue, CatalogueError, NewAttempt, Rows, lives, row};

/// A stored config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    pub id: SnapshotId,
    pub device: IncarnationId,
    pub group: IncarnationId,
    pub version: Version,
    /// `None`: the object was listed without having been read.
    pub driver: Option<StoredDriver>,
    pub taken_at: Timestamp,
    pub seen_at: Timestamp,
    pub sightings: u64,
    pub locked_until: Timestamp,
    /// The size of the config.
    pub bytes: u64,
    /// The size of the object.
    pub stored_bytes: u64,
    /// A MAC over the lines that do not change by themselves.
    pub stable_mac: Vec<u8>,
    pub shrunk: bool,
    /// Whether its object was found damaged.
    pub damaged: bool,
}

impl SnapshotRow {
    pub(super) fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
        Ok(Self {
            id: row::parsed(row, "id")?,
            device: row::parsed(row, "device")?,
            group: row::parsed(row, "group_incarnation")?,
            version: Version(row::text(row, "version")?),
            driver: driver(&row::text(row, "driver")?)?,
            taken_at: row::time(row, "taken_at")?,
            seen_at: row::time(row, "seen_at")?,
            sightings: row::count(row, "sightings")?,
            locked_until: row::time(row, "locked_until")?,
            bytes: row::count(row, "bytes")?,
            stored_bytes: row::count(row, "stored_bytes")?,
            stable_mac: row::bytes(row, "stable_mac")?,
            shrunk: row::flag(row, "shrunk")?,
            damaged: row::flag(row, "damaged")?,
        })
    }

    /// Inserts the row. A row of the same id takes what the storage and the object have, and keeps what only the catalogue has.
    async fn put(&self, tx: &mut Tx) -> Result<(), CatalogueError> {
        let text =
            "INSERT INTO snapshots (id, device, group_incarnation, version, driver, taken_at, seen_at, sightings, locked_until, bytes,
                 stored_bytes, stable_mac, shrunk) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (id) DO UPDATE SET version = excluded.version, locked_until = excluded.locked_until, driver = excluded.driver,
                 taken_at = excluded.taken_at, bytes = excluded.bytes, stored_bytes = excluded.stored_bytes,
                 stable_mac = excluded.stable_mac,
                 seen_at = CASE WHEN snapshots.seen_at > excluded.seen_at THEN snapshots.seen_at ELSE excluded.seen_at END";
        self.write(tx, text).await
    }

    /// Inserts the row, unless there is one of the same id.
    async fn add(&self, tx: &mut Tx) -> Result<(), CatalogueError> {
        let text =
            "INSERT INTO snapshots (id, device, group_incarnation, version, driver, taken_at, seen_at, sightings, locked_until, bytes,
                 stored_bytes, stable_mac, shrunk) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (id) DO NOTHING";
        self.write(tx, text).await
    }

    async fn write(&self, tx: &mut Tx, text: &'static str) -> Result<(), CatalogueError> {
        on!(tx.on(), c => {
            sqlx::query(text)
                .bind(self.id.as_str())
                .bind(self.device.as_str())
                .bind(self.group.as_str())
                .bind(&self.version.0)
                .bind(self.driver.as_ref().map_or("", StoredDriver::as_str))
                .bind(self.taken_at.as_microsecond())
                .bind(self.seen_at.as_microsecond())
                .bind(row::integer(self.sightings))
                .bind(self.locked_until.as_microsecond())
                .bind(row::integer(self.bytes))
                .bind(row::integer(self.stored_bytes))
                .bind(&self.stable_mac)
                .bind(self.shrunk)
                .execute(c)
                .await?;
        });
        Ok(())
    }
}

fn driver(name: &str) -> Result<Option<StoredDriver>, CatalogueError> {
    if name.is_empty() {
        return Ok(None);
    }
    let corrupt = |_| CatalogueError::Corrupt { column: "driver", value: name.to_owned() };
    StoredDriver::try_from(name.to_owned()).map(Some).map_err(corrupt)
}

impl Catalogue {
    pub async fn snapshot(&self, group: &IncarnationId, id: &SnapshotId) -> Result<Option<SnapshotRow>, CatalogueError> {
        let text = snapshots!("FROM snapshots WHERE group_incarnation = $1 AND id = $2");
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(group.as_str()).bind(id.as_str()).fetch_optional(p).await?;
            row.as_ref().map(SnapshotRow::read).transpose()
        })
    }

    /// The newest snapshot of a device, damaged or not.
    pub async fn newest_snapshot(&self, device: &IncarnationId) -> Result<Option<SnapshotRow>, CatalogueError> {
        let text = snapshots!("FROM snapshots WHERE device = $1 ORDER BY id DESC LIMIT 1");
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(device.as_str()).fetch_optional(p).await?;
            Ok(self.readable(Rows::Snapshots, row.as_slice(), SnapshotRow::read)?.pop())
        })
    }

    /// The newest config of a device that is not known to be damaged.
    pub async fn newest_sound_snapshot(&self, device: &IncarnationId) -> Result<Option<SnapshotRow>, CatalogueError> {
        let text = snapshots!(
            "FROM snapshots WHERE device = $1
                 AND id NOT IN (SELECT snapshot FROM damage WHERE snapshot IS NOT NULL AND device = $1 AND healed_at IS NULL)
             ORDER BY id DESC LIMIT 1"
        );
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(device.as_str()).fetch_optional(p).await?;
            Ok(self.readable(Rows::Snapshots, row.as_slice(), SnapshotRow::read)?.pop())
        })
    }

    /// The size of a device's newest config before a snapshot, leaving out configs that are flagged as shrunk.
    pub async fn trusted_size(&self, device: &IncarnationId, before: &SnapshotId) -> Result<Option<u64>, CatalogueError> {
        let text = "SELECT bytes FROM snapshots WHERE device = $1 AND id < $2 AND NOT shrunk ORDER BY id DESC LIMIT 1";
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(device.as_str()).bind(before.as_str()).fetch_optional(p).await?;
            row.map(|row| row::count(&row, "bytes")).transpose()
        })
    }

    /// Snapshots of a group, or of one of its devices and of the earlier ones with its serial number, newest first, older than `before`.
    pub async fn snapshots(
        &self,
        group: &IncarnationId,
        device: Option<&IncarnationId>,
        before: Option<&SnapshotId>,
        limit: u32,
    ) -> Result<Vec<SnapshotRow>, CatalogueError> {
        let text = snapshots!(
            "FROM snapshots WHERE group_incarnation = $1 AND ($3 IS NULL OR id < $3) AND ($2 IS NULL OR device = $2 OR device IN (
                 SELECT incarnation FROM devices WHERE group_incarnation = $1
                     AND name_mac = (SELECT serial_mac FROM devices WHERE incarnation = $2)))
             ORDER BY id DESC LIMIT $4"
        );
        let (device, before) = (device.map(IncarnationId::as_str), before.map(SnapshotId::as_str));
        on!(self.database.reads(), p => {
            let query = sqlx::query(text).bind(group.as_str()).bind(device).bind(before).bind(i64::from(limit));
            self.readable(Rows::Snapshots, &query.fetch_all(p).await?, SnapshotRow::read)
        })
    }

    /// Notes a stored snapshot and the attempt that stored it. Fails with [`CatalogueError::LifeEnded`] when its Device was erased,
    /// and with [`CatalogueError::Gone`] when its group was.
    pub async fn record_stored(&self, snapshot: &SnapshotRow, attempt: &NewAttempt) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => {
            lives::admit(tx, attempt.life.as_ref()).await?;
            snapshot.put(tx).await?;
            super::uploads::end(tx, &snapshot.device).await?;
            attempt.put(tx).await
        })
    }

    /// Notes that a device still has a stored config: its lock is prolonged, and it is no longer flagged as shrunk.
    pub async fn record_sighting(&self, id: &SnapshotId, locked_until: Timestamp, attempt: &NewAttempt) -> Result<(), CatalogueError> {
        let text = "UPDATE snapshots SET seen_at = $2, sightings = sightings + 1, shrunk = FALSE,
                 locked_until = CASE WHEN locked_until > $3 THEN locked_until ELSE $3 END
             WHERE id = $1";
        transaction!(self.database, tx => {
            lives::admit(tx, attempt.life.as_ref()).await?;
            let seen = on!(tx.on(), c => {
                let query = sqlx::query(text).bind(id.as_str()).bind(attempt.time.as_microsecond()).bind(locked_until.as_microsecond());
                query.execute(c).await?.rows_affected()
            });
            if seen == 0 {
                return Err(CatalogueError::Gone);
            }
            attempt.put(tx).await
        })
    }

    /// Adds a snapshot that was found in the bucket to the catalogue.
    pub async fn adopt_snapshot(&self, snapshot: &SnapshotRow, object: &str) -> Result<(), CatalogueError> {
        let text = "DELETE FROM leftovers WHERE object = $1 AND version = $2";
        transaction!(self.database, tx => {
            snapshot.put(tx).await?;
            on!(tx.on(), c => sqlx::query(text).bind(object).bind(&snapshot.version.0).execute(c).await.map(drop))?;
            Ok(())
        })
    }

    /// Adds a snapshot whose object is damaged to the catalogue, so that it is listed. A row of the same id stays as it is.
    pub async fn list_damaged_snapshot(&self, snapshot: &SnapshotRow) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => snapshot.add(tx).await)
    }

    /// Whether the catalogue has a snapshot, in whatever version of its object.
    pub async fn has_snapshot(&self, id: &SnapshotId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = $1) AS known";
        on!(self.database.reads(), p => row::flag(&sqlx::query(text).bind(id.as_str()).fetch_one(p).await?, "known"))
    }

    /// How many snapshots there are before an id; all for `None`.
    pub async fn count_snapshots(&self, before: Option<&SnapshotId>) -> Result<u64, CatalogueError> {
        let text = "SELECT COUNT(*) AS snapshots FROM snapshots WHERE $1 IS NULL OR id < $1";
        on!(self.database.reads(), p => {
            row::count(&sqlx::query(text).bind(before.map(SnapshotId::as_str)).fetch_one(p).await?, "snapshots")
        })
    }

    /// Some snapshots before an id, newest first, of all groups.
    pub async fn snapshots_before(&self, before: Option<&SnapshotId>, limit: u32) -> Result<Vec<SnapshotRow>, CatalogueError> {
        let text = snapshots!("FROM snapshots WHERE $1 IS NULL OR id < $1 ORDER BY id DESC LIMIT $2");
        on!(self.database.reads(), p => {
            let rows = sqlx::query(text).bind(before.map(SnapshotId::as_str)).bind(i64::from(limit)).fetch_all(p).await?;
            self.readable(Rows::Snapshots, &rows, SnapshotRow::read)
        })
    }

    /// Some damaged snapshots before an id, newest first, of all groups.
    pub async fn damaged_snapshots(&self, before: Option<&SnapshotId>, limit: u32) -> Result<Vec<SnapshotRow>, CatalogueError> {
        let text = snapshots!(
            "FROM snapshots WHERE ($1 IS NULL OR id < $1)
                 AND id IN (SELECT snapshot FROM damage WHERE snapshot IS NOT NULL AND healed_at IS NULL)
             ORDER BY id DESC LIMIT $2"
        );
        on!(self.database.reads(), p => {
            let rows = sqlx::query(text).bind(before.map(SnapshotId::as_str)).bind(i64::from(limit)).fetch_all(p).await?;
            self.readable(Rows::Snapshots, &rows, SnapshotRow::read)
        })
    }

    /// Confirms that a config is as short as it should be.
    pub async fn acknowledge(&self, id: &SnapshotId) -> Result<(), CatalogueError> {
        let text = "UPDATE snapshots SET shrunk = FALSE WHERE id = $1";
        on!(self.database.writes(), p => sqlx::query(text).bind(id.as_str()).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Updates the lock and the last sighting of a snapshot that the storage locks for longer than the catalogue has.
    pub async fn follow_lock(&self, id: &SnapshotId, seen_at: Timestamp, locked_until: Timestamp) -> Result<(), CatalogueError> {
        let text = "UPDATE snapshots SET seen_at = CASE WHEN seen_at > $2 THEN seen_at ELSE $2 END,
                 locked_until = CASE WHEN locked_until > $3 THEN locked_until ELSE $3 END
             WHERE id = $1";
        on!(self.database.writes(), p => {
            let query = sqlx::query(text).bind(id.as_str()).bind(seen_at.as_microsecond()).bind(locked_until.as_microsecond());
            query.execute(p).await.map(drop)
        })?;
        Ok(())
    }

    /// Deletes a snapshot from the catalogue, after its object was deleted.
    pub async fn forget_snapshot(&self, id: &SnapshotId) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => {
            for text in ["DELETE FROM snapshots WHERE id = $1", "DELETE FROM damage WHERE snapshot = $1"] {
                on!(tx.on(), c => sqlx::query(text).bind(id.as_str()).execute(c).await.map(drop))?;
            }
            Ok(())
        })
    }

    /// At most `limit` snapshots taken before a moment, in the order of their ids, beginning after `after`.
    pub async fn snapshots_taken_before(
        &self,
        moment: Timestamp,
        after: Option<&SnapshotId>,
        limit: u32,
    ) -> Result<Vec<SnapshotRow>, CatalogueError> {
        let text = snapshots!("FROM snapshots WHERE taken_at < $1 AND ($2 IS NULL OR id > $2) ORDER BY id LIMIT $3");
        on!(self.database.reads(), p => {
            let query = sqlx::query(text).bind(moment.as_microsecond()).bind(after.map(SnapshotId::as_str)).bind(i64::from(limit));
            self.readable(Rows::Snapshots, &query.fetch_all(p).await?, SnapshotRow::read)
        })
    }
}
