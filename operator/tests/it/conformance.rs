//! Condition Conformant: what owners may do, and what the namespace shows.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::world::{NAMESPACE, NOTHING, TENANT, World};

const OWNER: &str = "yamada@example.co.jp";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/tn-acme/rolebindings";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/tn-acme/networkpolicies";

async fn ready() -> World {
    let mut world = World::new().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant", "{}", message(&world));
    world.apiserver.writes();
    world.apiserver.reviews();
    world
}

fn message(world: &World) -> String {
    let conditions = world.apiserver.get(TENANT).unwrap()["status"]["conditions"].clone();
    let found = conditions.as_array().unwrap().iter().find(|condition| condition["type"] == json!("Conformant")).cloned();
    found.unwrap_or_default()["message"].as_str().unwrap_or_default().to_owned()
}

fn bound(subject: &Value) -> Value {
    json!({"metadata": {}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})
}

/// C7, C13: the condition tells how the checks came out, and which of them rest on RBAC alone.
#[tokio::test]
async fn a_group_as_it_is_made_conforms() {
    let world = ready().await;
    let message = message(&world);
    for part in ["checks hold", "denied by RBAC", "by RBAC alone: MTB-PL1-CC-DI-1", "not applicable: MTB-PL2-BC-OPS-3, MTB-PL2-BC-OPS-4"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

/// A resync asks nothing and writes nothing; after ten minutes the owners are asked about again, and still nothing is written.
#[tokio::test]
async fn owners_are_asked_about_every_ten_minutes_and_nothing_is_written() {
    let mut world = ready().await;
    for _ in 0..5 {
        world.clock.advance(SignedDuration::from_mins(1));
        world.reconcile_tenant().await.unwrap();
    }
    assert_eq!(world.apiserver.reviews(), 0);
    world.clock.advance(SignedDuration::from_mins(5));
    world.reconcile_tenant().await.unwrap();
    let asked = world.apiserver.reviews();
    assert!((30..=60).contains(&asked), "{asked}");
    assert_eq!(world.apiserver.writes(), NOTHING);
}

/// C7: an owner who was bound to something strong is named, with the binding; the group stays ready; undone, it heals.
#[tokio::test]
async fn an_owner_with_more_rights_is_told_and_heals() {
    let mut world = ready().await;
    world.apiserver.grant(OWNER, "*", "*", "*");
    world.clock.advance(SignedDuration::from_mins(1));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant", "nothing told the operator yet");
    world.tenant.access_reviews.invalidate("acme"); // as the watch on ClusterRoleBindings does
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "False NotConformant");
    assert_eq!(world.condition(TENANT, "Ready"), "True Ready");
    let told = message(&world);
    for part in [
        "MTB-PL1-CC-CPI-1: User yamada@example.co.jp may list nodes",
        "ClusterRoleBinding \"strong\"",
        "TSJ-DI-1",
        "tsujiban conformance acme",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(metric(&world).contains("tsujiban_tenants_not_conformant 1"));
    // the same again is no news
    world.apiserver.writes();
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.apiserver.writes(), NOTHING);

    world.apiserver.revoke_all();
    world.clock.advance(SignedDuration::from_mins(1));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant");
    assert!(metric(&world).contains("tsujiban_tenants_not_conformant 0"));
}

fn metric(world: &World) -> String {
    String::from_utf8(world.metrics.text().unwrap()).unwrap()
}

/// C13: the right that an owner must have is checked too, or everything would hold for somebody who is bound to nothing.
#[tokio::test]
async fn an_owner_who_may_do_nothing_is_told() {
    let mut world = ready().await;
    world.apiserver.edit(&format!("{BINDINGS}/tsujiban-tenant-owner"), |binding| binding["subjects"][0]["name"] = json!("somebody-else"));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant", "the drift is repaired first, and asked about then");
    world.declare_tenant("u1", |spec| spec["owners"] = json!([{"kind": "Group", "name": "acme-admins"}]));
    world.apiserver.edit(TENANT, |tenant| tenant["metadata"]["generation"] = json!(2));
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant", "{}", message(&world));
    assert!(world.apiserver.reviews() > 0, "other owners are other questions");
}

/// C7: a binding or a policy that somebody else made in the namespace is seen at the next look, without a question.
#[tokio::test]
async fn what_others_made_in_the_namespace_is_judged() {
    let mut world = ready().await;
    let user = |name: &str| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name});
    world.apiserver.put(&format!("{BINDINGS}/stray"), bound(&user(OWNER)));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "False NotConformant");
    assert!(
        message(&world).contains("TSJ-TI-3: RoleBinding stray gives ClusterRole view to User yamada@example.co.jp"),
        "{}",
        message(&world)
    );
    assert!(world.apiserver.reviews() > 0, "another binding may give other rights");
    assert!(world.apiserver.get(&format!("{BINDINGS}/stray")).is_some(), "it is told, not taken away");
    world.apiserver.edit(&format!("{BINDINGS}/stray"), |binding| binding["subjects"] = json!([user("staff@example.co.jp")]));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant", "{}", message(&world));

    let open = json!({"metadata": {}, "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}});
    world.apiserver.put(&format!("{POLICIES}/open"), open);
    world.reconcile_tenant().await.unwrap();
    assert!(message(&world).contains("TSJ-NI-2: NetworkPolicy open lets traffic out to everywhere"), "{}", message(&world));
    world.apiserver.remove(&format!("{POLICIES}/open"));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant");
}

/// A label that lowers Pod Security is repaired in the same look, so that it never shows.
#[tokio::test]
async fn what_is_repaired_does_not_fail() {
    let mut world = ready().await;
    world
        .apiserver
        .edit(NAMESPACE, |namespace| namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("privileged"));
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant", "{}", message(&world));
}

#[tokio::test]
async fn a_group_without_owners_is_asked_about_nothing() {
    let mut world = World::new().await;
    world.declare_tenant("u1", |spec| spec["owners"] = json!([]));
    world.settle_tenant().await;
    assert_eq!(world.condition(TENANT, "Conformant"), "True Conformant");
    assert_eq!(world.apiserver.reviews(), 0);
}
