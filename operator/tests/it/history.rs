//! C5: what people declare, change and delete is in the operation history, once and never less.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tsujiban_core::workload::Service;
use tsujiban_operator::history::{Kind, observe};
use tsujiban_operator::pki::{Keeper, Keys};
use tsujiban_operator::state::reports::Facts;
use tsujiban_plane::wait::until;
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1::{ActorKind, Phase};
use tsujiban_proto::lifecycle::v1::{GroupState, ReportResponse};
use tsujiban_sealing::SystemRandom;

use crate::world::{DEVICE, NAMESPACE, NOTHING, SITE, TENANT, World};

const FIRST: &str = "00000000000000000000000000000001";
pub const SOON: Duration = Duration::from_secs(20);
pub const NOBODY: &str = "unknown, see the apiserver's audit log";

pub fn stamped(kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": kind, "spec": spec, "metadata": {"namespace": "tn-acme", "generation": 1,
        "annotations": {"tsujiban.dev/changed-by": "hanako"}}})
}

fn device() -> Value {
    stamped("Device", &json!({"siteRef": {"name": "tokyo"}, "serialNumber": "S1", "driver": "Frr", "connection": {"host": "172.20.1.11"}}))
}

/// Tenant acme with a Site and a Device, all settled and recorded.
pub async fn declared() -> World {
    let mut world = World::with_history().await;
    world.declare_tenant("u1", |_| ());
    world.apiserver.edit(TENANT, |tenant| tenant["metadata"]["annotations"] = json!({"tsujiban.dev/changed-by": "taro"}));
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
    world.apiserver.put(SITE, stamped("Site", &json!({"displayName": "東京"})));
    world.apiserver.put(DEVICE, device());
    world.settle_site().await;
    for _ in 0..3 {
        world.reconcile_device().await;
    }
    assert_eq!(world.condition(DEVICE, "Ready"), "True Ready");
    world.settle_tenant().await; // it counts its Devices
    world.apiserver.writes();
    world.backup.calls();
    world.audit().lives.calls();
    world
}

pub fn change(world: &World, path: &str, by: &str, edit: impl FnOnce(&mut Value)) {
    world.apiserver.edit(path, |object| {
        edit(&mut object["spec"]);
        let generation = object["metadata"]["generation"].as_i64().unwrap();
        object["metadata"]["generation"] = json!(generation + 1);
        object["metadata"]["annotations"]["tsujiban.dev/changed-by"] = json!(by);
    });
}

/// As the apiserver does: the object waits for its finalizer, and its generation grows.
pub fn delete(world: &mut World, path: &str) {
    world.apiserver.edit(path, |object| {
        let generation = object["metadata"]["generation"].as_i64().unwrap();
        object["metadata"]["generation"] = json!(generation + 1);
    });
    world.delete(path);
}

/// Every kind, and everything that can happen to one.
#[tokio::test]
async fn creations_changes_and_deletions_of_every_kind_are_in_the_history() {
    let mut world = declared().await;
    change(&world, SITE, "ichiro", |spec| spec["contact"] = json!("front desk"));
    world.reconcile_site().await;
    change(&world, DEVICE, "jiro", |spec| spec["lifecycle"] = json!("Maintenance"));
    world.reconcile_device().await;
    change(&world, TENANT, "saburo", |spec| spec["displayName"] = json!("Acme KK"));
    world.settle_tenant().await;
    delete(&mut world, DEVICE);
    world.reconcile_device().await;
    assert!(world.apiserver.get(DEVICE).is_none());
    delete(&mut world, SITE);
    world.reconcile_site().await;
    assert!(world.apiserver.get(SITE).is_none());
    delete(&mut world, TENANT);
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());

    assert_eq!(
        world.audit().lines("acme"),
        [
            "tenants create acme 1 by taro".to_owned(),
            "sites create tokyo 1 by hanako".to_owned(),
            "devices create r1 1 by hanako".to_owned(),
            "sites operate tokyo 2 by ichiro".to_owned(),
            "devices operate r1 2 by jiro".to_owned(),
            "tenants operate acme 2 by saburo".to_owned(),
            format!("devices delete r1  by {NOBODY}"),
            format!("sites delete tokyo  by {NOBODY}"),
            format!("tenants delete acme  by {NOBODY}"),
        ]
    );
    let operations = world.audit().operations("acme");
    for kind in Kind::ALL {
        for verb in [Verb::Create, Verb::Operate, Verb::Delete] {
            let found = operations.iter().find(|it| it.function == kind.function() && it.operation() == verb);
            let found = found.unwrap_or_else(|| panic!("no {verb:?} of {kind:?}"));
            assert_eq!(found.phase(), Phase::Observed);
            assert!(!found.detail["uid"].is_empty());
            let actor = found.actor.as_ref().unwrap().kind();
            assert_eq!(actor, if verb == Verb::Delete { ActorKind::Unknown } else { ActorKind::Kubernetes });
        }
        // what was before is what was after before
        let digests = |key: &str| {
            operations.iter().filter(|it| it.function == kind.function()).filter_map(|it| it.detail.get(key)).collect::<Vec<_>>()
        };
        assert_eq!(digests("before"), digests("after"), "{kind:?}");
    }
    let text = format!("{operations:?}");
    for content in ["Acme KK", "front desk", "東京", "172.20.1.11"] {
        assert!(!text.contains(content), "{content} is what was declared, and not the history's");
    }
}

#[tokio::test]
async fn a_quiet_resync_writes_nothing_and_records_nothing() {
    let mut world = declared().await;
    world.audit().appends();
    for _ in 0..3 {
        world.pass(1);
        world.reconcile_tenant().await.unwrap();
        world.reconcile_device().await;
        world.reconcile_site().await;
    }
    assert_eq!((world.apiserver.writes(), world.audit().appends()), (Vec::new(), 0));
}

/// The write that says what was observed says what is recorded, too.
#[tokio::test]
async fn a_change_costs_no_more_writes_than_without_a_history() {
    let mut world = declared().await;
    change(&world, DEVICE, "jiro", |spec| spec["lifecycle"] = json!("Maintenance"));
    for _ in 0..3 {
        world.reconcile_device().await;
    }
    assert_eq!(world.apiserver.writes(), [format!("PATCH {DEVICE}/status")]);
    let status = world.apiserver.get(DEVICE).unwrap()["status"].clone();
    assert_eq!((&status["observedGeneration"], &status["recorded"]["generation"]), (&json!(2), &json!(2)));
    change(&world, TENANT, "taro", |spec| spec["displayName"] = json!("Acme KK"));
    world.settle_tenant().await;
    assert_eq!(world.apiserver.writes(), [format!("PATCH {TENANT}/status")]);
    change(&world, SITE, "ichiro", |spec| spec["contact"] = json!("front desk"));
    world.settle_site().await;
    assert_eq!(world.apiserver.writes(), [format!("PATCH {SITE}/status")]);
}

/// Everything goes on, and afterwards it is all there, once.
#[tokio::test]
async fn nothing_is_lost_while_the_audit_service_is_away() {
    let mut world = World::with_history().await;
    world.audit().set_away(true);
    world.declare_tenant("u1", |_| ());
    for _ in 0..4 {
        let _refused = world.reconcile_tenant().await.is_err();
    }
    assert_eq!(world.condition(TENANT, "IsolationReady"), "True Isolated");
    assert_eq!(world.condition(TENANT, "BackupScheduled"), "True Scheduled");
    assert_eq!(world.condition(TENANT, "KeysReady"), "False AuditUnavailable");
    assert_eq!(world.apiserver.get(TENANT).unwrap()["status"]["recorded"], Value::Null);
    world.apiserver.edit(TENANT, |tenant| tenant["metadata"]["annotations"] = json!({}));
    change(&world, TENANT, "taro", |spec| spec["displayName"] = json!("Acme KK"));
    change(&world, TENANT, "jiro", |spec| spec["displayName"] = json!("Acme Corp"));
    let _refused = world.reconcile_tenant().await.is_err();
    assert_eq!(world.journal.backlog().0, 1, "what was not sent is one observation");

    world.audit().set_away(false);
    until("it is recorded", SOON, || async { Ok((world.journal.backlog().0 == 0).then_some(())) }).await.unwrap();
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "KeysReady"), "True Prepared");
    assert_eq!(world.audit().lines("acme"), ["tenants create acme 1-3 by jiro"]);
    assert_eq!(world.apiserver.get(TENANT).unwrap()["status"]["recorded"]["generation"], json!(3));

    // once it holds the group, that it is away for a while makes nobody unready
    world.audit().set_away(true);
    let _refused = world.reconcile_tenant().await.is_err();
    assert_eq!(world.condition(TENANT, "KeysReady"), "True Prepared");
}

/// A crash between any two steps loses nothing and doubles nothing.
#[tokio::test]
async fn what_a_crash_repeats_is_one_entry() {
    let mut world = World::with_history().await;
    world.declare_tenant("u1", |_| ());
    world.apiserver.edit(TENANT, |tenant| tenant["metadata"]["annotations"] = json!({"tsujiban.dev/changed-by": "taro"}));
    world.audit().lose_answers(1);
    world.settle_tenant().await;
    until("it is acknowledged", SOON, || async { Ok((world.journal.backlog().0 == 0).then_some(())) }).await.unwrap();
    assert_eq!(world.audit().repeated(), 1, "the answer was lost, and it came again");
    // acknowledged, and then a crash before the status says so
    world.apiserver.edit(TENANT, |tenant| drop(tenant["status"].as_object_mut().unwrap().remove("recorded")));
    let mut world = world.restarted().await;
    world.settle_tenant().await;
    assert!(world.audit().repeated() > 1);
    assert_eq!(world.audit().lines("acme"), ["tenants create acme 1 by taro"]);
    // and one after it: nothing is sent again
    world.audit().appends();
    let mut world = world.restarted().await;
    world.settle_tenant().await;
    assert_eq!(world.audit().appends(), 0);
}

/// A service that comes back with an older database has everything again that it had acknowledged, before anything new.
#[tokio::test]
async fn what_the_history_acknowledged_and_lost_is_added_again() {
    let mut world = declared().await;
    let before = world.audit().lines("acme");
    assert!(before.len() > 2, "{before:?}");
    world.audit().set_away(true);
    world.audit().lose("acme", 2);
    change(&world, DEVICE, "jiro", |spec| spec["lifecycle"] = json!("Maintenance"));
    world.reconcile_device().await;
    world.audit().set_away(false);
    let all = || async { Ok((world.audit().lines("acme").len() > before.len()).then_some(())) };
    until("everything is there again", SOON, all).await.unwrap();
    let after = world.audit().lines("acme");
    assert_eq!(after[..before.len()], before, "in the order in which it was acknowledged");
    assert_eq!(after[before.len()..], ["devices operate r1 2 by jiro"]);
}

/// What happened while no operator ran is seen afterwards.
#[tokio::test]
async fn what_happened_while_nobody_looked_is_recorded_afterwards() {
    let mut world = declared().await.restarted().await;
    change(&world, DEVICE, "jiro", |spec| spec["lifecycle"] = json!("Maintenance"));
    change(&world, DEVICE, "saburo", |spec| spec["lifecycle"] = json!("Active"));
    delete(&mut world, TENANT);
    delete(&mut world, SITE);
    let before = world.audit().lines("acme").len();
    let mut world = world.restarted().await;
    world.reconcile_device().await;
    world.settle_site().await;
    world.settle_tenant().await;
    let mut lines = world.audit().lines("acme").split_off(before);
    lines.sort();
    assert_eq!(
        lines,
        [
            "devices operate r1 2-3 by saburo".to_owned(),
            format!("sites delete tokyo  by {NOBODY}"),
            format!("tenants delete acme  by {NOBODY}"),
        ]
    );
}

/// An object that has gone tells nothing any more: so it goes when its deletion is recorded, and nothing is erased before.
#[tokio::test]
async fn a_deletion_waits_until_it_is_recorded() {
    let mut world = declared().await;
    world.apiserver.edit(TENANT, |tenant| tenant["spec"]["deletionPolicy"] = json!("Erase"));
    world.settle_tenant().await;
    world.backup.calls();
    world.audit().set_away(true);
    delete(&mut world, DEVICE);
    delete(&mut world, TENANT);
    for _ in 0..2 {
        world.reconcile_device().await;
        world.settle_tenant().await;
    }
    assert!(world.apiserver.get(DEVICE).is_some() && world.apiserver.get(TENANT).is_some());
    assert_eq!(world.backup.calls(), NOTHING);
    assert_eq!(world.condition(TENANT, "Ready"), "False NotRecorded");
    world.audit().set_away(false);
    until("it is recorded", SOON, || async { Ok((world.journal.backlog().0 == 0).then_some(())) }).await.unwrap();
    world.reconcile_device().await;
    assert!(world.apiserver.get(DEVICE).is_none());
}

/// A group whose entries are refused does not hold up the others.
#[tokio::test]
async fn one_refused_group_holds_up_nobody_else() {
    let mut world = World::with_history().await;
    world.audit().set_refused("borealis", true);
    let group = "borealis".parse().unwrap();
    let site = tsujiban_operator::history::ObjectSnapshot {
        kind: Kind::Site,
        group: "borealis".parse().unwrap(),
        name: "hq".into(),
        uid: "other".into(),
        spec: tsujiban_api::Recorded { generation: 1, digest: "x".into() },
        changed_by: None,
        changed_at: None,
        created: None,
        is_going: false,
    };
    world.journal.note(&observe(None, &site), world.pass(0));
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    let recorded = || async { Ok((!world.audit().lines("acme").is_empty()).then_some(())) };
    until("the other group's is recorded", SOON, recorded).await.unwrap();
    assert_eq!(world.audit().groups(), ["acme"]);
    assert!(world.journal.waits_for(&group));
    world.audit().set_refused("borealis", false);
    until("it comes when it is taken", SOON, || async { Ok((world.audit().groups().len() == 2).then_some(())) }).await.unwrap();
}

/// C25: a group is made and erased in every service, and its history, which tells of the others, ends last.
#[tokio::test]
async fn a_group_begins_and_ends_in_every_service() {
    let mut world = World::with_history().await;
    world.declare_tenant("u1", |spec| spec["deletionPolicy"] = json!("Erase"));
    world.settle_tenant().await;
    let lives =
        |world: &World| world.audit().lives.calls().into_iter().filter(|call| call != "append" && call != "covered").collect::<Vec<_>>();
    assert_eq!(lives(&world).first(), Some(&format!("prepare acme {FIRST}")), "audit is told the incarnation");
    assert_eq!(world.backup.calls().first().map(String::as_str), Some("prepare acme"), "the backup service mints it");
    delete(&mut world, TENANT);
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.backup.calls().last(), Some(&format!("erase acme {FIRST}")));
    assert!(world.apiserver.get(NAMESPACE).is_none());
    assert!(lives(&world).iter().all(|call| !call.starts_with("erase")), "the namespace goes first");
    world.reconcile_tenant().await.unwrap();
    assert_eq!(lives(&world), [format!("erase acme {FIRST}")]);
    assert!(world.apiserver.get(TENANT).is_none());
    assert_eq!(world.audit().lives.group("acme").unwrap().state, GroupState::Erased);
}

/// A group that was never prepared there, since the history came later, can be erased all the same.
#[tokio::test]
async fn a_service_that_never_heard_of_a_group_does_not_keep_it() {
    let mut world = World::with_history().await;
    world.declare_tenant("u1", |spec| spec["deletionPolicy"] = json!("Erase"));
    world.settle_tenant().await;
    world.audit().lives.set("acme", FIRST, GroupState::Erased);
    world.audit().lives.free_id("acme");
    delete(&mut world, TENANT);
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
}

#[tokio::test]
async fn a_retained_group_is_noted_in_every_service() {
    let mut world = declared().await;
    delete(&mut world, TENANT);
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
    assert_eq!(world.backup.group("acme").unwrap().state, GroupState::Retained);
    assert_eq!(world.audit().lives.group("acme").unwrap().state, GroupState::Retained);
}

/// C25: staff erase a retained group in the backup service; nobody tells the others but the operator.
#[tokio::test]
async fn what_staff_erase_is_erased_in_every_service() {
    let mut world = declared().await;
    delete(&mut world, TENANT);
    world.settle_tenant().await;
    world.apiserver.remove(DEVICE);
    world.sync();
    let settle = async |world: &World, service: Service| {
        for (of, service) in [(&world.backup, Service::Backup), (&world.audit().lives, Service::Audit)] {
            let facts = Facts::from_wire(&of.report_now(), tsujiban_core::clock::Clock::now(&*world.clock));
            world.reports.send_if_modified(|known| known.take(service, Arc::new(facts)));
        }
        world.retained.settle(service).await;
    };
    settle(&world, Service::Audit).await;
    assert_eq!(world.audit().lives.group("acme").unwrap().state, GroupState::Retained, "nobody has erased it");
    world.backup.set("acme", FIRST, GroupState::Erased);
    settle(&world, Service::Audit).await;
    assert_eq!(world.audit().lives.group("acme").unwrap().state, GroupState::Retained, "the namespace goes first");
    settle(&world, Service::Backup).await;
    assert!(world.apiserver.get(NAMESPACE).is_none());
    settle(&world, Service::Audit).await;
    assert_eq!(world.audit().lives.group("acme").unwrap().state, GroupState::Erased);
}

/// C22, C5: with the history switched off, its keys are not needed by anybody who is asked; they are kept all the same.
#[tokio::test]
async fn a_history_that_is_switched_off_keeps_its_keys() {
    const EPOCHS: &str = "/api/v1/namespaces/tsujiban-system/secrets/tsujiban-epoch-keys";
    let world = World::new().await;
    let keeper = |services: &[Service]| Keeper {
        client: world.apiserver.client(),
        namespace: "tsujiban-system".into(),
        environment: "trial".parse().unwrap(),
        clock: world.clock.clone(),
        random: Arc::new(SystemRandom::new()),
        metrics: Arc::clone(&world.metrics),
        services: services.to_vec(),
        reports: world.tenant.reports.clone(),
        ca_bundle: tokio::sync::watch::channel(None).0,
        keys: tokio::sync::watch::channel(Keys::Pending).0,
    };
    let epochs = || world.apiserver.get(EPOCHS).unwrap()["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let with = keeper(&[Service::Backup, Service::Audit]);
    with.round().await.unwrap();
    let old = epochs();
    world.pass(7 * 24);
    with.round().await.unwrap();
    let newest: Vec<String> = epochs().into_iter().filter(|id| !old.contains(id)).collect();
    let report = |services: &[Service]| {
        let said = ReportResponse { epochs_in_use: newest.clone(), ..ReportResponse::default() };
        let facts = Arc::new(Facts::from_wire(&said, world.pass(0)));
        for service in services {
            world.reports.send_if_modified(|known| known.take(*service, Arc::clone(&facts)));
        }
    };
    world.pass(48);
    report(&[Service::Backup]);
    with.round().await.unwrap();
    assert_eq!(epochs().len(), 2, "audit has not said");
    keeper(&[Service::Backup]).round().await.unwrap();
    assert_eq!(epochs().len(), 2, "it is off, but its certificate shows that it was there");
    report(&[Service::Backup, Service::Audit]);
    with.round().await.unwrap();
    assert_eq!(epochs(), newest);
}

/// C20: whoever reads the history can see whether its times are worth something. No group waits for that.
#[tokio::test]
async fn a_poor_clock_of_the_history_is_a_condition_and_stops_nothing() {
    let mut world = declared().await;
    assert_eq!(world.condition(TENANT, "ClockSynchronised"), "absent", "nobody has said");
    for (synchronised, shown) in [(false, "False NotSynchronised"), (true, "True Synchronised")] {
        let said = ReportResponse { clock_synchronised: Some(synchronised), ..ReportResponse::default() };
        let facts = Arc::new(Facts::from_wire(&said, world.pass(0)));
        world.reports.send_if_modified(|known| known.take(Service::Audit, facts));
        world.reconcile_tenant().await.unwrap();
        assert_eq!(world.condition(TENANT, "ClockSynchronised"), shown);
        assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
        world.apiserver.writes();
        world.reconcile_tenant().await.unwrap();
        assert_eq!(world.apiserver.writes(), NOTHING);
    }
}

/// Without a history nothing is recorded or waited for.
#[tokio::test]
async fn without_a_history_everything_is_as_it_was() {
    let mut world = World::new().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
    assert_eq!(world.apiserver.get(TENANT).unwrap()["status"]["recorded"], Value::Null);
    delete(&mut world, TENANT);
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
}
