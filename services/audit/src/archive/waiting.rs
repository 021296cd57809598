//! Bodies that are damaged before they are archived. The caller that added such an entry still has it: the archive waits for it, and the
//! service reports the entry as unknown, so that the caller adds it again.

use std::collections::BTreeSet;

use tsujiban_history::Leaf;
use tsujiban_history::leaf::Content;

use super::{ArchivedEntry, Section};
use crate::engine::{Added, Addition};
use crate::error::Result;
use crate::reading::{Bundle, DayKeys, KeyState, Log, Rows, Slot, Stored, Wrong, judge_all};
use crate::service::Audit;

impl Audit {
    /// Cuts the next section of a log before the first body for which the archive waits, and returns the entries that were cut off. Does
    /// not wait for entries that a list has named before: their callers have deleted them.
    pub(super) async fn wait_for_bodies(&self, log: &Log, listed: u64, section: &mut Section) -> Result<Vec<ArchivedEntry>> {
        let mut keys = DayKeys::default();
        let rows: Vec<Stored> =
            (section.first..).zip(&section.entries).map(|(sequence, entry)| entry.clone().into_stored(sequence)).collect();
        self.find_keys(log, &rows.iter().map(Stored::key).collect::<Vec<_>>(), &mut keys).await?;
        let rows = Rows { rows, unreadable: Vec::new() };
        let slots = judge_all((log.number, &log.id), (section.first, section.end()), rows, &keys);
        let is_damaged = |slot: &&Slot| slot.wrong == Some(Wrong::Body) && slot.sequence >= listed;
        let damaged: Vec<u64> = slots.iter().filter(is_damaged).map(|slot| slot.sequence).collect();
        for bundle in damaged.iter().map(|sequence| Bundle::of(*sequence)).collect::<BTreeSet<_>>() {
            self.scrub_bundle(log, bundle, None).await?;
        }
        let Some(first) = self.waiting.note(log.number, section.end(), &damaged, self.now()) else { return Ok(Vec::new()) };
        Ok(section.entries.split_off(usize::try_from(first - section.first).unwrap_or(section.entries.len())))
    }

    /// Stores the bodies for which the archive waits, and which were now added again, as healed copies of the damaged ones.
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
