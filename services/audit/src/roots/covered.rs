//! The size up to which a root list in the bucket covers a log. The service signs nothing beyond it for auditors: unlisted entries may be
//! lost with the volume, and an auditor with a checkpoint that covers them would then find the restored history tampered with.

use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::merkle::{Node, Range};

use crate::engine::Standing;
use crate::error::{Error, Result};
use crate::reading::Log;
use crate::service::Audit;

impl Audit {
    /// The log at its covered size. If the log is larger, puts a list first; if that fails, returns it at the size in the newest list.
    pub async fn covered(&self, log: &Log) -> Result<Log> {
        if self.listed_size(log).await? < log.size()
            && self.engine.standing() == Standing::Sound
            && let Err(error) = self.cover(log).await
        {
            tracing::warn!(error = chain(&error), "no root list can be put; what is answered ends with the newest one");
        }
        self.listed(log).await
    }

    /// The log at its size in the newest list that names it.
    pub async fn listed(&self, log: &Log) -> Result<Log> {
        let size = self.listed_size(log).await?.min(log.size());
        if size == log.size() {
            return Ok(log.clone());
        }
        let hashes = self.hashes(log, &Node::cover(0, size), size).await?;
        let edge = Range::from_hashes(0, size, &hashes).map_err(|error| Error::Damaged(format!("log {}: {error}", log.id)))?;
        Ok(Log { edge, ..log.clone() })
    }

    async fn cover(&self, log: &Log) -> Result<()> {
        let mut listing = self.listing.lock().await;
        // one list suffices for all callers that waited for the lock
        if self.listed_size(log).await? >= log.size() {
            return Ok(());
        }
        self.compare(&mut listing).await?;
        if self.engine.standing() == Standing::Sound {
            self.publish(&mut listing).await?;
        }
        Ok(())
    }

    async fn listed_size(&self, log: &Log) -> Result<u64> {
        const LISTED: &str = "SELECT size FROM listed WHERE log = $1";
        let size: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(LISTED).bind(log.number).fetch_optional(p).await)?;
        Ok(size.map_or(0, i64::cast_unsigned))
    }
}
