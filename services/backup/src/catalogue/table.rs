//! The key table as a whole, as the copy in the bucket has it.

use jiff::Timestamp;
use tsujiban_database::{on, transaction};

use super::{Catalogue, CatalogueError, GroupState, Meta, erasure, lives, row};
use crate::keytable::Table;

impl Catalogue {
    /// All that the key table says, at one moment.
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

    /// Makes the key table what another one says, unless it has changed since `read`; and takes out what that one says is erased. With
    /// `older` the database was behind, so that a rebuild of the rest is due from now on. `false`: read again.
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
                erasure::take_out(tx, &erasure.subject, now).await?;
            }
            // what is erased first: its id may be another incarnation's now
            let (erased, present): (Vec<_>, Vec<_>) = table.groups.iter().partition(|group| group.state == GroupState::Erased);
            for group in erased {
                erasure::take_group_out(tx, group).await?;
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
