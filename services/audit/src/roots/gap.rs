//! The lawful way back after a real loss: staff say what happened, each log that lacks something says so itself in a signed leaf, and the
//! history goes on.

use std::collections::BTreeMap;

use tsujiban_database::on;
use tsujiban_history::leaf::{Content, UnsignedGap};
use tsujiban_history::merkle::sha256;
use tsujiban_history::operation::{Access, Actor, ActorKind, Outcome, Phase as Stage};
use tsujiban_history::roots::{RootList, Scope};
use tsujiban_history::{EntryId, JstTime, Leaf, LogId, Operation, TreeHead};
use tsujiban_proto::error::Kind;
use tsujiban_sealing::Random as _;

use crate::engine::{Addition, Phase, Standing, Statement};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::reading::Log;
use crate::service::Audit;

/// Which logs go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GapScope {
    All,
    Of(Owner),
}

impl Audit {
    /// Appends a gap to each log that lacks something, lists all roots anew, and lets the history go on when no log lacks anything any
    /// more. Answers how many gaps there are now that were not there before.
    pub async fn declare_gap(&self, scope: &GapScope, reason: &str, by: &str) -> Result<u64> {
        let _alone = self.listing.lock().await;
        self.compare(true).await?;
        if self.engine.standing() == Standing::Sound {
            let message = "the history is the newest one: there is no gap to declare";
            return Err(Error::refuse(Kind::Precondition, "NO_GAP", message));
        }
        let since = JstTime::new(self.read_only_since().await?);
        let wanted = match scope {
            GapScope::All => None,
            GapScope::Of(owner) => Some(self.some_log_of(owner).await?.id),
        };
        let (newest, heads) = self.newest_heads().await?;
        let (mut declared, mut lost, mut left) = (Vec::new(), Vec::new(), 0_u64);
        for (id, heads) in heads {
            let Some(head) = heads.first().copied() else { continue };
            if self.lack(id, head).await?.is_none() {
                continue;
            }
            let Some(log) = self.log_by_id(&id).await? else {
                lost.push(id);
                continue;
            };
            if wanted.is_some_and(|wanted| wanted != id) || self.has_gap_to(&log, head).await? {
                left += u64::from(!self.has_gap_to(&log, head).await?);
                continue;
            }
            let agreed = self.agreed(&log, &heads).await?;
            let unsigned = UnsignedGap { agreed, newest: head, since, by: by.to_owned(), reason: sha256(reason.as_bytes()) };
            self.append_gap(&log, unsigned).await?;
            declared.push(log);
        }
        if left > 0 {
            return Ok(u64::try_from(declared.len()).unwrap_or_default());
        }
        // from here on the lists say what is here
        if let Some(newest) = newest {
            self.note(&newest).await?;
        }
        self.publish(true).await?;
        self.engine.tail_is_given_up();
        self.engine.set_standing(Standing::Sound);
        self.metrics.forked.set(0);
        tracing::warn!(logs = declared.len(), lost = lost.len(), by, "a gap was declared, and the history goes on");
        self.explain(&declared, &lost, reason, by).await?;
        Ok(u64::try_from(declared.len()).unwrap_or_default())
    }

    async fn append_gap(&self, log: &Log, unsigned: UnsignedGap) -> Result<()> {
        let origin = self.origin(log.id);
        let key = self.key.clone();
        let leaf = move |sequence| Ok(Leaf { sequence, content: Content::Gap(unsigned.clone().sign(&key, &origin, sequence)?) });
        self.engine.state(Statement { log: log.number, leaf: Box::new(leaf), gone: None, lawful: true }).await?;
        Ok(())
    }

    /// Whether the newest entry of a log is a gap that answers this head already: a declaration that was cut short goes on.
    async fn has_gap_to(&self, log: &Log, head: TreeHead) -> Result<bool> {
        let Some(last) = log.size().checked_sub(1) else { return Ok(false) };
        let entry = self.entries(log.number, last, 1).await?.pop();
        let leaf = entry.and_then(|entry| Leaf::parse(&entry.leaf).ok());
        Ok(leaf.is_some_and(|leaf| matches!(leaf.content, Content::Gap(gap) if gap.unsigned.newest == head)))
    }

    /// The largest size at which a log goes through the roots in the bucket, as far as is known here.
    async fn agreed(&self, log: &Log, heads: &[TreeHead]) -> Result<u64> {
        const LISTED: &str = "SELECT size FROM listed WHERE log = $1";
        for head in heads.iter().filter(|head| head.size <= log.size()) {
            if self.root_at(log, head.size).await? == head.root {
                return Ok(head.size);
            }
        }
        let listed: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(LISTED).bind(log.number).fetch_optional(p).await)?;
        Ok(listed.map_or(0, i64::cast_unsigned).min(log.size()))
    }

    /// The newest list in the bucket, and the heads of every log that the lists name since the last full one, the newest first.
    async fn newest_heads(&self) -> Result<(Option<RootList>, BTreeMap<LogId, Vec<TreeHead>>)> {
        let (mut heads, mut newest) = (BTreeMap::<LogId, Vec<TreeHead>>::new(), None);
        for lying in self.lying_after(0).await?.into_iter().rev() {
            let list = self.fetch(&lying.key, Some(&lying.version)).await?.map_err(Error::Damaged)?;
            for (log, head) in &list.roots {
                heads.entry(*log).or_default().push(*head);
            }
            let full = list.scope == Scope::Full;
            newest.get_or_insert(list);
            if full {
                break;
            }
        }
        Ok((newest, heads))
    }

    /// The reason, in the entry that follows.
    async fn explain(&self, logs: &[Log], lost: &[LogId], reason: &str, by: &str) -> Result<()> {
        let mut owners: Vec<Owner> = logs.iter().filter_map(|log| Owner::parse(&log.owner).ok()).collect();
        if logs.is_empty() || !lost.is_empty() {
            owners.push(Owner::Platform);
        }
        owners.sort();
        owners.dedup();
        let mut additions = Vec::new();
        for owner in owners {
            let mut id = [0; 16];
            self.random.fill(&mut id)?;
            let mut detail = BTreeMap::from([("reason".to_owned(), reason.to_owned())]);
            if owner == Owner::Platform && !lost.is_empty() {
                let lost: Vec<String> = lost.iter().take(100).map(LogId::to_string).collect();
                detail.insert("lost logs".to_owned(), lost.join(" "));
            }
            let operation = Operation {
                id: EntryId::from_bytes(id),
                phase: Stage::Observed,
                time: JstTime::new(self.now()),
                actor: Actor { kind: ActorKind::Staff, id: by.to_owned() },
                from: String::new(),
                service: "tsujiban.audit.v1.AuditService".to_owned(),
                method: "DeclareGap".to_owned(),
                function: "history".to_owned(),
                operation: Access::Administer,
                target: owner.as_str().to_owned(),
                result: Outcome::Allowed,
                code: "OK".to_owned(),
                reason: String::new(),
                duration_us: 0,
                request_id: String::new(),
                trace_id: String::new(),
                detail,
            };
            let body = operation.encode().map_err(|error| Error::invalid(error.to_string()))?;
            additions.push(Addition { owner, id, operation: id, phase: Phase::Observed, time: self.now(), body });
        }
        additions.extend(self.take_held());
        self.engine.append(additions).await?;
        Ok(())
    }
}
