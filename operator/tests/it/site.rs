//! C5: a Site's creation, changes and deletion are in the history, whatever restarts and whoever is away.

use serde_json::{Value, json};
use tsujiban_plane::wait::until;

use crate::history::{NOBODY, SOON, change, declared, delete, stamped};
use crate::world::{CRDS, DEVICE, NAMESPACE, NOTHING, SITE, TENANT, World};

const HELD: &str = "tsujiban.dev/operator";
/// Where policies let nobody declare a Site.
const OUTSIDE: &str = "/apis/tsujiban.dev/v1alpha1/namespaces/shop/sites/tokyo";

fn site() -> Value {
    stamped("Site", &json!({"displayName": "東京"}))
}

/// As the policy makes it, on clusters that have such policies.
fn born() -> Value {
    let mut born = site();
    born["metadata"]["finalizers"] = json!([HELD]);
    born
}

fn finalizers(world: &World) -> Value {
    world.apiserver.get(SITE).unwrap()["metadata"]["finalizers"].clone()
}

fn recorded(world: &World) -> Value {
    world.apiserver.get(SITE).unwrap()["status"]["recorded"]["generation"].clone()
}

async fn is_all_recorded(world: &World) {
    until("all is recorded", SOON, || async { Ok((world.journal.backlog().0 == 0).then_some(())) }).await.unwrap();
}

/// What the history has of Sites.
fn lines(world: &World) -> Vec<String> {
    world.audit().lines("acme").into_iter().filter(|line| line.starts_with("sites ")).collect()
}

/// Group acme, with a history that is away.
async fn away() -> World {
    let mut world = World::with_history().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    world.audit().set_away(true);
    world
}

#[tokio::test]
async fn a_site_is_held_at_once_and_says_what_is_recorded() {
    let mut world = away().await;
    world.apiserver.put(SITE, site());
    world.settle_site().await;
    assert_eq!(finalizers(&world), json!([HELD]));
    assert_eq!((world.condition(SITE, "Ready").as_str(), recorded(&world)), ("False NotRecorded", Value::Null));
    world.audit().set_away(false);
    is_all_recorded(&world).await;
    assert_eq!(world.queued_sites(), ["tokyo"], "the acknowledgement wakes it");
    world.reconcile_site().await;
    assert_eq!((world.condition(SITE, "Ready").as_str(), recorded(&world)), ("True Recorded", json!(1)));
    assert_eq!(lines(&world), ["sites create tokyo 1 by hanako"]);
    world.apiserver.writes();
    world.settle_site().await;
    assert_eq!(world.apiserver.writes(), NOTHING);
}

/// A Site that came and went while the audit service was away, with another operator in between: its creation and its deletion are there.
#[tokio::test]
async fn a_site_that_is_deleted_before_it_was_recorded_waits_for_both() {
    let mut world = away().await;
    world.apiserver.put(SITE, born());
    world.reconcile_site().await;
    delete(&mut world, SITE);
    world.reconcile_site().await;
    let mut world = world.restarted().await;
    world.settle_site().await;
    assert_eq!(world.condition(SITE, "Ready"), "False NotRecorded");
    world.audit().set_away(false);
    is_all_recorded(&world).await;
    world.reconcile_site().await;
    assert!(world.apiserver.get(SITE).is_none());
    assert_eq!(lines(&world), ["sites create tokyo 1 by hanako".to_owned(), format!("sites delete tokyo  by {NOBODY}")]);
}

/// The same while no operator ran at all: the Site is born with the finalizer.
#[tokio::test]
async fn a_site_that_nobody_saw_alive_is_recorded() {
    let mut world = World::with_history().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    world.apiserver.put(SITE, born());
    delete(&mut world, SITE);
    let mut world = world.restarted().await;
    world.settle_site().await;
    assert!(world.apiserver.get(SITE).is_none());
    assert_eq!(lines(&world), ["sites create tokyo 1 by hanako".to_owned(), format!("sites delete tokyo  by {NOBODY}")]);
}

#[tokio::test]
async fn a_change_before_the_deletion_is_recorded_after_a_restart() {
    let mut world = declared().await;
    world.audit().set_away(true);
    change(&world, SITE, "ichiro", |spec| spec["contact"] = json!("front desk"));
    world.reconcile_site().await;
    assert_eq!((world.condition(SITE, "Ready").as_str(), recorded(&world)), ("False NotRecorded", json!(1)));
    delete(&mut world, SITE);
    let mut world = world.restarted().await;
    world.reconcile_site().await;
    assert!(world.apiserver.get(SITE).is_some());
    world.audit().set_away(false);
    is_all_recorded(&world).await;
    world.reconcile_site().await;
    assert!(world.apiserver.get(SITE).is_none());
    let wanted = ["sites create tokyo 1 by hanako", "sites operate tokyo 2 by ichiro", &format!("sites delete tokyo  by {NOBODY}")];
    assert_eq!(lines(&world), wanted);
}

/// A crash between the acknowledgement and the status repeats an entry, which is one entry.
#[tokio::test]
async fn what_a_crash_repeats_of_a_site_is_one_entry() {
    let world = declared().await;
    world.apiserver.edit(SITE, |site| drop(site.as_object_mut().unwrap().remove("status")));
    let mut world = world.restarted().await;
    world.settle_site().await;
    assert_eq!((lines(&world).len(), recorded(&world)), (1, json!(1)));
    assert!(world.audit().repeated() > 0);
}

/// No Site waits for a history that was switched off; what is recorded stays in the status for when it comes back.
#[tokio::test]
async fn without_a_history_sites_are_released() {
    let mut world = World::new().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    let mut site = born();
    site["status"] = json!({"recorded": {"generation": 1, "digest": "d"}});
    world.apiserver.put(SITE, site.clone());
    world.settle_site().await;
    assert_eq!(finalizers(&world), json!([]));
    assert_eq!((world.condition(SITE, "Ready").as_str(), recorded(&world)), ("True Declared", json!(1)));
    world.apiserver.put(SITE, site);
    delete(&mut world, SITE);
    world.reconcile_site().await;
    assert!(world.apiserver.get(SITE).is_none());
}

/// In a namespace that is no group's there is nothing to record it in.
#[tokio::test]
async fn a_site_outside_a_groups_namespace_waits_for_nothing() {
    let world = away().await;
    let reconcile = async || {
        let site = serde_json::from_value(world.apiserver.get(OUTSIDE).unwrap()).unwrap();
        tsujiban_operator::controllers::site::reconcile(std::sync::Arc::new(site), std::sync::Arc::clone(&world.site)).await.unwrap()
    };
    let mut site = born();
    site["metadata"]["namespace"] = json!("shop");
    world.apiserver.put(OUTSIDE, site);
    reconcile().await;
    reconcile().await;
    assert_eq!(world.condition(OUTSIDE, "Ready"), "False NamespaceOfNoGroup");
    world.apiserver.edit(OUTSIDE, |site| {
        site["metadata"]["finalizers"] = json!([HELD]);
        site["metadata"]["deletionTimestamp"] = json!("2026-02-10T00:00:00Z");
    });
    reconcile().await;
    assert!(world.apiserver.get(OUTSIDE).is_none());
}

/// A Site that goes along with its namespace, its group or its kind is recorded, too, and erases nothing.
#[tokio::test]
async fn a_site_that_goes_along_is_recorded() {
    type Happens = fn(&mut World);
    let cases: [(&str, Happens); 3] = [
        ("namespace terminating", |world| world.delete(NAMESPACE)),
        ("tenant gone", |world| world.apiserver.remove(TENANT)),
        ("crd going", |world| world.delete(&format!("{CRDS}/sites.tsujiban.dev"))),
    ];
    for (case, happens) in cases {
        let mut world = declared().await;
        happens(&mut world);
        delete(&mut world, SITE);
        world.reconcile_site().await;
        assert!(world.apiserver.get(SITE).is_none(), "{case}");
        assert_eq!(lines(&world).last(), Some(&format!("sites delete tokyo  by {NOBODY}")), "{case}");
        assert_eq!(world.backup.calls(), NOTHING, "{case}");
    }
}

/// A group's namespace is deleted when each of its Sites waits by its finalizer: one without it would go along unrecorded.
#[tokio::test]
async fn a_namespace_waits_until_its_sites_are_held() {
    let mut world = declared().await;
    world.apiserver.edit(TENANT, |tenant| tenant["spec"]["deletionPolicy"] = json!("Erase"));
    world.apiserver.remove(DEVICE);
    world.apiserver.edit(SITE, |site| site["metadata"]["finalizers"] = json!([]));
    delete(&mut world, TENANT);
    world.reconcile_tenant().await.unwrap();
    assert!(world.apiserver.get(NAMESPACE).is_some());
    world.reconcile_site().await;
    world.reconcile_tenant().await.unwrap();
    assert!(world.apiserver.get(NAMESPACE).is_none());
    // its content goes with it, and the history of the group ends after that
    delete(&mut world, SITE);
    world.reconcile_site().await;
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
    assert_eq!(lines(&world).iter().filter(|line| line.starts_with("sites delete")).count(), 1);
}
