//! Scrubs one log: its bundles from the newest to the oldest, then its upper hashes, head and keys.

use tsujiban_core::id::KeyId;
use tsujiban_database::on;
use tsujiban_history::{Day, DayKeyId, LogId};
use tsujiban_sealing::{KeyError, WrappedKey};

use super::EntrySource;
use super::damages::{self, Damaged, Kind};
use crate::bodies;
use crate::error::{Error, Result};
use crate::reading::{Bundle, DayKeys, Log};
use crate::seals;
use crate::service::Audit;
use crate::signing::{NO_LOG, SUBJECT};

impl Audit {
    /// Reads the bundle before an entry again. Returns the entry before which to continue.
    pub(super) async fn scrub_log(&self, number: i64, before: u64, source: Option<&dyn EntrySource>) -> Result<u64> {
        let log = match self.log_by_number(number).await {
            Ok(Some(log)) => log,
            Ok(None) => return Ok(0),
            // without a readable head nothing can be checked; the other logs are still read
            Err(Error::Damaged(_)) => {
                let head = Damaged::thing("head".to_owned(), "it cannot be read");
                self.note_damage(number, Kind::Head, (0, 1), &[head]).await?;
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let Some(last) = before.checked_sub(1) else {
            self.scrub_whole(&log).await?;
            return Ok(0);
        };
        let index = Bundle::of(last);
        let begin = self.scrub_bundle(&log, index, source).await?;
        if begin == 0 {
            self.scrub_whole(&log).await?;
        }
        Ok(begin)
    }

    /// Heals the entries of a span that can be healed, from their own intact data and from the archive.
    pub(crate) async fn heal_span(&self, log: &Log, span: std::ops::Range<u64>) -> Result<()> {
        let Some(last) = span.end.checked_sub(1) else { return Ok(()) };
        for index in Bundle::of(span.start)..=Bundle::of(last) {
            self.scrub_bundle(log, index, Some(self)).await?;
        }
        Ok(())
    }

    pub(crate) async fn scrub_bundle(&self, log: &Log, index: u64, source: Option<&dyn EntrySource>) -> Result<u64> {
        let mut keys = DayKeys::default();
        let bundle = self.examine(log, index, &mut keys).await?;
        let span = Bundle::span(index, log.size());
        let span = (span.start, span.end);
        self.metrics.scrub_checked.inc_by(span.1 - span.0);
        self.note_damage(log.number, Kind::Entries, span, &damages::entries(&bundle)).await?;
        let is_newest_day = bundle.slots.last().is_some_and(|slot| slot.sequence + 1 == log.size());
        self.missing_keys().note(log.id, bundle.missing_keys(), is_newest_day);
        if let Some(name) = self.mend_bundle(log, index, &bundle).await? {
            self.note_healed(log.number, Kind::Hash, &hash(name)).await?;
        }
        if self.heal(log, &bundle, source, &mut keys).await? > 0 {
            let bundle = self.examine(log, index, &mut DayKeys::default()).await?;
            self.note_damage(log.number, Kind::Entries, span, &damages::entries(&bundle)).await?;
        }
        Ok(bundle.begin)
    }

    /// Checks the upper hashes, the head and the keys, once all bundles were read.
    async fn scrub_whole(&self, log: &Log) -> Result<()> {
        for name in self.mend_upper(log).await? {
            self.note_healed(log.number, Kind::Hash, &hash(name)).await?;
        }
        let head = if self.leads_to_head(log, &(0..0)).await? { None } else { Some("its hash is not that of its entries") };
        let head = head.or((!log.is_sealed).then_some(seals::NOT_SEALED));
        let head: Vec<_> = head.map(|wrong| Damaged::thing("head".to_owned(), wrong)).into_iter().collect();
        self.note_damage(log.number, Kind::Head, (0, 1), &head).await?;
        self.scrub_keys(log.number, Some(&log.id)).await
    }

    /// Checks every wrapping of the keys of a log separately: readers do not notice a damaged one while another one opens.
    pub(super) async fn scrub_keys(&self, number: i64, log: Option<&LogId>) -> Result<()> {
        const OF: &str = "SELECT day, epoch, key_id, wrapped FROM day_keys WHERE log = $1 ORDER BY day";
        let rows: Vec<(i64, String, Vec<u8>, Vec<u8>)> =
            on!(self.database.reads(), p => sqlx::query_as(OF).bind(number).fetch_all(p).await)?;
        self.metrics.scrub_checked.inc_by(u64::try_from(rows.len()).unwrap_or_default());
        let mut damaged = Vec::new();
        for (day, epoch, id, bytes) in rows {
            let place = match Day::from_number(day) {
                Some(day) if number != NO_LOG => format!("key of {day} under epoch key {epoch}"),
                _ => format!("key {day} under epoch key {epoch}"),
            };
            let subject = match (log, Day::from_number(day)) {
                (Some(log), Some(day)) => bodies::subject(log, day),
                (None, _) => SUBJECT.to_owned(),
                (Some(_), None) => String::new(),
            };
            let id = id.try_into().map(DayKeyId::from_bytes).map_err(|_| ());
            let opens = id.and_then(|id| {
                let wrapped = WrappedKey { epoch: epoch.parse::<KeyId>().map_err(|_| ())?, bytes };
                match self.keyring.unwrap(&id.into(), &subject, [&wrapped]) {
                    // a wrapping is not damaged because its epoch key is not mounted
                    Ok(_) | Err(KeyError::EpochMissing(_)) => Ok(()),
                    Err(_) => Err(()),
                }
            });
            if opens.is_err() {
                damaged.push(Damaged::thing(place, "it does not open"));
            }
        }
        self.note_damage(number, Kind::Key, (0, 1), &damaged).await
    }
}

fn hash((level, number): (u8, u64)) -> Damaged {
    Damaged::thing(format!("hash {number} of level {level}"), "it is not that of what is below it")
}
