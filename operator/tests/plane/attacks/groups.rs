//! Groups: inherited, confused with another, or kept from being erased.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::GroupState;

use super::stage::{ATTACKER, Stage, VICTIM, device, devices, namespace, secret, secrets};
use crate::attempt::{Attempt, Stop, granted, read, refused};
use crate::world::SOON;

fn owners() -> Value {
    json!([{"kind": "User", "name": "owner@attacker.example.co.jp"}])
}

/// Declares a group of the attacker's and waits until it can be used.
async fn group(stage: &Stage, name: &str) -> Result<()> {
    stage.world.tenant(name, json!({"owners": owners(), "deletionPolicy": "Erase"})).await;
    stage.world.tenant_is(name, "True").await;
    stage.world.site(name).await;
    until("the owner has rights", SOON, || async { Ok(Some(read(&stage.owner, &devices(name)).await?)) }).await.map(|_| ())
}

async fn erase(stage: &Stage, name: &str) -> Result<()> {
    stage.world.tenants().delete(name, &DeleteParams::default()).await?;
    let gone = || async { Ok(stage.world.tenants().get_opt(name).await?.is_none().then_some(())) };
    until(&format!("{name} is erased"), SOON, gone).await?;
    let left = stage.world.namespaces().get_opt(&format!("tn-{name}")).await?;
    ensure!(left.is_none(), "{left:?}");
    Ok(())
}

/// The ID of a group that was erased is not given to somebody else while anything of the old one is kept, and shows nothing of it then.
pub async fn erased_group_claimed_again(stage: Arc<Stage>) -> Result<()> {
    group(&stage, "phoenix").await?;
    granted(&stage.owner, &Attempt::create(&secrets("phoenix"), secret("old-login", "x"), Stop::Rights)).await?;
    granted(&stage.owner, &Attempt::create(&devices("phoenix"), device("old", "SN-OLD", "172.20.1.60", Some("old-login")), Stop::Rights))
        .await?;
    stage.world.device_is("phoenix", "old", "True").await;
    let old = stage.world.backup.group("phoenix").context("never prepared")?;
    erase(&stage, "phoenix").await?;
    stage.world.tenant("phoenix", json!({"owners": owners()})).await;
    let refused = || async {
        let tenant = serde_json::to_value(stage.world.tenants().get("phoenix").await?)?;
        let conditions = tenant["status"]["conditions"].as_array().context("no conditions")?.clone();
        let ready = conditions.iter().find(|it| it["type"] == "Ready").context("no Ready")?;
        ensure!(ready["status"] == "False" && ready["reason"] == "Refused", "{ready}");
        ensure!(ready["message"].as_str().is_some_and(|text| text.contains("erased")), "{ready}");
        Ok(Some(tenant))
    };
    let tenant = until("the erased ID is refused", SOON, refused).await?;
    ensure!(tenant["status"]["incarnation"].is_null(), "{tenant}");
    let place = read(&stage.control, &namespace("phoenix")).await?;
    ensure!(place["metadata"]["annotations"]["tsujiban.dev/incarnation"].is_null(), "{place}");
    for path in [devices("phoenix"), secrets("phoenix")] {
        let found = read(&stage.control, &path).await?;
        ensure!(found["items"] == json!([]), "something of the old group is there: {found}");
    }
    let lives: Vec<_> = stage.world.backup.groups().into_iter().filter(|group| group.name == "phoenix").collect();
    ensure!(lives.len() == 1 && lives[0].state == GroupState::Erased, "{lives:?}");
    // when the last of the old data has expired, the ID is free, and what it names is new
    stage.world.backup.free_id("phoenix");
    stage.world.tenant_is("phoenix", "True").await;
    let new = stage.world.backup.group("phoenix").context("not prepared")?;
    ensure!(new.incarnation != old.incarnation, "{new:?}");
    Ok(())
}

/// Names that could be taken for a namespace, or for another group's name.
pub async fn group_named_like_anothers_namespace(stage: Arc<Stage>) -> Result<()> {
    let tenants = "/apis/tsujiban.dev/v1alpha1/tenants";
    let live = read(&stage.control, &format!("{tenants}/{ATTACKER}")).await?;
    let attempt = |name: &str| {
        let body = json!({"apiVersion": live["apiVersion"], "kind": "Tenant", "metadata": {"name": name}, "spec": live["spec"]});
        Attempt::create(tenants, body, Stop::Words("name")).called(name)
    };
    let names = [
        "Victim",
        "VICTIM",
        "victim-",
        "-victim",
        "victim.",
        "victim/",
        "v\u{456}ctim",
        "victim ",
        "a",
        "ab",
        "1victim",
        "..",
        "tn_victim",
        "",
    ];
    refused(&stage.world.admin, &stage.control, &names.map(attempt)).await?;
    group(&stage, "tn-victim").await?;
    let tenant = read(&stage.control, &format!("{tenants}/tn-victim")).await?;
    ensure!(tenant["status"]["namespace"] == "tn-tn-victim", "{tenant}");
    let rights = Stop::Rights;
    let attempts = [Attempt::get(&devices(VICTIM), rights), Attempt::create(&secrets(VICTIM), secret("planted", "x"), rights)];
    refused(&stage.owner, &stage.control, &attempts).await?;
    let before = read(&stage.control, &namespace(VICTIM)).await?;
    erase(&stage, "tn-victim").await?;
    ensure!(read(&stage.control, &namespace(VICTIM)).await? == before, "the victim's namespace changed");
    let victim = stage.world.backup.group(VICTIM).context("the victim is gone")?;
    ensure!(victim.state == GroupState::Living, "{:?}", victim.state);
    ensure!(stage.world.backup.group("tn-victim").is_some_and(|group| group.state == GroupState::Erased), "tn-victim was not erased");
    Ok(())
}

/// Objects that own each other, and deletions that wait for them: the group goes all the same (C25).
pub async fn group_that_its_owner_keeps_from_being_erased(stage: Arc<Stage>) -> Result<()> {
    group(&stage, "sticky").await?;
    let path = devices("sticky");
    let mut uids = Vec::new();
    for (name, last) in [("one", 61), ("two", 62)] {
        let body = device(name, &format!("SN-{name}"), &format!("172.20.1.{last}"), None);
        uids.push(granted(&stage.owner, &Attempt::create(&path, body, Stop::Rights)).await?.body["metadata"]["uid"].clone());
        stage.world.device_is("sticky", name, "True").await;
    }
    let owned_by = |name: &str, uid: &Value| {
        json!({"metadata": {"ownerReferences": [{
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "name": name, "uid": uid, "blockOwnerDeletion": true, "controller": true,
        }]}})
    };
    for (name, other, uid) in [("one", "two", &uids[1]), ("two", "one", &uids[0])] {
        let owning = Attempt::patch(crate::attempt::MERGE_PATCH, &format!("{path}/{name}"), owned_by(other, uid), Stop::Rights);
        granted(&stage.owner, &owning).await?;
    }
    let mut held = secret("held", "x");
    held["metadata"]["ownerReferences"] = owned_by("one", &uids[0])["metadata"]["ownerReferences"].clone();
    granted(&stage.owner, &Attempt::create(&secrets("sticky"), held, Stop::Rights)).await?;
    let foreground = json!({"propagationPolicy": "Foreground"});
    granted(&stage.owner, &Attempt::delete(&format!("{path}/one"), foreground, Stop::Rights)).await?;
    erase(&stage, "sticky").await?;
    ensure!(stage.world.backup.group("sticky").is_some_and(|group| group.state == GroupState::Erased), "sticky was not erased");
    Ok(())
}
