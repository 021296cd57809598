//! All day keys as they are wrapped now, in the bucket. The service puts them again when another epoch key wraps them: the copies in the
//! parts become useless when the epoch key that wrapped them is destroyed.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tsujiban_core::id::KeyId;
use tsujiban_database::on;
use tsujiban_history::LogId;
use tsujiban_objects::LockUntil;

use super::{KEYS, KeyCopy, Part};
use crate::engine::Standing;
use crate::error::{Error, Result};
use crate::service::Audit;
use crate::signing::NO_LOG;

/// The name in table meta of the newest set's epoch key and of the time when the set was put.
const SET: &str = "day keys in the bucket";
const LOCKED: SignedDuration = SignedDuration::from_hours(24 * 100);
const ANEW_AFTER: SignedDuration = SignedDuration::from_hours(24 * 75);
/// How many keys one object has.
const AT_ONCE: i64 = 20_000;

/// Whether the set has to be put again.
fn is_due(set: Option<&str>, epoch: &KeyId, now: Timestamp) -> bool {
    let put =
        set.and_then(|set| set.split_once(' ')).filter(|(of, _)| *of == epoch.as_str()).and_then(|(_, at)| at.parse::<Timestamp>().ok());
    put.is_none_or(|put| now.duration_since(put) >= ANEW_AFTER)
}

impl Audit {
    /// Puts all keys into the bucket as the newest epoch key wraps them, unless they are there. Returns whether they are there: `false`
    /// while the history is read-only, since it may lack keys.
    pub(crate) async fn archive_keys(&self, epoch: &KeyId) -> Result<bool> {
        const OF: &str = "SELECT k.day, k.log, l.log_id, k.key_id, k.first, k.wrapped FROM day_keys k JOIN logs l ON l.number = k.log
             WHERE k.epoch = $1 AND k.log <> $2 AND (k.day, k.log) > ($3, $4) ORDER BY k.day, k.log LIMIT $5";
        type Row = (i64, i64, Vec<u8>, Vec<u8>, i64, Vec<u8>);
        let now = self.now();
        if self.engine.standing() != Standing::Sound {
            return Ok(false);
        }
        if !is_due(self.meta(SET).await?.as_deref(), epoch, now) {
            return Ok(true);
        }
        let until = now.checked_add(LOCKED).map_err(|_| Error::Damaged("the clock is at the end of time".to_owned()))?;
        let (mut after, mut piece) = ((i64::MIN, i64::MIN), 0);
        loop {
            let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(OF)
                .bind(epoch.to_string()).bind(NO_LOG).bind(after.0).bind(after.1).bind(AT_ONCE).fetch_all(p).await)?;
            let Some((day, log, ..)) = rows.last() else { break };
            after = (*day, *log);
            let copy = |(day, _, log, key_id, first, wrapped): Row| {
                let log = LogId::from_bytes(log.try_into().ok()?);
                let (key_id, first) = (key_id.try_into().ok()?, first.cast_unsigned());
                Some(KeyCopy { log, day, epoch: epoch.to_string(), key_id, first, wrapped, superseded_at: None })
            };
            let keys = rows.into_iter().filter_map(copy).collect();
            let part = Part { put_us: now.as_microsecond(), keys, ..Part::default() };
            let name = format!("{KEYS}{:012}-{epoch}-{piece:04}", now.as_second());
            let bytes = Bytes::from(part.encode(&self.key, &self.environment));
            self.store.put(&name, bytes, Some(LockUntil::at_least(until))).await?;
            piece += 1;
        }
        self.put_meta(SET, format!("{epoch} {now}")).await?;
        tracing::info!(%epoch, objects = piece, "all day keys lie in the bucket as the newest epoch key wraps them");
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_put_anew_for_another_epoch_key_and_before_its_lock_ends() {
        let [old, new] = [1, 2].map(|n| KeyId::from_bytes([n; 16]));
        let put: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let set = format!("{new} {put}");
        let after = |days: i64| put + SignedDuration::from_hours(24 * days);
        assert!(is_due(None, &new, put) && is_due(Some("torn"), &new, put));
        assert!(is_due(Some(&set), &old, put));
        assert!(!is_due(Some(&set), &new, after(74)) && is_due(Some(&set), &new, after(75)));
    }
}
