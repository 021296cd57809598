//! Sends observations to the history, in batches, retries until they are acknowledged, and keeps them until a root list covers them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::{Instant, sleep, timeout_at};
use tsujiban_api::{Device, Site, Tenant, names};
use tsujiban_core::backoff::Backoff;
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;
use tsujiban_core::id::GroupId;
use tsujiban_core::workload::Service;
use tsujiban_service::history::ASK;

use super::journal::Waiting;
use super::wire::actor;
use super::{Acknowledged, Journal, Kind};
use crate::installation::{self, Chart, Stamps};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::services::Services;
use crate::services::client::{CallError, ServiceClient};

/// The most entries that one call accepts.
const BATCH: usize = 256;
/// How long to wait before the next attempt.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
/// The same for a group whose entries are refused while those of others are accepted.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
/// How often the backlog is measured while nothing happens.
const LOOK: Duration = Duration::from_secs(15);

type Taken = Vec<(u64, Waiting)>;

/// Groups whose entries were refused: until when they wait, and how often that was in a row.
#[derive(Debug, Default)]
struct Held(BTreeMap<GroupId, (Instant, u32)>);

impl Held {
    fn is_held(&self, group: &GroupId) -> bool {
        self.0.get(group).is_some_and(|(until, _)| *until > Instant::now())
    }

    fn hold(&mut self, group: &GroupId) {
        let before = self.0.get(group).map_or(0, |(_, refusals)| *refusals);
        self.0.insert(group.clone(), (Instant::now() + REFUSED.wait(before), before.saturating_add(1)));
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|(until, _)| *until).filter(|until| *until > Instant::now()).min()
    }
}

/// The queues of the controllers whose objects are recorded.
#[derive(Clone)]
pub struct Queues {
    pub tenants: Queue<Tenant>,
    pub devices: Queue<Device>,
    pub sites: Queue<Site>,
}

impl Queues {
    /// Queues the object of an acknowledged entry, so that its status shows what is recorded.
    fn add(&self, waiting: &Waiting) {
        let namespace = names::namespace(&waiting.group);
        match waiting.kind {
            Kind::Tenant => self.tenants.add_ref(ObjectRef::new(waiting.group.as_str())),
            Kind::Device => self.devices.add_ref(ObjectRef::new(&waiting.name).within(&namespace)),
            Kind::Site => self.sites.add_ref(ObjectRef::new(&waiting.name).within(&namespace)),
        }
    }
}

/// Sends the journal to the audit service.
pub struct Sender {
    pub services: Arc<Services>,
    pub journal: Arc<Journal>,
    pub kept: Acknowledged,
    pub chart: Chart,
    pub stamps: Arc<Stamps>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub queues: Queues,
}

impl Sender {
    /// Sends for ever.
    pub async fn run(self) {
        let Some(client) = self.services.find(Service::Audit) else { return std::future::pending().await };
        let mut held = Held::default();
        let mut failures = 0_u32;
        let mut question = Instant::now() + ASK;
        loop {
            if question <= Instant::now() {
                question = Instant::now() + ASK;
                if let Err(error) = self.kept.ask(client, self.clock.now()).await {
                    tracing::warn!(error = error.message, "the history does not say which entries are covered");
                }
            }
            let taken = self.journal.take(BATCH, |group| held.is_held(group));
            self.measure();
            if taken.is_empty() {
                let until = held.next().unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK).min(question);
                let _late = timeout_at(until, self.journal.more()).await.is_err(); // on a timeout, the loop starts again
                continue;
            }
            let taken = self.stamped(taken).await;
            match self.deliver(client, taken, &mut held).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    self.journal.give_back();
                    let pause = RETRY.wait(failures);
                    tracing::warn!(
                        error = chain(&error),
                        retry_seconds = pause.as_secs_f64(),
                        "what was observed could not be recorded yet"
                    );
                    sleep(pause).await;
                    failures = failures.saturating_add(1);
                    // the service may come back with an older database: ask first which entries are covered
                    question = Instant::now();
                }
            }
        }
    }

    /// Removes the actor from entries whose stamp is not trusted. The policy that stamps is checked once more, after all these changes were
    /// made. If it cannot be read, no stamp is trusted.
    async fn stamped(&self, mut taken: Taken) -> Taken {
        let is_named = |waiting: &Waiting| waiting.entry.operation.as_ref().is_some_and(|it| it.actor != Some(actor(None)));
        if !taken.iter().any(|(_, waiting)| is_named(waiting)) {
            return taken;
        }
        self.stamps.restored().await;
        let looked = installation::confirm(&self.chart, &self.stamps, &*self.clock).await;
        if let Err(error) = &looked {
            tracing::warn!(
                error = chain(error),
                "the policy that stamps who changes what could not be looked at; nobody is named in these entries"
            );
        }
        for (_, waiting) in &mut taken {
            if (looked.is_err() || !self.stamps.are_trusted(waiting.stamped_at))
                && let Some(operation) = &mut waiting.entry.operation
            {
                operation.actor = Some(actor(None));
            }
        }
        taken
    }

    /// Sends a batch. If it is refused, sends the entries of each group by themselves, so that one group does not hold up the others.
    async fn deliver(&self, client: &ServiceClient, taken: Taken, held: &mut Held) -> Result<(), CallError> {
        match self.send(client, &taken, held).await {
            Err(error) if error.refusal().is_some() => {}
            other => return other,
        }
        let mut groups: BTreeMap<GroupId, Taken> = BTreeMap::new();
        for (at, waiting) in taken {
            groups.entry(waiting.group.clone()).or_default().push((at, waiting));
        }
        for (group, taken) in groups {
            match self.send(client, &taken, held).await {
                Err(error) if error.refusal().is_some() => {
                    held.hold(&group);
                    self.journal.give_back();
                    tracing::error!(group = %group, error = chain(&error), "what was observed of a group is refused; trying again");
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn send(&self, client: &ServiceClient, taken: &Taken, held: &mut Held) -> Result<(), CallError> {
        let entries: Vec<_> = taken.iter().map(|(_, waiting)| waiting.entry.clone()).collect();
        client.append(entries.clone()).await?;
        self.kept.keep(entries, self.clock.now()).await;
        for (_, waiting) in taken {
            held.0.remove(&waiting.group);
            self.metrics.observed(waiting.kind);
        }
        self.journal.acknowledge(taken).into_iter().for_each(|waiting| self.queues.add(waiting));
        Ok(())
    }

    fn measure(&self) {
        let (waiting, oldest) = self.journal.backlog();
        let age = oldest.map(|oldest| self.clock.now().duration_since(oldest).as_secs_f64().max(0.0));
        self.metrics.history_backlog(waiting, age.unwrap_or_default());
    }
}
