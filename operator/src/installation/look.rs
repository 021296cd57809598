//! Looks at what the chart has installed.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tsujiban_api::names::{CONFIGMAP_POLICIES, POLICY_CHANGED_BY};
use tsujiban_core::error::chain;

use super::policies::{Fault, Wanted, Wrong};
use super::recorded::{self, Memory};
use super::stamps::Sight;
use super::{Installation, Policies, Workload};
use crate::apply::{ApplyError, failed};
use crate::context::Context;

const EVERY: Duration = Duration::from_secs(20);
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// The key of the ConfigMap with the policies as the chart has them.
const KEY: &str = "policies.json";

/// What could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Read(#[from] ApplyError),
    #[error("key policies.json of ConfigMap tsujiban-policies is not what the chart writes")]
    Text(#[source] serde_json::Error),
}

/// Looks for ever.
pub async fn run(context: Arc<Context>, installation: watch::Sender<Installation>) {
    let mut watching = loop {
        match Watching::begin(&context).await {
            Ok(watching) => break watching,
            Err(error) => {
                tracing::warn!(error = chain(&error), "what the operator before this one knew could not be read; trying again in 5 s");
            }
        }
        sleep(AFTER_ERROR).await;
    };
    loop {
        if let Err(error) = watching.round(&context, &installation).await {
            tracing::warn!(error = chain(&error), "what the chart has installed could not be looked at; trying again in 20 s");
        }
        sleep(EVERY).await;
    }
}

/// What is known between two looks.
#[derive(Debug)]
pub struct Watching {
    memory: Memory,
    faults: Option<Vec<Fault>>,
}

impl Watching {
    /// Takes up what the operator before this one knew.
    pub async fn begin(context: &Context) -> Result<Self, ApplyError> {
        let memory = Memory::read(context).await?;
        context.stamps.restore(memory.stamps.clone());
        Ok(Self { memory, faults: None })
    }

    /// One look, and what follows from it.
    pub async fn round(&mut self, context: &Context, installation: &watch::Sender<Installation>) -> Result<(), LookError> {
        let seen = self.look(context).await?;
        if seen.policies.is_some() {
            context.metrics.policies_in_force.set(i64::from(seen.policies_are_in_force()));
        }
        for (service, workload) in &seen.workloads {
            context.metrics.service_installed(*service, *workload == Workload::Standing);
        }
        installation.send_if_modified(|known| std::mem::replace(known, seen.clone()) != seen);
        recorded::settle(context, &seen, &mut self.memory).await;
        Ok(())
    }

    /// A fault counts when the look before saw it, too.
    async fn look(&mut self, context: &Context) -> Result<Installation, LookError> {
        let mut seen = Installation::default();
        for client in context.services.all() {
            seen.workloads.insert(client.service, workload(context, client.service.row().host).await?);
        }
        let mut now = Vec::new();
        match wanted(context).await? {
            Some(wanted) => {
                for wanted in &wanted {
                    let live = live(context, wanted).await?;
                    now.extend(wanted.fault(live.as_ref().map(spec)));
                }
            }
            None => now.push(Fault { object: format!("ConfigMap {CONFIGMAP_POLICIES}"), wrong: Wrong::Missing }),
        }
        if context.stamps.are_made() {
            confirm(context).await?;
        }
        let before = self.faults.replace(now.clone());
        if before.is_some() || now.is_empty() {
            let was_wrong = |fault: &Fault| before.iter().flatten().any(|known| known.object == fault.object);
            seen.policies = Some(Policies { faults: now.into_iter().filter(was_wrong).collect() });
        }
        Ok(seen)
    }
}

async fn workload(context: &Context, name: &str) -> Result<Workload, ApplyError> {
    let namespace = &context.platform.system_namespace;
    let api: Api<StatefulSet> = Api::namespaced(context.client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(failed::<StatefulSet>("read", Some(namespace), name))?;
    Ok(match found {
        None => Workload::Missing,
        Some(found) if found.spec.replicas == Some(0) => Workload::ScaledDown,
        Some(_) => Workload::Standing,
    })
}

/// The policies as the chart has them; `None` without the ConfigMap that says so.
async fn wanted(context: &Context) -> Result<Option<Vec<Wanted>>, LookError> {
    let namespace = &context.platform.system_namespace;
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let found = api.get_opt(CONFIGMAP_POLICIES).await.map_err(failed::<ConfigMap>("read", Some(namespace), CONFIGMAP_POLICIES))?;
    let text = found.and_then(|mut found| found.data.as_mut()?.remove(KEY));
    text.map(|text| Wanted::parse(&text).map_err(LookError::Text)).transpose()
}

async fn live(context: &Context, wanted: &Wanted) -> Result<Option<DynamicObject>, ApplyError> {
    let resource = wanted.resource();
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
    let failed = |source| ApplyError::Api { verb: "read", what: format!("{} {}", resource.kind, wanted.name), source: Box::new(source) };
    api.get_opt(&wanted.name).await.map_err(failed)
}

fn spec(object: &DynamicObject) -> &Value {
    object.data.get("spec").unwrap_or(&Value::Null)
}

/// Looks at what stamps, so that it is known of all that was changed before whether its stamp is believed.
pub async fn confirm(context: &Context) -> Result<(), LookError> {
    let all = wanted(context).await?.unwrap_or_default();
    let policy = sight(context, &all, "MutatingAdmissionPolicy").await?;
    let binding = sight(context, &all, "MutatingAdmissionPolicyBinding").await?;
    let both = policy.zip(binding).map(|(policy, binding)| [policy, binding]);
    context.stamps.look(both.as_ref(), context.clock.now());
    Ok(())
}

/// The policy that stamps, or its binding, when it stands as the chart has it.
async fn sight(context: &Context, all: &[Wanted], kind: &str) -> Result<Option<Sight>, ApplyError> {
    let Some(wanted) = all.iter().find(|wanted| wanted.is(kind, POLICY_CHANGED_BY)) else { return Ok(None) };
    let live = live(context, wanted).await?.filter(|live| wanted.fault(Some(spec(live))).is_none());
    Ok(live.map(|live| Sight {
        uid: live.uid().unwrap_or_default(),
        generation: live.metadata.generation,
        created: live.creation_timestamp().map(|time| time.0),
    }))
}
