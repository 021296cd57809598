//! From the version before to this one and back, while routers are backed up. Run by `make upgrade-test`, which installs the version
//! before.

#![allow(clippy::indexing_slicing)] // of JSON, where what is absent is null

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tsujiban_api::{Site, names};
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::until;

const GROUP: &str = "upgrade";
const DEVICES: [&str; 2] = ["core-1", "core-2"];
const RECOVERY: &str = include_str!("../../../docs/recovery.md");
/// How soon a Site goes that is deleted while nobody has to wait for it.
const SITE_GOES: Duration = Duration::from_mins(1);

/// One collection under load, from its start to its end.
#[derive(Debug)]
struct Run {
    from: Instant,
    to: Instant,
    /// What was wrong; `None` when every device's config was stored.
    wrong: Option<String>,
}

impl Run {
    fn overlaps(&self, (from, to): (Instant, Instant)) -> bool {
        self.from < to && from < self.to
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_version_before_and_back_under_a_running_collection() -> Result<()> {
    let stage = Arc::new(Stage::find().await?);
    let group = Group::create(&stage, GROUP, 60).await?;
    let mut routers = Vec::new();
    for (number, name) in DEVICES.iter().enumerate() {
        let address = format!("172.20.60.{}", 11 + number);
        group.device(name, &format!("UP-{number}"), json!({"host": address})).await?;
        let key = group.public_key(name).await?;
        routers.push(Router::up(&stage, &format!("up-{number}"), &address, &Login::Key(&key))?);
    }
    group.back_up().await?.ok()?;
    for name in DEVICES {
        group.attempt(name, "Changed").await?;
    }
    let before = kept(&stage).await?;
    let versions = |image: &str| image.rsplit_once(':').map(|(_, tag)| tag.to_owned()).unwrap_or_default();
    let old = versions(&operator_image(&stage).await?);

    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(collect(Arc::clone(&stage), routers, Arc::clone(&stop)));
    let upgraded = under_load(&stage, Command::new(stage.checkout.join("e2e/deploy"))).await?;
    let new = versions(&operator_image(&stage).await?);
    ensure!(new != old, "the upgrade changed nothing: both versions have image {new}");
    settled(&group).await?;
    // what the version before does not know of
    stage.kubectl(&["wait", "site/hq", "-n", &group.namespace, "--for=condition=Ready", "--timeout=60s"]).await?.ok()?;
    ensure!(finalizers(&stage, &group).await?.contains(names::FINALIZER), "Site hq is not held after the upgrade");
    let after_upgrade = kept(&stage).await?;
    let mut back = Command::new("sh");
    let roll =
        "helm rollback tsujiban --namespace tsujiban-system --wait --timeout 3m && helm rollback tsujiban-crds --namespace tsujiban-system";
    back.args(["-c", roll]);
    let rolled_back = under_load(&stage, back).await?;
    ensure!(versions(&operator_image(&stage).await?) == old, "the rollback brought another version than {old}");
    settled(&group).await?;
    stop.store(true, Ordering::Relaxed);
    let runs = load.await??;

    for (what, time) in [("the upgrade", upgraded), ("the rollback", rolled_back)] {
        ensure!(runs.iter().any(|run| run.overlaps(time)), "no collection ran during {what}: {runs:?}");
    }
    let wrong: Vec<&Run> = runs.iter().filter(|run| run.wrong.is_some()).collect();
    ensure!(wrong.is_empty(), "{} of {} collections lost something: {wrong:?}", wrong.len(), runs.len());
    assert_eq!(after_upgrade, before, "the upgrade");
    assert_eq!(kept(&stage).await?, before, "the rollback");
    // each run changed each router: every change is there, once, and can be read
    site_goes_after_the_way_back(&stage, &group).await?;
    let snapshots = stage.snapshots(GROUP).await?;
    assert_eq!(snapshots.len(), DEVICES.len() * (runs.len() + 1), "{} runs", runs.len());
    stage.tsujiban(&["snapshots", "verify", GROUP, "--all"]).await?.ok()?;
    println!("{} collections, {} snapshots, upgrade {:?}, rollback {:?}", runs.len(), snapshots.len(), took(upgraded), took(rolled_back));
    group.erase().await
}

async fn finalizers(stage: &Stage, group: &Group<'_>) -> Result<String> {
    Ok(stage.kubectl(&["get", "site/hq", "-n", &group.namespace, "-o", "jsonpath={.metadata.finalizers}"]).await?.ok()?.out)
}

/// The version before takes no finalizer off a Site: the commands of docs/recovery.md do, and then Sites go as they did.
async fn site_goes_after_the_way_back(stage: &Stage, group: &Group<'_>) -> Result<()> {
    let section = RECOVERY.split_once("## Going back to 0.1.x").context("the heading in docs/recovery.md")?.1;
    let block = section.split_once("```\n").and_then(|(_, rest)| rest.split_once("```")).context("its commands")?.0;
    let commands = block.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", &commands]).output()?;
    ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(finalizers(stage, group).await?.is_empty(), "Site hq has a finalizer still");
    let sites: kube::Api<Site> = kube::Api::namespaced(stage.client.clone(), &group.namespace);
    sites.delete("hq", &DeleteParams::default()).await?;
    until("Site hq has gone", SITE_GOES, || async { Ok(sites.get_opt("hq").await?.is_none().then_some(())) }).await
}

fn took((from, to): (Instant, Instant)) -> Duration {
    to - from
}

/// Changes every router and backs all of them up, again and again.
async fn collect(stage: Arc<Stage>, routers: Vec<Router>, stop: Arc<AtomicBool>) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for router in &routers {
            router.configure(&["interface lo", &format!("description run {}", runs.len())])?;
        }
        let from = Instant::now();
        let answer = stage.tsujiban(&["backup", "now", GROUP]).await?;
        let wrong = (answer.code != 0).then(|| format!("exit code {}: {}{}", answer.code, answer.out, answer.err));
        runs.push(Run { from, to: Instant::now(), wrong });
    }
    Ok(runs)
}

/// Runs a command while the load goes on.
async fn under_load(stage: &Stage, mut command: Command) -> Result<(Instant, Instant)> {
    // a collection that is certainly under way
    tokio::time::sleep(Duration::from_secs(2)).await;
    let from = Instant::now();
    command.env("TSUJIBAN_CLUSTER_STATE", &stage.state).env_remove("RUST_LOG");
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("the command of the upgrade")?;
    ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((from, Instant::now()))
}

/// Waits until the version that runs now has taken the group up.
async fn settled(group: &Group<'_>) -> Result<()> {
    // a change that only the version that runs now can have seen
    let tenant = group.tenants().get(&group.name).await?;
    let cpu = if tenant.spec.quota.cpu == "2" { "3" } else { "2" };
    group.apply(json!({"quota": {"cpu": cpu}})).await?;
    group.condition("Ready", "True").await.map(|_| ())
}

async fn operator_image(stage: &Stage) -> Result<String> {
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    let answer = stage.kubectl(&["get", "deployment", "tsujiban-operator", "-n", names::SYSTEM_NAMESPACE, "-o", path]).await?.ok()?;
    Ok(answer.out)
}

/// What must be the same before and after: who is who, every key, every pinned host key.
async fn kept(stage: &Stage) -> Result<BTreeMap<String, Value>> {
    let mut kept = BTreeMap::new();
    let objects = until("the apiserver answers", Duration::from_mins(1), || async {
        Ok(Some(stage.kubectl(&["get", "tenants,sites,devices,namespaces,secrets", "-A", "-o", "json"]).await?.ok()?.json()?))
    })
    .await?;
    for object in objects["items"].as_array().context("no list")? {
        let (kind, metadata) = (object["kind"].as_str().context("kind")?, &object["metadata"]);
        let name = metadata["name"].as_str().context("name")?;
        let is_key = ["tsujiban-master-key", "tsujiban-epoch-keys"].contains(&name);
        let place = metadata["namespace"].as_str().unwrap_or(name);
        if place == format!("tn-{GROUP}") || kind == "Tenant" || is_key {
            let incarnation = &metadata["annotations"]["tsujiban.dev/incarnation"];
            let what = json!({"uid": metadata["uid"], "incarnation": incarnation, "data": object["data"], "hostKey": object["status"]["observedHostKey"]});
            kept.insert(format!("{kind} {place}/{name}"), what);
        }
    }
    Ok(kept)
}
