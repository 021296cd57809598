//! Which lives of Devices have ended. Every transaction that writes for a Device checks this first (`admit`).

use jiff::Timestamp;
use tsujiban_database::{Tx, on, transaction};

use super::{Catalogue, CatalogueError, row};
use crate::life::DeviceUidHash;

const HAS_ENDED: &str = "SELECT EXISTS (SELECT 1 FROM tombstones WHERE life = $1) AS ended";

/// Ends a life. `false`: it has ended before.
pub(super) async fn end(tx: &mut Tx, life: &DeviceUidHash, now: Timestamp) -> Result<bool, CatalogueError> {
    let text = "INSERT INTO tombstones (life, erased_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let ended = on!(tx.on(), c => {
        sqlx::query(text).bind(life.as_bytes()).bind(now.as_microsecond()).execute(c).await?.rows_affected()
    });
    if ended > 0 {
        super::keys::changed(tx).await?; // it is in the copy of the key table
    }
    Ok(ended > 0)
}

/// Ends a life that may have ended before; the later moment holds.
pub(super) async fn end_again(tx: &mut Tx, life: &DeviceUidHash, now: Timestamp) -> Result<(), CatalogueError> {
    let text = "INSERT INTO tombstones (life, erased_at) VALUES ($1, $2) ON CONFLICT (life) DO UPDATE SET erased_at = excluded.erased_at";
    on!(tx.on(), c => sqlx::query(text).bind(life.as_bytes()).bind(now.as_microsecond()).execute(c).await.map(drop))?;
    super::keys::changed(tx).await
}

/// Checks that a transaction may write for a Device; `None`: it writes for no Device in particular. Fails with
/// [`CatalogueError::LifeEnded`] when the Device was erased; it cannot be erased while the transaction lasts.
pub(super) async fn admit(tx: &mut Tx, life: Option<&DeviceUidHash>) -> Result<(), CatalogueError> {
    let Some(life) = life else { return Ok(()) };
    let ended = on!(tx.on(), c => row::flag(&sqlx::query(HAS_ENDED).bind(life.as_bytes()).fetch_one(c).await?, "ended"))?;
    if ended { Err(CatalogueError::LifeEnded) } else { Ok(()) }
}

impl Catalogue {
    pub async fn has_ended(&self, life: &DeviceUidHash) -> Result<bool, CatalogueError> {
        on!(self.database.reads(), p => row::flag(&sqlx::query(HAS_ENDED).bind(life.as_bytes()).fetch_one(p).await?, "ended"))
    }

    /// Whether a device with this serial number was erased at a moment or later, while its group had objects of devices without a
    /// description.
    pub async fn serial_erased_since(&self, serial_mac: &[u8], moment: Timestamp) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM tombstones WHERE life = $1 AND erased_at >= $2) AS erased";
        on!(self.database.reads(), p => {
            row::flag(&sqlx::query(text).bind(serial_mac).bind(moment.as_microsecond()).fetch_one(p).await?, "erased")
        })
    }

    /// All lives that have ended and are not forgotten, and when they did.
    pub async fn ended_lives(&self) -> Result<Vec<(DeviceUidHash, Timestamp)>, CatalogueError> {
        on!(self.database.reads(), p => {
            let rows = sqlx::query("SELECT * FROM tombstones ORDER BY life").fetch_all(p).await?;
            rows.iter().map(|row| Ok((DeviceUidHash::from_digest(row::bytes(row, "life")?), row::time(row, "erased_at")?))).collect()
        })
    }

    /// Forgets lives that ended before a moment, or at it.
    pub async fn forget_ended(&self, before: Timestamp) -> Result<(), CatalogueError> {
        let text = "DELETE FROM tombstones WHERE erased_at <= $1";
        transaction!(self.database, tx => {
            let forgotten = on!(tx.on(), c => sqlx::query(text).bind(before.as_microsecond()).execute(c).await?.rows_affected());
            if forgotten > 0 {
                super::keys::changed(tx).await?; // they are in the copy of the key table
            }
            Ok(())
        })
    }
}
