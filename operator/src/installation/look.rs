//! Checks what the chart has installed.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tsujiban_api::names::{CONFIGMAP_POLICIES, POLICY_CHANGED_BY};
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;

use super::chart::{Chart, LookError};
use super::policies::{Fault, Wanted, Wrong};
use super::recorded::Memory;
use super::stamps::{Sight, Stamps};
use super::{Installation, Policies, Workload};
use crate::apply::ApplyError;
use crate::history::PlatformLog;
use crate::metrics::Metrics;
use crate::services::Services;

const EVERY: Duration = Duration::from_secs(20);
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// What a check needs.
pub struct Inspector {
    pub chart: Chart,
    pub services: Arc<Services>,
    pub stamps: Arc<Stamps>,
    pub log: PlatformLog,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

/// Checks for ever.
pub async fn run(inspector: Inspector, installation: watch::Sender<Installation>) {
    let mut watching = loop {
        match Watching::begin(&inspector).await {
            Ok(watching) => break watching,
            Err(error) => {
                tracing::warn!(error = chain(&error), "what the operator before this one knew could not be read; trying again in 5 s");
            }
        }
        sleep(AFTER_ERROR).await;
    };
    loop {
        if let Err(error) = watching.round(&inspector, &installation).await {
            tracing::warn!(error = chain(&error), "what the chart has installed could not be looked at; trying again in 20 s");
        }
        sleep(EVERY).await;
    }
}

/// What is kept between two checks.
#[derive(Debug)]
pub struct Watching {
    memory: Memory,
    faults: Option<Vec<Fault>>,
}

impl Watching {
    /// Restores what the previous operator process stored.
    pub async fn begin(inspector: &Inspector) -> Result<Self, ApplyError> {
        let memory = Memory::read(&inspector.chart).await?;
        inspector.stamps.restore(memory.stamps.clone());
        Ok(Self { memory, faults: None })
    }

    /// Makes one check, publishes its result and records changes.
    pub async fn round(&mut self, inspector: &Inspector, installation: &watch::Sender<Installation>) -> Result<(), LookError> {
        let seen = self.look(inspector).await?;
        if seen.policies.is_some() {
            inspector.metrics.policies_in_force.set(i64::from(seen.policies_are_in_force()));
        }
        for (service, workload) in &seen.workloads {
            inspector.metrics.service_installed(*service, *workload == Workload::Standing);
        }
        installation.send_if_modified(|known| std::mem::replace(known, seen.clone()) != seen);
        self.memory.settle(&inspector.chart, &inspector.log, inspector.stamps.known(), &seen).await;
        Ok(())
    }

    /// A fault counts only if the previous check found it as well.
    async fn look(&mut self, inspector: &Inspector) -> Result<Installation, LookError> {
        let (chart, mut seen) = (&inspector.chart, Installation::default());
        for client in inspector.services.all() {
            seen.workloads.insert(client.service, chart.workload(client.service.row().host).await?);
        }
        let mut now = Vec::new();
        match chart.policies().await? {
            Some(wanted) => {
                for wanted in &wanted {
                    let live = chart.live(wanted).await?;
                    now.extend(wanted.fault(live.as_ref().map(spec)));
                }
            }
            None => now.push(Fault { object: format!("ConfigMap {CONFIGMAP_POLICIES}"), wrong: Wrong::Missing }),
        }
        if inspector.stamps.are_made() {
            confirm(chart, &inspector.stamps, &*inspector.clock).await?;
        }
        let before = self.faults.replace(now.clone());
        if before.is_some() || now.is_empty() {
            let was_wrong = |fault: &Fault| before.iter().flatten().any(|known| known.object == fault.object);
            seen.policies = Some(Policies { faults: now.into_iter().filter(was_wrong).collect() });
        }
        Ok(seen)
    }
}

fn spec(object: &DynamicObject) -> &Value {
    object.data.get("spec").unwrap_or(&Value::Null)
}

/// Reads the policy that stamps and its binding. After that, [`Stamps`] can decide whether to trust the stamp of any earlier change.
pub async fn confirm(chart: &Chart, stamps: &Stamps, clock: &dyn Clock) -> Result<(), LookError> {
    let all = chart.policies().await?.unwrap_or_default();
    let policy = sight(chart, &all, "MutatingAdmissionPolicy").await?;
    let binding = sight(chart, &all, "MutatingAdmissionPolicyBinding").await?;
    let both = policy.zip(binding).map(|(policy, binding)| [policy, binding]);
    stamps.look(both.as_ref(), clock.now());
    Ok(())
}

/// The policy that stamps, or its binding; `None` if it differs from the chart.
async fn sight(chart: &Chart, all: &[Wanted], kind: &str) -> Result<Option<Sight>, ApplyError> {
    let Some(wanted) = all.iter().find(|wanted| wanted.is(kind, POLICY_CHANGED_BY)) else { return Ok(None) };
    let live = chart.live(wanted).await?.filter(|live| wanted.fault(Some(spec(live))).is_none());
    Ok(live.map(|live| Sight {
        uid: live.uid().unwrap_or_default(),
        generation: live.metadata.generation,
        created: live.creation_timestamp().map(|time| time.0),
    }))
}
