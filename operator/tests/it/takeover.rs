//! What operators of 0.1.x noted of Sites on their group's namespace is taken over once.

use serde_json::{Value, json};
use tsujiban_plane::wait::until;

use crate::history::{NOBODY, SOON, change, declared, delete};
use crate::world::{NAMESPACE, SITE, TENANT, World};

const NOTED: &str = "tsujiban.dev/recorded-sites";

/// Group acme as an operator of 0.1.x leaves it: Site tokyo without finalizer and status, and noted on the namespace, as is a Site that has
/// gone since.
async fn left_behind() -> World {
    let world = declared().await;
    let site = world.apiserver.get(SITE).unwrap();
    let (uid, digest) = (site["metadata"]["uid"].clone(), site["status"]["recorded"]["digest"].clone());
    world.apiserver.edit(SITE, |site| {
        site.as_object_mut().unwrap().remove("status");
        site["metadata"]["finalizers"] = json!([]);
    });
    let noted = json!({"tokyo": {"uid": uid, "gen": 1, "digest": digest}, "osaka": {"uid": "gone", "gen": 4, "digest": "d"}});
    world.apiserver.edit(NAMESPACE, |namespace| namespace["metadata"]["annotations"][NOTED] = json!(noted.to_string()));
    world.audit().appends();
    world
}

fn noted(world: &World) -> Value {
    world.apiserver.get(NAMESPACE).unwrap()["metadata"]["annotations"][NOTED].clone()
}

async fn is_taken_over(world: &World) {
    until("the annotation is removed", SOON, || async { Ok(noted(world).is_null().then_some(())) }).await.unwrap();
}

fn lines(world: &World) -> Vec<String> {
    world.audit().lines("acme").into_iter().filter(|line| line.starts_with("sites ")).collect()
}

#[tokio::test]
async fn what_was_noted_is_not_recorded_again_and_what_has_gone_is() {
    let mut world = left_behind().await.restarted().await;
    world.settle_site().await;
    assert_eq!(world.apiserver.get(SITE).unwrap()["status"]["recorded"]["generation"], json!(1));
    is_taken_over(&world).await;
    assert_eq!(lines(&world), ["sites create tokyo 1 by hanako".to_owned(), format!("sites delete osaka  by {NOBODY}")]);
    assert_eq!(world.audit().repeated(), 0, "the creation was not sent again");
    // once: nothing is left to take over
    world.audit().appends();
    let mut world = world.restarted().await;
    world.settle_site().await;
    assert_eq!((world.audit().appends(), world.condition(SITE, "Ready").as_str()), (0, "True Recorded"));
}

#[tokio::test]
async fn what_changed_since_it_was_noted_is_a_change() {
    let world = left_behind().await;
    change(&world, SITE, "ichiro", |spec| spec["contact"] = json!("front desk"));
    let mut world = world.restarted().await;
    world.settle_site().await;
    is_taken_over(&world).await;
    assert!(lines(&world).contains(&"sites operate tokyo 2 by ichiro".to_owned()), "{:?}", lines(&world));
    assert_eq!(world.audit().repeated(), 0);
}

/// While the audit service is away the annotation stays: a crash would lose what it says.
#[tokio::test]
async fn nothing_is_removed_before_it_is_recorded() {
    let world = left_behind().await;
    world.audit().set_away(true);
    let mut world = world.restarted().await;
    world.settle_site().await;
    assert_eq!(world.condition(SITE, "Ready"), "True Recorded", "it was, and needs no service for that");
    until("the deletion waits", SOON, || async { Ok((world.journal.backlog().0 == 1).then_some(())) }).await.unwrap();
    assert!(noted(&world).is_string());
    let mut world = world.restarted().await;
    world.settle_site().await;
    assert!(noted(&world).is_string());
    world.audit().set_away(false);
    is_taken_over(&world).await;
    assert_eq!(lines(&world).iter().filter(|line| line.starts_with("sites delete osaka")).count(), 1);
}

/// A Site that is deleted as soon as it is taken over, and a group that is erased meanwhile.
#[tokio::test]
async fn a_group_is_erased_after_what_was_noted_is_taken_over() {
    let world = left_behind().await;
    world.audit().set_away(true);
    let mut world = world.restarted().await;
    world.apiserver.edit(TENANT, |tenant| tenant["spec"]["deletionPolicy"] = json!("Erase"));
    world.apiserver.remove(crate::world::DEVICE);
    world.reconcile_site().await;
    delete(&mut world, SITE);
    world.reconcile_site().await;
    world.audit().set_away(false);
    delete(&mut world, TENANT);
    world.reconcile_tenant().await.unwrap();
    if noted(&world).is_string() {
        assert!(world.apiserver.get(NAMESPACE).is_some(), "what is noted would go with it");
    }
    until("all is recorded", SOON, || async { Ok((world.journal.backlog().0 == 0).then_some(())) }).await.unwrap();
    world.settle_site().await;
    is_taken_over(&world).await;
    world.settle_tenant().await;
    world.settle_tenant().await;
    assert!(world.apiserver.get(TENANT).is_none());
    let wanted = [
        "sites create tokyo 1 by hanako".to_owned(),
        format!("sites delete osaka  by {NOBODY}"),
        format!("sites delete tokyo  by {NOBODY}"),
    ];
    let mut found = lines(&world);
    found.sort();
    assert_eq!(found, wanted);
}

/// Without a history nothing can be recorded: what is noted stays for when there is one again.
#[tokio::test]
async fn what_is_noted_waits_for_a_history() {
    let world = left_behind().await;
    let kept = noted(&world);
    let mut world = world.restarted_without_history().await;
    world.settle_site().await;
    assert_eq!(noted(&world), kept);
    assert_eq!(world.condition(SITE, "Ready"), "True Declared");
}
