//! The key table as a whole, as the copy in the bucket has it.

use jiff::Timestamp;
use tsujiban_database::{on, transaction};

use super::{Catalogue, CatalogueError, GroupState, Meta, erasure, lives, row};
use crate::keytable::Table;

impl Catalogue {
    /// The whole key table of one generation: it is read again if it changed meanwhile.
    pub async fn table(&self) -> Result<Table, CatalogueError> {
        loop {
            let generation = self.key_table_state().await?.generation;
            let table = Table {
                generation,
                groups: self.groups(None).await?,
                keys: self.key_table().await?,
                lives: self.ended_lives().await?,
                erasures: self.erasures().await?,
            };
            if self.key_table_state().await?.generation == generation {
                return Ok(table);
            }
        }
    }

    /// Replaces the key table by another one, unless it has changed since generation `read`, and erases what the other one has as erased.
    /// `older`: the database was older, so that a rebuild of its other rows is due from now on. `false`: read the table again.
    pub async fn replace_table(&self, read: u64, table: &Table, older: bool, now: Timestamp) -> Result<bool, CatalogueError> {
        let due = "INSERT INTO meta (name, value) VALUES ($1, 'yes') ON CONFLICT DO NOTHING";
        let known = "SELECT generation FROM key_table";
        transaction!(self.database, tx => {
            let known = on!(tx.on(), c => row::count(&sqlx::query(known).fetch_one(c).await?, "generation"))?;
            if known != read {
                return Ok(false);
            }
            for erasure in &table.erasures {
                erasure.put(tx).await?;
                erasure::erase_device_rows(tx, &erasure.subject, now).await?;
            }
            // erased groups first: another incarnation may have their id now
            let (erased, present): (Vec<_>, Vec<_>) = table.groups.iter().partition(|group| group.state == GroupState::Erased);
            for group in erased {
                erasure::erase_group_rows(tx, group).await?;
            }
            for group in present {
                group.put(tx).await?;
            }
            on!(tx.on(), c => sqlx::query("DELETE FROM keys").execute(c).await.map(drop))?;
            for key in &table.keys {
                key.put(tx).await?;
            }
            for (life, at) in &table.lives {
                lives::end(tx, life, *at).await?;
            }
            on!(tx.on(), c => {
                let state = sqlx::query("UPDATE key_table SET generation = $1").bind(row::integer(table.generation));
                state.execute(&mut *c).await?;
                if older {
                    sqlx::query(due).bind(Meta::RebuildDue.name()).execute(c).await?;
                }
            });
            Ok(true)
        })
    }
}
