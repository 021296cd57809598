//! Brings what was observed into the history, in batches, again and again until it is acknowledged, and keeps it until a root list covers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::{Instant, sleep, timeout_at};
use tsujiban_api::names;
use tsujiban_core::error::chain;
use tsujiban_core::id::GroupId;
use tsujiban_core::workload::Service;
use tsujiban_service::history::ASK;

use super::Kind;
use super::journal::Waiting;
use super::wire::actor;
use crate::context::Context;
use crate::installation;
use crate::services::client::{CallError, ServiceClient};

/// As many as one call takes.
const BATCH: usize = 256;
/// How long is waited before the next attempt: this, and twice as long each time, up to the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);
/// The same of a group whose entries are refused while others' are taken.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// How often the backlog is measured while nothing happens.
const LOOK: Duration = Duration::from_secs(15);

type Taken = Vec<(u64, Waiting)>;

/// Groups whose entries were refused: until when, and for how long the last time.
#[derive(Debug, Default)]
struct Held(BTreeMap<GroupId, (Instant, Duration)>);

impl Held {
    fn is_held(&self, group: &GroupId) -> bool {
        self.0.get(group).is_some_and(|(until, _)| *until > Instant::now())
    }

    fn hold(&mut self, group: &GroupId) {
        let (first, longest) = REFUSED;
        let pause = self.0.get(group).map_or(first, |(_, pause)| (*pause * 2).min(longest));
        self.0.insert(group.clone(), (Instant::now() + pause, pause));
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|(until, _)| *until).filter(|until| *until > Instant::now()).min()
    }
}

/// Sends for ever.
pub async fn run(context: Arc<Context>) {
    let Some(client) = context.services.find(Service::Audit) else { return std::future::pending().await };
    let mut held = Held::default();
    let mut pause = FIRST;
    let mut question = Instant::now() + ASK;
    loop {
        if question <= Instant::now() {
            question = Instant::now() + ASK;
            if let Err(error) = context.kept.ask(client, context.clock.now()).await {
                tracing::warn!(error = error.message, "the history does not say which entries are covered");
            }
        }
        let taken = context.journal.take(BATCH, |group| held.is_held(group));
        measure(&context);
        if taken.is_empty() {
            let until = held.next().unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK).min(question);
            let _late = timeout_at(until, context.journal.more()).await.is_err(); // then it is looked again
            continue;
        }
        let taken = stamped(&context, taken).await;
        match deliver(&context, client, taken, &mut held).await {
            Ok(()) => pause = FIRST,
            Err(error) => {
                context.journal.give_back();
                tracing::warn!(error = chain(&error), retry_seconds = pause.as_secs_f64(), "what was observed could not be recorded yet");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
                // it may come back with an older database: that is asked first
                question = Instant::now();
            }
        }
    }
}

/// Takes from entries who has changed something where that is not believed: the policy by which the apiserver says so is looked at once more, now
/// that all of the changes have been made. Where it cannot be looked at, nobody is believed.
async fn stamped(context: &Context, mut taken: Taken) -> Taken {
    let is_named = |waiting: &Waiting| waiting.entry.operation.as_ref().is_some_and(|it| it.actor != Some(actor(None)));
    if !taken.iter().any(|(_, waiting)| is_named(waiting)) {
        return taken;
    }
    context.stamps.restored().await;
    let looked = installation::confirm(context).await;
    if let Err(error) = &looked {
        tracing::warn!(
            error = chain(error),
            "the policy that stamps who changes what could not be looked at; nobody is named in these entries"
        );
    }
    for (_, waiting) in &mut taken {
        if (looked.is_err() || !context.stamps.are_believed(waiting.stamped_at))
            && let Some(operation) = &mut waiting.entry.operation
        {
            operation.actor = Some(actor(None));
        }
    }
    taken
}

/// Sends a batch; when it is refused, what each group has in it by itself, so that one group does not hold up the others.
async fn deliver(context: &Context, client: &ServiceClient, taken: Taken, held: &mut Held) -> Result<(), CallError> {
    match send(context, client, &taken, held).await {
        Err(error) if error.refusal().is_some() => {}
        other => return other,
    }
    let mut groups: BTreeMap<GroupId, Taken> = BTreeMap::new();
    for (at, waiting) in taken {
        groups.entry(waiting.group.clone()).or_default().push((at, waiting));
    }
    for (group, taken) in groups {
        match send(context, client, &taken, held).await {
            Err(error) if error.refusal().is_some() => {
                held.hold(&group);
                context.journal.give_back();
                tracing::error!(group = %group, error = chain(&error), "what was observed of a group is refused; trying again");
            }
            other => other?,
        }
    }
    Ok(())
}

async fn send(context: &Context, client: &ServiceClient, taken: &Taken, held: &mut Held) -> Result<(), CallError> {
    let entries: Vec<_> = taken.iter().map(|(_, waiting)| waiting.entry.clone()).collect();
    client.append(entries.clone()).await?;
    context.kept.keep(entries, context.clock.now()).await;
    for (_, waiting) in taken {
        held.0.remove(&waiting.group);
        context.metrics.observed(waiting.kind);
    }
    context.journal.acknowledge(taken).into_iter().for_each(|waiting| wake(context, waiting));
    Ok(())
}

/// Has looked at again what waits for the acknowledgement.
fn wake(context: &Context, waiting: &Waiting) {
    match waiting.kind {
        Kind::Tenant => context.wake_tenant(waiting.group.as_str()),
        Kind::Device => {
            let device = ObjectRef::new(&waiting.name).within(&names::namespace(&waiting.group));
            let _closed = context.to_devices.send(device); // fails only while the process ends
        }
        Kind::Site => {
            let site = ObjectRef::new(&waiting.name).within(&names::namespace(&waiting.group));
            let _closed = context.to_sites.send(site); // fails only while the process ends
        }
    }
}

fn measure(context: &Context) {
    let (waiting, oldest) = context.journal.backlog();
    let age = oldest.map(|oldest| context.clock.now().duration_since(oldest).as_secs_f64().max(0.0));
    context.metrics.history_backlog(waiting, age.unwrap_or_default());
}
