use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_sealing::WrappedKey;

use super::{Catalogue, CatalogueError, GroupRow, Meta, lives, row};
use crate::life::Life;

/// One wrapping of a data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub key_id: KeyId,
    /// The group or device whose data the key seals.
    pub subject: IncarnationId,
    pub group: IncarnationId,
    pub wrapped: WrappedKey,
    /// Since when another wrapping is the current one; `None` when this one is.
    pub superseded_at: Option<Timestamp>,
}

/// How much of the key table the copy in the bucket has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTableState {
    pub generation: u64,
    /// The generation that was copied last.
    pub copied: u64,
    pub copied_at: Option<Timestamp>,
    /// The epoch keys that open the copy.
    pub copied_epochs: BTreeSet<KeyId>,
}

impl KeyRow {
    fn read(row: &SqliteRow) -> Result<Self, CatalogueError> {
        Ok(Self {
            key_id: row::parsed(row, "key_id")?,
            subject: row::parsed(row, "subject")?,
            group: row::parsed(row, "group_incarnation")?,
            wrapped: WrappedKey { epoch: row::parsed(row, "epoch")?, bytes: row::bytes(row, "wrapped")? },
            superseded_at: row::time_or_none(row, "superseded_at")?,
        })
    }

    pub(super) async fn put(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<(), CatalogueError> {
        sqlx::query(
            "INSERT INTO keys (key_id, epoch, subject, group_incarnation, wrapped, superseded_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (key_id, epoch) DO UPDATE SET wrapped = excluded.wrapped, superseded_at = excluded.superseded_at",
        )
        .bind(self.key_id.as_str())
        .bind(self.wrapped.epoch.as_str())
        .bind(self.subject.as_str())
        .bind(self.group.as_str())
        .bind(&self.wrapped.bytes)
        .bind(self.superseded_at.map(Timestamp::as_microsecond))
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

/// Every change of groups or keys ends with this, so that the copy in the bucket is renewed.
pub(super) async fn changed(tx: &mut Transaction<'_, Sqlite>) -> Result<(), CatalogueError> {
    sqlx::query("UPDATE key_table SET generation = generation + 1").execute(&mut **tx).await?;
    Ok(())
}

impl Catalogue {
    /// The wrappings of a key, the current one first. Empty once the key is destroyed.
    pub async fn wrappings(&self, key_id: &KeyId) -> Result<Vec<KeyRow>, CatalogueError> {
        let query = sqlx::query("SELECT * FROM keys WHERE key_id = $1 ORDER BY superseded_at IS NOT NULL").bind(key_id.as_str());
        query.fetch_all(&self.readers).await?.iter().map(KeyRow::read).collect()
    }

    /// The wrapping of the key that seals the data of a device or group.
    pub async fn key_of(&self, subject: &IncarnationId) -> Result<Option<KeyId>, CatalogueError> {
        let query = sqlx::query("SELECT key_id FROM keys WHERE subject = $1 LIMIT 1").bind(subject.as_str());
        query.fetch_optional(&self.readers).await?.map(|row| row::parsed(&row, "key_id")).transpose()
    }

    /// Every wrapping of every key, the current one first.
    pub async fn key_table(&self) -> Result<Vec<KeyRow>, CatalogueError> {
        let query = sqlx::query("SELECT * FROM keys ORDER BY key_id, superseded_at IS NOT NULL, epoch");
        query.fetch_all(&self.readers).await?.iter().map(KeyRow::read).collect()
    }

    /// All wrappings of some keys whose current one is not by this epoch key, in the order of the keys, after one of them.
    pub async fn keys_not_under(&self, epoch: &KeyId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRow>, CatalogueError> {
        let query = sqlx::query(
            "SELECT * FROM keys WHERE key_id IN (
                 SELECT key_id FROM keys WHERE superseded_at IS NULL AND epoch <> $1 AND key_id > $2 ORDER BY key_id LIMIT $3)
             ORDER BY key_id, superseded_at IS NOT NULL",
        );
        let query = query.bind(epoch.as_str()).bind(after.map_or("", KeyId::as_str)).bind(limit);
        query.fetch_all(&self.readers).await?.iter().map(KeyRow::read).collect()
    }

    /// Puts new wrappings beside the old ones. A key that was destroyed meanwhile stays destroyed.
    pub async fn rewrap(&self, rows: &[KeyRow], now: Timestamp) -> Result<(), CatalogueError> {
        let mut tx = self.write().await?;
        for row in rows {
            let old = sqlx::query("UPDATE keys SET superseded_at = $2 WHERE key_id = $1 AND superseded_at IS NULL");
            let old = old.bind(row.key_id.as_str()).bind(now.as_microsecond()).execute(&mut *tx).await?;
            if old.rows_affected() > 0 {
                row.put(&mut tx).await?;
            }
        }
        changed(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Destroys the wrappings that were superseded before a moment, or at it, and answers how many. Never one of a key that this
    /// epoch key does not open.
    pub async fn drop_superseded(&self, before: Timestamp, epoch: &KeyId) -> Result<u64, CatalogueError> {
        let mut tx = self.write().await?;
        let query = sqlx::query(
            "DELETE FROM keys WHERE superseded_at <= $1
                 AND key_id IN (SELECT key_id FROM keys WHERE superseded_at IS NULL AND epoch = $2)",
        );
        let dropped = query.bind(before.as_microsecond()).bind(epoch.as_str()).execute(&mut *tx).await?.rows_affected();
        if dropped > 0 {
            changed(&mut tx).await?; // they are in the copy, too
        }
        tx.commit().await?;
        Ok(dropped)
    }

    /// The epoch keys that are still needed: for a wrapping, or for the copy in the bucket.
    pub async fn epochs_in_use(&self) -> Result<BTreeSet<KeyId>, CatalogueError> {
        let wrapping = sqlx::query("SELECT DISTINCT epoch FROM keys").fetch_all(&self.readers).await?;
        let mut epochs = self.key_table_state().await?.copied_epochs;
        for row in &wrapping {
            epochs.insert(row::parsed(row, "epoch")?);
        }
        Ok(epochs)
    }

    pub async fn key_table_state(&self) -> Result<KeyTableState, CatalogueError> {
        let row = sqlx::query("SELECT * FROM key_table").fetch_one(&self.readers).await?;
        let copied_at = row::time_or_none(&row, "copied_at")?;
        let openers = match (copied_at, self.meta(Meta::CopiedEpochs).await?) {
            (Some(at), Some(noted)) => openers(&noted, at)?,
            _ => None,
        };
        let copied_epochs = match openers {
            Some(openers) => openers,
            None => row::parsed_or_none(&row, "copied_epoch")?.into_iter().collect(),
        };
        Ok(KeyTableState { generation: row::count(&row, "generation")?, copied: row::count(&row, "copied")?, copied_at, copied_epochs })
    }

    /// Notes that a generation of the key table lies in the bucket, and which epoch keys open it there.
    pub async fn key_table_copied(&self, generation: u64, epochs: &BTreeSet<KeyId>, now: Timestamp) -> Result<(), CatalogueError> {
        let mut tx = self.write().await?;
        // version 0.1.0, to which one may go back, knows of one of them only
        sqlx::query("UPDATE key_table SET copied = MAX(copied, $1), copied_at = $2, copied_epoch = $3")
            .bind(row::integer(generation))
            .bind(now.as_microsecond())
            .bind(epochs.first().map(KeyId::as_str))
            .execute(&mut *tx)
            .await?;
        let ids: Vec<&str> = epochs.iter().map(KeyId::as_str).collect();
        let noted = format!("{} {}", now.as_microsecond(), ids.join(" "));
        sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(Meta::CopiedEpochs.name())
            .bind(noted)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Makes groups and keys what a copy from the bucket says, and lives ended. Keys that the copy does not have were destroyed, and
    /// are. A rebuild of the rest is due from now on.
    pub async fn restore_key_table(
        &self,
        generation: u64,
        groups: &[GroupRow],
        keys: &[KeyRow],
        ended: &[(Life, Timestamp)],
    ) -> Result<(), CatalogueError> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM keys").execute(&mut *tx).await?;
        for group in groups {
            group.put(&mut tx).await?;
        }
        for key in keys {
            key.put(&mut tx).await?;
        }
        for (life, at) in ended {
            lives::end(&mut tx, life, *at).await?;
        }
        sqlx::query("UPDATE key_table SET generation = $1, copied = $1").bind(row::integer(generation)).execute(&mut *tx).await?;
        let due = sqlx::query("INSERT INTO meta (name, value) VALUES ($1, 'yes') ON CONFLICT DO NOTHING").bind(Meta::RebuildDue.name());
        due.execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}

/// The epoch keys that open the copy of this moment; `None` when the note is about another copy, made by a version that notes one key.
fn openers(noted: &str, copied_at: Timestamp) -> Result<Option<BTreeSet<KeyId>>, CatalogueError> {
    let mut words = noted.split_whitespace();
    if words.next() != Some(&copied_at.as_microsecond().to_string()) {
        return Ok(None);
    }
    let corrupt = |word: &str| CatalogueError::Corrupt { column: "copied epochs", value: word.to_owned() };
    words.map(|word| word.parse().map_err(|_| corrupt(word))).collect::<Result<_, _>>().map(Some)
}
