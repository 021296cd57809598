//! A Tenant's life.

use serde_json::json;
use tsujiban_core::workload::Service;
use tsujiban_operator::pki::{Keys, Layer, Loss};
use tsujiban_proto::lifecycle::v1::GroupState;

use crate::world::{CRDS, NAMESPACE, NOTHING, TENANT, World};

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/tn-acme/networkpolicies";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/tn-acme/rolebindings";
const CRONJOB: &str = "/apis/batch/v1/namespaces/tn-acme/cronjobs/device-backup";
const FIRST: &str = "00000000000000000000000000000001";

async fn ready() -> World {
    let mut world = World::new().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
    world.apiserver.writes();
    world.backup.calls();
    world
}

/// C7: the doors are closed before anything can run, and the operator's own rights come before everything.
#[tokio::test]
async fn a_namespace_is_isolated_before_anything_can_run_in_it() {
    let mut world = World::new().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    let writes = world.apiserver.writes();
    let at = |part: &str| writes.iter().position(|write| write.contains(part)).unwrap_or_else(|| panic!("{part} in {writes:#?}"));
    let order = [
        "PATCH /apis/tsujiban.dev",
        "POST /api/v1/namespaces",
        BINDINGS,
        "networkpolicies/deny-all",
        "resourcequotas",
        "serviceaccounts",
        CRONJOB,
    ];
    assert!(order.map(at).is_sorted(), "{writes:#?}");
    assert_eq!(world.apiserver.get(NAMESPACE).unwrap()["metadata"]["annotations"]["tsujiban.dev/incarnation"], json!(FIRST));
    assert_eq!(world.apiserver.get(TENANT).unwrap()["status"]["incarnation"], json!(FIRST));
}

#[tokio::test]
async fn a_resync_without_a_change_writes_nothing() {
    let mut world = ready().await;
    world.pass(1);
    for _ in 0..3 {
        world.reconcile_tenant().await.unwrap();
    }
    assert_eq!(world.apiserver.writes(), NOTHING);
}

/// A thousand groups in which nothing happens cost the apiserver nothing.
#[tokio::test]
async fn a_group_of_which_nothing_is_heard_is_not_gone_through() {
    let mut world = ready().await;
    world.reconcile_tenant().await.unwrap();
    world.apiserver.remove(&format!("{POLICIES}/deny-all")); // nobody tells
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.apiserver.writes(), NOTHING);
    assert!(world.apiserver.get(&format!("{POLICIES}/deny-all")).is_none());
    world.pass(1); // and yet it is, now and then
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.apiserver.writes(), [format!("PATCH {POLICIES}/deny-all")]);
}

/// Nobody may watch ConfigMaps, so they are looked at.
#[tokio::test]
async fn the_published_certificates_are_looked_at() {
    let mut world = ready().await;
    world.reconcile_tenant().await.unwrap();
    let bundle = "/api/v1/namespaces/tn-acme/configmaps/tsujiban-ca";
    world.apiserver.edit(bundle, |bundle| bundle["data"] = json!({"ca.crt": "another"}));
    world.clock.advance(jiff::SignedDuration::from_secs(31));
    world.look_at_tenant().await.unwrap();
    assert_eq!(world.apiserver.writes(), [format!("PATCH {bundle}")]);
}

/// C7: what opens a door is undone, also where an apply alone would not undo it.
#[tokio::test]
async fn drift_is_repaired() {
    let mut world = ready().await;
    world.apiserver.remove(&format!("{POLICIES}/deny-all"));
    world.apiserver.edit(&format!("{POLICIES}/collector"), |policy| policy["spec"]["egress"].as_array_mut().unwrap().push(json!({})));
    world.apiserver.edit(&format!("{POLICIES}/dns"), |policy| policy["spec"]["podSelector"] = json!({"matchLabels": {"x": "y"}}));
    world.apiserver.put(
        &format!("{POLICIES}/stray"),
        json!({"metadata": {"labels":
        {"app.kubernetes.io/managed-by": "tsujiban-operator", "tsujiban.dev/tenant": "acme"}}, "spec": {"podSelector": {}}}),
    );
    let containers = "/spec/jobTemplate/spec/template/spec/containers";
    let added = json!({"name": "added", "image": "somebody-elses"});
    world.apiserver.edit(CRONJOB, |job| job.pointer_mut(containers).unwrap().as_array_mut().unwrap().push(added));
    world.reconcile_tenant().await.unwrap();
    let mut writes = world.apiserver.writes();
    writes.sort();
    let job = format!("PATCH {CRONJOB}");
    let policies =
        ["DELETE {}/stray", "PATCH {}/collector", "PATCH {}/deny-all", "PATCH {}/dns"].map(|write| write.replace("{}", POLICIES));
    let mut expected: Vec<String> = policies.into_iter().chain([job.clone(), job]).collect(); // the job: an apply, then the repair
    expected.sort();
    assert_eq!(writes, expected);
    assert_eq!(world.apiserver.get(CRONJOB).unwrap().pointer(containers).unwrap().as_array().unwrap().len(), 1);
    assert_eq!(world.apiserver.get(&format!("{POLICIES}/dns")).unwrap()["spec"]["podSelector"], json!({}));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.apiserver.writes(), NOTHING);
}

/// C13: who no longer owns a group has no rights in it, also where somebody took the labels away by which the binding is known.
#[tokio::test]
async fn the_rights_of_owners_go_with_them() {
    let mut world = ready().await;
    let binding = format!("{BINDINGS}/tsujiban-tenant-owner");
    world.apiserver.edit(&binding, |binding| binding["metadata"]["labels"] = json!({}));
    world.declare_tenant("u1", |spec| spec["owners"] = json!([]));
    world.settle_tenant().await;
    assert!(world.apiserver.get(&binding).is_none());
}

/// C7: a namespace that is somebody else's is never touched.
#[tokio::test]
async fn a_taken_namespace_is_left_alone() {
    let mut world = World::new().await;
    world.apiserver.put(NAMESPACE, json!({"metadata": {"labels": {"team": "other"}}}));
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "NamespaceReady"), "False NamespaceTaken");
    let writes = world.apiserver.writes();
    assert!(writes.iter().all(|write| write.contains("/tenants/acme")), "{writes:?}");
    world.delete(TENANT);
    world.reconcile_tenant().await.unwrap();
    assert!(world.apiserver.get(TENANT).is_none() && world.apiserver.get(NAMESPACE).is_some());
}

#[tokio::test]
async fn isolation_does_not_wait_for_keys() {
    let mut world = World::new().await;
    world.keys.send_replace(Keys::Missing(Loss { layer: Layer::Master, advice: "restore it".into() }));
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "IsolationReady"), "True Isolated");
    assert_eq!(world.condition(TENANT, "KeysReady"), "False MasterKeyMissing");
    assert_eq!(world.backup.calls(), NOTHING);
}

#[tokio::test]
async fn a_bad_spec_keeps_what_works() {
    let mut world = ready().await;
    world.apiserver.edit(TENANT, |tenant| tenant["spec"]["network"]["deviceCIDRs"] = json!(["10.0.0.0/8"]));
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Ready"), "False InvalidSpec");
    assert_eq!(world.condition(TENANT, "IsolationReady"), "True Isolated");
    assert_eq!(world.apiserver.writes(), [format!("PATCH {TENANT}/status")]);
    // what does not depend on the spec is still kept as it must be
    world.apiserver.remove(&format!("{POLICIES}/deny-all"));
    world.apiserver.edit(&format!("{BINDINGS}/tsujiban-operator-tenant"), |binding| binding["subjects"] = json!([]));
    world.settle_tenant().await;
    let wanted = ["rolebindings/tsujiban-operator-tenant", "networkpolicies/deny-all"];
    let writes = world.apiserver.writes();
    assert!(writes.len() == 2 && wanted.iter().zip(&writes).all(|(wanted, write)| write.ends_with(wanted)), "{writes:?}");
}

/// A group that was never built is not begun with a spec that cannot be.
#[tokio::test]
async fn a_bad_spec_builds_nothing() {
    let mut world = World::new().await;
    world.declare_tenant("u1", |spec| spec["network"]["deviceCIDRs"] = json!(["10.0.0.0/8"]));
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Ready"), "False InvalidSpec");
    assert!(world.apiserver.get(NAMESPACE).is_none());
}

#[tokio::test]
async fn a_suspended_group_is_closed_and_nothing_is_deleted() {
    let mut world = ready().await;
    let job = "/apis/batch/v1/namespaces/tn-acme/jobs/device-backup-1";
    world.apiserver.put(job, json!({"metadata": {}, "spec": {"template": {}}}));
    world.apiserver.edit(TENANT, |tenant| tenant["spec"]["suspended"] = json!(true));
    world.settle_tenant().await;
    assert_eq!(world.apiserver.get(CRONJOB).unwrap()["spec"]["suspend"], json!(true));
    assert_eq!(world.apiserver.get(job).unwrap()["spec"]["suspend"], json!(true));
    let egress = world.apiserver.get(&format!("{POLICIES}/collector")).unwrap()["spec"]["egress"].clone();
    assert_eq!(egress, world.apiserver.get(&format!("{POLICIES}/deny-all")).unwrap()["spec"]["egress"]);
    assert_eq!(world.condition(TENANT, "Ready"), "True Suspended");
    assert!(world.apiserver.writes().iter().all(|write| !write.starts_with("DELETE")));
    world.apiserver.edit(TENANT, |tenant| tenant["spec"]["suspended"] = json!(false));
    world.settle_tenant().await;
    assert_eq!(world.apiserver.get(job).unwrap()["spec"]["suspend"], json!(false));
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
}

/// C25: with Retain a group is only detached, and a Tenant of the same name finds everything again.
#[tokio::test]
async fn a_retained_group_comes_back() {
    let mut world = ready().await;
    world.delete(TENANT);
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
    assert_eq!(world.backup.calls(), [format!("detach acme {FIRST}")]);
    assert_eq!(world.apiserver.get(CRONJOB).unwrap()["spec"]["suspend"], json!(true));
    assert!(world.apiserver.get(&format!("{BINDINGS}/tsujiban-tenant-owner")).is_none());
    assert!(world.apiserver.get(&format!("{BINDINGS}/tsujiban-operator-tenant")).is_some());

    world.declare_tenant("u2", |_| ());
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
    assert_eq!(world.backup.calls().first(), Some(&format!("prepare acme {FIRST}")));
    assert_eq!(world.apiserver.get(NAMESPACE).unwrap()["metadata"]["labels"]["tsujiban.dev/tenant-uid"], json!("u2"));
    assert_eq!(world.apiserver.get(CRONJOB).unwrap()["spec"]["suspend"], json!(false));
}

/// C25: what leads back to a retained group is there when its Tenant goes, also where somebody took it away a moment before.
#[tokio::test]
async fn the_way_back_to_a_retained_group_is_kept() {
    let mut world = ready().await;
    world.apiserver.edit(NAMESPACE, |namespace| namespace["metadata"]["annotations"] = json!({}));
    world.delete(TENANT);
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
    world.declare_tenant("u2", |_| ());
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
    assert_eq!(world.apiserver.get(NAMESPACE).unwrap()["metadata"]["annotations"]["tsujiban.dev/incarnation"], json!(FIRST));
}

/// C25: with Erase the data is unreadable first, then the namespace goes, then the Tenant.
#[tokio::test]
async fn an_erased_group_leaves_nothing() {
    let mut world = ready().await;
    world.apiserver.edit(TENANT, |tenant| tenant["spec"]["deletionPolicy"] = json!("Erase"));
    world.delete(TENANT);
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.backup.calls(), [format!("erase acme {FIRST}")]);
    assert!(world.apiserver.get(NAMESPACE).is_none() && world.apiserver.get(TENANT).is_some());
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
}

/// C25: a Tenant that goes with its CRD was not meant to be erased.
#[tokio::test]
async fn nothing_is_erased_while_a_crd_is_going() {
    for crd in ["tenants", "devices"] {
        let mut world = ready().await;
        world.apiserver.edit(TENANT, |tenant| tenant["spec"]["deletionPolicy"] = json!("Erase"));
        world.delete(&format!("{CRDS}/{crd}.tsujiban.dev"));
        world.delete(TENANT);
        world.settle_tenant().await;
        assert!(world.apiserver.get(TENANT).is_none());
        assert_eq!(world.backup.calls(), [format!("detach acme {FIRST}")]);
        assert!(world.apiserver.get(NAMESPACE).is_some());
    }
}

/// C25: when staff erase a retained group, its namespace goes too; while a Tenant stands, it stays.
#[tokio::test]
async fn staff_erase_a_retained_group() {
    let mut world = ready().await;
    world.backup.set("acme", FIRST, GroupState::Erased);
    world.poll_report();
    world.retained.settle(Service::Backup).await;
    world.forget_tenant();
    world.retained.settle(Service::Backup).await;
    assert!(world.apiserver.get(NAMESPACE).is_some(), "what a cache does not know may be there");
    world.apiserver.remove(TENANT);
    world.sync();
    world.retained.settle(Service::Backup).await;
    assert!(world.apiserver.get(NAMESPACE).is_none());
}

#[tokio::test]
async fn a_living_group_without_a_tenant_is_noted_as_retained() {
    let mut world = ready().await;
    world.apiserver.remove(TENANT);
    world.sync();
    world.poll_report();
    world.retained.settle(Service::Backup).await;
    assert_eq!(world.backup.calls(), [format!("detach acme {FIRST}")]);
}

#[tokio::test]
async fn an_erased_id_is_refused_with_the_reason() {
    let mut world = World::new().await;
    world.backup.set("acme", FIRST, GroupState::Erased);
    world.declare_tenant("u1", |_| ());
    world.reconcile_tenant().await.unwrap();
    assert!(world.reconcile_tenant().await.is_err());
    assert_eq!(world.condition(TENANT, "KeysReady"), "False Refused");
    assert_eq!(world.condition(TENANT, "IsolationReady"), "True Isolated");
}

/// Once the group is known to live, the service is not asked each time.
#[tokio::test]
async fn a_reported_group_is_not_prepared_again() {
    let mut world = ready().await;
    world.poll_report();
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.backup.calls(), NOTHING);
    assert_eq!(world.condition(TENANT, "KeysReady"), "True Prepared");
}
