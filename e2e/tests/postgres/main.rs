//! Both services on PostgreSQL: their tables and roles, an upgrade while routers are backed up, a newer release's tables under this one, and tables that
//! are too new. Run by `make test-postgres`, which installs them so.

#![allow(clippy::indexing_slicing)] // of JSON, where what is absent is null

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_core::workload::Service;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::{stays, until};

const DEVICE: &str = "core-1";
/// How long a pod may take to start, to be refused, or to come back.
const START: Duration = Duration::from_mins(3);

/// Both services of an installation on PostgreSQL.
struct Databases<'a> {
    stage: &'a Stage,
}

impl Databases<'_> {
    /// What the superuser is answered, without headings.
    fn ask(&self, database: &str, text: &str) -> Result<String> {
        let mut psql = Command::new(self.stage.checkout.join("e2e/cluster/postgres"));
        psql.arg("--state").arg(&self.stage.state).args(["psql", database, "--tuples-only", "--no-align", "--quiet"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--command", text]);
        let output = psql.output().context("psql")?;
        ensure!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Says in a service's database which version is the oldest that may use its tables.
    fn set_oldest(&self, service: Service, version: &str) -> Result<()> {
        let text = format!("UPDATE meta SET value = '{version}' WHERE name = 'oldest version'");
        self.ask(&database(service), &text).map(drop)
    }
}

fn database(service: Service) -> String {
    format!("tsujiban_{}", service.row().name)
}

async fn restart(stage: &Stage, service: Service) -> Result<()> {
    let workload = format!("statefulset/{}", service.row().host);
    stage.kubectl(&["rollout", "restart", &workload, "-n", SYSTEM_NAMESPACE]).await?.ok()?;
    Ok(())
}

async fn rolled_out(stage: &Stage, service: Service) -> Result<()> {
    let workload = format!("statefulset/{}", service.row().host);
    until(&format!("{workload} is rolled out"), START, || async { Ok(stage.rolled_out(&workload).await.ok()) }).await
}

/// Waits until the init container of a pod says something in its log.
async fn init_says(stage: &Stage, pod: &str, wanted: &str) -> Result<()> {
    until(&format!("the init container of {pod} says {wanted:?}"), START, || async {
        let mut said = String::new();
        for previous in ["--previous=true", "--previous=false"] {
            let answer = stage.kubectl(&["logs", pod, "-n", SYSTEM_NAMESPACE, "-c", "migrate", previous]).await?;
            said.push_str(&answer.out);
        }
        if said.contains(wanted) { Ok(Some(())) } else { bail!("it says: {said}") }
    })
    .await
}

async fn is_ready(stage: &Stage, pod: &str) -> Result<bool> {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    Ok(stage.kubectl(&["get", "pod", pod, "-n", SYSTEM_NAMESPACE, "-o", path]).await?.out == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_services_on_postgresql() -> Result<()> {
    let stage = Arc::new(Stage::find().await?);
    let databases = Databases { stage: &stage };
    // the id of a group that was erased is not free again for a long time
    let id = format!("pg{}", std::process::id());
    let group = Group::create(&stage, &id, 61).await?;
    group.device(DEVICE, &format!("PG-{}", std::process::id()), json!({"host": "172.20.61.11"})).await?;
    let key = group.public_key(DEVICE).await?;
    let router = Arc::new(Router::up(&stage, "pg-1", "172.20.61.11", &Login::Key(&key))?);
    group.back_up().await?.ok()?;
    group.attempt(DEVICE, "Changed").await?;

    roles_are_apart(&databases)?;
    println!("upgrading under a running collection");
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(collect(Arc::clone(&stage), id.clone(), Arc::clone(&router), Arc::clone(&stop)));
    let upgraded = upgrade(&databases).await;
    stop.store(true, Ordering::Relaxed);
    let runs = load.await??;
    upgraded?;
    ensure!(runs > 0, "no collection ran during the upgrade");
    let snapshots = stage.snapshots(&id).await?;
    ensure!(snapshots.len() == runs + 1, "{runs} collections after the first one stored {} snapshots", snapshots.len());
    stage.tsujiban(&["snapshots", "verify", &id, "--all"]).await?.ok()?;
    println!("{runs} collections meanwhile, each change stored once");

    several_refuse_and_one_goes_on(&databases, &id, snapshots.len()).await?;
    one_is_refused_by_name(&databases, &group).await?;
    an_upgrade_is_refused_before_it_begins(&databases, &group).await?;
    history_holds(&stage, &id).await?;
    group.erase().await
}

/// Every pod is replaced; then once more, with the tables of a newer release.
async fn upgrade(databases: &Databases<'_>) -> Result<()> {
    let stage = databases.stage;
    for service in Service::ALL {
        restart(stage, *service).await?;
        rolled_out(stage, *service).await?;
    }
    println!("the tables of a newer release, under this one");
    for service in Service::ALL {
        let name = database(*service);
        databases.ask(
            &name,
            &format!(
                "SET ROLE {name}_owner; CREATE TABLE IF NOT EXISTS later (id BIGINT NOT NULL PRIMARY KEY); \
                 INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9000, 'later', TRUE, '\\x00', 0) ON CONFLICT DO NOTHING"
            ),
        )?;
        restart(stage, *service).await?;
        rolled_out(stage, *service).await?;
    }
    Ok(())
}

/// C5, C22: who connects owns nothing, and does so over TLS.
fn roles_are_apart(databases: &Databases<'_>) -> Result<()> {
    for service in Service::ALL {
        let name = database(*service);
        let users = databases.ask(
            &name,
            "SELECT DISTINCT usename || ' ' || ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE datname = current_database() AND usename <> 'postgres'",
        )?;
        ensure!(users == format!("{name} true"), "connected to {name}: {users}");
        let owners = databases.ask(&name, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")?;
        ensure!(owners == format!("{name}_owner"), "the tables of {name} belong to {owners}");
    }
    let may =
        databases.ask(&database(Service::Audit), "SELECT has_table_privilege('tsujiban_audit', 'entries', 'UPDATE, DELETE, TRUNCATE')")?;
    ensure!(may == "f", "the audit service could change entries: {may}");
    let may = databases.ask("postgres", "SELECT has_database_privilege('tsujiban_backup', 'tsujiban_audit', 'CONNECT')")?;
    ensure!(may == "f", "the backup service may connect to the history: {may}");
    Ok(())
}

/// Changes the router and backs it up, again and again. Answers how often.
async fn collect(stage: Arc<Stage>, group: String, router: Arc<Router>, stop: Arc<AtomicBool>) -> Result<usize> {
    let mut runs = 0;
    while !stop.load(Ordering::Relaxed) {
        router.configure(&["interface lo", &format!("description run {runs}")])?;
        stage.tsujiban(&["backup", "now", &group]).await?.ok().with_context(|| format!("collection {runs}"))?;
        runs += 1;
    }
    Ok(runs)
}

/// Of several pods those of an older version are refused by name, and the one that runs goes on.
async fn several_refuse_and_one_goes_on(databases: &Databases<'_>, group: &str, snapshots: usize) -> Result<()> {
    println!("the history's tables are too new for this version");
    let stage = databases.stage;
    let first = format!("{}-0", Service::Audit.row().host);
    let last = format!("{}-1", Service::Audit.row().host);
    databases.set_oldest(Service::Audit, "99.0.0")?;
    let uid = ["get", "pod", &first, "-n", SYSTEM_NAMESPACE, "-o", "jsonpath={.metadata.uid}"];
    let before = stage.kubectl(&uid).await?.ok()?.out;
    restart(stage, Service::Audit).await?;
    init_says(stage, &last, "the tables need version 99.0.0 or later").await?;
    stays("the pod that ran", Duration::from_secs(20), || async { Ok((stage.kubectl(&uid).await?.out, is_ready(stage, &first).await?)) })
        .await?;
    ensure!(stage.kubectl(&uid).await?.out == before, "the pod that ran was replaced");
    stage.tsujiban(&["audit", "list", group, "--limit", "5"]).await?.ok()?;
    ensure!(stage.snapshots(group).await?.len() == snapshots, "the backup service answers otherwise");
    databases.set_oldest(Service::Audit, "0.2.0")?;
    rolled_out(stage, Service::Audit).await
}

/// A service of one pod is away then, and says why.
async fn one_is_refused_by_name(databases: &Databases<'_>, group: &Group<'_>) -> Result<()> {
    println!("the catalogue's tables are too new for this version");
    let stage = databases.stage;
    databases.set_oldest(Service::Backup, "99.0.0")?;
    restart(stage, Service::Backup).await?;
    init_says(stage, &format!("{}-0", Service::Backup.row().host), "the tables need version 99.0.0 or later").await?;
    group.condition(Service::Backup.row().can_write.condition, "False").await?;
    databases.set_oldest(Service::Backup, "0.1.0")?;
    rolled_out(stage, Service::Backup).await?;
    group.condition(Service::Backup.row().can_write.condition, "True").await?;
    group.back_up().await?.ok()?;
    Ok(())
}

/// Helm asks first: the one pod that runs is not stopped. When the tables allow it, the same upgrade goes through.
async fn an_upgrade_is_refused_before_it_begins(databases: &Databases<'_>, group: &Group<'_>) -> Result<()> {
    println!("an upgrade to a version for which the catalogue's tables are too new");
    let stage = databases.stage;
    let pod = format!("{}-0", Service::Backup.row().host);
    let uid = ["get", "pod", &pod, "-n", SYSTEM_NAMESPACE, "-o", "jsonpath={.metadata.uid}"];
    let before = stage.kubectl(&uid).await?.ok()?.out;
    let chart = stage.checkout.join("charts/tsujiban").to_string_lossy().into_owned();
    let arguments = ["upgrade", "tsujiban", &chart, "-n", SYSTEM_NAMESPACE, "--reuse-values", "--set", "logLevel=debug"];
    let upgrade = || stage.helm(&arguments);
    databases.set_oldest(Service::Backup, "99.0.0")?;
    let refused = upgrade().await?;
    ensure!(refused.code != 0 && refused.err.contains("pre-upgrade"), "{} {}", refused.out, refused.err);
    let log = stage.kubectl(&["logs", "job/tsujiban-backup-tables", "-n", SYSTEM_NAMESPACE]).await?.ok()?;
    ensure!(log.out.contains("the tables need version 99.0.0 or later"), "the check says: {}", log.out);
    stays("the one pod", Duration::from_secs(20), || async { Ok((stage.kubectl(&uid).await?.out, is_ready(stage, &pod).await?)) }).await?;
    ensure!(stage.kubectl(&uid).await?.out == before, "the pod that ran was replaced");
    group.back_up().await?.ok()?;
    databases.set_oldest(Service::Backup, "0.1.0")?;
    upgrade().await?.ok()?;
    rolled_out(stage, Service::Backup).await?;
    ensure!(stage.kubectl(&uid).await?.out != before, "the upgrade changed nothing");
    group.back_up().await?.ok()?;
    Ok(())
}

/// What was done to the group is in its history, which verifies.
async fn history_holds(stage: &Stage, group: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (file, checkpoint) = (path("history.jsonl"), path("history.checkpoint"));
    stage.tsujiban(&["audit", "export", group, "--output", &file, "--save-checkpoint", &checkpoint]).await?.ok()?;
    let key = stage.history_key().await?;
    stage.tsujiban(&["audit", "verify", &file, "--key", &key, "--checkpoint", &checkpoint]).await?.ok()?;
    let exported = std::fs::read_to_string(&file)?;
    ensure!(exported.lines().count() > 5, "the export has {} lines", exported.lines().count());
    Ok(())
}
