use tsujiban_database::on;

use super::{Catalogue, CatalogueError};

/// Facts about the database as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// The environment to which all data belongs (C12).
    Environment,
    /// The id of the master key under which all keys are wrapped.
    MasterKey,
    /// The result of the newest canary, as JSON.
    Canary,
    /// Set from the restore of groups and keys until the rebuild that has to follow is done.
    RebuildDue,
    /// When database and key table were lost at the same time, in microseconds.
    KeysLost,
    /// The time of the key table's copy in the bucket in microseconds, and the epoch keys that open it: for a day after a rotation there
    /// are two.
    CopiedEpochs,
    /// How far the scrub is, as JSON.
    Scrub,
}

impl Meta {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::MasterKey => "master key",
            Self::Canary => "canary",
            Self::RebuildDue => "rebuild due",
            Self::KeysLost => "keys lost",
            Self::CopiedEpochs => "copied epochs",
            Self::Scrub => "scrub",
        }
    }
}

impl Catalogue {
    pub async fn meta(&self, meta: Meta) -> Result<Option<String>, CatalogueError> {
        let text = "SELECT value FROM meta WHERE name = $1";
        Ok(on!(self.database.reads(), p => sqlx::query_scalar(text).bind(meta.name()).fetch_optional(p).await)?)
    }

    pub async fn set_meta(&self, meta: Meta, value: &str) -> Result<(), CatalogueError> {
        let text = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        on!(self.database.writes(), p => sqlx::query(text).bind(meta.name()).bind(value).execute(p).await.map(drop))?;
        Ok(())
    }

    pub async fn clear_meta(&self, meta: Meta) -> Result<(), CatalogueError> {
        let text = "DELETE FROM meta WHERE name = $1";
        on!(self.database.writes(), p => sqlx::query(text).bind(meta.name()).execute(p).await.map(drop))?;
        Ok(())
    }
}
