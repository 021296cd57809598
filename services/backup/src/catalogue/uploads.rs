//! Uploads under way. A row is written here before an object is put: so nothing is put while the database cannot be written, and after a
//! try that failed half-way the next one finds the object by the row's id.

use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_database::{Tx, on, transaction};

use super::{Catalogue, CatalogueError, lives, row};
use crate::life::DeviceUidHash;

/// Deletes the row of a device's upload, which has ended.
pub(super) async fn end(tx: &mut Tx, device: &IncarnationId) -> Result<(), CatalogueError> {
    let text = "DELETE FROM uploads WHERE device = $1";
    on!(tx.on(), c => sqlx::query(text).bind(device.as_str()).execute(c).await.map(drop))?;
    Ok(())
}

impl Catalogue {
    /// Begins an upload. Fails with [`CatalogueError::LifeEnded`] or [`CatalogueError::Gone`] when the Device or its group was erased.
    pub async fn begin_upload(
        &self,
        device: &IncarnationId,
        snapshot: &SnapshotId,
        life: Option<&DeviceUidHash>,
    ) -> Result<(), CatalogueError> {
        let text = "INSERT INTO uploads (device, snapshot) VALUES ($1, $2) ON CONFLICT (device) DO UPDATE SET snapshot = excluded.snapshot";
        transaction!(self.database, tx => {
            lives::admit(tx, life).await?;
            on!(tx.on(), c => sqlx::query(text).bind(device.as_str()).bind(snapshot.as_str()).execute(c).await.map(drop))?;
            Ok(())
        })
    }

    /// The snapshot of a device's upload that did not end.
    pub async fn upload(&self, device: &IncarnationId) -> Result<Option<SnapshotId>, CatalogueError> {
        let text = "SELECT snapshot FROM uploads WHERE device = $1";
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(device.as_str()).fetch_optional(p).await?;
            row.map(|row| row::parsed(&row, "snapshot")).transpose()
        })
    }

    pub async fn end_upload(&self, device: &IncarnationId) -> Result<(), CatalogueError> {
        transaction!(self.database, tx => end(tx, device).await)
    }
}
