//! What goes to the archive with the next root list, and at which size the list may name each log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tsujiban_database::on;
use tsujiban_history::merkle::{Node, Range, leaf_hash};
use tsujiban_history::tile::HEIGHT;
use tsujiban_history::{Day, LogId, TreeHead};

use super::{Above, ArchivedEntry, KeyCopy, Part, REPEATED_BEFORE, Section};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::reading::Log;
use crate::service::Audit;

/// How many bytes of entries one part may have: the whole part is in memory.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// How many entries are read at once.
const PORTION: i64 = 512;
/// How many spans with ending locks are read at once, to put them again.
const SPANS: i64 = 200;

/// What the next list and its part are made of.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub part: Part,
    pub roots: BTreeMap<LogId, TreeHead>,
    pub spans: Vec<Span>,
    /// Whether entries are left that did not fit into the part.
    pub is_cut: bool,
    /// Logs whose rows do not lead to their heads. They are archived and listed no further until they are healed or declared damaged.
    pub faulty: Vec<LogId>,
}

/// Entries of a log in the archive, as this database records them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub log: i64,
    pub generation: u32,
    pub first: u64,
    pub past: u64,
    pub repeated: bool,
    /// The day on which the lock of the older copy of a repeated span ends.
    pub replaces: Option<i64>,
}

/// A log, and the sizes at which it is listed and archived in the bucket.
struct Due {
    log: Log,
    is_platform: bool,
    listed: u64,
    archived: u64,
    generation: u32,
}

type DueRow = (i64, Vec<u8>, String, i64, Vec<u8>, i64, i64, i64, i64, Option<Vec<u8>>);
type EntryRow = (i64, i64, i64, i64, Option<Vec<u8>>, Vec<u8>, Option<Vec<u8>>);

/// The size at which a list may name a log: the archived size, or the size that an earlier list named if that is larger.
fn named(listed: u64, archived: u64, size: u64) -> u64 {
    listed.max(archived).min(size)
}

impl Audit {
    /// Collects the content of the next list and of the part before it. Does not try again to heal the logs in `known_faulty`.
    pub(crate) async fn collect(&self, number: u64, is_full: bool, known_faulty: &BTreeSet<LogId>) -> Result<Collected> {
        let mut collected =
            Collected { part: Part { number, put_us: self.now().as_microsecond(), ..Part::default() }, ..Collected::default() };
        let (mut room, refused) = (PART_BYTES, self.engine.refused().all());
        for due in self.due_logs(is_full).await? {
            if refused.contains_key(&due.log.number) {
                collected.faulty.push(due.log.id);
                continue;
            }
            let (mut archived, mut waits) = (due.archived, false);
            if archived < due.log.size() && room > 0 {
                let Some(mut section) = self.sound_section(&due, &mut room, known_faulty).await? else {
                    collected.faulty.push(due.log.id);
                    continue;
                };
                let cut = self.wait_for_bodies(&due.log, due.listed, &mut section).await?;
                waits = !cut.is_empty();
                // the other logs may use the room that the cut entries took
                room = cut.iter().map(ArchivedEntry::weight).fold(room, usize::saturating_add);
                archived = section.end();
                if !section.entries.is_empty() {
                    self.add(&mut collected, section, &due, None).await?;
                }
            }
            collected.is_cut |= archived < due.log.size() && !waits;
            let size = named(due.listed, archived, due.log.size());
            let is_news = size > due.listed || archived > due.archived;
            if size > 0 && (is_full || is_news) {
                collected.roots.extend(self.head_at(&due.log, size).await?.map(|head| (due.log.id, head)));
            }
        }
        self.repeat(&mut collected, &mut room).await?;
        if !collected.part.is_empty() {
            self.repeat_newest(&mut collected).await?;
            collected.part.generations = self.generations().await?;
        }
        Ok(collected)
    }

    /// The next section of a log; `None`, and no room is taken, when its entries do not lead to its head and could not be healed.
    async fn sound_section(&self, due: &Due, room: &mut usize, known_faulty: &BTreeSet<LogId>) -> Result<Option<Section>> {
        let (log, room_before) = (&due.log, *room);
        let section = self.next_section(due, room).await?;
        if section.end() < log.size() || self.section_leads_to_head(log, &section).await? {
            return Ok(Some(section));
        }
        *room = room_before;
        if !known_faulty.contains(&log.id) {
            self.heal_span(log, due.archived..log.size()).await?;
            let section = self.next_section(due, room).await?;
            if self.section_leads_to_head(log, &section).await? {
                return Ok(Some(section));
            }
            *room = room_before;
        }
        tracing::error!(log = %log.id, from = due.archived, "entries do not lead to the head of their log; it is not in the next root list");
        Ok(None)
    }

    async fn next_section(&self, due: &Due, room: &mut usize) -> Result<Section> {
        let entries = self.archived_rows(&due.log, due.archived..due.log.size(), room).await?;
        Ok(section(due, entries, false))
    }

    /// The head of a log at a size; `None` when the log is damaged there, so that the list can still name the other logs.
    async fn head_at(&self, log: &Log, size: u64) -> Result<Option<TreeHead>> {
        if size == log.size() {
            return Ok(Some(log.head()));
        }
        match self.root_at(log, size).await {
            Ok(root) => Ok(Some(TreeHead { size, root })),
            Err(Error::Damaged(what)) => {
                tracing::error!(log = %log.id, what, "a log is damaged, and is not in the next root list");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn add(&self, collected: &mut Collected, mut section: Section, due: &Due, replaces: Option<i64>) -> Result<()> {
        section.above = self.above(&due.log, &section).await?;
        let keyed = section.entries.iter().filter(|entry| entry.sealed.is_some()).map(|entry| entry.day);
        if let Some((first, last)) =
            keyed.fold(None, |span: Option<(i64, i64)>, day| Some(span.map_or((day, day), |(a, b)| (a.min(day), b.max(day)))))
        {
            collected.part.keys.extend(self.key_copies(&due.log, first, last).await?);
        }
        collected.spans.push(Span {
            log: due.log.number,
            generation: section.generation,
            first: section.first,
            past: section.end(),
            repeated: section.repeated,
            replaces,
        });
        collected.part.sections.push(section);
        Ok(())
    }

    /// Repeats the leaves of the newest part, before all other sections: if that part is damaged later, bodies are lost but no leaf, so
    /// that the entries after it can still be restored.
    async fn repeat_newest(&self, collected: &mut Collected) -> Result<()> {
        const NEWEST: &str = "SELECT log, newest_first, size FROM archived
             WHERE newest_number = (SELECT MAX(newest_number) FROM archived) AND newest_number > 0 ORDER BY log";
        let newest: Vec<(i64, i64, i64)> = on!(self.database.reads(), p => sqlx::query_as(NEWEST).fetch_all(p).await)?;
        let (mut room, mut sections) = (PART_BYTES, Vec::new());
        for (number, first, past) in newest {
            let Some(due) = self.due_log(number).await? else { continue };
            let (first, past) = (first.cast_unsigned(), past.cast_unsigned());
            let mut entries = self.archived_rows(&due.log, first..past, &mut room).await?;
            for entry in &mut entries {
                entry.sealed = None;
            }
            let mut section = Section { first, ..section(&due, entries, true) };
            section.above = self.above(&due.log, &section).await?;
            sections.push(section);
        }
        sections.append(&mut collected.part.sections);
        collected.part.sections = sections;
        Ok(())
    }

    /// Adds again the spans whose locks end soon.
    async fn repeat(&self, collected: &mut Collected, room: &mut usize) -> Result<()> {
        const ENDING: &str = "SELECT log, lock_day, first, past FROM archived_spans WHERE lock_day <= $1 ORDER BY lock_day, log LIMIT $2";
        let soon = self.now().checked_add(REPEATED_BEFORE).map_or(i64::MAX, |soon| Day::of(soon).number());
        let ending: Vec<(i64, i64, i64, i64)> =
            on!(self.database.reads(), p => sqlx::query_as(ENDING).bind(soon).bind(SPANS).fetch_all(p).await)?;
        // only adjacent spans of a log: those that are locked until the same day become one row
        let mut taken: HashMap<i64, u64> = HashMap::new();
        for (number, lock_day, first, past) in ending {
            let (first, past) = (first.cast_unsigned(), past.cast_unsigned());
            if *room == 0 || taken.get(&number).is_some_and(|end| *end != first) {
                continue;
            }
            let Some(due) = self.due_log(number).await? else { continue };
            let entries = self.archived_rows(&due.log, first..past, room).await?;
            let section = Section { first, ..section(&due, entries, true) };
            taken.insert(number, section.end());
            collected.is_cut |= section.end() < past;
            self.add(collected, section, &due, Some(lock_day)).await?;
        }
        Ok(())
    }

    async fn due_logs(&self, all: bool) -> Result<Vec<Due>> {
        const DUE: &str = "SELECT l.number, l.log_id, l.group_id, h.size, h.peaks, h.day,
                COALESCE(s.size, 0), COALESCE(a.size, 0), COALESCE(a.generation, 0), k.seal
             FROM heads h JOIN logs l ON l.number = h.log LEFT JOIN log_seals k ON k.log = h.log LEFT JOIN listed s ON s.log = h.log LEFT JOIN archived a ON a.log = h.log
             WHERE h.size > 0 AND ($1 OR s.size IS NULL OR s.size <> h.size OR a.size IS NULL OR a.size < h.size) ORDER BY l.number";
        let rows: Vec<DueRow> = on!(self.database.reads(), p => sqlx::query_as(DUE).bind(all).fetch_all(p).await)?;
        let readable =
            |row: DueRow| self.due_of(row).inspect_err(|error| tracing::error!(%error, "a log is not in the next root list")).ok();
        Ok(rows.into_iter().filter_map(readable).collect())
    }

    fn due_of(&self, (number, id, owner, size, peaks, day, listed, archived, generation, seal): DueRow) -> Result<Due> {
        let log = self.log((number, id, owner, size, peaks, day, seal))?;
        let generation = u32::try_from(generation).map_err(|_| Error::Damaged(format!("the archive of log {number}")))?;
        let is_platform = log.owner == Owner::Platform.as_str();
        Ok(Due { log, is_platform, listed: listed.cast_unsigned(), archived: archived.cast_unsigned(), generation })
    }

    async fn due_log(&self, number: i64) -> Result<Option<Due>> {
        const ONE: &str = "SELECT l.number, l.log_id, l.group_id, h.size, h.peaks, h.day,
                COALESCE(s.size, 0), COALESCE(a.size, 0), COALESCE(a.generation, 0), k.seal
             FROM heads h JOIN logs l ON l.number = h.log LEFT JOIN log_seals k ON k.log = h.log LEFT JOIN listed s ON s.log = h.log LEFT JOIN archived a ON a.log = h.log
             WHERE l.number = $1";
        let row: Option<DueRow> = on!(self.database.reads(), p => sqlx::query_as(ONE).bind(number).fetch_optional(p).await)?;
        row.map(|row| self.due_of(row)).transpose()
    }

    /// Entries as they are in the database or as they were healed, read in portions until there is no room. A missing row becomes an entry
    /// without a leaf.
    async fn archived_rows(&self, log: &Log, span: std::ops::Range<u64>, room: &mut usize) -> Result<Vec<ArchivedEntry>> {
        const OF: &str = "SELECT sequence, day, time_us, appended_us, id, leaf, sealed FROM entries
             WHERE log = $1 AND sequence >= $2 AND sequence < $3 ORDER BY sequence LIMIT $4";
        let mut entries = Vec::new();
        let mut next = span.start;
        while next < span.end && *room > 0 {
            let rows: Vec<EntryRow> = on!(self.database.reads(), p => sqlx::query_as(OF)
                .bind(log.number).bind(next.cast_signed()).bind(span.end.cast_signed()).bind(PORTION).fetch_all(p).await)?;
            let mut rows = rows.into_iter().peekable();
            if rows.peek().is_none() {
                rows = vec![(span.end.cast_signed(), 0, 0, 0, None, Vec::new(), None)].into_iter().peekable();
            }
            for (sequence, day, time_us, appended_us, id, leaf, sealed) in rows {
                let sequence = sequence.cast_unsigned();
                while next < sequence && *room > 0 {
                    take(&mut entries, lost(log.day.number()), room);
                    next += 1;
                }
                if next != sequence || next >= span.end || *room == 0 {
                    break;
                }
                let id = id.and_then(|id| id.try_into().ok());
                take(&mut entries, ArchivedEntry { day, time_us, appended_us, id, leaf, sealed }, room);
                next += 1;
            }
        }
        for (sequence, day, time_us, appended_us, id, leaf, sealed) in self.healed_rows(log, span.start..next).await? {
            let at = usize::try_from(sequence.cast_unsigned() - span.start).ok();
            if let Some(entry) = at.and_then(|at| entries.get_mut(at)) {
                let id = id.and_then(|id| id.try_into().ok());
                *entry = ArchivedEntry { day, time_us, appended_us, id, leaf, sealed };
            }
        }
        Ok(entries)
    }

    async fn healed_rows(&self, log: &Log, span: std::ops::Range<u64>) -> Result<Vec<EntryRow>> {
        const OF: &str = "SELECT sequence, day, time_us, appended_us, id, leaf, sealed FROM healed_entries
             WHERE log = $1 AND sequence >= $2 AND sequence < $3";
        Ok(on!(self.database.reads(), p => sqlx::query_as(OF)
            .bind(log.number).bind(span.start.cast_signed()).bind(span.end.cast_signed()).fetch_all(p).await)?)
    }

    /// Whether the head of the log follows from these entries as its last ones. Rows whose damage staff have declared are accepted.
    async fn section_leads_to_head(&self, log: &Log, section: &Section) -> Result<bool> {
        Ok(self.edge_behind(log, section).await?.as_ref() == Some(&log.edge) || !self.declared_damage(log).await?.is_empty())
    }

    /// The hashes above a section of a log with lost or wrong entries; `None` if they still follow from the section's entries.
    async fn above(&self, log: &Log, section: &Section) -> Result<Option<Above>> {
        let has_lost = section.entries.iter().any(|entry| entry.leaf.is_empty());
        // declaring damage begins a new generation, so that the gaps of all other logs need not be read for each list
        if !has_lost && (section.generation == 0 || self.declared_damage(log).await?.is_empty()) {
            return Ok(None);
        }
        let edge = self.edge_at(log, section.end()).await?;
        if edge.is_some() && self.edge_behind(log, section).await? == edge {
            return Ok(None);
        }
        let mut nodes = Vec::new();
        for tiles in 1..=7_u8 {
            let level = tiles * HEIGHT;
            let span = section.first >> level..section.end() >> level;
            let hashes = self.nodes(log.number, tiles, span.clone()).await?;
            nodes.extend(span.zip(hashes).filter_map(|(index, hash)| Some((Node { level, index }, hash?))));
        }
        Ok(Some(Above { edge, nodes }))
    }

    /// The edge of the tree at a size; `None` if damage makes it unknown.
    async fn edge_at(&self, log: &Log, size: u64) -> Result<Option<Range>> {
        if size == log.size() {
            return Ok(Some(log.edge.clone()));
        }
        match self.hashes(log, &Node::cover(0, size), size).await {
            Ok(hashes) => Ok(Range::from_hashes(0, size, &hashes).ok()),
            Err(Error::Damaged(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The edge of the tree after a section, computed from the section's entries.
    async fn edge_behind(&self, log: &Log, section: &Section) -> Result<Option<Range>> {
        let mut edge = self.edge_at(log, section.first).await?;
        for entry in &section.entries {
            edge = edge.and_then(|mut edge| edge.append_hash(leaf_hash(&entry.leaf), |_, _| ()).ok().map(|()| edge));
        }
        Ok(edge)
    }

    async fn generations(&self) -> Result<Vec<(LogId, u32)>> {
        const ANEW: &str = "SELECT l.log_id, a.generation FROM archived a JOIN logs l ON l.number = a.log WHERE a.generation > 0";
        let rows: Vec<(Vec<u8>, i64)> = on!(self.database.reads(), p => sqlx::query_as(ANEW).fetch_all(p).await)?;
        let one = |(id, generation): (Vec<u8>, i64)| Some((LogId::from_bytes(id.try_into().ok()?), u32::try_from(generation).ok()?));
        Ok(rows.into_iter().filter_map(one).collect())
    }

    async fn key_copies(&self, log: &Log, first: i64, last: i64) -> Result<Vec<KeyCopy>> {
        const OF: &str =
            "SELECT day, epoch, key_id, first, wrapped, superseded_at FROM day_keys WHERE log = $1 AND day >= $2 AND day <= $3";
        type Row = (i64, String, Vec<u8>, i64, Vec<u8>, Option<i64>);
        let rows: Vec<Row> =
            on!(self.database.reads(), p => sqlx::query_as(OF).bind(log.number).bind(first).bind(last).fetch_all(p).await)?;
        let copy = |(day, epoch, key_id, first, wrapped, superseded_at): Row| {
            let (key_id, first) = (key_id.try_into().ok()?, first.cast_unsigned());
            Some(KeyCopy { log: log.id, day, epoch, key_id, first, wrapped, superseded_at })
        };
        Ok(rows.into_iter().filter_map(copy).collect())
    }
}

fn section(due: &Due, entries: Vec<ArchivedEntry>, repeated: bool) -> Section {
    Section {
        log: due.log.id,
        is_platform: due.is_platform,
        generation: due.generation,
        first: due.archived,
        repeated,
        entries,
        above: None,
    }
}

fn lost(day: i64) -> ArchivedEntry {
    ArchivedEntry { day, time_us: 0, appended_us: 0, id: None, leaf: Vec::new(), sealed: None }
}

fn take(entries: &mut Vec<ArchivedEntry>, entry: ArchivedEntry, room: &mut usize) {
    *room = room.saturating_sub(entry.weight());
    entries.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_a_log_as_far_as_it_is_archived() {
        for (listed, archived, size, wanted) in [
            (0, 0, 7, 0),
            (0, 5, 7, 5),
            (5, 7, 7, 7),
            // a database from before there was an archive: what was named stays named, and no more until it is archived
            (6, 0, 7, 6),
            (6, 5, 7, 6),
            // behind a gap the log is archived anew
            (7, 0, 7, 7),
            (12, 0, 7, 7),
        ] {
            assert_eq!(named(listed, archived, size), wanted, "{listed} {archived} {size}");
        }
    }
}
