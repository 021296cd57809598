//! Which groups were erased, in the bucket: otherwise a lost volume would free the ids of erased groups at once. Each erasure is sealed
//! under the master key in its own object, so that the bucket reveals neither the log nor the id of a group.

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tsujiban_core::error::chain;
use tsujiban_core::history::BUCKET_LOCK;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_database::on;
use tsujiban_history::LogId;
use tsujiban_objects::{LockUntil, StoreError, Version, list_all};
use tsujiban_sealing::{Context, Random as _};

use crate::error::{Error, Result};
use crate::owner::UNCLAIMED;
use crate::seals;
use crate::service::Audit;

const PREFIX: &str = "erasures/";
const CLASS: &str = "history erasure in the bucket";
/// How long before its lock ends an erasure that is still needed is put again.
const AGAIN_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 25);
/// The prefix of the names in table meta under which the time is stored when the erasure of a log was put.
const META: &str = "erasure of log ";

/// The record that the group of a log was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Erasure {
    log: LogId,
    group: GroupId,
    incarnation: Option<IncarnationId>,
    ended: Timestamp,
    /// When it was put, from which its lock counts.
    put: Timestamp,
}

/// Whether the erasure has to be put: not while a copy is locked for long enough.
fn is_due(put: Option<&str>, now: Timestamp) -> bool {
    let put = put.and_then(|put| put.parse::<Timestamp>().ok());
    put.is_none_or(|put| now.duration_since(put) >= BUCKET_LOCK - AGAIN_BEFORE)
}

impl Audit {
    /// Puts missing erasures into the bucket, for groups of whose history some days are left.
    pub(crate) fn archive_erasures(&self) -> BoxFuture<'_, Result<()>> {
        const OF: &str = "SELECT l.number, l.log_id, l.group_id, l.incarnation, l.ended_at, s.seal, m.value FROM logs l
             LEFT JOIN log_seals s ON s.log = l.number LEFT JOIN meta m ON m.name = $1 || CAST(l.number AS TEXT)
             WHERE l.state = 'erased' AND EXISTS (SELECT 1 FROM day_keys k WHERE k.log = l.number) ORDER BY l.number";
        type Row = (i64, Vec<u8>, String, Option<String>, Option<i64>, Option<Vec<u8>>, Option<String>);
        Box::pin(async move {
            let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(META).fetch_all(p).await)?;
            let now = self.now();
            for (number, id, group, incarnation, ended, seal, put) in rows {
                let Ok(log) = id.try_into().map(LogId::from_bytes) else { continue };
                if !is_due(put.as_deref(), now) || !seals::is_sealed(&self.keyring, number, &log, &group, seal.as_deref()) {
                    continue;
                }
                let Ok(group) = group.parse() else { continue };
                let ended = ended.and_then(|ended| Timestamp::from_microsecond(ended).ok()).unwrap_or(now);
                let erasure =
                    Erasure { log, group, incarnation: incarnation.and_then(|incarnation| incarnation.parse().ok()), ended, put: now };
                self.put_erasure(&erasure).await?;
                self.put_meta(&format!("{META}{number}"), now.to_string()).await?;
            }
            Ok(())
        })
    }

    async fn put_erasure(&self, erasure: &Erasure) -> Result<()> {
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce)?;
        let name = format!("{PREFIX}{}", hex::encode(nonce));
        let plain = serde_json::to_vec(erasure).map_err(|error| Error::Damaged(error.to_string()))?;
        let sealed = self.keyring.master().seal(Context { class: CLASS, record: &self.record_of(&name) }, &plain, &self.random)?;
        let until = erasure.put.checked_add(BUCKET_LOCK).map_err(|_| Error::Damaged("the clock is at the end of time".to_owned()))?;
        self.store.put_new(&name, Bytes::from(sealed), Some(LockUntil::at_least(until))).await?;
        Ok(())
    }

    fn record_of(&self, name: &str) -> Vec<u8> {
        format!("{} {name}", self.environment.environment).into_bytes()
    }

    /// Reads from the bucket which groups were erased: restored logs get their groups, and stay erased. An erasure in the bucket takes
    /// precedence over this database.
    pub(crate) fn recall_erasures(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut objects: Vec<(String, Version)> = Vec::new();
            for entry in list_all(&*self.store, PREFIX).await?.into_iter().filter(|entry| !entry.delete_marker) {
                // the first version: this service did not put the later ones
                match objects.last_mut().filter(|(name, _)| *name == entry.key) {
                    Some((_, version)) => *version = entry.version,
                    None => objects.push((entry.key, entry.version)),
                }
            }
            for (name, version) in objects {
                match self.store.get(&name, Some(&version)).await {
                    Ok(bytes) => {
                        if let Some(erasure) = self.opened_erasure(&name, &bytes) {
                            self.take_erasure(&erasure).await?;
                        } else {
                            tracing::error!(object = name, "what says that a group was erased is not what this service sealed");
                        }
                    }
                    Err(error @ StoreError::Unreachable { .. }) => return Err(error.into()),
                    Err(error) => tracing::error!(object = name, error = chain(&error), "what says that a group was erased cannot be read"),
                }
            }
            Ok(())
        })
    }

    fn opened_erasure(&self, name: &str, bytes: &[u8]) -> Option<Erasure> {
        let plain = self.keyring.master().open(Context { class: CLASS, record: &self.record_of(name) }, bytes).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    async fn take_erasure(&self, erasure: &Erasure) -> Result<()> {
        const ERASE: &str = "UPDATE logs SET state = 'erased', ended_at = $2 WHERE number = $1 AND state <> 'erased'";
        let log = match self.log_by_id(&erasure.log).await {
            Ok(Some(log)) => log,
            Ok(None) | Err(Error::Damaged(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let is_unclaimed = log.owner.starts_with(UNCLAIMED);
        if !is_unclaimed && (log.owner != erasure.group.as_str() || !log.is_sealed) {
            return Ok(());
        }
        let ended = erasure.ended.as_microsecond();
        // first the erasure: a group may have only one log that is not erased
        let done = on!(self.database.writes(), p => sqlx::query(ERASE).bind(log.number).bind(ended).execute(p).await.map(|done| done.rows_affected()))?;
        if is_unclaimed {
            self.take_claimed(&erasure.group, erasure.incarnation.as_ref(), &log).await?;
        }
        if done > 0 {
            tracing::warn!(log = %log.id, "the group of a log was erased, as the bucket says");
        }
        let name = format!("{META}{}", log.number);
        let known = self.meta(&name).await?.and_then(|put| put.parse::<Timestamp>().ok());
        if known.is_none_or(|known| known < erasure.put) { self.put_meta(&name, erasure.put.to_string()).await } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_is_put_once_more_before_its_lock_ends() {
        let put: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let after = |days: i64| put + SignedDuration::from_hours(24 * days);
        let text = put.to_string();
        assert!(is_due(None, put) && is_due(Some("torn"), put));
        assert!(!is_due(Some(&text), after(374)) && is_due(Some(&text), after(375)));
    }
}
