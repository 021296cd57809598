//! Which entries of a bundle an export declares damaged, and how far an export has to extend so that the tree proves the remaining ones.

use std::ops::Range;

use tsujiban_database::on;
use tsujiban_history::Leaf;
use tsujiban_history::export::{Loss, LostEntry, UnsignedDamage};
use tsujiban_history::leaf::Content;
use tsujiban_history::merkle::{Node, Range as Tree, leaf_hash};
use tsujiban_sealing::KeyError;

use crate::error::{Error, Result};
use crate::reading::{Bundle, DayKeys, Found, KeyState, Log, Slot, Wrong};
use crate::service::Audit;

/// The statements about the entries of a span, in their order. Fails if an epoch key is not mounted: then the bodies are not damaged.
pub(super) fn statements(log: &Log, bundle: &Bundle, span: Range<u64>, keys: &DayKeys) -> Result<Vec<UnsignedDamage>> {
    let mut statements = Vec::new();
    for subtree in bundle.subtrees.iter().filter(|subtree| subtree.begin < span.end && span.start < subtree.end) {
        let slots = bundle.between(subtree.begin.max(span.start), subtree.end.min(span.end));
        let lost = slots.iter().filter_map(|slot| loss(log, slot, keys).transpose()).collect::<Result<Vec<_>>>()?;
        if lost.iter().any(|lost| lost.loss == Loss::Entry) {
            let hash = subtree.hash.ok_or_else(|| {
                let (first, to) = (subtree.begin, subtree.end.saturating_sub(1));
                Error::Damaged(format!("entries and hashes of entries {first} to {to} of log {} are lost together", log.id))
            })?;
            let leaves = slots.iter().map(|slot| slot.leaf.as_deref().map(leaf_hash)).collect();
            statements.push(UnsignedDamage { damaged: subtree.begin, end: subtree.end, size: log.size(), hash, leaves, lost });
            continue;
        }
        for lost in lost {
            let slot = bundle.between(lost.sequence, lost.sequence + 1).first();
            let Some(hash) = slot.and_then(|slot| slot.leaf.as_deref()).map(leaf_hash) else { continue };
            let (damaged, end) = (lost.sequence, lost.sequence + 1);
            statements.push(UnsignedDamage { damaged, end, size: log.size(), hash, leaves: vec![Some(hash)], lost: vec![lost] });
        }
    }
    Ok(statements)
}

fn loss(log: &Log, slot: &Slot, keys: &DayKeys) -> Result<Option<LostEntry>> {
    let sequence = slot.sequence;
    let Some(leaf) = &slot.leaf else { return Ok(Some(LostEntry { sequence, loss: Loss::Entry })) };
    if slot.wrong == Some(Wrong::NotMounted)
        && let Ok(Leaf { content: Content::Entry { key, .. }, .. }) = Leaf::parse(leaf)
        && let KeyState::NotMounted(epoch) = keys.state(log.number, key)
    {
        return Err(KeyError::EpochMissing(epoch.clone()).into());
    }
    Ok(matches!(slot.found, Found::Nothing).then_some(LostEntry { sequence, loss: Loss::Body }))
}

impl Audit {
    /// Widens a span until the hashes before and after it are known, and gaps and retentions outside of it can be proven.
    pub(crate) async fn provable_span(&self, log: &Log, span: Range<u64>) -> Result<Range<u64>> {
        let mut span = span;
        for sequence in self.records_outside(log, &span).await? {
            match self.leaves(log, Bundle::of(sequence)).await {
                Ok(_) => {}
                Err(Error::Damaged(_)) => span = span.start.min(sequence)..span.end.max(sequence + 1),
                Err(error) => return Err(error),
            }
        }
        let start = self.edge_of_loss(log, span.start, |lost| lost.start).await?;
        let end = self.edge_of_loss(log, span.end, |lost| lost.end).await?;
        Ok(start.min(span.start)..end.max(span.end))
    }

    /// The edge of the subtree with lost leaves within which `at` is; `at` itself if there is none.
    async fn edge_of_loss(&self, log: &Log, at: u64, edge: impl Fn(Range<u64>) -> u64) -> Result<u64> {
        if at >= log.size() || self.leaves(log, Bundle::of(at)).await.is_ok() {
            return Ok(at);
        }
        let bundle = self.examine(log, Bundle::of(at), &mut DayKeys::default()).await?;
        let mut open = bundle.subtrees.iter().filter(|subtree| bundle.is_open(subtree));
        let within = open.find(|subtree| subtree.begin < at && at < subtree.end);
        Ok(within.map_or(at, |subtree| edge(subtree.begin..subtree.end)))
    }

    async fn records_outside(&self, log: &Log, span: &Range<u64>) -> Result<Vec<u64>> {
        const OF: &str = "SELECT sequence FROM entries WHERE log = $1 AND id IS NULL AND sequence < $2
             AND (sequence < $3 OR sequence >= $4) ORDER BY sequence";
        let rows: Vec<i64> = on!(self.database.reads(), p => sqlx::query_scalar(OF)
            .bind(log.number)
            .bind(log.size().cast_signed())
            .bind(span.start.cast_signed())
            .bind(span.end.cast_signed())
            .fetch_all(p)
            .await)?;
        Ok(rows.into_iter().map(i64::cast_unsigned).collect())
    }

    /// Widens a span until its entries and the hashes around it lead to the head of the log. Recomputes wrong hashes from the leaves.
    pub(crate) async fn mended_span(&self, log: &Log, span: Range<u64>) -> Result<Range<u64>> {
        let provable = self.provable_span(log, span.clone()).await?;
        if self.leads_to_head(log, &provable).await? {
            return Ok(provable);
        }
        let healed = self.mend_nodes(log).await?;
        tracing::warn!(log = %log.id, healed, "hashes of the tree were damaged; they were made anew from the leaves");
        let provable = self.provable_span(log, span).await?;
        // if the hashes outside of the span still do not lead to the head, export the whole log instead of using them
        Ok(if self.leads_to_head(log, &provable).await? { provable } else { 0..log.size() })
    }

    pub(crate) async fn leads_to_head(&self, log: &Log, span: &Range<u64>) -> Result<bool> {
        let mut tree = Tree::empty(0);
        for (begin, end) in [(0, span.start), (span.start, span.end), (span.end, log.size())] {
            let hashes = match self.hashes(log, &Node::cover(begin, end), log.size()).await {
                Ok(hashes) => hashes,
                Err(Error::Damaged(_)) => return Ok(false),
                Err(error) => return Err(error),
            };
            let joined = Tree::from_hashes(begin, end, &hashes).and_then(|part| tree.join(&part));
            if joined.is_err() {
                return Ok(false);
            }
        }
        Ok(tree.root() == Some(log.head().root))
    }
}
