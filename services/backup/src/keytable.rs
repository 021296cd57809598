//! The key table's copy in the bucket. It is renewed on every change, and its older versions are deleted: what was destroyed in the table
//! must not be found in the bucket.
//!
//! Neither the table nor the copy is assumed to be the newest state. Before the copy is renewed it is read, and both are merged
//! ([`Table::merge`]) into the new table and copy. So a key that one of them lost is restored from the other, what does not open is never
//! copied over what does, and an erasure that either has on record wins.

mod copy;
mod table;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use tsujiban_core::id::KeyId;
use tsujiban_sealing::{KeyError, LiveEpoch};

pub use self::copy::{Found, Read};
pub use self::table::Table;
use crate::catalogue::{KeyRow, KeyTableState};
use crate::error::{Error, Result};
use crate::metrics;
use crate::service::Backup;

/// Where the copy lies.
pub const OBJECT: &str = "key-table";

/// What a comparison of the key table with its copy led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// The database was older than the copy: the other rows that it lacks can be found in the bucket only.
    pub was_older: bool,
    /// Why the copy was replaced; `None` also if that was because the table had changed.
    pub replaced: Option<&'static str>,
    /// The copy was left as it is: it needs this epoch key, and may have keys that the table has lost.
    pub unopened: Option<KeyId>,
}

impl Backup {
    /// Copies the key table to the bucket unless the copy there is known to be up to date.
    pub async fn copy_key_table(&self) -> Result<()> {
        let _copying = self.copying.lock().await;
        let (state, epochs) = (self.catalogue.key_table_state().await?, self.keyring.live_epochs(self.now())?);
        let behind = state.generation.saturating_sub(state.copied);
        self.metrics.key_copy_behind.set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.metrics.key_copy_timestamp.set(state.copied_at.map(metrics::seconds).unwrap_or_default());
        if behind == 0 && state.copied_epochs == ids(&epochs) {
            return Ok(());
        }
        match self.compare_copy(&epochs).await?.unopened {
            Some(epoch) => Err(KeyError::EpochMissing(epoch).into()),
            None => Ok(()),
        }
    }

    /// The same, but succeeds when the copy has to stay as it is, since it needs an epoch key that is not mounted.
    pub(crate) async fn renew_copy(&self) -> Result<()> {
        match self.copy_key_table().await {
            Err(Error::Key(KeyError::EpochMissing(_))) => Ok(()),
            renewed => renewed,
        }
    }

    /// Reads the copy in the bucket, even if it should be up to date, and makes it and the key table equal.
    pub async fn compare_key_table(&self) -> Result<Compared> {
        let _copying = self.copying.lock().await;
        let epochs = self.keyring.live_epochs(self.now())?;
        self.compare_copy(&epochs).await
    }

    async fn compare_copy(&self, epochs: &[LiveEpoch]) -> Result<Compared> {
        let state = self.catalogue.key_table_state().await?;
        let found = self.read_copy().await?;
        let opened_by = ids(epochs);
        let mut compared = Compared { replaced: reason(&found, &state, &opened_by), ..Compared::default() };
        let table = loop {
            let here = self.catalogue.table().await?;
            let read = match &found {
                Found::Read(read) => read,
                // the copy may record erasures that the database lacks
                Found::Unopened { generation: Some(generation), error: KeyError::EpochMissing(epoch) } if *generation > here.generation => {
                    return Err(KeyError::EpochMissing(epoch.clone()).into());
                }
                Found::Unopened { error: KeyError::EpochMissing(epoch), .. } if !self.all_open(&here.keys) => {
                    tracing::error!(%epoch, "the key table's copy in the bucket needs an epoch key that is not mounted; it is left as it is");
                    return Ok(Compared { unopened: Some(epoch.clone()), ..Compared::default() });
                }
                _ => break here,
            };
            let merged = self.merged(&here, read);
            if merged.says_the_same(&here) && merged.generation == here.generation {
                break here;
            }
            compared.was_older = read.table.generation > here.generation;
            if self.catalogue.replace_table(here.generation, &merged, compared.was_older, self.now()).await? {
                if merged.has_keys_missing_in(&here) {
                    self.keys_restored.store(true, Ordering::SeqCst);
                }
                self.catalogue.flush_log().await?;
                tracing::warn!(
                    groups = merged.groups.len(),
                    keys = merged.keys.len(),
                    older = compared.was_older,
                    "the key table and its copy in the bucket differed; what of both holds was taken"
                );
                break self.catalogue.table().await?;
            }
        };
        let is_current = matches!(&found, Found::Read(read) if read.table.generation == table.generation
            && read.table.says_the_same(&table) && read.opened_by == opened_by && read.records_erasures);
        let generation = table.generation;
        let newest = if is_current {
            compared.replaced = None;
            None
        } else {
            Some(self.store.put(OBJECT, self.seal_copy(table, epochs)?, None).await?)
        };
        self.delete_other_copies(newest).await?;
        if !is_current || state.copied != generation || state.copied_epochs != opened_by {
            self.catalogue.key_table_copied(generation, &opened_by, self.now()).await?;
            self.metrics.key_copy_timestamp.set(metrics::seconds(self.now()));
        }
        if let Some(reason) = compared.replaced {
            self.metrics.key_copy_replaced.with_label_values(&[reason]).inc();
            tracing::error!(reason, "the key table's copy in the bucket was not what it should be; it was made anew");
        }
        self.metrics.key_copy_behind.set(0);
        Ok(compared)
    }

    fn merged(&self, here: &Table, read: &Read) -> Table {
        let mut there = read.table.clone();
        if !read.records_erasures && there.generation > here.generation {
            there.erasures.extend(here.erased_without_record(&there, self.now()));
        }
        if there.generation <= here.generation {
            there.leave_out_forgotten(here, self.now());
        }
        here.merge(&there, |row| self.opens(row))
    }

    /// Whether a wrapping opens with a mounted epoch key.
    pub(crate) fn opens(&self, row: &KeyRow) -> bool {
        let epoch = self.keyring.epoch(&row.wrapped.epoch);
        epoch.is_ok_and(|epoch| epoch.unwrap(&row.key_id, row.subject.as_str(), &row.wrapped).is_ok())
    }

    /// Whether each key has a wrapping that opens.
    fn all_open(&self, keys: &[KeyRow]) -> bool {
        let opened: BTreeSet<&KeyId> = keys.iter().filter(|row| self.opens(row)).map(|row| &row.key_id).collect();
        keys.iter().all(|row| opened.contains(&row.key_id))
    }

    /// Deletes every version of the copy but the newest: the others hold keys that were destroyed since.
    async fn delete_other_copies(&self, newest: Option<tsujiban_objects::Version>) -> Result<()> {
        let versions = self.copy_versions().await?;
        if newest.is_none() && versions.len() <= 1 {
            return Ok(());
        }
        let newest = match newest {
            Some(newest) => newest,
            None => self.store.head(OBJECT, None).await?.version,
        };
        for version in versions.into_iter().filter(|version| *version != newest) {
            self.store.delete(OBJECT, &version).await?;
        }
        Ok(())
    }
}

fn ids(epochs: &[LiveEpoch]) -> BTreeSet<KeyId> {
    epochs.iter().map(|epoch| epoch.key.id().clone()).collect()
}

/// Why a copy has to be made anew although the key table did not change.
fn reason(found: &Found, state: &KeyTableState, opened_by: &BTreeSet<KeyId>) -> Option<&'static str> {
    match found {
        Found::Missing if state.copied_at.is_some() => Some("missing"),
        Found::Damaged(_) => Some("damaged"),
        Found::Foreign(_) => Some("foreign"),
        Found::Unopened { .. } => Some("unopened"),
        Found::Read(read) if read.table.generation < state.copied => Some("older"),
        Found::Read(read) if !read.records_erasures => None, // an earlier version wrote it
        Found::Read(read) if read.table.generation == state.generation && read.opened_by == *opened_by => Some("different"),
        Found::Missing | Found::Read(_) => None,
    }
}
