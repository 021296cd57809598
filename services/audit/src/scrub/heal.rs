//! Heals entries: from their own intact data, and from copies. A healed row is stored beside the damaged one, which never changes; a
//! missing row is inserted again.

use jiff::Timestamp;
use tsujiban_history::merkle::leaf_hash;
use tsujiban_history::{Day, JstTime, Operation};

use super::EntrySource;
use crate::error::Result;
use crate::reading::{Bundle, DayKeys, Found, Log, Rows, Slot, Stored, Wrong, judge_all, root};
use crate::service::Audit;

impl Audit {
    /// Heals the entries of a bundle that can be healed. Returns how many.
    pub(super) async fn heal(&self, log: &Log, bundle: &Bundle, source: Option<&dyn EntrySource>, keys: &mut DayKeys) -> Result<u64> {
        let mut healed: Vec<Stored> = bundle.slots.iter().filter(|slot| slot.wrong.is_some()).filter_map(from_itself).collect();
        if let Some(source) = source {
            healed.extend(self.copied(log, bundle, source, keys).await?);
        }
        let mut came_back = false;
        for entry in &healed {
            if self.put_back(log.number, entry).await? {
                came_back = true;
            } else {
                self.put_healed(log.number, entry).await?;
            }
        }
        if came_back {
            self.engine.forget().await?;
        }
        Ok(u64::try_from(healed.len()).unwrap_or_default())
    }

    async fn copied(&self, log: &Log, bundle: &Bundle, source: &dyn EntrySource, keys: &mut DayKeys) -> Result<Vec<Stored>> {
        let is_damaged = |slot: &&Slot| matches!(slot.found, Found::Nothing) && slot.wrong != Some(Wrong::NotMounted);
        let is_open = |slot: &&Slot| slot.leaf.is_none() || is_damaged(slot);
        let wanted: Vec<u64> = bundle.slots.iter().filter(is_open).map(|slot| slot.sequence).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut copies = source.entries(&log.id, &wanted).await?;
        copies.retain(|copy| wanted.contains(&copy.sequence));
        copies.sort_by_key(|copy| copy.sequence);
        copies.dedup_by_key(|copy| copy.sequence);
        self.find_keys(log, &copies.iter().map(Stored::key).collect::<Vec<_>>(), keys).await?;
        let span = Bundle::span(Bundle::of(bundle.begin), log.size());
        let rows = Rows { rows: copies, unreadable: Vec::new() };
        let copies = judge_all((log.number, &log.id), (span.start, span.end), rows, keys);
        let mut healed = Vec::new();
        for subtree in &bundle.subtrees {
            let slots = bundle.between(subtree.begin, subtree.end).iter();
            let pairs: Vec<(&Slot, &Slot)> = slots.zip(copies.iter().filter(|copy| subtree.holds(copy.sequence))).collect();
            let leaves: Option<Vec<_>> = pairs.iter().map(|(slot, copy)| slot.leaf.as_ref().or(copy.leaf.as_ref())).collect();
            let leads = leaves.and_then(|leaves| root(leaves.into_iter().map(|leaf| leaf_hash(leaf)).collect())) == subtree.hash;
            let leads = leads && subtree.hash.is_some();
            let takes = |(slot, copy): &(&Slot, &Slot)| {
                let fits = slot.leaf.as_ref().is_none_or(|leaf| copy.leaf.as_ref() == Some(leaf));
                wanted.contains(&copy.sequence) && fits && copy.wrong.is_none() && (copy.is_authentic() || leads)
            };
            healed.extend(pairs.into_iter().filter(takes).filter_map(|(_, copy)| copy.stored.clone()));
        }
        Ok(healed)
    }
}

/// An entry whose body is intact, with the columns and the leaf that follow from it.
fn from_itself(slot: &Slot) -> Option<Stored> {
    let (Found::Body { body, day, .. }, Some(row), Some(leaf)) = (&slot.found, &slot.stored, &slot.leaf) else { return None };
    let time = std::str::from_utf8(&Operation::time_in(body)?).ok()?.parse::<JstTime>().ok()?.timestamp();
    let appended = Timestamp::from_microsecond(row.appended_us).ok().filter(|appended| Day::of(*appended) == *day);
    // only the day of recording is still known
    let appended = appended.unwrap_or_else(|| if Day::of(time) == *day { time } else { day.starts() });
    Some(Stored {
        sequence: slot.sequence,
        day: Some(*day),
        time_us: time.as_microsecond(),
        appended_us: appended.as_microsecond(),
        leaf: leaf.clone(),
        // a lost id is replaced: callers do not add this entry again
        id: row.id.clone().or_else(|| leaf_hash(leaf).as_bytes().first_chunk::<16>().map(|id| id.to_vec())),
        sealed: row.sealed.clone(),
    })
}
