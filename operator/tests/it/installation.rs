//! What the chart has installed around the operator, and what is said when it is gone.

use serde_json::json;
use tsujiban_core::clock::Clock;
use tsujiban_core::workload::Service;
use tsujiban_operator::installation::Watching;
use tsujiban_proto::audit::v1::Phase;
use tsujiban_proto::lifecycle::v1 as wire;

use crate::world::{AUDIT_SET, BACKUP_SET, BINDING, NAMESPACE, NOTHING, POLICIES, POLICY, SITE, TENANT, World};

const STATE: &str = "/api/v1/namespaces/tsujiban-system/configmaps/tsujiban-operator";
const EPOCHS: &str = "/api/v1/namespaces/tsujiban-system/secrets/tsujiban-epoch-keys";
const NOBODY: &str = "unknown, see the apiserver's audit log";

async fn ready() -> World {
    let mut world = World::with_history().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    world
}

impl World {
    /// So many looks, each 20 s after the one before.
    async fn look(&self, watching: &mut Watching, times: usize) {
        for _ in 0..times {
            watching.round(&self.inspector, &self.installation).await.unwrap();
            self.clock.advance(jiff::SignedDuration::from_secs(20));
        }
    }

    /// A report of a service, as if it had been polled now.
    fn told(&self, service: Service, report: &wire::ReportResponse) {
        let facts = std::sync::Arc::new(tsujiban_operator::state::reports::Facts::from_wire(report, Clock::now(&*self.clock)));
        self.reports.send_modify(|known| {
            known.take(service, facts);
        });
    }

    /// What the platform's own log has.
    fn platform_entries(&self) -> Vec<String> {
        let operations = self.audit().operations("");
        let line = |operation: &tsujiban_proto::audit::v1::Operation| {
            assert_eq!(operation.phase(), Phase::Observed);
            let mut detail: Vec<_> = operation.detail.iter().map(|(key, value)| format!("{key}={value}")).collect();
            detail.sort();
            format!("{} by {}: {}", operation.function, operation.actor.clone().unwrap_or_default().id, detail.join(" "))
        };
        operations.iter().map(line).collect()
    }
}

fn intact() -> wire::Integrity {
    let checked_at = Some(tsujiban_proto::time::to_wire(jiff::Timestamp::UNIX_EPOCH));
    wire::Integrity { state: wire::IntegrityState::Intact.into(), checked_at, ..wire::Integrity::default() }
}

fn report(world: &World, able: bool, reason: &str, group: &wire::Integrity) -> wire::ReportResponse {
    let mut report = world.backup.report_now();
    for known in &mut report.groups {
        known.integrity = Some(group.clone());
    }
    report.writing = Some(wire::Writing { able, reason: reason.into(), since: None });
    report.shared_integrity = Some(intact());
    report
}

/// The trial's 8b: the StatefulSet of a service is deleted, and only a metric told of it.
#[tokio::test]
async fn a_service_that_is_gone_is_told_of() {
    let mut world = ready().await;
    let mut watching = Watching::begin(&world.inspector).await.unwrap();
    for (path, condition) in [(BACKUP_SET, "BackupsStored"), (AUDIT_SET, "HistoryRecorded")] {
        world.look(&mut watching, 1).await;
        world.look_at_tenant().await.unwrap();
        assert_eq!(world.condition(TENANT, condition), "Unknown NotReported");
        let there = world.apiserver.get(path).unwrap();
        world.apiserver.remove(path);
        world.look(&mut watching, 1).await;
        world.look_at_tenant().await.unwrap();
        assert_eq!(world.condition(TENANT, condition), "False ServiceMissing");
        assert_eq!(world.condition(TENANT, "Ready"), "True Ready", "what the group has declared stands");
        world.apiserver.put(path, there);
        world.look(&mut watching, 1).await;
        world.look_at_tenant().await.unwrap();
        assert_eq!(world.condition(TENANT, condition), "Unknown NotReported");
    }
}

#[tokio::test]
async fn a_service_that_cannot_write_says_why_in_every_tenant() {
    let mut world = ready().await;
    let can = report(&world, true, "", &intact());
    world.told(Service::Backup, &can);
    world.told(Service::Audit, &can);
    world.look_at_tenant().await.unwrap();
    let both = |world: &World| [world.condition(TENANT, "BackupsStored"), world.condition(TENANT, "HistoryRecorded")];
    assert_eq!(both(&world), ["True Stored", "True Recorded"]);

    world.told(Service::Backup, &report(&world, false, "the volume is full: make it larger", &intact()));
    world.look_at_tenant().await.unwrap();
    assert_eq!(both(&world), ["False CannotWrite", "True Recorded"]);
    let tenant = world.apiserver.get(TENANT).unwrap();
    assert!(tenant["status"].to_string().contains("the backup service cannot write: the volume is full: make it larger"), "{tenant}");

    world.reports.send_modify(|known| {
        known.miss(Service::Audit);
    });
    world.look_at_tenant().await.unwrap();
    assert_eq!(both(&world), ["False CannotWrite", "False AuditUnavailable"]);
    world.told(Service::Backup, &can);
    world.told(Service::Audit, &can);
    world.look_at_tenant().await.unwrap();
    assert_eq!(both(&world), ["True Stored", "True Recorded"]);
    // the same again, at another time, is no write
    world.look_at_tenant().await.unwrap();
    world.apiserver.writes();
    world.pass(0);
    world.clock.advance(jiff::SignedDuration::from_secs(30));
    world.told(Service::Backup, &can);
    world.told(Service::Audit, &can);
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.apiserver.writes(), NOTHING);
}

#[tokio::test]
async fn damage_is_named_until_it_is_healed() {
    let mut world = ready().await;
    let intact_now = |world: &World| world.condition(TENANT, "StorageIntact");
    world.look_at_tenant().await.unwrap();
    assert_eq!(intact_now(&world), "Unknown NotChecked");
    let good = report(&world, true, "", &intact());
    world.told(Service::Backup, &good);
    world.look_at_tenant().await.unwrap();
    assert_eq!(intact_now(&world), "Unknown NotChecked", "the audit service has not said");
    world.told(Service::Audit, &good);
    world.look_at_tenant().await.unwrap();
    assert_eq!(intact_now(&world), "True Intact");
    let damaged = wire::Integrity {
        state: wire::IntegrityState::Damaged.into(),
        damaged: vec!["snapshot 7".into()],
        damaged_count: 1,
        checked_at: None,
    };
    world.told(Service::Backup, &report(&world, true, "", &damaged));
    world.look_at_tenant().await.unwrap();
    assert_eq!(intact_now(&world), "False Damaged");
    assert!(world.apiserver.get(TENANT).unwrap()["status"].to_string().contains("snapshot 7"));
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
    world.told(Service::Backup, &good);
    world.look_at_tenant().await.unwrap();
    assert_eq!(intact_now(&world), "True Intact");
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let told: Vec<String> = world.apiserver.under(events).iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told.iter().filter(|reason| reason.starts_with("Storage")).collect::<Vec<_>>(), ["StorageDamaged", "StorageHealed"]);
}

/// The trial's last row: bindings are deleted, and nobody notices. Each fault is one entry of the platform's own log, and one when it is gone,
/// whatever restarts in between.
#[tokio::test]
async fn policies_that_are_not_in_force_are_told_of_and_recorded() {
    let mut world = ready().await;
    let mut watching = Watching::begin(&world.inspector).await.unwrap();
    world.look(&mut watching, 2).await;
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "PoliciesInForce"), "True InForce");
    assert_eq!(world.platform_entries(), NOTHING);

    let binding = world.apiserver.get(BINDING).unwrap();
    world.apiserver.remove(BINDING);
    world.look(&mut watching, 1).await;
    assert_eq!(world.platform_entries(), NOTHING, "an upgrade changes policies one by one");
    world.audit().set_away(true);
    world.look(&mut watching, 1).await;
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "PoliciesInForce"), "False PoliciesMissing");
    world.audit().set_away(false);
    world.look(&mut watching, 3).await;
    let gone = format!("policies by {NOBODY}: missing=MutatingAdmissionPolicyBinding tsujiban-changed-by");
    assert_eq!(world.platform_entries(), [gone.as_str()]);

    let mut world = world.restarted().await;
    let mut watching = Watching::begin(&world.inspector).await.unwrap();
    world.look(&mut watching, 2).await;
    assert_eq!(world.platform_entries(), [gone.as_str()], "it is recorded already");
    world.apiserver.put(BINDING, binding);
    world.apiserver.edit(POLICY, |policy| policy["spec"]["failurePolicy"] = json!("Ignore"));
    world.look(&mut watching, 2).await;
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "PoliciesInForce"), "False PoliciesChanged");
    world.apiserver.edit(POLICY, |policy| policy["spec"]["failurePolicy"] = json!("Fail"));
    world.look(&mut watching, 2).await;
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "PoliciesInForce"), "True InForce");
    let entries = world.platform_entries();
    assert_eq!(entries.len(), 4, "each of the two is gone, and back: {entries:#?}");
    assert!(entries[3].ends_with("inForceAgain=MutatingAdmissionPolicy tsujiban-changed-by"), "{entries:#?}");

    world.apiserver.writes();
    world.look(&mut watching, 3).await;
    assert_eq!(world.apiserver.writes(), NOTHING, "nothing has changed");
    assert!(world.apiserver.get(STATE).is_some());
    world.apiserver.remove(POLICIES);
    world.look(&mut watching, 2).await;
    assert!(!world.installation.borrow().policies_are_in_force(), "nobody knows what is wanted");
}

/// The trial's input: the binding is deleted, and a Site annotated `changed-by: president@example.co.jp`.
#[tokio::test]
async fn a_stamp_of_a_time_without_the_policy_is_not_believed() {
    let mut world = ready().await;
    let mut watching = Watching::begin(&world.inspector).await.unwrap();
    world.look(&mut watching, 1).await;
    let declare = |world: &World, generation: i64, by: &str, time: &str| {
        let fields = json!([{"manager": "m", "operation": "Update", "time": time, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]);
        world.apiserver.edit(SITE, |site| {
            site["spec"] = json!({"displayName": format!("site {generation}")});
            site["metadata"]["generation"] = json!(generation);
            site["metadata"]["annotations"] = json!({"tsujiban.dev/changed-by": by});
            site["metadata"]["managedFields"] = fields;
        });
    };
    let made =
        json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "spec": {}, "metadata": {"namespace": "tn-acme", "uid": "s1"}});
    world.apiserver.put(SITE, made);
    declare(&world, 1, "hanako", "2026-02-09T23:59:00Z");
    world.site_is_recorded(1).await;

    let binding = world.apiserver.get(BINDING).unwrap();
    world.apiserver.remove(BINDING);
    declare(&world, 2, "president@example.co.jp", "2026-02-10T00:00:10Z");
    world.site_is_recorded(2).await;

    // put back after nobody had looked; what was changed before that is still nobody's
    let mut again = binding;
    again["metadata"] = json!({"creationTimestamp": "2026-02-10T00:01:00Z", "generation": 1});
    world.apiserver.put(BINDING, again);
    declare(&world, 3, "president@example.co.jp", "2026-02-10T00:00:30Z");
    world.site_is_recorded(3).await;
    declare(&world, 4, "hanako", "2026-02-10T00:02:00Z");
    world.site_is_recorded(4).await;
    let sites: Vec<_> = world.audit().lines("acme").into_iter().filter(|line| line.starts_with("sites")).collect();
    let expected = [
        "create tokyo 1 by hanako",
        &format!("operate tokyo 2 by {NOBODY}"),
        &format!("operate tokyo 3 by {NOBODY}"),
        "operate tokyo 4 by hanako",
    ];
    assert_eq!(sites, expected.map(|line| format!("sites {line}")));
}

/// Point by point as docs/recovery.md has it: who put entries back is in the history, once, and the annotation is free again.
#[tokio::test]
async fn keys_that_were_put_back_are_recorded() {
    let world = ready().await;
    let mut watching = Watching::begin(&world.inspector).await.unwrap();
    world.look(&mut watching, 1).await;
    let annotations = json!({"tsujiban.dev/restore-keys": "hanako@example.co.jp: etcd was restored", "other": "stays"});
    world.apiserver.put(EPOCHS, json!({"metadata": {"annotations": annotations, "uid": "u7"}, "data": {"0123": "e30="}}));
    world.audit().set_away(true);
    assert!(world.restored_keys.settle().await.is_err());
    world.audit().set_away(false);
    for _ in 0..2 {
        world.restored_keys.settle().await.unwrap();
    }
    let entries = world.platform_entries();
    assert_eq!(entries.len(), 1, "{entries:#?}");
    assert!(entries[0].starts_with("keys by hanako@example.co.jp: entries=0123 reason=etcd was restored "), "{entries:#?}");
    let secret = world.apiserver.get(EPOCHS).unwrap();
    assert_eq!(secret["metadata"]["annotations"], json!({"other": "stays"}));
    assert_eq!(secret["data"], json!({"0123": "e30="}));
}

/// Whoever comes back after a loss of the audit service's volume finds the log again: the namespace names it.
#[tokio::test]
async fn the_log_of_a_group_is_kept_on_its_namespace() {
    let mut world = ready().await;
    let annotations = |world: &World| world.apiserver.get(NAMESPACE).unwrap()["metadata"]["annotations"].clone();
    let log = annotations(&world)["tsujiban.dev/history-log"].as_str().unwrap().to_owned();
    assert_eq!(log.len(), 32);
    world.audit().lives.calls();
    world.reconcile_tenant().await.unwrap();
    let known = format!("prepare acme {:032x} {log}", 1);
    assert!(world.audit().lives.calls().iter().filter(|call| call.starts_with("prepare")).all(|call| *call == known));

    // a Tenant that comes back relinks, and the group's data and history are named all the while
    world.delete(TENANT);
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
    assert_eq!(annotations(&world)["tsujiban.dev/history-log"], json!(log));
    world.declare_tenant("u2", |_| ());
    world.settle_tenant().await;
    assert!(world.audit().lives.calls().contains(&known));
    assert_eq!(annotations(&world)["tsujiban.dev/history-log"], json!(log));
}

/// An installation from before logs were noted learns them, and asks no more than once.
#[tokio::test]
async fn a_log_that_is_not_noted_is_asked_for() {
    let mut world = ready().await;
    let before = world.apiserver.get(NAMESPACE).unwrap();
    world.apiserver.edit(NAMESPACE, |namespace| {
        namespace["metadata"]["annotations"].as_object_mut().unwrap().remove("tsujiban.dev/history-log");
    });
    let living = world.backup.report_now();
    world.told(Service::Backup, &living);
    world.told(Service::Audit, &living);
    world.audit().lives.calls();
    world.reconcile_tenant().await.unwrap();
    world.reconcile_tenant().await.unwrap();
    let prepared = world.audit().lives.calls().into_iter().filter(|call| call.starts_with("prepare")).count();
    assert_eq!(prepared, 1);
    assert_eq!(world.apiserver.get(NAMESPACE).unwrap()["metadata"]["annotations"], before["metadata"]["annotations"]);
}
