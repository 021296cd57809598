//! How much the service holds of each group, for reports.

use tsujiban_core::id::GroupId;

use crate::catalogue::{Damage, GroupRow, GroupUse};
use crate::error::Result;
use crate::service::Backup;

/// What is held of an incarnation of a group.
pub struct Holding {
    pub row: GroupRow,
    pub held: GroupUse,
    pub damage: Damage,
}

impl Backup {
    /// What the service holds of one group, or of all.
    pub async fn holdings(&self, of: Option<&GroupId>) -> Result<Vec<Holding>> {
        let (mut holdings, mut damaged) = (Vec::new(), self.catalogue.damage().await?);
        for row in self.catalogue.groups(of).await? {
            let held = self.catalogue.use_of_group(&row.incarnation).await?;
            let damage = damaged.remove(&Some(row.incarnation.clone())).unwrap_or_default();
            holdings.push(Holding { row, held, damage });
        }
        Ok(holdings)
    }

    /// Damage that belongs to no group.
    pub async fn shared_damage(&self) -> Result<Damage> {
        Ok(self.catalogue.damage().await?.remove(&None).unwrap_or_default())
    }
}
