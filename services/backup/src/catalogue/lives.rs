//! Which lives of Devices have ended. Whatever is written for a Device is written in a transaction that asks here first.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::{Catalogue, CatalogueError, row};
use crate::life::Life;

const HAS_ENDED: &str = "SELECT EXISTS (SELECT 1 FROM tombstones WHERE life = $1) AS ended";

/// Ends a life. `false`: it has ended before.
pub(super) async fn end(tx: &mut Transaction<'_, Sqlite>, life: &Life, now: Timestamp) -> Result<bool, CatalogueError> {
    let query = sqlx::query("INSERT INTO tombstones (life, erased_at) VALUES ($1, $2) ON CONFLICT DO NOTHING");
    let ended = query.bind(life.as_bytes()).bind(now.as_microsecond()).execute(&mut **tx).await?.rows_affected() > 0;
    if ended {
        super::keys::changed(tx).await?; // it is in the copy of the key table
    }
    Ok(ended)
}

impl Catalogue {
    /// Begins to write for a Device, or for nobody in particular. Fails with [`CatalogueError::LifeEnded`] when the Device was
    /// erased; as long as the transaction lasts it cannot be.
    pub(super) async fn write_for(&self, life: Option<&Life>) -> Result<Transaction<'static, Sqlite>, CatalogueError> {
        let mut tx = self.write().await?;
        if let Some(life) = life {
            let ended = sqlx::query(HAS_ENDED).bind(life.as_bytes()).fetch_one(&mut *tx).await?;
            if row::flag(&ended, "ended")? {
                return Err(CatalogueError::LifeEnded);
            }
        }
        Ok(tx)
    }

    pub async fn has_ended(&self, life: &Life) -> Result<bool, CatalogueError> {
        row::flag(&sqlx::query(HAS_ENDED).bind(life.as_bytes()).fetch_one(&self.readers).await?, "ended")
    }

    /// All lives that have ended and are not forgotten, and when they did.
    pub async fn ended_lives(&self) -> Result<Vec<(Life, Timestamp)>, CatalogueError> {
        let rows = sqlx::query("SELECT * FROM tombstones ORDER BY life").fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((Life::from_digest(row::bytes(row, "life")?), row::time(row, "erased_at")?))).collect()
    }

    /// Forgets lives that ended before a moment, or at it.
    pub async fn forget_ended(&self, before: Timestamp) -> Result<(), CatalogueError> {
        sqlx::query("DELETE FROM tombstones WHERE erased_at <= $1").bind(before.as_microsecond()).execute(&self.writer).await?;
        Ok(())
    }
}
