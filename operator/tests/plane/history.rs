//! C5: who declared what, as the real apiserver stamps it, and as the operator brings it into the history.

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tsujiban_core::clock::{Clock as _, SystemClock};
use tsujiban_plane::history::History;
use tsujiban_plane::wait::until;

use crate::attacks::control;
use crate::attempt::{APPLY, Attempt, JSON_PATCH, MERGE_PATCH, Stop, granted, read};
use crate::operator::Operator;
use crate::world::{SOON, World};

const TENANTS: &str = "/apis/tsujiban.dev/v1alpha1/tenants";
const SITES: &str = "/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/sites";
const DEVICES: &str = "/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices";
const STAMP: &str = "tsujiban.dev/changed-by";
const NOBODY: &str = "unknown, see the apiserver's audit log";

fn tenant() -> Value {
    json!({
        "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
        "spec": {
            "displayName": "Acme", "plan": "Prime", "contact": {"email": "a@example.co.jp", "language": "ja"},
            "owners": [{"kind": "User", "name": "hanako@example.co.jp"}, {"kind": "User", "name": "taro@example.co.jp"}],
            "network": {"deviceCIDRs": ["172.20.1.0/24"]},
        },
    })
}

fn site() -> Value {
    json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "metadata": {"name": "hq"}, "spec": {"displayName": "本社"}})
}

fn device() -> Value {
    json!({
        "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": "r1"},
        "spec": {"siteRef": {"name": "hq"}, "serialNumber": "SN1", "driver": "Frr", "connection": {"host": "172.20.1.10"}},
    })
}

/// As somebody would who wants another one to have done it.
fn forged(mut object: Value) -> Value {
    object["metadata"]["annotations"] = json!({STAMP: "somebody-else"});
    object
}

async fn stamp(client: &Client, path: &str) -> Result<String> {
    let object = read(client, path).await?;
    object["metadata"]["annotations"][STAMP].as_str().map(str::to_owned).with_context(|| format!("{path} has no stamp"))
}

async fn do_it(client: &Client, attempt: Attempt) {
    granted(client, &attempt).await.unwrap();
}

/// Who changes a spec is written down by the apiserver, on every kind, in every way to write, whatever the request says; who changes
/// anything else is not, and neither is the operator.
#[tokio::test(flavor = "multi_thread")]
async fn the_apiserver_says_who_declared_what() {
    let world = World::new().await;
    let operator = Operator::start(world.plane.operator().await.unwrap().client().unwrap(), &world.endpoint);
    let control = control(&world).unwrap();
    let person = async |name: &str| world.plane.person(name, None).await.unwrap().client().unwrap();
    let (hanako, taro) = (person("hanako@example.co.jp").await, person("taro@example.co.jp").await);
    let mut impersonating = world.plane.admin.config.clone();
    impersonating.auth_info.impersonate = Some("staff@example.co.jp".to_owned());
    impersonating.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    let staff = Client::try_from(impersonating).unwrap();
    // a new policy takes a while to act
    let path = format!("{TENANTS}/probe");
    until("the stamp acts", SOON, || async {
        let mut probe = tenant();
        probe["metadata"]["name"] = json!("probe");
        let dry = format!("{TENANTS}?dryRun=All");
        let made = granted(&staff, &Attempt::create(&dry, probe, Stop::Rights)).await?.body;
        ensure!(made["metadata"]["annotations"][STAMP] == "staff@example.co.jp", "{path}: {made}");
        Ok(Some(()))
    })
    .await
    .unwrap();

    do_it(&staff, Attempt::create(TENANTS, forged(tenant()), Stop::Rights)).await;
    let acme = format!("{TENANTS}/acme");
    assert_eq!(stamp(&staff, &acme).await.unwrap(), "staff@example.co.jp", "the one who was impersonated");
    world.tenant_is("acme", "True").await;
    until("the owners have rights", SOON, || async { Ok(Some(read(&hanako, SITES).await.and(read(&taro, DEVICES).await)?)) })
        .await
        .unwrap();

    for (collection, name, object, edit) in [
        (SITES, "hq", site(), json!({"spec": {"contact": "front desk"}})),
        (DEVICES, "r1", device(), json!({"spec": {"lifecycle": "Maintenance"}})),
    ] {
        let path = format!("{collection}/{name}");
        let by = async |whom: &str, why: &str| assert_eq!(stamp(&hanako, &path).await.unwrap(), whom, "{path}: {why}");
        do_it(&hanako, Attempt::create(collection, forged(object.clone()), Stop::Rights)).await;
        by("hanako@example.co.jp", "created, with a forged stamp").await;
        do_it(&taro, Attempt::patch(MERGE_PATCH, &path, json!({"metadata": {"labels": {"a": "b"}}}), Stop::Rights)).await;
        by("hanako@example.co.jp", "a label says nothing about the spec").await;
        do_it(&taro, Attempt::patch(MERGE_PATCH, &path, json!({"metadata": {"annotations": {STAMP: "nobody"}}}), Stop::Rights)).await;
        by("hanako@example.co.jp", "a stamp alone cannot be set").await;
        do_it(&taro, Attempt::patch(MERGE_PATCH, &path, json!({"metadata": {"annotations": {STAMP: null}}}), Stop::Rights)).await;
        by("hanako@example.co.jp", "nor taken away").await;
        do_it(&taro, Attempt::patch(MERGE_PATCH, &path, edit, Stop::Rights)).await;
        by("taro@example.co.jp", "changed by a merge patch").await;
        let forged_edit = json!([{"op": "add", "path": "/metadata/annotations/tsujiban.dev~1changed-by", "value": "nobody"},
            {"op": "replace", "path": if name == "hq" { "/spec/displayName" } else { "/spec/lifecycle" },
             "value": if name == "hq" { "本店" } else { "Active" }}]);
        do_it(&hanako, Attempt::patch(JSON_PATCH, &path, forged_edit, Stop::Rights)).await;
        by("hanako@example.co.jp", "changed by a JSON patch that forges the stamp").await;
        let apply = format!("{path}?fieldManager=taro&force=true");
        let mut applied = forged(object);
        applied["spec"][if name == "hq" { "address" } else { "driver" }] = json!(if name == "hq" { "東京都" } else { "Frr" });
        applied["spec"]["backup"] = if name == "hq" { Value::Null } else { json!({"enabled": false}) };
        if name == "hq" {
            applied["spec"].as_object_mut().unwrap().remove("backup");
        }
        do_it(&taro, Attempt::patch(APPLY, &apply, applied, Stop::Rights)).await;
        by("taro@example.co.jp", "applied, with a forged stamp").await;
    }
    world.device_is("acme", "r1", "True").await; // the operator has written its finalizer and its status
    assert_eq!(stamp(&hanako, &format!("{DEVICES}/r1")).await.unwrap(), "taro@example.co.jp");
    do_it(&control, Attempt::patch(MERGE_PATCH, &acme, json!({"spec": {"displayName": "Acme KK"}}), Stop::Rights)).await;
    assert_eq!(stamp(&staff, &acme).await.unwrap(), "system:serviceaccount:kube-system:control", "nobody but the operator is left out");
    operator.end().await;
}

const STAMPS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolic";

/// Waits until the policy that stamps, and its binding, are so old that the operator believes them to act.
async fn stamps_count(world: &World) {
    until("the stamps count", SOON, || async {
        let mut youngest = Timestamp::UNIX_EPOCH;
        for kind in ["ies", "ybindings"] {
            let found = read(&world.admin, &format!("{STAMPS}{kind}/tsujiban-changed-by")).await?;
            let made: Timestamp = found["metadata"]["creationTimestamp"].as_str().unwrap_or_default().parse()?;
            ensure!(found["metadata"]["generation"] == 1, "{found}");
            youngest = youngest.max(made);
        }
        Ok((SystemClock.now().duration_since(youngest) > SignedDuration::from_secs(12)).then_some(()))
    })
    .await
    .unwrap();
}

/// A stamp counts only of the time in which the policy that makes it stood as the chart has it; that it did not is in the history of the
/// platform. The trial's input: the bindings are deleted, and somebody writes another one's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_without_its_policy_is_not_believed() {
    let world = World::new().await;
    let history = History::default();
    let audit = history.serve().await.unwrap();
    let operator = Operator::start_with(world.plane.operator().await.unwrap().client().unwrap(), &world.endpoint, &audit);
    let control = control(&world).unwrap();
    stamps_count(&world).await;
    do_it(&control, Attempt::create(TENANTS, tenant(), Stop::Rights)).await;
    world.tenant_is("acme", "True").await;
    let condition = async |reason: &str| {
        until(reason, SOON, || async {
            let tenant = read(&world.admin, &format!("{TENANTS}/acme")).await?;
            let conditions = tenant["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|it| it["type"] == "PoliciesInForce").unwrap_or_default();
            ensure!(found["reason"] == reason, "{found}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    };
    condition("InForce").await; // all of them, as the real apiserver shows them
    let bindings = format!("{STAMPS}ybindings/tsujiban-changed-by");
    do_it(&world.admin, Attempt::delete(&bindings, Value::Null, Stop::Rights)).await;
    let devices = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tsujiban-devices";
    do_it(&world.admin, Attempt::delete(devices, Value::Null, Stop::Rights)).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await; // until the policy acts no more
    do_it(&control, Attempt::create(SITES, forged(site()), Stop::Rights)).await;
    let lines = async |group: &str, wanted: &str| {
        until(wanted, SOON, || async {
            let lines = history.lines(group);
            ensure!(lines.iter().any(|line| line.contains(wanted)), "{lines:#?}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    };
    lines("acme", &format!("sites create hq 1 by {NOBODY}")).await;
    condition("PoliciesMissing").await;
    lines("", "policies operate admission policies").await;
    let chart = world.plane.checkout().join("charts/tsujiban").to_string_lossy().into_owned();
    world.plane.helm(&["upgrade", "tsujiban", &chart, "--namespace", tsujiban_plane::SYSTEM, "--reuse-values"]).unwrap();
    condition("InForce").await;
    tokio::time::sleep(std::time::Duration::from_secs(12)).await; // from the look on which says so, it takes 10 s until the policy counts
    do_it(&control, Attempt::patch(MERGE_PATCH, &format!("{SITES}/hq"), json!({"spec": {"contact": "front desk"}}), Stop::Rights)).await;
    lines("acme", "sites operate hq 2 by system:serviceaccount:kube-system:control").await;
    let kept = read(&world.admin, "/api/v1/namespaces/tsujiban-system/configmaps/tsujiban-operator").await.unwrap();
    assert!(kept["data"]["stamps"].is_string() && kept["data"]["faults"] == "[]", "{kept}");
    let told: Vec<_> = history.operations("").into_iter().map(|it| it.detail).collect();
    assert!(told.len() == 2 && told[0].contains_key("missing") && told[1].contains_key("inForceAgain"), "{told:?}");
    operator.end().await;
}

/// A group's whole life, with an operator that ends in between, and an audit service that is away for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_groups_life_is_in_the_history() {
    let world = World::new().await;
    let history = History::default();
    let audit = history.serve().await.unwrap();
    let client = world.plane.operator().await.unwrap().client().unwrap();
    let operator = Operator::start_with(client.clone(), &world.endpoint, &audit);
    let person = async |name: &str| world.plane.person(name, None).await.unwrap().client().unwrap();
    let (hanako, taro) = (person("hanako@example.co.jp").await, person("taro@example.co.jp").await);
    stamps_count(&world).await;
    let mut declared = tenant();
    declared["spec"]["deletionPolicy"] = json!("Erase");
    do_it(&control(&world).unwrap(), Attempt::create(TENANTS, declared, Stop::Rights)).await;
    world.tenant_is("acme", "True").await;
    until("the owners have rights", SOON, || async { Ok(Some(read(&hanako, SITES).await.and(read(&taro, DEVICES).await)?)) })
        .await
        .unwrap();
    do_it(&hanako, Attempt::create(SITES, site(), Stop::Rights)).await;
    do_it(&taro, Attempt::create(DEVICES, device(), Stop::Rights)).await;
    world.device_is("acme", "r1", "True").await;
    let has = async |line: &str| {
        until(line, SOON, || async {
            let lines = history.lines("acme");
            ensure!(lines.iter().any(|found| found.starts_with(line)), "{lines:#?}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    };
    has("tenants create acme 1 by system:serviceaccount:kube-system:control").await;
    has("sites create hq 1 by hanako@example.co.jp").await;
    has("devices create r1 1 by taro@example.co.jp").await;

    operator.end().await;
    do_it(&hanako, Attempt::patch(MERGE_PATCH, &format!("{SITES}/hq"), json!({"spec": {"contact": "front desk"}}), Stop::Rights)).await;
    do_it(&hanako, Attempt::patch(MERGE_PATCH, &format!("{DEVICES}/r1"), json!({"spec": {"lifecycle": "Maintenance"}}), Stop::Rights))
        .await;
    do_it(&taro, Attempt::patch(MERGE_PATCH, &format!("{DEVICES}/r1"), json!({"spec": {"lifecycle": "Retired"}}), Stop::Rights)).await;
    do_it(&hanako, Attempt::delete(&format!("{SITES}/hq"), Value::Null, Stop::Rights)).await;
    history.set_away(true);
    let operator = Operator::start_with(client, &world.endpoint, &audit);
    world.device_is("acme", "r1", "False").await; // it goes on without the history, and says that the Site is missing
    world.tenants().delete("acme", &DeleteParams::default()).await.unwrap();
    until("the Tenant says what it waits for", SOON, || async {
        let tenant = serde_json::to_value(world.tenants().get("acme").await?)?;
        Ok(tenant["status"].to_string().contains("NotRecorded").then_some(()))
    })
    .await
    .unwrap();
    assert!(world.backup.group("acme").is_some_and(|group| group.erased_devices.is_empty()), "nothing is erased before");
    history.set_away(false);
    until("the group has gone", SOON, || async {
        Ok((world.tenants().get_opt("acme").await?.is_none() && world.namespaces().get_opt("tn-acme").await?.is_none()).then_some(()))
    })
    .await
    .unwrap();
    let mut lines = history.lines("acme").split_off(3);
    lines.sort();
    assert_eq!(
        lines,
        [
            format!("devices delete r1  by {NOBODY}"),
            "devices operate r1 2-3 by taro@example.co.jp".to_owned(),
            format!("sites delete hq  by {NOBODY}"),
            "sites operate hq 2 by hanako@example.co.jp".to_owned(),
            format!("tenants delete acme  by {NOBODY}"),
        ]
    );
    assert_eq!(history.lives.group("acme").unwrap().state, tsujiban_proto::lifecycle::v1::GroupState::Erased);
    operator.end().await;
}
