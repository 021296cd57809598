//! C5: Sites come and go on a real apiserver, and all of it is in the history, whoever is away meanwhile; and no Site waits for a history
//! that is not there.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tsujiban_api::Site;
use tsujiban_api::names::FINALIZER;
use tsujiban_plane::SYSTEM;
use tsujiban_plane::history::History;
use tsujiban_plane::wait::until;

use crate::operator::Operator;
use crate::world::{SOON, World};

/// How soon after the operator's return whatever waited for it goes on.
const RETURN: Duration = Duration::from_mins(1);
/// As many as were lost once, all of them, when they came and went while the audit service was away and the operator began anew.
const MANY: usize = 61;
const KINDS: [&str; 3] = ["tenants.tsujiban.dev", "sites.tsujiban.dev", "devices.tsujiban.dev"];
const RECOVERY: &str = include_str!("../../../docs/recovery.md");

struct Stage {
    world: World,
    history: History,
    audit: String,
    client: Client,
    sites: Api<Site>,
}

impl Stage {
    /// Group acme, ready.
    async fn new() -> (Self, Operator) {
        let world = World::new().await;
        let history = History::default();
        let audit = history.serve().await.unwrap();
        let client = world.plane.operator().await.unwrap().client().unwrap();
        let sites = Api::namespaced(world.admin.clone(), "tn-acme");
        let stage = Self { world, history, audit, client, sites };
        let operator = stage.with_history();
        stage.world.tenant("acme", json!({})).await;
        stage.world.tenant_is("acme", "True").await;
        (stage, operator)
    }

    fn with_history(&self) -> Operator {
        Operator::start_with(self.client.clone(), &self.world.endpoint, &self.audit)
    }

    fn without_history(&self) -> Operator {
        Operator::start(self.client.clone(), &self.world.endpoint)
    }

    /// Upgrades the release as staff do who switch the history off or on.
    fn switch_history(&self, enabled: bool) {
        let chart = self.world.plane.checkout().join("charts/tsujiban").to_string_lossy().into_owned();
        let value = format!("audit.enabled={enabled}");
        self.world.plane.helm(&["upgrade", "tsujiban", &chart, "--namespace", SYSTEM, "--reuse-values", "--set", &value]).unwrap();
    }

    async fn declare(&self, name: &str) {
        let site =
            json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "metadata": {"name": name}, "spec": {"displayName": name}});
        self.sites.create(&PostParams::default(), &serde_json::from_value(site).unwrap()).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        self.sites.delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn within(&self, limit: Duration, what: &str, holds: impl Fn(&[Site]) -> bool) {
        until(what, limit, || async {
            let found = self.sites.list(&ListParams::default()).await?.items;
            ensure!(holds(&found), "{}", serde_json::to_string(&found)?);
            Ok(Some(()))
        })
        .await
        .unwrap();
    }

    async fn are_recorded(&self) {
        let is_recorded = |site: &Site| {
            let recorded = site.status.as_ref().and_then(|status| status.recorded.as_ref()).map(|recorded| recorded.generation);
            is_held(site) && recorded == site.metadata.generation
        };
        self.within(RETURN, "every Site is held and says what is recorded", |found| found.iter().all(is_recorded)).await;
    }

    /// How often something of a Site stands in the history.
    fn times(&self, verb: &str, name: &str) -> usize {
        let wanted = format!("sites {verb} {name} ");
        self.history.lines("acme").iter().filter(|line| line.starts_with(&wanted)).count()
    }

    async fn is_in_history(&self, verb: &str, name: &str) {
        let what = format!("{verb} of {name} is in the history");
        until(&what, RETURN, || async { Ok((self.times(verb, name) > 0).then_some(())) }).await.unwrap();
    }
}

fn is_held(site: &Site) -> bool {
    site.finalizers().iter().any(|name| name == FINALIZER)
}

/// The commands below a heading of docs/recovery.md.
fn commands(heading: &str) -> String {
    let section = RECOVERY.split_once(heading).expect("the heading").1;
    let block = section.split_once("```\n").expect("a block").1.split_once("```").expect("its end").0;
    block.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_that_came_and_went_while_the_audit_service_was_away_are_recorded() {
    let (stage, operator) = Stage::new().await;
    stage.history.set_away(true);
    let names: Vec<String> = (0..MANY).map(|number| format!("site-{number:02}")).collect();
    for name in &names {
        stage.declare(name).await;
        stage.delete(name).await;
    }
    stage.within(SOON, "all are there and wait", |found| found.len() == MANY).await;
    operator.end().await;
    stage.declare("unseen").await; // and no operator sees it alive
    stage.delete("unseen").await;
    let operator = stage.with_history();
    until("they say what they wait for", RETURN, || async {
        let found = serde_json::to_value(stage.sites.get("site-60").await?.status)?;
        ensure!(found.to_string().contains("NotRecorded"), "{found}");
        Ok(Some(()))
    })
    .await
    .unwrap();
    stage.history.set_away(false);
    stage.within(RETURN, "all have gone", <[Site]>::is_empty).await;
    for name in names.iter().map(String::as_str).chain(["unseen"]) {
        assert_eq!((stage.times("create", name), stage.times("delete", name)), (1, 1), "{name}");
    }
    operator.end().await;
}

/// History off with Sites there; operator away; namespace deleted; kinds deleted: each ends within a minute of the operator's return.
#[tokio::test(flavor = "multi_thread")]
async fn sites_wait_for_nothing_but_the_history() {
    let (stage, operator) = Stage::new().await;
    for name in ["hq", "lab", "old"] {
        stage.declare(name).await;
    }
    stage.are_recorded().await;

    operator.end().await;
    stage.switch_history(false);
    let operator = stage.without_history();
    stage.within(RETURN, "all are released", |found| !found.iter().any(is_held)).await;
    stage.delete("old").await;
    stage.within(RETURN, "a deletion waits for nobody", |found| found.len() == 2).await;
    until("a Site is born without the finalizer", SOON, || async {
        let site = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "metadata": {"name": "b"}, "spec": {"displayName": "b"}});
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        Ok((!is_held(&stage.sites.create(&dry, &serde_json::from_value(site)?).await?)).then_some(()))
    })
    .await
    .unwrap();

    operator.end().await;
    stage.switch_history(true);
    let operator = stage.with_history();
    stage.are_recorded().await;
    assert_eq!((stage.times("create", "hq"), stage.times("create", "lab")), (1, 1), "what was recorded is not recorded again");

    operator.end().await;
    stage.delete("lab").await;
    assert_eq!(stage.sites.list(&ListParams::default()).await.unwrap().items.len(), 2, "it waits for the operator");
    let operator = stage.with_history();
    stage.within(RETURN, "the operator is back", |found| found.len() == 1).await;
    assert_eq!(stage.times("delete", "lab"), 1);

    operator.end().await;
    let namespaces = stage.world.namespaces();
    let doomed = namespaces.get("tn-acme").await.unwrap().uid();
    namespaces.delete("tn-acme", &DeleteParams::default()).await.unwrap();
    let operator = stage.with_history();
    until("the namespace has gone", RETURN, || async {
        let found = namespaces.get_opt("tn-acme").await?;
        ensure!(found.as_ref().is_none_or(|found| found.uid() != doomed), "{}", serde_json::to_string(&found)?);
        Ok(Some(()))
    })
    .await
    .unwrap();
    stage.is_in_history("delete", "hq").await;

    stage.world.tenant_is("acme", "True").await;
    stage.declare("last").await;
    stage.are_recorded().await;
    operator.end().await;
    stage.world.plane.kubectl(&[&["delete", "crd", "--wait=false"][..], &KINDS].concat()).unwrap();
    let operator = stage.with_history();
    until("the kinds have gone", RETURN, || async {
        let left = stage.world.plane.kubectl(&["get", "crd", "--output=name"])?;
        ensure!(!KINDS.iter().any(|kind| left.contains(kind)), "{left}");
        Ok(Some(()))
    })
    .await
    .unwrap();
    assert_eq!(stage.times("delete", "last"), 1);
    assert!(stage.world.backup.group("acme").is_some_and(|group| group.erased_devices.is_empty()), "nothing is erased with a kind");
    operator.end().await;
}

/// An operator of 0.1.x knows of no finalizer: docs/recovery.md has the command that takes it off.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_takes_the_finalizers_off() {
    let (stage, operator) = Stage::new().await;
    for name in ["hq", "lab"] {
        stage.declare(name).await;
    }
    stage.are_recorded().await;
    operator.end().await;
    stage.delete("lab").await; // it waits for an operator that does not come back
    stage.world.plane.shell(&commands("## Going back to 0.1.x")).unwrap();
    stage.within(RETURN, "what was deleted has gone", |found| found.iter().all(|site| site.name_any() == "hq" && !is_held(site))).await;
    stage.delete("hq").await;
    stage.within(RETURN, "a deletion waits for nobody", <[Site]>::is_empty).await;
}

/// Who declares Sites can neither take the finalizer off nor add one that keeps a Site.
#[tokio::test(flavor = "multi_thread")]
async fn owners_change_no_finalizer_of_a_site() -> Result<()> {
    let (stage, operator) = Stage::new().await;
    let owner = stage.world.plane.person("owner@acme.example.co.jp", None).await?.client()?;
    let owners: Api<Site> = Api::namespaced(owner, "tn-acme");
    stage.declare("hq").await;
    stage.are_recorded().await;
    until("the owner has rights", SOON, || async { Ok(owners.get_opt("hq").await?) }).await?;
    let mut said = BTreeSet::new();
    for finalizers in [json!([]), json!(null), json!([FINALIZER, "example.com/keep"]), json!(["example.com/keep"])] {
        let patch = json!({"metadata": {"finalizers": finalizers}});
        let refused = owners.patch("hq", &PatchParams::default(), &Patch::Merge(&patch)).await;
        let kube::Error::Api(status) = refused.expect_err("a finalizer was changed") else { anyhow::bail!("no answer of the apiserver") };
        said.insert((status.code, status.message.contains("metadata.finalizers is not yours to change")));
    }
    assert_eq!(said, BTreeSet::from([(403, true)]));
    // what is theirs they can
    owners.patch("hq", &PatchParams::default(), &Patch::Merge(&json!({"spec": {"contact": "front desk"}}))).await?;
    owners.delete("hq", &DeleteParams::default()).await?;
    stage.within(RETURN, "it goes when it is recorded", <[Site]>::is_empty).await;
    operator.end().await;
    Ok(())
}
