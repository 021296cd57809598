//! The seals of the logs in the database: seals them once, and holds back new logs if a seal does not match.

use jiff::Timestamp;
use tsujiban_database::on;
use tsujiban_history::LogId;

use super::{is_sealed_row, seal};
use crate::error::{Error, Result};
use crate::rebuild::CLAIMS;
use crate::service::Audit;

/// The name in table meta that marks logs from before there were seals as sealed.
const META: &str = "logs are sealed";

impl Audit {
    /// Seals the logs that were made before there were seals, once, when there are no seals. Logs that lose their seals later are refused.
    pub(crate) async fn seal_logs(&self) -> Result<()> {
        const DONE: &str = "SELECT (SELECT COUNT(*) FROM meta WHERE name = $1) + (SELECT COUNT(*) FROM log_seals)";
        const LOGS: &str = "SELECT number, log_id, group_id FROM logs";
        const PUT: &str = "INSERT INTO log_seals (log, seal) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        const SAY: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        tsujiban_database::transaction!(self.database, tx => {
            let done: i64 = on!(tx.on(), c => sqlx::query_scalar(DONE).bind(META).fetch_one(c).await)?;
            if done > 0 {
                return Ok(());
            }
            let logs: Vec<(i64, Vec<u8>, String)> = on!(tx.on(), c => sqlx::query_as(LOGS).fetch_all(c).await)?;
            for (number, id, owner) in logs {
                let id = id.try_into().map(LogId::from_bytes).map_err(|_| Error::Damaged(format!("the row of log {number}")))?;
                let seal = seal(&self.keyring, number, &id, &owner).to_vec();
                on!(tx.on(), c => sqlx::query(PUT).bind(number).bind(seal).execute(c).await.map(drop))?;
            }
            on!(tx.on(), c => sqlx::query(SAY).bind(META).bind("yes").execute(c).await.map(drop))?;
            Ok::<_, Error>(())
        })
    }

    /// If a log names another owner than its seal, its real owner has no log: no new log is made before the operator has claimed the logs.
    pub(crate) async fn hold_for_owners(&self) -> Result<()> {
        const LOGS: &str = "SELECT l.number, l.log_id, l.group_id, k.seal FROM logs l LEFT JOIN log_seals k ON k.log = l.number";
        type Row = (i64, Vec<u8>, String, Option<Vec<u8>>);
        let logs: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(LOGS).fetch_all(p).await)?;
        let is_sealed = |(number, id, owner, seal): &Row| is_sealed_row(&self.keyring, *number, id, owner, seal.as_deref());
        if logs.iter().all(is_sealed) {
            return Ok(());
        }
        tracing::error!("logs are not sealed as those of their owners: groups without a log wait until the operator has named theirs");
        self.engine.hold_new_logs(self.now().checked_add(CLAIMS).unwrap_or(Timestamp::MAX));
        Ok(())
    }
}
