use std::collections::BTreeSet;

use jiff::Timestamp;
use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_database::{Columns, Tx, on, transaction};
use tsujiban_sealing::WrappedKey;

use super::{Catalogue, CatalogueError, Meta, Rows, row};

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

/// How far the copy in the bucket follows the key table.
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
    pub(super) fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
        Ok(Self {
            key_id: row::parsed(row, "key_id")?,
            subject: row::parsed(row, "subject")?,
            group: row::parsed(row, "group_incarnation")?,
            wrapped: WrappedKey { epoch: row::parsed(row, "epoch")?, bytes: row::bytes(row, "wrapped")? },
            superseded_at: row::time_or_none(row, "superseded_at")?,
        })
    }

    pub(super) async fn put(&self, tx: &mut Tx) -> Result<(), CatalogueError> {
        let text = "INSERT INTO keys (key_id, epoch, subject, group_incarnation, wrapped, superseded_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (key_id, epoch) DO UPDATE SET wrapped = excluded.wrapped, superseded_at = excluded.superseded_at";
        on!(tx.on(), c => {
            sqlx::query(text)
                .bind(self.key_id.as_str())
                .bind(self.wrapped.epoch.as_str())
                .bind(self.subject.as_str())
                .bind(self.group.as_str())
                .bind(&self.wrapped.bytes)
                .bind(self.superseded_at.map(Timestamp::as_microsecond))
                .execute(c)
                .await?;
        });
        Ok(())
    }
}

/// Every change of groups or keys ends with this, so that the copy in the bucket is renewed.
pub(super) async fn changed(tx: &mut Tx) -> Result<(), CatalogueError> {
    on!(tx.on(), c => sqlx::query("UPDATE key_table SET generation = generation + 1").execute(c).await.map(drop))?;
    Ok(())
}

impl Catalogue {
    /// The wrappings of a key, the current one first. Empty once the key is destroyed.
    pub async fn wrappings(&self, key_id: &KeyId) -> Result<Vec<KeyRow>, CatalogueError> {
        let text = "SELECT * FROM keys WHERE key_id = $1 ORDER BY superseded_at IS NOT NULL";
        on!(self.database.reads(), p => {
            self.readable(Rows::Keys, &sqlx::query(text).bind(key_id.as_str()).fetch_all(p).await?, KeyRow::read)
        })
    }

    /// Whether there is any key of a device or group.
    pub async fn has_keys(&self, subject: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM keys WHERE subject = $1) AS known";
        on!(self.database.reads(), p => row::flag(&sqlx::query(text).bind(subject.as_str()).fetch_one(p).await?, "known"))
    }

    /// Whether the key table has this key of a device or group.
    pub async fn has_key(&self, key_id: &KeyId, subject: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM keys WHERE key_id = $1 AND subject = $2) AS known";
        on!(self.database.reads(), p => {
            row::flag(&sqlx::query(text).bind(key_id.as_str()).bind(subject.as_str()).fetch_one(p).await?, "known")
        })
    }

    /// Whether the device of a key uses another key now.
    pub async fn is_replaced(&self, key_id: &KeyId, subject: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM devices WHERE incarnation = $2 AND key_id <> $1) AS replaced";
        on!(self.database.reads(), p => {
            row::flag(&sqlx::query(text).bind(key_id.as_str()).bind(subject.as_str()).fetch_one(p).await?, "replaced")
        })
    }

    /// Every wrapping of every key, the current one first.
    pub async fn key_table(&self) -> Result<Vec<KeyRow>, CatalogueError> {
        let text = "SELECT * FROM keys ORDER BY key_id, superseded_at IS NOT NULL, epoch";
        on!(self.database.reads(), p => self.readable(Rows::Keys, &sqlx::query(text).fetch_all(p).await?, KeyRow::read))
    }

    /// All wrappings of at most `limit` keys whose current wrapping is not by this epoch key, in the order of their ids, beginning after
    /// `after`.
    pub async fn keys_not_under(&self, epoch: &KeyId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRow>, CatalogueError> {
        let text = "SELECT * FROM keys WHERE key_id IN (
                 SELECT key_id FROM keys WHERE superseded_at IS NULL AND epoch <> $1 AND key_id > $2 ORDER BY key_id LIMIT $3)
             ORDER BY key_id, superseded_at IS NOT NULL";
        on!(self.database.reads(), p => {
            let query = sqlx::query(text).bind(epoch.as_str()).bind(after.map_or("", KeyId::as_str)).bind(i64::from(limit));
            self.readable(Rows::Keys, &query.fetch_all(p).await?, KeyRow::read)
        })
    }

    /// Puts new wrappings beside the old ones. A key that was destroyed meanwhile stays destroyed.
    pub async fn rewrap(&self, rows: &[KeyRow], now: Timestamp) -> Result<(), CatalogueError> {
        let text = "UPDATE keys SET superseded_at = $2 WHERE key_id = $1 AND superseded_at IS NULL";
        transaction!(self.database, tx => {
            for row in rows {
                let old = on!(tx.on(), c => {
                    sqlx::query(text).bind(row.key_id.as_str()).bind(now.as_microsecond()).execute(c).await?.rows_affected()
                });
                if old > 0 {
                    row.put(tx).await?;
                }
            }
            changed(tx).await
        })
    }

    /// Destroys the wrappings that were superseded at a moment or before, and answers how many. Keeps those of keys whose current wrapping
    /// is not by this epoch key.
    pub async fn drop_superseded(&self, before: Timestamp, epoch: &KeyId) -> Result<u64, CatalogueError> {
        let text = "DELETE FROM keys WHERE superseded_at <= $1
                 AND key_id IN (SELECT key_id FROM keys WHERE superseded_at IS NULL AND epoch = $2)";
        transaction!(self.database, tx => {
            let dropped = on!(tx.on(), c => {
                sqlx::query(text).bind(before.as_microsecond()).bind(epoch.as_str()).execute(c).await?.rows_affected()
            });
            if dropped > 0 {
                changed(tx).await?; // they are in the copy, too
            }
            Ok(dropped)
        })
    }

    /// The epoch keys that are still needed: for a wrapping, or for the copy in the bucket. Wrappings of a key that a newer one replaced do
    /// not count: such a key opens and is rewrapped anyway, or it is damaged and would keep an epoch key that opens erased data.
    pub async fn epochs_in_use(&self) -> Result<BTreeSet<KeyId>, CatalogueError> {
        let text = "SELECT epoch, MIN(key_id) AS key_id FROM keys WHERE NOT EXISTS (
             SELECT 1 FROM devices WHERE devices.incarnation = keys.subject AND devices.key_id <> keys.key_id) GROUP BY epoch";
        let wrapping: BTreeSet<KeyId> = on!(self.database.reads(), p => {
            let rows = sqlx::query(text).fetch_all(p).await?;
            self.readable(Rows::Keys, &rows, |row| row::parsed(row, "epoch"))?.into_iter().collect()
        });
        let mut epochs = self.key_table_state().await?.copied_epochs;
        epochs.extend(wrapping);
        Ok(epochs)
    }

    pub async fn key_table_state(&self) -> Result<KeyTableState, CatalogueError> {
        let (mut state, copied_epoch) = on!(self.database.reads(), p => {
            let row = sqlx::query("SELECT * FROM key_table").fetch_one(p).await?;
            let state = KeyTableState {
                generation: row::count(&row, "generation")?,
                copied: row::count(&row, "copied")?,
                copied_at: row::time_or_none(&row, "copied_at")?,
                copied_epochs: BTreeSet::new(),
            };
            (state, row::parsed_or_none(&row, "copied_epoch")?)
        });
        let openers = match (state.copied_at, self.meta(Meta::CopiedEpochs).await?) {
            (Some(at), Some(noted)) => openers(&noted, at)?,
            _ => None,
        };
        state.copied_epochs = openers.unwrap_or_else(|| copied_epoch.into_iter().collect());
        Ok(state)
    }

    /// Raises the generation of the key table to at least this one.
    pub async fn raise_generation(&self, generation: u64) -> Result<(), CatalogueError> {
        let text = "UPDATE key_table SET generation = $1 WHERE generation < $1";
        on!(self.database.writes(), p => sqlx::query(text).bind(row::integer(generation)).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Notes that a generation of the key table lies in the bucket, and which epoch keys open it there.
    pub async fn key_table_copied(&self, generation: u64, epochs: &BTreeSet<KeyId>, now: Timestamp) -> Result<(), CatalogueError> {
        // version 0.1.0, to which a rollback is possible, reads only one of them
        let copied = "UPDATE key_table SET copied = CASE WHEN copied > $1 THEN copied ELSE $1 END, copied_at = $2, copied_epoch = $3";
        let note = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let ids: Vec<&str> = epochs.iter().map(KeyId::as_str).collect();
        let noted = format!("{} {}", now.as_microsecond(), ids.join(" "));
        transaction!(self.database, tx => {
            on!(tx.on(), c => {
                let copied = sqlx::query(copied).bind(row::integer(generation)).bind(now.as_microsecond());
                copied.bind(epochs.first().map(KeyId::as_str)).execute(&mut *c).await?;
                sqlx::query(note).bind(Meta::CopiedEpochs.name()).bind(&noted).execute(c).await?;
            });
            Ok(())
        })
    }

    /// Puts a wrapping in the place of one that is damaged, unless the key was destroyed meanwhile.
    pub async fn replace_wrapping(&self, wrapping: &KeyRow) -> Result<(), CatalogueError> {
        let text = "UPDATE keys SET wrapped = $3 WHERE key_id = $1 AND epoch = $2";
        transaction!(self.database, tx => {
            on!(tx.on(), c => {
                let query = sqlx::query(text).bind(wrapping.key_id.as_str()).bind(wrapping.wrapped.epoch.as_str());
                query.bind(&wrapping.wrapped.bytes).execute(c).await.map(drop)
            })?;
            changed(tx).await
        })
    }
}

/// The epoch keys in a note about the copy of this moment; `None`: the note is about another copy, since a version that notes one key made
/// this one.
fn openers(noted: &str, copied_at: Timestamp) -> Result<Option<BTreeSet<KeyId>>, CatalogueError> {
    let mut words = noted.split_whitespace();
    if words.next() != Some(&copied_at.as_microsecond().to_string()) {
        return Ok(None);
    }
    let corrupt = |word: &str| CatalogueError::Corrupt { column: "copied epochs", value: word.to_owned() };
    words.map(|word| word.parse().map_err(|_| corrupt(word))).collect::<Result<_, _>>().map(Some)
}
