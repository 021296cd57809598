//! Bodies that are damaged before they lie in the archive. Whoever added such an entry still keeps it: the archive waits for it, and it is asked
//! for by the answer that it is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tsujiban_history::Leaf;
use tsujiban_history::leaf::Content;

use super::{ArchivedEntry, Section};
use crate::engine::{Added, Addition};
use crate::error::Result;
use crate::reading::{Bundle, DayKeys, KeyState, Log, Place, Rows, Stored, Wrong, judge_all};
use crate::service::Audit;

/// How long the archive waits for a body. Callers ask once a minute.
const WAITS: SignedDuration = SignedDuration::from_mins(5);

/// Entries whose bodies are waited for, by log and number, and since when.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<BTreeMap<(i64, u64), Timestamp>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(i64, u64), Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub fn has(&self, log: i64, sequence: u64) -> bool {
        self.all().contains_key(&(log, sequence))
    }

    /// Takes up which bodies of a span are damaged now. Answers the first one that is still waited for; those for which that was long enough are
    /// given up.
    fn note(&self, log: i64, section: &Section, damaged: &[u64], now: Timestamp) -> Option<u64> {
        let mut all = self.all();
        let since = |sequence: u64| all.get(&(log, sequence)).copied().unwrap_or(now);
        let waited: Vec<(u64, Timestamp)> =
            damaged.iter().map(|sequence| (*sequence, since(*sequence))).filter(|(_, since)| now.duration_since(*since) < WAITS).collect();
        all.retain(|(of, sequence), _| *of != log || *sequence >= section.end());
        all.extend(waited.iter().map(|(sequence, since)| ((log, *sequence), *since)));
        waited.first().map(|(sequence, _)| *sequence)
    }
}

impl Audit {
    /// Cuts what comes next of a log before the first body that is waited for, and answers what was cut off. What a list has named before is not
    /// waited for: nobody keeps it any more.
    pub(super) async fn wait_for_bodies(&self, log: &Log, listed: u64, section: &mut Section) -> Result<Vec<ArchivedEntry>> {
        let mut keys = DayKeys::default();
        let rows: Vec<Stored> =
            (section.first..).zip(&section.entries).map(|(sequence, entry)| entry.clone().into_stored(sequence)).collect();
        self.find_keys(log, &rows.iter().map(Stored::key).collect::<Vec<_>>(), &mut keys).await?;
        let rows = Rows { rows, unreadable: Vec::new() };
        let places = judge_all((log.number, &log.id), (section.first, section.end()), rows, &keys);
        let is_damaged = |place: &&Place| place.wrong == Some(Wrong::Body) && place.sequence >= listed;
        let damaged: Vec<u64> = places.iter().filter(is_damaged).map(|place| place.sequence).collect();
        for bundle in damaged.iter().map(|sequence| Bundle::of(*sequence)).collect::<BTreeSet<_>>() {
            self.scrub_bundle(log, bundle, None).await?;
        }
        let Some(first) = self.waiting.note(log.number, section, &damaged, self.now()) else { return Ok(Vec::new()) };
        Ok(section.entries.split_off(usize::try_from(first - section.first).unwrap_or(section.entries.len())))
    }

    /// Puts bodies that are waited for and were added once more beside the damaged ones.
    pub(crate) async fn bring_bodies(&self, additions: &[Addition], added: &[Added]) -> Result<()> {
        for (addition, added) in additions.iter().zip(added).filter(|(_, added)| added.is_duplicate) {
            let Some(log) = self.log_of(&addition.owner).await? else { continue };
            if !self.waiting.has(log.number, added.sequence) {
                continue;
            }
            let row = self.entries(log.number, added.sequence, 1).await?.pop();
            let Some(row) = row.filter(|row| row.sequence == added.sequence) else { continue };
            let mut keys = DayKeys::default();
            self.find_keys(&log, &[row.key()], &mut keys).await?;
            let Ok(Leaf { content: Content::Entry { key, commitment }, .. }) = Leaf::parse(&row.leaf) else { continue };
            let KeyState::Open(key) = keys.state(log.number, key) else { continue };
            if !commitment.is_to(&addition.body, &key.mac.opening(row.sequence)) {
                tracing::error!(log = %log.id, entry = row.sequence, "an entry with a damaged body was added once more, as another one");
                continue;
            }
            let sealed = key.seal(&log.id, row.sequence, &addition.body, &*self.random)?;
            let healed = Stored { day: Some(key.day), sealed: Some(sealed), ..row };
            self.put_healed(log.number, &healed).await?;
            self.scrub_bundle(&log, Bundle::of(healed.sequence), None).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tsujiban_history::LogId;

    use super::*;

    #[test]
    fn a_body_is_waited_for_and_then_given_up() {
        let waiting = Waiting::default();
        let at = |minutes: i64| Timestamp::from_second(minutes * 60).unwrap();
        let section = |first, count| Section {
            log: LogId::from_bytes([1; 16]),
            is_platform: false,
            generation: 0,
            first,
            repeated: false,
            entries: vec![ArchivedEntry { day: 0, time_us: 0, appended_us: 0, id: None, leaf: Vec::new(), sealed: None }; count],
        };
        assert_eq!(waiting.note(1, &section(10, 10), &[12, 15], at(0)), Some(12));
        assert!(waiting.has(1, 12) && waiting.has(1, 15) && !waiting.has(2, 12));
        assert_eq!(waiting.note(1, &section(12, 8), &[15], at(1)), Some(15), "12 came back");
        assert!(!waiting.has(1, 12));
        assert_eq!(waiting.note(1, &section(15, 5), &[15, 17], at(5)), Some(17), "15 does not come back; 17 is new");
        assert!(!waiting.has(1, 15), "nobody is asked for it any more");
        assert_eq!(waiting.note(1, &section(17, 5), &[], at(6)), None);
        assert!(waiting.is_empty());
    }
}
