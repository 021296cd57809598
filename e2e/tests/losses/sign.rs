//! Looks whether something is seen.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tsujiban_core::workload::{Service, Workload};
use tsujiban_e2e::stage::Answer;

use crate::node::{logs, metrics, pod, sum};
use crate::row::Sign;
use crate::scene::Scene;
use crate::volume;

/// How much of a time stands before its fractions of a second.
const SECONDS: usize = 19;

/// Passes when a sign is there. `since` is when the row began. The error says what is there instead.
pub async fn look(scene: &mut Scene, sign: Sign, since: &str) -> Result<()> {
    match sign {
        Sign::Condition(kind, status, reason) => {
            let tenant = scene.group.tenants().get(&scene.group.name).await?;
            let conditions = tenant.status.map(|status| status.conditions).unwrap_or_default();
            condition(&conditions, kind, status, reason)
        }
        Sign::Device(kind, status) => {
            let device = scene.group.devices().get("core-1").await?;
            condition(&device.status.map(|status| status.conditions).unwrap_or_default(), kind, status, "")
        }
        Sign::Metric(workload, name, wanted) => {
            let value = sum(&metrics(scene.stage, workload).await?, name).with_context(|| format!("{name} is not exported"))?;
            ensure!(wanted.holds(value), "{name} is {value}, and {wanted:?} is wanted");
            Ok(())
        }
        Sign::Log(workload, words) => {
            let said = logs(scene.stage, workload, since).await?.to_lowercase();
            ensure!(said.contains(words), "{workload:?} says nothing of {words:?}");
            Ok(())
        }
        Sign::Cli(command, code, words) => says(&scene.tsujiban(command).await?, code, words),
        Sign::Ready(service) => ensured(is_ready(scene, service).await?, &format!("{} is not ready", service.row().host)),
        Sign::NotReady(service) => ensured(!is_ready(scene, service).await?, &format!("{} is ready", service.row().host)),
        Sign::Checkpointed(service) => {
            let holds = volume::is_checkpointed(scene.stage, service).await?;
            ensured(holds, &format!("the database of {} has a log file beside it", service.row().host))
        }
        Sign::Entry(method, operation) => {
            let group = scene.group.name.clone();
            let found = [scene.entries(&group).await?, scene.entries("--platform").await?].concat();
            let is_new = |entry: &Value| entry["appendedAt"].as_str().is_some_and(|at| at.get(..SECONDS) >= since.get(..SECONDS));
            let there =
                found.iter().filter(|entry| is_new(entry)).any(|entry| entry["method"] == method && entry["operation"] == operation);
            ensured(there, &format!("no entry {method} {operation} since {since}"))
        }
        Sign::Verdict(wanted) => {
            let verdict = scene.verdict().await?;
            ensured(verdict["verdict"] == wanted, &verdict.to_string())
        }
        Sign::SitesRecorded => {
            let found = scene.entries(&scene.group.name.clone()).await?;
            for operation in ["CREATE", "DELETE"] {
                let of_sites = found.iter().filter(|entry| entry["method"] == "Site" && entry["operation"] == operation);
                let targets: Vec<&str> = of_sites.filter_map(|entry| entry["target"].as_str()).collect();
                let missing = scene.sites.iter().filter(|site| targets.iter().filter(|target| target.ends_with(*site)).count() != 1);
                let missing: Vec<_> = missing.collect();
                ensure!(missing.is_empty(), "{operation} of {missing:?} is not in the history once");
            }
            Ok(())
        }
    }
}

fn condition(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    kind: &str,
    status: &str,
    reason: &str,
) -> Result<()> {
    let found = conditions.iter().find(|condition| condition.type_ == kind).with_context(|| format!("there is no condition {kind}"))?;
    let holds = found.status == status && (reason.is_empty() || found.reason == reason);
    ensure!(holds, "{kind} is {} ({}: {}), and {status} {reason} is wanted", found.status, found.reason, found.message);
    Ok(())
}

fn says(answer: &Answer, code: i32, words: &str) -> Result<()> {
    let said = format!("{}{}", answer.out, answer.err);
    ensure!(answer.code == code && said.to_lowercase().contains(&words.to_lowercase()), "exit code {}: {said}", answer.code);
    Ok(())
}

async fn is_ready(scene: &Scene, service: Service) -> Result<bool> {
    let pod = pod(scene.stage, Workload::Service(service)).await?;
    Ok(pod.is_some_and(|pod| pod["status"]["containerStatuses"][0]["ready"] == true))
}

fn ensured(holds: bool, otherwise: &str) -> Result<()> {
    ensure!(holds, "{otherwise}");
    Ok(())
}
