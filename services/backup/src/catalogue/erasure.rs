//! What is erased, what is due to leave the storage, and what has left.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};
use tsujiban_core::id::IncarnationId;
use tsujiban_objects::Version;

use super::{Catalogue, CatalogueError, GroupRow, SnapshotRow, lives, row};
use crate::life::Life;
use crate::object::object_key;

/// A sealed object of something erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftoverRow {
    pub object: String,
    pub version: Version,
    pub group: IncarnationId,
    pub locked_until: Timestamp,
    pub stored_bytes: u64,
}

/// What an erasure made unreadable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    pub snapshots: u64,
    /// Until when its last object is locked.
    pub last_object_until: Option<Timestamp>,
}

/// What may be past its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub snapshot: SnapshotRow,
    /// Whether it is the newest of its device.
    pub newest: bool,
}

impl Catalogue {
    /// Destroys a device's key and everything that is known about it, save where its objects lie.
    pub async fn erase_device(&self, device: &IncarnationId) -> Result<Erased, CatalogueError> {
        let mut tx = self.write().await?;
        let erased = take_out(&mut tx, device).await?;
        tx.commit().await?;
        self.flush_log().await?;
        Ok(erased)
    }

    /// The same of the device with a serial number, if there is one, and ends the life of its Device in the same transaction. To
    /// a life that has ended before nothing belongs: what has its serial number now is another Device's.
    pub async fn erase_device_of(
        &self,
        group: &IncarnationId,
        serial_mac: &[u8],
        life: Option<&Life>,
        now: Timestamp,
    ) -> Result<Option<(IncarnationId, Erased)>, CatalogueError> {
        let mut tx = self.write().await?;
        let lived = match life {
            Some(life) => lives::end(&mut tx, life, now).await?,
            None => true,
        };
        let query = sqlx::query("SELECT incarnation FROM devices WHERE group_incarnation = $1 AND serial_mac = $2 AND $3");
        let device = query.bind(group.as_str()).bind(serial_mac).bind(lived).fetch_optional(&mut *tx).await?;
        let Some(device) = device else {
            tx.commit().await?;
            return Ok(None);
        };
        let device = row::parsed(&device, "incarnation")?;
        let erased = take_out(&mut tx, &device).await?;
        tx.commit().await?;
        self.flush_log().await?;
        Ok(Some((device, erased)))
    }

    /// Ends the life of a Device of which nothing can be there.
    pub async fn end_life(&self, life: &Life, now: Timestamp) -> Result<(), CatalogueError> {
        let mut tx = self.write().await?;
        lives::end(&mut tx, life, now).await?;
        Ok(tx.commit().await?)
    }

    /// The same of a whole group, which is `erased` from now on.
    pub async fn erase_group(&self, group: &GroupRow) -> Result<Erased, CatalogueError> {
        let mut tx = self.write().await?;
        let erased = leave_objects(&mut tx, "group", &group.incarnation).await?;
        for statement in [
            "DELETE FROM keys WHERE group_incarnation = $1",
            "DELETE FROM idempotency WHERE group_incarnation = $1",
            "DELETE FROM attempts WHERE device IN (SELECT incarnation FROM devices WHERE group_incarnation = $1)",
            "DELETE FROM snapshots WHERE group_incarnation = $1",
            "DELETE FROM devices WHERE group_incarnation = $1",
        ] {
            sqlx::query(statement).bind(group.incarnation.as_str()).execute(&mut *tx).await?;
        }
        group.put(&mut tx).await?;
        super::keys::changed(&mut tx).await?;
        tx.commit().await?;
        self.flush_log().await?;
        Ok(erased)
    }

    /// Until when the last object of a group is locked, those of its erased devices included.
    pub async fn last_lock(&self, group: &IncarnationId) -> Result<Option<Timestamp>, CatalogueError> {
        let query = sqlx::query(
            "SELECT MAX(until) AS until FROM (
                 SELECT MAX(locked_until) AS until FROM leftovers WHERE group_incarnation = $1
                 UNION ALL SELECT MAX(locked_until) FROM snapshots WHERE group_incarnation = $1)",
        );
        row::time_or_none(&query.bind(group.as_str()).fetch_one(&self.readers).await?, "until")
    }

    /// Devices whose key is destroyed while rows of them are still here, as after the restoration of an old database.
    pub async fn keyless_devices(&self) -> Result<Vec<IncarnationId>, CatalogueError> {
        let query = sqlx::query("SELECT incarnation FROM devices WHERE key_id NOT IN (SELECT key_id FROM keys)");
        query.fetch_all(&self.readers).await?.iter().map(|row| row::parsed(row, "incarnation")).collect()
    }

    /// Some snapshots whose lock has run out, after an id, in order.
    pub async fn snapshots_due(&self, now: Timestamp, after: &str, limit: u32) -> Result<Vec<Due>, CatalogueError> {
        let query = sqlx::query(
            "SELECT *, id = (SELECT MAX(id) FROM snapshots AS other WHERE other.device = snapshots.device) AS newest
             FROM snapshots WHERE locked_until <= $1 AND id > $2 ORDER BY id LIMIT $3",
        );
        let rows = query.bind(now.as_microsecond()).bind(after).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(Due { snapshot: SnapshotRow::read(row)?, newest: row::flag(row, "newest")? })).collect()
    }

    /// Some objects of what was erased whose lock has run out.
    pub async fn leftovers_due(&self, now: Timestamp, limit: u32) -> Result<Vec<LeftoverRow>, CatalogueError> {
        let query = sqlx::query("SELECT * FROM leftovers WHERE locked_until <= $1 ORDER BY locked_until LIMIT $2");
        let rows = query.bind(now.as_microsecond()).bind(limit).fetch_all(&self.readers).await?;
        let read = |row| {
            Ok(LeftoverRow {
                object: row::text(row, "object")?,
                version: Version(row::text(row, "version")?),
                group: row::parsed(row, "group_incarnation")?,
                locked_until: row::time(row, "locked_until")?,
                stored_bytes: row::count(row, "stored_bytes")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Notes an object that is unreadable for ever, or what the storage says of one that is noted.
    pub async fn note_leftover(&self, leftover: &LeftoverRow) -> Result<(), CatalogueError> {
        let mut tx = self.write().await?;
        put_leftover(&mut tx, leftover).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets an object that has left the storage.
    pub async fn forget_leftover(&self, object: &str, version: &Version) -> Result<(), CatalogueError> {
        let query = sqlx::query("DELETE FROM leftovers WHERE object = $1 AND version = $2").bind(object).bind(&version.0);
        query.execute(&self.writer).await?;
        Ok(())
    }

    /// Whether a version of an object is one that the catalogue knows, be it as a snapshot or as what is left of one.
    pub async fn knows_object(&self, object: &str, snapshot: &str, version: &Version) -> Result<bool, CatalogueError> {
        let query = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = $2 AND version = $3)
                 OR EXISTS (SELECT 1 FROM leftovers WHERE object = $1 AND version = $3) AS known",
        );
        let row = query.bind(object).bind(snapshot).bind(&version.0).fetch_one(&self.readers).await?;
        row::flag(&row, "known")
    }

    /// The oldest end of a lock among what has to leave the storage.
    pub async fn oldest_due(&self, now: Timestamp) -> Result<Option<Timestamp>, CatalogueError> {
        let query = sqlx::query(
            "SELECT MIN(until) AS until FROM (
                 SELECT MIN(locked_until) AS until FROM leftovers WHERE locked_until <= $1
                 UNION ALL
                 SELECT MIN(locked_until) FROM snapshots WHERE locked_until <= $1
                     AND id <> (SELECT MAX(id) FROM snapshots AS other WHERE other.device = snapshots.device))",
        );
        row::time_or_none(&query.bind(now.as_microsecond()).fetch_one(&self.readers).await?, "until")
    }
}

/// Takes a device and its key out, and leaves its objects.
async fn take_out(tx: &mut Transaction<'_, Sqlite>, device: &IncarnationId) -> Result<Erased, CatalogueError> {
    let erased = leave_objects(tx, "device", device).await?;
    for statement in [
        "DELETE FROM keys WHERE subject = $1",
        "DELETE FROM idempotency WHERE device = $1",
        "DELETE FROM attempts WHERE device = $1",
        "DELETE FROM snapshots WHERE device = $1",
        "DELETE FROM devices WHERE incarnation = $1",
    ] {
        sqlx::query(statement).bind(device.as_str()).execute(&mut **tx).await?;
    }
    super::keys::changed(tx).await?;
    Ok(erased)
}

/// Notes the objects of the snapshots of a device or group as left over.
async fn leave_objects(
    tx: &mut Transaction<'_, Sqlite>,
    whose: &'static str,
    incarnation: &IncarnationId,
) -> Result<Erased, CatalogueError> {
    let select = match whose {
        "device" => "SELECT * FROM snapshots WHERE device = $1",
        _ => "SELECT * FROM snapshots WHERE group_incarnation = $1",
    };
    let rows = sqlx::query(select).bind(incarnation.as_str()).fetch_all(&mut **tx).await?;
    let mut erased = Erased::default();
    for row in &rows {
        let snapshot = SnapshotRow::read(row)?;
        erased.snapshots += 1;
        erased.last_object_until = erased.last_object_until.max(Some(snapshot.locked_until));
        let object = object_key(&snapshot.group, &snapshot.device, &snapshot.id);
        let SnapshotRow { version, group, locked_until, stored_bytes, .. } = snapshot;
        put_leftover(tx, &LeftoverRow { object, version, group, locked_until, stored_bytes }).await?;
    }
    Ok(erased)
}

async fn put_leftover(tx: &mut Transaction<'_, Sqlite>, leftover: &LeftoverRow) -> Result<(), CatalogueError> {
    sqlx::query(
        "INSERT INTO leftovers (object, version, group_incarnation, locked_until, stored_bytes) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (object, version) DO UPDATE SET locked_until = excluded.locked_until",
    )
    .bind(&leftover.object)
    .bind(&leftover.version.0)
    .bind(leftover.group.as_str())
    .bind(leftover.locked_until.as_microsecond())
    .bind(row::integer(leftover.stored_bytes))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
