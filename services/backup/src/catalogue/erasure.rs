//! Erases devices and groups, and lists the objects that are due to be deleted from the storage.

use jiff::Timestamp;
use tsujiban_core::id::IncarnationId;
use tsujiban_database::{Columns, Tx, on, transaction};
use tsujiban_objects::Version;

use super::{Catalogue, CatalogueError, GroupRow, Rows, SnapshotRow, lives, row};
use crate::life::DeviceUidHash;
use crate::object::object_key;

/// A sealed object of an erased device or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftoverRow {
    pub object: String,
    pub version: Version,
    pub group: IncarnationId,
    pub locked_until: Timestamp,
    pub stored_bytes: u64,
}

impl LeftoverRow {
    pub(super) fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
        Ok(Self {
            object: row::text(row, "object")?,
            version: Version(row::text(row, "version")?),
            group: row::parsed(row, "group_incarnation")?,
            locked_until: row::time(row, "locked_until")?,
            stored_bytes: row::count(row, "stored_bytes")?,
        })
    }
}

/// What an erasure made unreadable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    pub snapshots: u64,
    /// Until when its last object is locked.
    pub last_object_until: Option<Timestamp>,
}

impl Erased {
    fn add(&mut self, other: Self) {
        self.snapshots += other.snapshots;
        self.last_object_until = self.last_object_until.max(other.last_object_until);
    }
}

/// A snapshot that may have expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub snapshot: SnapshotRow,
    /// Whether it is the newest undamaged one of its device, or the newest when all are damaged: what a living device keeps.
    pub spared: bool,
}

impl Catalogue {
    /// Erases the device with a serial number, if there is one: destroys its key and all rows about it but the names of its objects, and
    /// ends the life of its Device in the same transaction. If that life had ended before, erases nothing: the device that has the serial
    /// number now belongs to another Device.
    pub async fn erase_device_of(
        &self,
        group: &IncarnationId,
        serial_mac: &[u8],
        life: Option<&DeviceUidHash>,
        now: Timestamp,
    ) -> Result<Option<(IncarnationId, Erased)>, CatalogueError> {
        // an earlier device with the serial number has that number's MAC as its `name_mac`
        let text = "SELECT incarnation FROM devices WHERE group_incarnation = $1 AND (serial_mac = $2 OR name_mac = $2) AND $3";
        let erased: Result<_, CatalogueError> = transaction!(self.database, tx => {
            let lived = match life {
                Some(life) => lives::end(tx, life, now).await?,
                None => true,
            };
            if lived && has_undescribed(tx, group).await? {
                lives::end_again(tx, &DeviceUidHash::from_digest(serial_mac.to_vec()), now).await?;
            }
            let devices: Vec<IncarnationId> = on!(tx.on(), c => {
                let rows = sqlx::query(text).bind(group.as_str()).bind(serial_mac).bind(lived).fetch_all(c).await?;
                rows.iter().map(|row| row::parsed(row, "incarnation")).collect::<Result<_, _>>()?
            });
            let mut all = None;
            for device in devices {
                let erased = erase_device_rows(tx, &device, now).await?;
                let (_, sum) = all.get_or_insert((device, Erased::default()));
                sum.add(erased);
            }
            Ok(all)
        });
        let erased = erased?;
        if erased.is_some() {
            self.flush_log().await?;
        }
        Ok(erased)
    }

    /// Erases one incarnation of a device, whose serial number was erased before the catalogue knew it.
    pub async fn erase_incarnation(&self, device: &IncarnationId, now: Timestamp) -> Result<(), CatalogueError> {
        let erased: Result<_, CatalogueError> = transaction!(self.database, tx => erase_device_rows(tx, device, now).await.map(drop));
        erased?;
        self.flush_log().await
    }

    /// Ends the life of a Device that has no data, as when its group is erased.
    pub async fn end_life(&self, life: &DeviceUidHash, now: Timestamp) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => lives::end(tx, life, now).await.map(drop))
    }

    /// Erases a whole group, whose state is `erased` from now on.
    pub async fn erase_group(&self, group: &GroupRow) -> Result<Erased, CatalogueError> {
        let erased: Result<_, CatalogueError> = transaction!(self.database, tx => {
            let erased = erase_group_rows(tx, group).await?;
            super::keys::changed(tx).await?;
            Ok(erased)
        });
        let erased = erased?;
        self.flush_log().await?;
        Ok(erased)
    }

    /// Until when the last object of a group is locked, objects of its erased devices included.
    pub async fn last_lock(&self, group: &IncarnationId) -> Result<Option<Timestamp>, CatalogueError> {
        let text = "SELECT MAX(until) AS until FROM (
                 SELECT MAX(locked_until) AS until FROM leftovers WHERE group_incarnation = $1
                 UNION ALL SELECT MAX(locked_until) FROM snapshots WHERE group_incarnation = $1) AS locks";
        on!(self.database.reads(), p => row::time_or_none(&sqlx::query(text).bind(group.as_str()).fetch_one(p).await?, "until"))
    }

    /// At most `limit` snapshots whose lock has run out, in the order of their ids, beginning after `after`.
    pub async fn snapshots_due(&self, now: Timestamp, after: &str, limit: u32) -> Result<Vec<Due>, CatalogueError> {
        let text = snapshots!(
            ", id = COALESCE(
                 (SELECT MAX(id) FROM snapshots AS sound WHERE sound.device = snapshots.device AND sound.id NOT IN
                     (SELECT snapshot FROM damage WHERE snapshot IS NOT NULL AND damage.device = sound.device AND healed_at IS NULL)),
                 (SELECT MAX(id) FROM snapshots AS other WHERE other.device = snapshots.device)) AS spared
             FROM snapshots WHERE locked_until <= $1 AND id > $2 ORDER BY id LIMIT $3"
        );
        on!(self.database.reads(), p => {
            let rows = sqlx::query(text).bind(now.as_microsecond()).bind(after).bind(i64::from(limit)).fetch_all(p).await?;
            self.readable(Rows::Snapshots, &rows, |row| Ok(Due { snapshot: SnapshotRow::read(row)?, spared: row::flag(row, "spared")? }))
        })
    }

    /// At most `limit` leftover objects whose lock has run out, in the order of their locks, beginning after `after`.
    pub async fn leftovers_due(
        &self,
        now: Timestamp,
        after: Option<&(Timestamp, String)>,
        limit: u32,
    ) -> Result<Vec<LeftoverRow>, CatalogueError> {
        let text = "SELECT * FROM leftovers WHERE locked_until <= $1 AND (locked_until > $2 OR (locked_until = $2 AND object > $3))
             ORDER BY locked_until, object LIMIT $4";
        let (time, object) = after.map_or((i64::MIN, ""), |(time, object)| (time.as_microsecond(), object.as_str()));
        on!(self.database.reads(), p => {
            let query = sqlx::query(text).bind(now.as_microsecond()).bind(time).bind(object);
            let rows = query.bind(i64::from(limit)).fetch_all(p).await?;
            self.readable(Rows::Leftovers, &rows, LeftoverRow::read)
        })
    }

    /// Notes an object of an erased device or group, or updates its lock and size from the storage.
    pub async fn note_leftover(&self, leftover: &LeftoverRow) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => put_leftover(tx, leftover).await)
    }

    /// Forgets an object that has left the storage.
    pub async fn forget_leftover(&self, object: &str, version: &Version) -> Result<(), CatalogueError> {
        let text = "DELETE FROM leftovers WHERE object = $1 AND version = $2";
        on!(self.database.writes(), p => sqlx::query(text).bind(object).bind(&version.0).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Whether the catalogue has a version of an object, as a snapshot or as a leftover.
    pub async fn knows_object(&self, object: &str, snapshot: &str, version: &Version) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = $2 AND version = $3)
                 OR EXISTS (SELECT 1 FROM leftovers WHERE object = $1 AND version = $3) AS known";
        on!(self.database.reads(), p => {
            row::flag(&sqlx::query(text).bind(object).bind(snapshot).bind(&version.0).fetch_one(p).await?, "known")
        })
    }

    /// The earliest end of a lock among the objects that are due for deletion.
    pub async fn oldest_due(&self, now: Timestamp) -> Result<Option<Timestamp>, CatalogueError> {
        let text = "SELECT MIN(until) AS until FROM (
                 SELECT MIN(locked_until) AS until FROM leftovers WHERE locked_until <= $1
                 UNION ALL
                 SELECT MIN(locked_until) FROM snapshots WHERE locked_until <= $1
                     AND id <> COALESCE(
                         (SELECT MAX(id) FROM snapshots AS sound WHERE sound.device = snapshots.device AND sound.id NOT IN
                             (SELECT snapshot FROM damage WHERE snapshot IS NOT NULL AND damage.device = sound.device AND healed_at IS NULL)),
                         (SELECT MAX(id) FROM snapshots AS other WHERE other.device = snapshots.device))) AS locks";
        on!(self.database.reads(), p => row::time_or_none(&sqlx::query(text).bind(now.as_microsecond()).fetch_one(p).await?, "until"))
    }
}

/// Whether a group has objects whose devices have no description. Which serial numbers these devices have is unknown.
async fn has_undescribed(tx: &mut Tx, group: &IncarnationId) -> Result<bool, CatalogueError> {
    let text = "SELECT EXISTS (SELECT 1 FROM devices WHERE group_incarnation = $1 AND length(sealed) = 0)
             OR EXISTS (SELECT 1 FROM damage WHERE group_incarnation = $1 AND healed_at IS NULL AND snapshot IS NOT NULL
                 AND snapshot NOT IN (SELECT id FROM snapshots)) AS undescribed";
    on!(tx.on(), c => row::flag(&sqlx::query(text).bind(group.as_str()).fetch_one(c).await?, "undescribed"))
}

/// Records the erasure of a device that is in the catalogue.
async fn record(tx: &mut Tx, device: &IncarnationId, now: Timestamp) -> Result<(), CatalogueError> {
    let text = "INSERT INTO erasures (subject, group_incarnation, erased_at)
         SELECT incarnation, group_incarnation, $2 FROM devices WHERE incarnation = $1 ON CONFLICT DO NOTHING";
    on!(tx.on(), c => sqlx::query(text).bind(device.as_str()).bind(now.as_microsecond()).execute(c).await.map(drop))?;
    Ok(())
}

/// Deletes a device with its key and rows, records the erasure, and notes its objects as leftovers.
pub(super) async fn erase_device_rows(tx: &mut Tx, device: &IncarnationId, now: Timestamp) -> Result<Erased, CatalogueError> {
    let erased = leave_objects(tx, "device", device).await?;
    record(tx, device, now).await?;
    let statements = [
        "DELETE FROM keys WHERE subject = $1",
        "DELETE FROM idempotency WHERE device = $1",
        "DELETE FROM attempts WHERE device = $1",
        "DELETE FROM snapshots WHERE device = $1",
        "DELETE FROM devices WHERE incarnation = $1",
        "DELETE FROM damage WHERE device = $1",
    ];
    delete(tx, statements, device).await?;
    super::keys::changed(tx).await?;
    Ok(erased)
}

/// The same for a whole group, whose state is `erased` from now on.
pub(super) async fn erase_group_rows(tx: &mut Tx, group: &GroupRow) -> Result<Erased, CatalogueError> {
    let erased = leave_objects(tx, "group", &group.incarnation).await?;
    let statements = [
        "DELETE FROM keys WHERE group_incarnation = $1",
        "DELETE FROM idempotency WHERE group_incarnation = $1",
        "DELETE FROM attempts WHERE device IN (SELECT incarnation FROM devices WHERE group_incarnation = $1)",
        "DELETE FROM snapshots WHERE group_incarnation = $1",
        "DELETE FROM devices WHERE group_incarnation = $1",
        "DELETE FROM damage WHERE group_incarnation = $1",
    ];
    delete(tx, statements, &group.incarnation).await?;
    group.put(tx).await?;
    Ok(erased)
}

async fn delete(tx: &mut Tx, statements: [&'static str; 6], of: &IncarnationId) -> Result<(), CatalogueError> {
    for text in statements {
        on!(tx.on(), c => sqlx::query(text).bind(of.as_str()).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Notes the objects of the snapshots of a device or group as left over.
async fn leave_objects(tx: &mut Tx, whose: &'static str, incarnation: &IncarnationId) -> Result<Erased, CatalogueError> {
    let text = match whose {
        "device" => snapshots!("FROM snapshots WHERE device = $1"),
        _ => snapshots!("FROM snapshots WHERE group_incarnation = $1"),
    };
    let snapshots: Vec<SnapshotRow> = on!(tx.on(), c => {
        let rows = sqlx::query(text).bind(incarnation.as_str()).fetch_all(c).await?;
        rows.iter().map(SnapshotRow::read).collect::<Result<_, _>>()?
    });
    let mut erased = Erased::default();
    for snapshot in snapshots {
        erased.snapshots += 1;
        erased.last_object_until = erased.last_object_until.max(Some(snapshot.locked_until));
        let object = object_key(&snapshot.group, &snapshot.device, &snapshot.id);
        let SnapshotRow { version, group, locked_until, stored_bytes, .. } = snapshot;
        put_leftover(tx, &LeftoverRow { object, version, group, locked_until, stored_bytes }).await?;
    }
    Ok(erased)
}

async fn put_leftover(tx: &mut Tx, leftover: &LeftoverRow) -> Result<(), CatalogueError> {
    let text = "INSERT INTO leftovers (object, version, group_incarnation, locked_until, stored_bytes) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (object, version) DO UPDATE SET locked_until = excluded.locked_until, stored_bytes = excluded.stored_bytes,
             group_incarnation = excluded.group_incarnation";
    on!(tx.on(), c => {
        sqlx::query(text)
            .bind(&leftover.object)
            .bind(&leftover.version.0)
            .bind(leftover.group.as_str())
            .bind(leftover.locked_until.as_microsecond())
            .bind(row::integer(leftover.stored_bytes))
            .execute(c)
            .await?;
    });
    Ok(())
}
