//! What is erased, what is due to leave the storage, and what has left.

use jiff::Timestamp;
use tsujiban_core::id::IncarnationId;
use tsujiban_database::{Columns, Tx, on, transaction};
use tsujiban_objects::Version;

use super::{Catalogue, CatalogueError, GroupRow, Rows, SnapshotRow, lives, row};
use crate::life::DeviceUidHash;
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

/// What may be past its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub snapshot: SnapshotRow,
    /// Whether it is the newest undamaged one of its device, or the newest when all are damaged: what a living device keeps.
    pub spared: bool,
}

impl Catalogue {
    /// Destroys the key of the device with a serial number, if there is one, and everything that is known about it, save where its
    /// objects lie; and ends the life of its Device in the same transaction. To
    /// a life that has ended before nothing belongs: what has its serial number now is another Device's.
    pub async fn erase_device_of(
        &self,
        group: &IncarnationId,
        serial_mac: &[u8],
        life: Option<&DeviceUidHash>,
        now: Timestamp,
    ) -> Result<Option<(IncarnationId, Erased)>, CatalogueError> {
        // an earlier device with the number has it in the place of its name
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
                let erased = take_out(tx, &device, now).await?;
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

    /// The same of one incarnation of a device, whose serial number was erased before it was known.
    pub async fn erase_incarnation(&self, device: &IncarnationId, now: Timestamp) -> Result<(), CatalogueError> {
        let erased: Result<_, CatalogueError> = transaction!(self.database, tx => take_out(tx, device, now).await.map(drop));
        erased?;
        self.flush_log().await
    }

    /// Ends the life of a Device of which nothing can be there.
    pub async fn end_life(&self, life: &DeviceUidHash, now: Timestamp) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => lives::end(tx, life, now).await.map(drop))
    }

    /// The same of a whole group, which is `erased` from now on.
    pub async fn erase_group(&self, group: &GroupRow) -> Result<Erased, CatalogueError> {
        let erased: Result<_, CatalogueError> = transaction!(self.database, tx => {
            let erased = take_group_out(tx, group).await?;
            super::keys::changed(tx).await?;
            Ok(erased)
        });
        let erased = erased?;
        self.flush_log().await?;
        Ok(erased)
    }

    /// Until when the last object of a group is locked, those of its erased devices included.
    pub async fn last_lock(&self, group: &IncarnationId) -> Result<Option<Timestamp>, CatalogueError> {
        let text = "SELECT MAX(until) AS until FROM (
                 SELECT MAX(locked_until) AS until FROM leftovers WHERE group_incarnation = $1
                 UNION ALL SELECT MAX(locked_until) FROM snapshots WHERE group_incarnation = $1) AS locks";
        on!(self.database.reads(), p => row::time_or_none(&sqlx::query(text).bind(group.as_str()).fetch_one(p).await?, "until"))
    }

    /// Some snapshots whose lock has run out, after an id, in order.
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

    /// Some objects of what was erased whose lock has run out, after one of them, in the order of their locks.
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

    /// Notes an object that is unreadable for ever, or what the storage says of one that is noted.
    pub async fn note_leftover(&self, leftover: &LeftoverRow) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => put_leftover(tx, leftover).await)
    }

    /// Forgets an object that has left the storage.
    pub async fn forget_leftover(&self, object: &str, version: &Version) -> Result<(), CatalogueError> {
        let text = "DELETE FROM leftovers WHERE object = $1 AND version = $2";
        on!(self.database.writes(), p => sqlx::query(text).bind(object).bind(&version.0).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Whether a version of an object is one that the catalogue knows, be it as a snapshot or as what is left of one.
    pub async fn knows_object(&self, object: &str, snapshot: &str, version: &Version) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = $2 AND version = $3)
                 OR EXISTS (SELECT 1 FROM leftovers WHERE object = $1 AND version = $3) AS known";
        on!(self.database.reads(), p => {
            row::flag(&sqlx::query(text).bind(object).bind(snapshot).bind(&version.0).fetch_one(p).await?, "known")
        })
    }

    /// The oldest end of a lock among what has to leave the storage.
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

/// Whether there are objects of a group of whose devices nothing else is known. Which of them have a serial number nobody can say.
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

/// Takes a device and its key out, records that, and leaves its objects.
pub(super) async fn take_out(tx: &mut Tx, device: &IncarnationId, now: Timestamp) -> Result<Erased, CatalogueError> {
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

/// The same of a whole group, which is `erased` from now on.
pub(super) async fn take_group_out(tx: &mut Tx, group: &GroupRow) -> Result<Erased, CatalogueError> {
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
