//! C5: what is done is in the operation history, whoever did it and however; also what was done while nobody could write it there.

#![allow(clippy::indexing_slicing)] // of JSON: what is not there is null

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tonic::Code;
use tsujiban_api::Site;
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::calls::{AUDIT, BACKUP, Caller};
use tsujiban_e2e::manifests::{Group, SOON};
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::{stays, until};
use tsujiban_proto::access::v1::History;
use tsujiban_proto::rules::Rules;

/// A member of staff who may list, and nothing else.
const GUEST: &str = "guest";

/// What is in a history, newest first.
async fn entries(stage: &Stage, whose: &str, more: &[&str]) -> Result<Vec<Value>> {
    let command = [&["audit", "list", whose, "--limit", "5000"], more].concat();
    let answer = stage.tsujiban(&command).await?.ok()?.json()?;
    Ok(answer["entries"].as_array().context("no entries")?.clone())
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

/// Every method of every contract, called by somebody who may do next to nothing: whatever comes of it, it is in the history. The methods are
/// those of the contracts; a new one is called here without anybody writing it down.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_every_service_is_in_the_history() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let rules = Rules::load()?;
    let mut methods = BTreeSet::new();
    let mut ended = BTreeSet::new();
    // the lifecycle is every service's
    for (service, contracts) in [(BACKUP, ["tsujiban.backup.", "tsujiban.lifecycle."]), (AUDIT, ["tsujiban.audit.", "tsujiban.lifecycle."])]
    {
        let caller = Caller::staff(&stage, service, GUEST).await?;
        for (path, rule) in rules.iter() {
            if contracts.iter().any(|contract| path.trim_start_matches('/').starts_with(contract)) {
                let code = caller.call(path).await?;
                ensure!(!matches!(code, Code::Unauthenticated | Code::Unimplemented), "{path} of {}: {code:?}", service.0);
                ended.insert(format!("{code:?}"));
                if rule.history() != History::None {
                    methods.insert(path.trim_start_matches('/').to_owned());
                }
            }
        }
    }
    ensure!(methods.len() > 20 && ended.len() > 1, "{} methods were called, which ended {ended:?}", methods.len());
    until("every call is in the history", SOON, || async {
        let found = entries(&stage, "--platform", &["--actor", GUEST]).await?;
        let found: BTreeSet<_> = found.iter().map(|entry| format!("{}/{}", text(entry, "service"), text(entry, "method"))).collect();
        let missing: Vec<_> = methods.difference(&found).collect();
        ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(Some(()))
    })
    .await
}

/// Every kind that people declare: created, changed, deleted, by whom, once each.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_declared_is_in_the_history() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "recorded", 91).await?;
    group.device("core-1", "REC-1", json!({"host": "172.20.91.11"})).await?;
    group.public_key("core-1").await?;
    // one edit each, once what was before is in the history, so that none are merged
    recorded(&stage, &["Tenant CREATE", "Site CREATE", "Device CREATE"]).await?;
    group.apply(json!({"displayName": "改名"})).await?;
    let sites: Api<Site> = Api::namespaced(stage.client.clone(), &group.namespace);
    sites.patch("hq", &PatchParams::default(), &Patch::Merge(&json!({"spec": {"displayName": "支社"}}))).await?;
    group.device("core-1", "REC-1", json!({"host": "172.20.91.12"})).await?;
    recorded(&stage, &["Tenant OPERATE", "Site OPERATE", "Device OPERATE"]).await?;
    group.devices().delete("core-1", &DeleteParams::default()).await?;
    sites.delete("hq", &DeleteParams::default()).await?;
    let all = recorded(&stage, &["Site DELETE", "Device DELETE"]).await?;
    for entry in &all {
        let by = text(&entry["actor"], "kind");
        let wanted = if text(entry, "operation") == "DELETE" { "unknown" } else { "kubernetes" };
        ensure!(by == wanted, "{entry}");
    }
    group.erase().await?;
    // the group's history goes as its days pass, and tells of the group's end until then
    recorded(&stage, &["Tenant DELETE"]).await?;
    Ok(())
}

/// Waits until just these stand in the history of group `recorded` besides what was there, each once. Answers all that was observed.
async fn recorded(stage: &Stage, wanted: &[&str]) -> Result<Vec<Value>> {
    until(&format!("{wanted:?} are in the history"), SOON, || async {
        let mut found = entries(stage, "recorded", &[]).await?;
        found.retain(|entry| text(entry, "phase") == "OBSERVED");
        let words: Vec<String> = found.iter().map(|entry| format!("{} {}", text(entry, "method"), text(entry, "operation"))).collect();
        for word in wanted {
            let times = words.iter().filter(|found| found == word).count();
            ensure!(times == 1, "{word} stands there {times} times: {words:?}");
        }
        Ok(Some(found))
    })
    .await
}

/// C5: while the history cannot be written, what must not happen unrecorded does not, and says why; backups go on; and afterwards all of it is
/// there, once.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_history_stops_what_must_not_happen_unrecorded() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    let group = Group::create(&stage, "unheard", 92).await?;
    group.device("core-1", "UNH-1", json!({"host": "172.20.92.11"})).await?;
    let router = Router::up(&stage, "unh-1", "172.20.92.11", &Login::Key(&group.public_key("core-1").await?))?;
    group.back_up().await?.ok()?;
    group.attempt("core-1", "Changed").await?;
    router.configure(&["interface lo", "description while nobody writes it down"])?;

    scale(&stage, 0).await?;
    let outage = async {
        group.back_up().await?.ok()?;
        let newest = stage.snapshots("unheard").await?;
        let newest = newest.first().and_then(|snapshot| snapshot["id"].as_str()).context("a snapshot")?;
        let refused = stage.tsujiban(&["snapshots", "acknowledge", "unheard", newest]).await?;
        ensure!(refused.code != 0 && refused.err.contains("tsujiban-audit"), "it says what to do: {refused:?}");
        // nothing of a deletion happens before it is in the history
        group.devices().delete("core-1", &DeleteParams::default()).await?;
        stays("the device and its data wait", Duration::from_secs(20), || async {
            let device = group.devices().get_opt("core-1").await?.context("it has gone")?;
            ensure!(device.metadata.deletion_timestamp.is_some(), "it is being deleted");
            ensure!(stage.snapshots("unheard").await?.len() == 2, "its data is there");
            Ok(())
        })
        .await
    }
    .await;
    scale(&stage, 1).await?;
    outage?;

    until("the device has gone", SOON, || async { Ok(group.devices().get_opt("core-1").await?.is_none().then_some(())) }).await?;
    let once = |found: &[Value], method: &str, phase: &str| {
        found.iter().filter(|entry| text(entry, "method") == method && text(entry, "phase") == phase).count()
    };
    until("all of it is in the history, once", SOON, || async {
        let found = entries(&stage, "unheard", &["--intents"]).await?;
        let ids: BTreeSet<_> = found.iter().map(|entry| (text(entry, "id"), text(entry, "phase"))).collect();
        ensure!(ids.len() == found.len(), "an entry is there twice");
        let stored = once(&found, "PutSnapshot", "OUTCOME");
        ensure!(stored == 2, "two snapshots were stored, and {stored} are recorded");
        let refused: Vec<_> = found.iter().filter(|entry| text(entry, "method") == "AcknowledgeSnapshot").collect();
        ensure!(refused.len() == 1 && text(refused[0], "reason") == "HISTORY_UNAVAILABLE", "{refused:?}");
        let deletions = found.iter().filter(|entry| text(entry, "phase") == "OBSERVED" && text(entry, "operation") == "DELETE").count();
        ensure!(deletions == 1, "{deletions} deletions");
        Ok(Some(()))
    })
    .await?;
    drop(router);
    group.erase().await
}

/// How many audit services there are, and waits for it.
async fn scale(stage: &Stage, replicas: u32) -> Result<()> {
    let (wanted, reached) = (format!("--replicas={replicas}"), format!("--for=jsonpath={{.status.replicas}}={replicas}"));
    stage.kubectl(&["scale", "statefulset/tsujiban-audit", "-n", SYSTEM_NAMESPACE, &wanted]).await?.ok()?;
    stage.kubectl(&["wait", "statefulset/tsujiban-audit", "-n", SYSTEM_NAMESPACE, &reached, "--timeout=60s"]).await?.ok()?;
    stage.kubectl(&["rollout", "status", "statefulset/tsujiban-audit", "-n", SYSTEM_NAMESPACE, "--timeout=120s"]).await?.ok()?;
    Ok(())
}
