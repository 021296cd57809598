//! C5: what is done is in the operation history, whoever did it and however; also what was done while nobody could write it there.

#![allow(clippy::indexing_slicing)] // of JSON: what is not there is null

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;
use tsujiban_api::Site;
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::calls::{AUDIT, BACKUP, Caller};
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::{SOON, stays, until};
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
    recorded(&stage, "recorded", &["Tenant CREATE", "Site CREATE", "Device CREATE"]).await?;
    group.apply(json!({"displayName": "改名"})).await?;
    let sites: Api<Site> = Api::namespaced(stage.client.clone(), &group.namespace);
    sites.patch("hq", &PatchParams::default(), &Patch::Merge(&json!({"spec": {"displayName": "支社"}}))).await?;
    group.device("core-1", "REC-1", json!({"host": "172.20.91.12"})).await?;
    recorded(&stage, "recorded", &["Tenant OPERATE", "Site OPERATE", "Device OPERATE"]).await?;
    group.devices().delete("core-1", &DeleteParams::default()).await?;
    sites.delete("hq", &DeleteParams::default()).await?;
    let all = recorded(&stage, "recorded", &["Site DELETE", "Device DELETE"]).await?;
    for entry in &all {
        let by = text(&entry["actor"], "kind");
        let wanted = if text(entry, "operation") == "DELETE" { "unknown" } else { "kubernetes" };
        ensure!(by == wanted, "{entry}");
    }
    group.erase().await?;
    // the group's history goes as its days pass, and tells of the group's end until then
    recorded(&stage, "recorded", &["Tenant DELETE"]).await?;
    Ok(())
}

/// Waits until each of these stands once in a group's history. Answers all that was observed.
async fn recorded(stage: &Stage, group: &str, wanted: &[&str]) -> Result<Vec<Value>> {
    until(&format!("{wanted:?} are in the history"), SOON, || async {
        let mut found = entries(stage, group, &[]).await?;
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
        // no secret is revealed that nobody will know of; what hides them goes on
        for reveal in
            [&["snapshots", "show", "unheard", newest, "--reveal"][..], &["snapshots", "diff", "unheard", "--device", "core-1", "--reveal"]]
        {
            let refused = stage.tsujiban(reveal).await?;
            ensure!(refused.code != 0 && refused.out.is_empty() && refused.err.contains("tsujiban-audit"), "{refused:?}");
        }
        stage.tsujiban(&["snapshots", "show", "unheard", newest]).await?.ok()?;
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
        let revealing: Vec<_> = found.iter().filter(|entry| entry["detail"]["reveals"] == "true").collect();
        ensure!(revealing.len() == 2 && revealing.iter().all(|entry| text(entry, "result") == "FAILED"), "{revealing:?}");
        let deletions = found.iter().filter(|entry| text(entry, "phase") == "OBSERVED" && text(entry, "operation") == "DELETE").count();
        ensure!(deletions == 1, "{deletions} deletions");
        Ok(Some(()))
    })
    .await?;
    drop(router);
    group.erase().await
}

/// C5: an auditor needs a file, a checkpoint and the key. A volume in whose place an older copy is put is noticed, and what it lacks comes back
/// from the bucket: every checkpoint that was given out still holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_judged_and_comes_back_from_the_bucket() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    let group = Group::create(&stage, "judged", 95).await?;
    recorded(&stage, "judged", &["Tenant CREATE"]).await?;
    let auditor = Auditor { stage: &stage, folder: tempfile::tempdir()?, key: stage.history_key().await? };
    auditor.export("before").await?;
    let verdict = auditor.judge("before", &["before"]).await?;
    ensure!(verdict["verdict"] == "intact" && verdict["gaps"] == 0, "{verdict}");

    scale(&stage, 0).await?;
    let (volume, copy) = (volume(&stage).await?, auditor.folder.path().join("volume"));
    duplicate(&volume, &copy)?;
    scale(&stage, 1).await?;
    group.apply(json!({"displayName": "失われた変更"})).await?;
    recorded(&stage, "judged", &["Tenant OPERATE"]).await?;
    auditor.export("lost").await?;
    let newest = newest_list(&stage)?;
    until("the roots are in the bucket", Duration::from_mins(3), || async { Ok((newest_list(&stage)? > newest).then_some(())) }).await?;
    scale(&stage, 0).await?;
    fs::remove_dir_all(&volume)?;
    duplicate(&copy, &volume)?;
    stage.kubectl(&["scale", "statefulset/tsujiban-audit", "-n", SYSTEM_NAMESPACE, "--replicas=1"]).await?.ok()?;

    stage.rolled_out("statefulset/tsujiban-audit").await?;
    recorded(&stage, "judged", &["Tenant OPERATE"]).await?;

    group.apply(json!({"displayName": "その後の変更"})).await?;
    recorded(&stage, "judged", &["Tenant OPERATE"]).await?;
    auditor.export("after").await?;
    let verdict = auditor.judge("after", &["before", "lost", "after"]).await?;
    ensure!(verdict["verdict"] == "intact" && verdict["gaps"] == 0, "{verdict}");
    // what a file says is not what was signed
    let path = auditor.path("after.jsonl");
    let text = fs::read_to_string(&path)?;
    let left_out = text.lines().nth(2).context("an entry")?;
    fs::write(&path, text.replacen(&format!("{left_out}\n"), "", 1))?;
    let verdict = auditor.judge("after", &["after"]).await?;
    ensure!(verdict["verdict"] == "tampered", "{verdict}");
    group.erase().await
}

/// Whoever judges a history, with what an auditor has.
struct Auditor<'a> {
    stage: &'a Stage,
    folder: TempDir,
    key: String,
}

impl Auditor<'_> {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// Exports the history of group `judged`, with a checkpoint of the same name.
    async fn export(&self, name: &str) -> Result<()> {
        let (file, checkpoint) = (self.path(&format!("{name}.jsonl")), self.path(&format!("{name}.checkpoint")));
        self.stage.tsujiban(&["audit", "export", "judged", "--output", &file, "--save-checkpoint", &checkpoint]).await?.ok()?;
        Ok(())
    }

    async fn judge(&self, export: &str, checkpoints: &[&str]) -> Result<Value> {
        let (file, checkpoints) =
            (self.path(&format!("{export}.jsonl")), checkpoints.iter().map(|name| self.path(&format!("{name}.checkpoint"))));
        let mut command = vec!["audit".to_owned(), "verify".to_owned(), file, "--key".to_owned(), self.key.clone()];
        command.extend(checkpoints.flat_map(|path| ["--checkpoint".to_owned(), path]));
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        self.stage.tsujiban(&command).await?.json()
    }
}

/// Where the audit service's volume lies.
async fn volume(stage: &Stage) -> Result<PathBuf> {
    let claim = ["get", "persistentvolumeclaim", "data-tsujiban-audit-0", "-n", SYSTEM_NAMESPACE, "-o", "json"];
    let claim = stage.kubectl(&claim).await?.ok()?.json()?;
    Ok(stage.state.join("volumes").join(claim["spec"]["volumeName"].as_str().context("the claim has no volume")?))
}

/// Copies a folder, owners and rights included.
fn duplicate(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("--archive").args([from, to]).status()?;
    ensure!(copied.success(), "cp {} {}: {copied}", from.display(), to.display());
    Ok(())
}

/// The number of the newest root list, as the name of its object.
fn newest_list(stage: &Stage) -> Result<String> {
    let lists = fs::read_dir(stage.state.join("s3/objects/tsujiban-audit/roots"))?;
    let names = lists.map(|list| Ok(list?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.into_iter().max().context("no root list yet")
}

/// How many audit services there are, and waits for it.
async fn scale(stage: &Stage, replicas: u32) -> Result<()> {
    let (wanted, reached) = (format!("--replicas={replicas}"), format!("--for=jsonpath={{.status.replicas}}={replicas}"));
    stage.kubectl(&["scale", "statefulset/tsujiban-audit", "-n", SYSTEM_NAMESPACE, &wanted]).await?.ok()?;
    stage.kubectl(&["wait", "statefulset/tsujiban-audit", "-n", SYSTEM_NAMESPACE, &reached, "--timeout=60s"]).await?.ok()?;
    stage.rolled_out("statefulset/tsujiban-audit").await
}
