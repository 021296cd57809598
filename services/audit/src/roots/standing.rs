//! Whether the history may be written to. Stored in the database, so that a restart does not clear a fault.

use std::sync::Arc;

use jiff::Timestamp;
use tsujiban_database::on;

use crate::engine::Standing;
use crate::error::Result;
use crate::service::Audit;

const SINCE: &str = "read-only since";
const BECAUSE: &str = "read-only because";

impl Audit {
    /// Makes the history read-only, for this reason.
    pub(super) async fn turn_read_only(&self, fault: &str) -> Result<()> {
        let before = self.engine.standing();
        self.engine.set_standing(Standing::Forked(fault.into()));
        self.metrics.forked.set(1);
        if before != self.engine.standing() {
            tracing::error!(fault, "the history is read-only: it is not what the bucket says");
        }
        if self.fault_remembered().await?.is_none() {
            self.put_meta(SINCE, self.now().to_string()).await?;
        }
        self.put_meta(BECAUSE, fault.to_owned()).await
    }

    /// Makes the history writable: the whole state was checked, or staff have declared what is lost.
    pub(super) async fn turn_sound(&self) -> Result<()> {
        self.put_meta(BECAUSE, String::new()).await?;
        self.engine.tail_is_given_up();
        self.engine.set_standing(Standing::Sound);
        self.metrics.forked.set(0);
        Ok(())
    }

    /// At start: restores a stored fault, which stays until the history is checked.
    pub(crate) async fn recall_standing(&self) -> Result<()> {
        if let (Some(fault), Standing::Sound) = (self.fault_remembered().await?, self.engine.standing()) {
            self.engine.set_standing(Standing::Forked(Arc::from(fault)));
        }
        self.metrics.forked.set(i64::from(self.engine.standing() != Standing::Sound));
        Ok(())
    }

    pub(super) async fn read_only_since(&self) -> Result<Timestamp> {
        Ok(self.meta(SINCE).await?.and_then(|since| since.parse().ok()).unwrap_or_else(|| self.now()))
    }

    async fn fault_remembered(&self) -> Result<Option<String>> {
        Ok(self.meta(BECAUSE).await?.filter(|because| !because.is_empty()))
    }

    pub(crate) async fn meta(&self, name: &str) -> Result<Option<String>> {
        const GET: &str = "SELECT value FROM meta WHERE name = $1";
        Ok(on!(self.database.reads(), p => sqlx::query_scalar(GET).bind(name.to_owned()).fetch_optional(p).await)?)
    }

    pub(crate) async fn put_meta(&self, name: &str, value: String) -> Result<()> {
        const PUT: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        on!(self.database.writes(), p => sqlx::query(PUT).bind(name.to_owned()).bind(value).execute(p).await.map(drop))?;
        Ok(())
    }
}
