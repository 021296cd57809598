//! Whether the database is consistent: heads with tiles, tiles with leaves. A cheap check of every log at start, and a complete check
//! before a read-only history becomes writable.

use std::collections::BTreeMap;
use std::ops::Range as Span;

use tsujiban_database::on;
use tsujiban_history::Leaf;
use tsujiban_history::leaf::Content;
use tsujiban_history::merkle::{Hash, Node, Range, leaf_hash};
use tsujiban_history::tile::{HEIGHT, WIDTH};

use crate::engine::RefusedLogs;
use crate::error::{Error, Result};
use crate::reading::Log;
use crate::service::Audit;

/// How many entries are read at once: whole tiles.
const PORTION: u32 = 4096;

impl Audit {
    /// The logs whose heads do not match their tiles or their number of rows. Reads as much of each log as one proof does.
    pub(super) async fn inconsistent_logs(&self) -> Result<RefusedLogs> {
        let mut inconsistent = RefusedLogs::new();
        for number in self.log_numbers().await? {
            let fault = match self.log_by_number(number).await {
                Ok(Some(log)) => self.inconsistency(&log).await?,
                Ok(None) => None,
                Err(Error::Damaged(what)) => Some(what),
                Err(error) => return Err(error),
            };
            inconsistent.extend(fault.map(|fault| (number, fault.into())));
        }
        Ok(inconsistent)
    }

    pub(crate) async fn log_numbers(&self) -> Result<Vec<i64>> {
        const ALL: &str = "SELECT number FROM logs ORDER BY number";
        Ok(on!(self.database.reads(), p => sqlx::query_scalar(ALL).fetch_all(p).await)?)
    }

    /// Describes in words why a log's head does not match its tiles or its number of rows; `None` if it does.
    pub(crate) async fn inconsistency(&self, log: &Log) -> Result<Option<String>> {
        // in one statement, since other writers may append meanwhile
        const NEWEST: &str = "SELECT h.size, (SELECT MAX(e.sequence) FROM entries e WHERE e.log = h.log) FROM heads h WHERE h.log = $1";
        let (size, newest): (i64, Option<i64>) =
            on!(self.database.reads(), p => sqlx::query_as(NEWEST).bind(log.number).fetch_one(p).await)?;
        let rows = newest.map_or(0, |newest| newest.cast_unsigned().saturating_add(1));
        let declared = self.declared_damage(log).await?;
        if rows != size.cast_unsigned() && !declared.iter().any(|span| span.end >= rows) {
            return Ok(Some(format!("log {} has {} entries by its head, and {rows} by its rows", log.id, log.size())));
        }
        match self.root_from_tiles(log).await {
            Ok(root) if root == log.head().root => Ok(None),
            Ok(_) | Err(Error::Damaged(_)) if !declared.is_empty() => Ok(None),
            Ok(_) => Ok(Some(format!("the head of log {} is not that of its entries", log.id))),
            Err(Error::Damaged(what)) => Ok(Some(what)),
            Err(error) => Err(error),
        }
    }

    async fn root_from_tiles(&self, log: &Log) -> Result<Hash> {
        let hashes = self.hashes(log, &Node::cover(0, log.size()), log.size()).await?;
        let edge = Range::from_hashes(0, log.size(), &hashes).map_err(|error| Error::Damaged(error.to_string()))?;
        Ok(edge.root().unwrap_or(Hash::EMPTY))
    }

    /// Reads every leaf and every node of every readable log, and heals what can be healed. Returns the logs with damage that was not
    /// declared, each with a description.
    pub(super) async fn damaged_logs(&self) -> Result<RefusedLogs> {
        let mut damaged = RefusedLogs::new();
        for log in self.readable_logs().await? {
            damaged.extend(self.healed_damage(&log).await?.map(|what| (log.number, what.into())));
        }
        Ok(damaged)
    }

    /// All logs whose heads can be read.
    pub(crate) async fn readable_logs(&self) -> Result<Vec<Log>> {
        let mut logs = Vec::new();
        for number in self.log_numbers().await? {
            match self.log_by_number(number).await {
                Ok(log) => logs.extend(log),
                Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(logs)
    }

    /// The damaged spans of a log that no signed gap of it names.
    pub(super) async fn undeclared_spans(&self, log: &Log) -> Result<Vec<Span<u64>>> {
        let (declared, mut damaged) = (self.declared_damage(log).await?, self.damaged_spans(log).await?);
        damaged.retain(|span| !is_declared(span, &declared));
        Ok(damaged)
    }

    /// The damaged entries that a signed gap of the log names.
    pub(crate) async fn declared_damage(&self, log: &Log) -> Result<Vec<Span<u64>>> {
        const OF: &str = "SELECT sequence, leaf FROM entries WHERE log = $1 AND id IS NULL ORDER BY sequence";
        let rows: Vec<(i64, Vec<u8>)> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(log.number).fetch_all(p).await)?;
        let (origin, mut declared) = (self.origin(log.id), Vec::new());
        let key = self.verifier().for_origin(&origin.to_string()).map_err(|error| Error::Damaged(error.to_string()))?;
        for (sequence, leaf) in rows {
            if let Ok(Leaf { content: Content::Gap(gap), .. }) = Leaf::parse(&leaf)
                && gap.verify(&key, &origin, sequence.cast_unsigned()).is_ok()
            {
                declared.extend(gap.unsigned.damaged.iter().map(|span| span.from..span.to));
            }
        }
        Ok(declared)
    }

    /// Whether the last tile of the log at this size has rows that staff have declared to be damaged.
    pub(super) async fn is_declared_at(&self, log: &Log, size: u64) -> Result<bool> {
        let tile = size - size % u64::from(WIDTH)..size;
        Ok(self.declared_damage(log).await?.iter().any(|span| span.start < tile.end && tile.start < span.end))
    }

    /// The spans of a log that do not lead to its head, as whole tiles: a whole tile is compared with its stored hash, the last one with
    /// the last hashes of the head. The whole log if its tiles do not lead to its head although every one is sound.
    pub(super) async fn damaged_spans(&self, log: &Log) -> Result<Vec<Span<u64>>> {
        let (mut edge, mut damaged, mut upper) = (Some(Range::empty(0)), Vec::<Span<u64>>::new(), Vec::new());
        let (mut from, size) = (0, log.size());
        while from < size {
            let past = from.saturating_add(u64::from(PORTION)).min(size);
            for (tile, is_sound) in self.judged_tiles(log, from..past).await? {
                if !is_sound {
                    damaged.push(tile.span.clone());
                }
                let completed = |node: Node, hash: Hash| {
                    if node.level > HEIGHT && node.level.is_multiple_of(HEIGHT) {
                        upper.push((node, hash));
                    }
                };
                let joined = edge.as_mut().zip(tile.hashes).map(|(edge, tile)| edge.join_with(&tile, completed));
                match joined {
                    Some(joined) => joined.map_err(|error| Error::Damaged(error.to_string()))?,
                    // if a tile and its hash are both lost, the hashes above them cannot be computed
                    None => edge = None,
                }
            }
            for (node, hash) in upper.drain(..) {
                let (level, number) = (node.level / HEIGHT, node.index);
                if self.stored_nodes(log.number, level, number, number.saturating_add(1)).await?.first().is_none_or(|(_, at)| *at != hash)
                    && let (Some(begin), Some(end)) = (node.begin(), node.end())
                {
                    damaged.push(begin..end);
                }
            }
            from = past;
        }
        let is_unexplained = damaged.is_empty() && size > 0 && edge.is_some_and(|edge| edge.root() != log.edge.root());
        if is_unexplained {
            damaged.push(0..size);
        }
        Ok(damaged)
    }

    /// The tiles of some entries, each with its known hashes, and whether its leaves match them.
    async fn judged_tiles(&self, log: &Log, span: Span<u64>) -> Result<Vec<(Tile, bool)>> {
        let width = u64::from(WIDTH);
        let leaves = self.leaf_rows(log.number, span.start, span.end).await?;
        let stored = self.stored_nodes(log.number, 1, span.start / width, span.end / width).await?;
        let (mut first, mut rest, mut judged) = (span.start, leaves.as_slice(), Vec::new());
        while first < span.end {
            let end = first.saturating_add(width).min(log.size());
            let (here, after) = rest.split_at(rest.partition_point(|(sequence, _)| *sequence < end));
            let known: Vec<Hash> = if end - first == width {
                stored.iter().filter(|(number, _)| *number == first / width).map(|(_, hash)| *hash).collect()
            } else {
                let peaks = Node::cover(0, log.size()).into_iter().zip(log.edge.hashes());
                peaks.filter(|(node, _)| node.level < HEIGHT).map(|(_, hash)| hash).collect()
            };
            judged.push(judge_tile(first..end, here, &known));
            (first, rest) = (end, after);
        }
        Ok(judged)
    }

    /// Leaves as they are stored, or were healed.
    pub(crate) async fn leaf_rows(&self, log: i64, from: u64, past: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        const OF: &str = "SELECT sequence, leaf FROM entries WHERE log = $1 AND sequence >= $2 AND sequence < $3";
        const HEALED: &str = "SELECT sequence, leaf FROM healed_entries WHERE log = $1 AND sequence >= $2 AND sequence < $3";
        let mut leaves = BTreeMap::new();
        for query in [OF, HEALED] {
            let rows: Vec<(i64, Vec<u8>)> = on!(self.database.reads(), p => sqlx::query_as(query)
                .bind(log).bind(from.cast_signed()).bind(past.cast_signed()).fetch_all(p).await)?;
            leaves.extend(rows.into_iter().map(|(sequence, leaf)| (sequence.cast_unsigned(), leaf)));
        }
        Ok(leaves.into_iter().collect())
    }

    /// The hashes of those subtrees that are stored.
    async fn stored_nodes(&self, log: i64, level: u8, from: u64, past: u64) -> Result<Vec<(u64, Hash)>> {
        let hashes = self.nodes(log, level, from..past).await?;
        Ok((from..past).zip(hashes).filter_map(|(number, hash)| Some((number, hash?))).collect())
    }
}

/// A part of a tree, as far as its hashes are known.
#[derive(Debug, PartialEq)]
struct Tile {
    span: Span<u64>,
    hashes: Option<Range>,
}

/// Whether the leaves of a tile match its known hashes, which replace the computed ones if leaves are lost or wrong.
fn judge_tile(span: Span<u64>, leaves: &[(u64, Vec<u8>)], known: &[Hash]) -> (Tile, bool) {
    let computed = tile_of(span.start, span.end, leaves);
    let is_sound = computed.as_ref().is_some_and(|tile| tile.hashes().eq(known.iter().copied()));
    let hashes = if is_sound { computed } else { Range::from_hashes(span.start, span.end, known).ok().or(computed) };
    (Tile { span, hashes }, is_sound)
}

/// The tree of a tile; `None` if a leaf is missing or misplaced.
fn tile_of(first: u64, end: u64, leaves: &[(u64, Vec<u8>)]) -> Option<Range> {
    let mut tile = Range::empty(first);
    for (sequence, leaf) in leaves {
        if *sequence != tile.end() || Leaf::parse(leaf).ok()?.sequence != *sequence {
            return None;
        }
        tile.append_hash(leaf_hash(leaf), |_, _| ()).ok()?;
    }
    (tile.end() == end).then_some(tile)
}

/// Whether a signed gap names a damaged span. A gap that was declared while the last tile was still growing names all of that tile.
fn is_declared(span: &Span<u64>, declared: &[Span<u64>]) -> bool {
    declared.iter().any(|known| known.start <= span.start && span.end <= known.end.next_multiple_of(u64::from(WIDTH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_needs_every_leaf_in_its_place() {
        let leaf = |sequence| {
            let commitment = tsujiban_history::leaf::Commitment::from_bytes([1; 32]);
            (sequence, Leaf::entry(sequence, tsujiban_history::DayKeyId::from_bytes([2; 16]), commitment).encode())
        };
        let leaves: Vec<_> = (256..260).map(leaf).collect();
        assert_eq!(tile_of(256, 260, &leaves).unwrap().end(), 260);
        assert_eq!(tile_of(256, 261, &leaves), None, "one is missing at the end");
        assert_eq!(tile_of(256, 259, &[&leaves[..1], &leaves[2..]].concat()), None, "one is missing in the middle");
        let swapped = [(256, leaves[1].1.clone()), (257, leaves[0].1.clone())];
        assert_eq!(tile_of(256, 258, &swapped), None, "two are swapped");
    }

    #[test]
    fn a_tile_is_held_to_what_is_known_of_it() {
        let leaf = |sequence| {
            let commitment = tsujiban_history::leaf::Commitment::from_bytes([1; 32]);
            (sequence, Leaf::entry(sequence, tsujiban_history::DayKeyId::from_bytes([2; 16]), commitment).encode())
        };
        let leaves: Vec<_> = (256..260).map(leaf).collect();
        let tile = tile_of(256, 260, &leaves).unwrap();
        let known: Vec<Hash> = tile.hashes().collect();
        let judged = |leaves: &[(u64, Vec<u8>)], known: &[Hash]| {
            let (tile, is_sound) = judge_tile(256..260, leaves, known);
            (tile.hashes, is_sound)
        };
        assert_eq!(judged(&leaves, &known), (Some(tile.clone()), true));
        assert_eq!(judged(&leaves[..3], &known), (Some(tile.clone()), false), "the hash above says what it was");
        assert_eq!(judged(&leaves, &[]), (Some(tile), false));
        assert_eq!(judged(&leaves[..3], &[]), (None, false));
    }

    #[test]
    fn what_was_declared_of_a_growing_tile_is_declared_when_it_has_grown() {
        for (span, declared, wanted) in [
            (256..300, 256..300, true),
            (256..304, 256..300, true),
            (256..512, 256..300, true),
            (256..513, 256..300, false),
            (0..256, 256..300, false),
            (512..600, 256..300, false),
        ] {
            assert_eq!(is_declared(&span, std::slice::from_ref(&declared)), wanted, "{span:?}");
        }
    }
}
