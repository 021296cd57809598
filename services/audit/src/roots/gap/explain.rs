//! Records declarations and findings as entries of the history.

use std::collections::BTreeMap;

use tsujiban_history::leaf::{ListLoss, LostLists};
use tsujiban_history::operation::{Access, Actor, ActorKind, Outcome, Phase as Stage};
use tsujiban_history::{EntryId, JstTime, Operation};
use tsujiban_sealing::Random as _;

use crate::engine::{Addition, EngineError};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::reading::Log;
use crate::service::Audit;

impl Audit {
    /// Records the reason of a gap in the entry after it. The entry in the platform's log names the logs whose group is not known yet.
    pub(super) async fn explain(&self, logs: &[Log], lists: &[LostLists], reason: &str, by: &str) -> Result<()> {
        let mut owners: Vec<Owner> = logs.iter().filter_map(|log| Owner::parse(&log.owner).ok()).collect();
        let unclaimed: Vec<String> = logs.iter().filter(|log| Owner::parse(&log.owner).is_err()).map(|log| log.id.to_string()).collect();
        if owners.is_empty() || !unclaimed.is_empty() || !lists.is_empty() {
            owners.push(Owner::Platform);
        }
        owners.sort();
        owners.dedup();
        let actor = Actor { kind: ActorKind::Staff, id: by.to_owned() };
        for owner in owners {
            let mut detail = BTreeMap::from([("reason".to_owned(), reason.to_owned())]);
            if owner == Owner::Platform && !unclaimed.is_empty() {
                detail.insert("logs".to_owned(), unclaimed.iter().take(100).cloned().collect::<Vec<_>>().join(" "));
            }
            if owner == Owner::Platform && !lists.is_empty() {
                detail.insert("lists".to_owned(), lists.iter().map(shown).collect::<Vec<_>>().join(", "));
            }
            self.append_or_hold(self.observation("DeclareGap", owner, actor.clone(), detail)?).await?;
        }
        for addition in self.take_held() {
            self.append_or_hold(addition).await?;
        }
        Ok(())
    }

    /// Adds an entry, or holds it until a gap of its log is declared if the log is refused.
    async fn append_or_hold(&self, addition: Addition) -> Result<()> {
        match self.engine.append(vec![addition.clone()]).await {
            Err(EngineError::LogRefused { .. }) => self.hold(vec![addition]),
            done => drop(done?),
        }
        Ok(())
    }

    /// Records that acknowledged entries newer than the newest list were missing at start. Callers have retained them, and add them again.
    pub(in crate::roots) async fn record_lost_tail(&self, was: &str) -> Result<()> {
        let actor = Actor { kind: ActorKind::Workload, id: "audit".to_owned() };
        let detail = BTreeMap::from([("found".to_owned(), was.to_owned())]);
        let observed = self.observation("Start", Owner::Platform, actor, detail)?;
        self.append_or_hold(observed).await
    }

    fn observation(&self, method: &str, owner: Owner, actor: Actor, detail: BTreeMap<String, String>) -> Result<Addition> {
        let mut id = [0; 16];
        self.random.fill(&mut id)?;
        let operation = Operation {
            id: EntryId::from_bytes(id),
            phase: Stage::Observed,
            time: JstTime::new(self.now()),
            actor,
            from: String::new(),
            service: "tsujiban.audit.v1.AuditService".to_owned(),
            method: method.to_owned(),
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
        Addition::observed(owner, &operation).map_err(|error| Error::invalid(error.to_string()))
    }
}

fn shown(lists: &LostLists) -> String {
    let was = match lists.was {
        ListLoss::Missing => "missing",
        ListLoss::Damaged => "damaged",
        ListLoss::Foreign => "foreign",
    };
    if lists.first == lists.last { format!("{} {was}", lists.first) } else { format!("{}-{} {was}", lists.first, lists.last) }
}
