//! Devices: pointed at what is not the group's, made to say what is not so, kept from going, or claimed by somebody else.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use tsujiban_core::clock::{Clock as _, SystemClock};
use tsujiban_plane::wait::until;

use super::stage::{ATTACKER, Stage, VICTIM, device, devices, secret, secrets, sites};
use crate::attempt::{Attempt, Stop, granted, read, refused, ways};
use crate::world::SOON;

const POLICY: Stop = Stop::Policy("tsujiban-devices");

/// A condition of a Device, as soon as it speaks of what is declared now.
async fn condition(stage: &Stage, group: &str, name: &str, type_: &str) -> Result<Value> {
    let found = || async {
        let device = read(&stage.control, &format!("{}/{name}", devices(group))).await?;
        let conditions = device["status"]["conditions"].as_array().context("no conditions")?.clone();
        let of_now = |it: &Value| it["type"] == type_ && it["observedGeneration"] == device["metadata"]["generation"];
        Ok(conditions.into_iter().find(of_now))
    };
    until(&format!("{group}/{name} has {type_}"), SOON, found).await
}

/// Waits until what is made now is younger than a Device: times of creation are whole seconds.
async fn a_second_later(stage: &Stage, group: &str, name: &str) -> Result<()> {
    let device = stage.world.devices(group).get(name).await?;
    let made = device.metadata.creation_timestamp.context("it was never made")?.0;
    until("a second has passed", SOON, || async { Ok((SystemClock.now().as_second() > made.as_second()).then_some(())) }).await
}

/// A reference leads to a Secret of the Device's own namespace, whatever it says.
pub async fn device_that_names_another_groups_secret(stage: Arc<Stage>) -> Result<()> {
    // the victim has a Secret of that name, and of the other nobody has
    let mut said = Vec::new();
    for (name, reference, serial) in [("spy", "router-login", "SN-SPY"), ("blind", "nobodys-login", "SN-BLIND")] {
        stage.device(ATTACKER, name, serial, "172.20.1.20", Some(reference)).await?;
        let condition = condition(&stage, ATTACKER, name, "CredentialsReady").await?;
        ensure!(condition["status"] == "False" && condition["reason"] == "SecretMissing", "{condition}");
        said.push(condition["message"].as_str().context("no message")?.replace(reference, "X"));
    }
    ensure!(said[0] == said[1] && !said[0].contains(VICTIM), "the answer tells whether another group has it: {said:?}");
    // a namespace beside the name is not a thing
    let mut across = device("across", "SN-ACROSS", "172.20.1.21", Some("router-login"));
    across["spec"]["connection"]["credentialsSecretRef"]["namespace"] = json!("tn-victim");
    let unknown = Stop::Words("unknown field");
    let path = format!("{}?fieldValidation=Strict", devices(ATTACKER));
    refused(&stage.owner, &stage.control, &[Attempt::create(&path, across.clone(), unknown)]).await?;
    let stored = granted(&stage.owner, &Attempt::create(&devices(ATTACKER), across, POLICY)).await?.body;
    ensure!(stored["spec"]["connection"]["credentialsSecretRef"] == json!({"name": "router-login"}), "{stored}");
    ensure!(condition(&stage, ATTACKER, "across", "CredentialsReady").await?["reason"] == "SecretMissing", "it was found");
    // nor the key pair of another device
    let live = read(&stage.control, &format!("{}/across", devices(ATTACKER))).await?;
    let steal = |it: &mut Value| it["spec"]["connection"]["credentialsSecretRef"]["name"] = json!("device-osaka-ssh");
    let mut attempts = ways("another's key pair", &live, &format!("{}/across", devices(ATTACKER)), steal, POLICY)?;
    attempts.push(Attempt::create(&devices(ATTACKER), device("thief", "SN-THIEF", "172.20.1.22", Some("device-osaka-ssh")), POLICY));
    refused(&stage.owner, &stage.control, &attempts).await
}

/// The collector dials what the Device says, from inside the cluster.
pub async fn device_at_an_address_of_the_cluster_or_another_group(stage: Arc<Stage>) -> Result<()> {
    let path = format!("{}/osaka", devices(ATTACKER));
    let live = read(&stage.control, &path).await?;
    let none = Stop::Words("connection.host");
    let hosts = [
        ("10.244.7.7", POLICY),
        ("10.96.0.1", POLICY),
        ("10.255.255.1", POLICY),
        ("240.0.0.1", POLICY),
        ("fd00:ec2::254", POLICY),
        ("169.254.169.254", none),
        ("127.0.0.1", none),
        ("0.0.0.0", none),
        ("::1", none),
        ("fe80::1", none),
        ("::ffff:10.96.0.1", none),
        ("[::1]", none),
        ("010.96.0.1", none),
        ("10.96.1", none),
        ("174063617", none),
        ("10.96.0.1:443", none),
        ("user@10.96.0.1", none),
        ("10.96.0.1/", none),
        ("", none),
    ];
    let mut attempts = Vec::new();
    for (index, (host, stop)) in hosts.into_iter().enumerate() {
        // an empty text is stopped by its length before anything else is said of it
        let stop = if host.is_empty() { Stop::Words("spec.connection.host") } else { stop };
        attempts.extend(ways(host, &live, &path, |it| it["spec"]["connection"]["host"] = json!(host), stop)?);
        attempts.push(Attempt::create(&devices(ATTACKER), device("inside", &format!("SN-INSIDE-{index}"), host, None), stop).called(host));
    }
    refused(&stage.owner, &stage.control, &attempts).await?;
    // the victim's router: a device network of another group is none of this one's
    stage.device(ATTACKER, "neighbour", "SN-NEIGHBOUR", "172.20.2.10", None).await?;
    let ready = condition(&stage, ATTACKER, "neighbour", "Ready").await?;
    ensure!(ready["reason"] == "AddressNotAllowed", "{ready}");
    let policy = read(&stage.control, "/apis/networking.k8s.io/v1/namespaces/tn-attacker/networkpolicies/collector").await?;
    ensure!(policy.to_string().contains("172.20.1.0/24") && !policy.to_string().contains("172.20.2."), "{policy}");
    Ok(())
}

/// The status is the operator's: an owner writes it neither as a subresource nor along with the rest.
pub async fn status_written_by_an_owner(stage: Arc<Stage>) -> Result<()> {
    let path = format!("{}/osaka", devices(ATTACKER));
    let live = read(&stage.control, &path).await?;
    let forge = |it: &mut Value| {
        it["status"]["publicKey"] = json!("ssh-ed25519 AAAAforged");
        it["status"]["lastBackup"] =
            json!({"snapshotId": "0", "time": "2026-01-01T00:00:00Z", "bytes": 1, "changed": false, "complete": true});
    };
    let attempts = ways("forges a backup", &live, &format!("{path}/status"), forge, Stop::Rights)?;
    refused(&stage.owner, &stage.control, &attempts).await?;
    for attempt in ways("forges a backup", &live, &path, forge, POLICY)? {
        let answer = granted(&stage.owner, &attempt).await?;
        ensure!(answer.body["status"] == live["status"], "{}", answer.text);
    }
    let mut born = device("born", "SN-BORN", "172.20.1.30", None);
    born["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Forged", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let answer = granted(&stage.owner, &Attempt::create(&devices(ATTACKER), born, POLICY)).await?;
    ensure!(answer.body["status"].is_null(), "{}", answer.text);
    // a Site that claims to be recorded would be missing in the operation history
    let path = format!("{}/hq", sites(ATTACKER));
    let live = read(&stage.control, &path).await?;
    let claim = |it: &mut Value| it["status"]["recorded"] = json!({"generation": 99, "digest": "forged"});
    refused(&stage.owner, &stage.control, &ways("claims to be recorded", &live, &format!("{path}/status"), claim, Stop::Rights)?).await?;
    let mut born =
        json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "metadata": {"name": "born"}, "spec": {"displayName": "born"}});
    claim(&mut born);
    let answer = granted(&stage.owner, &Attempt::create(&sites(ATTACKER), born, POLICY)).await?;
    ensure!(answer.body["status"].is_null(), "{}", answer.text);
    Ok(())
}

/// A finalizer added keeps the group's data from being erased; the operator's removed lets a Device go without its data (C24).
pub async fn finalizer_that_keeps_or_skips_erasure(stage: Arc<Stage>) -> Result<()> {
    let finalizers = Stop::Policy("tsujiban-finalizers");
    let mut attempts = Vec::new();
    for path in [format!("{}/osaka", devices(ATTACKER)), format!("{}/hq", sites(ATTACKER))] {
        let live = read(&stage.control, &path).await?;
        let add = |it: &mut Value| {
            let mut list = it["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            list.push(json!("example.com/keep"));
            it["metadata"]["finalizers"] = json!(list);
        };
        attempts.extend(ways("adds a finalizer", &live, &path, add, finalizers)?);
        if !live["metadata"]["finalizers"].is_null() {
            for list in [json!([]), json!(["tsujiban.dev/Operator"]), json!(["foregroundDeletion"])] {
                let change = |it: &mut Value| it["metadata"]["finalizers"] = list.clone();
                attempts.extend(ways("takes the operator's away", &live, &path, change, finalizers)?);
            }
        }
    }
    let mut born = device("kept", "SN-KEPT", "172.20.1.31", None);
    born["metadata"]["finalizers"] = json!(["example.com/keep"]);
    attempts.push(Attempt::create(&devices(ATTACKER), born, finalizers));
    refused(&stage.owner, &stage.control, &attempts).await?;
    let mut kept = secret("kept", "x");
    kept["metadata"]["finalizers"] = json!(["example.com/keep"]);
    let mut live = read(&stage.control, &format!("{}/own-login", secrets(ATTACKER))).await?;
    live["metadata"]["finalizers"] = json!(["example.com/keep"]);
    let policy = Stop::Policy("tsujiban-secrets");
    let put = Attempt::new(http::Method::PUT, &format!("{}/own-login", secrets(ATTACKER)), live, policy);
    refused(&stage.owner, &stage.control, &[Attempt::create(&secrets(ATTACKER), kept, policy), put]).await
}

/// A serial number is one device's. Claimed a second time, it changes nothing for who has it and tells nothing about them; claimed before
/// its rightful owner does, it is refused to them until staff, who see both, delete the wrong one.
pub async fn serial_number_squatted(stage: Arc<Stage>) -> Result<()> {
    let before = stage.operator.metrics.serial_conflicts.get();
    ensure!(before == 0, "{before} conflicts before it began");
    stage.device(ATTACKER, "claims", "SN-VICTIM", "172.20.1.40", None).await?;
    let ready = condition(&stage, ATTACKER, "claims", "Ready").await?;
    ensure!(ready["status"] == "False" && ready["reason"] == "SerialNumberConflict", "{ready}");
    let claims = read(&stage.control, &format!("{}/claims", devices(ATTACKER))).await?;
    ensure!(claims["status"]["publicKey"].is_null(), "a key pair was made for it: {claims}");
    let events: Api<Event> = Api::namespaced(stage.world.admin.clone(), "tn-attacker");
    let told = serde_json::to_string(&events.list(&ListParams::default()).await?.items)?;
    for text in [claims["status"].to_string(), told] {
        ensure!(!text.contains(VICTIM) && !text.contains("tokyo"), "the conflict names the other one: {text}");
    }
    until("staff see one conflict", SOON, || async { Ok((stage.operator.metrics.serial_conflicts.get() == 1).then_some(())) }).await?;
    ensure!(condition(&stage, VICTIM, "tokyo", "Ready").await?["status"] == "True", "the first one suffered");
    // its deletion erases nothing of the other's
    granted(&stage.owner, &Attempt::delete(&format!("{}/claims", devices(ATTACKER)), Value::Null, POLICY)).await?;
    until("it is gone", SOON, || async { Ok(stage.world.devices(ATTACKER).get_opt("claims").await?.is_none().then_some(())) }).await?;
    let group = stage.world.backup.group(VICTIM).context("the victim is gone")?;
    ensure!(group.erased_devices.is_empty(), "{group:?}");
    until("the conflict is over", SOON, || async { Ok((stage.operator.metrics.serial_conflicts.get() == 0).then_some(())) }).await?;

    // the other way round
    stage.device(ATTACKER, "squats", "SN-FUTURE", "172.20.1.41", None).await?;
    stage.world.device_is(ATTACKER, "squats", "True").await;
    a_second_later(&stage, ATTACKER, "squats").await?;
    stage.device(VICTIM, "kyoto", "SN-FUTURE", "172.20.2.41", None).await?;
    let ready = condition(&stage, VICTIM, "kyoto", "Ready").await?;
    ensure!(ready["reason"] == "SerialNumberConflict" && !ready.to_string().contains(ATTACKER), "{ready}");
    ensure!(ready["message"].as_str().is_some_and(|text| text.contains("contact the platform staff")), "{ready}");
    until("staff see one conflict", SOON, || async { Ok((stage.operator.metrics.serial_conflicts.get() == 1).then_some(())) }).await?;
    let everywhere: Api<tsujiban_api::Device> = Api::all(stage.world.admin.clone());
    let both = everywhere.list(&ListParams::default().fields("spec.serialNumber=SN-FUTURE")).await?;
    let mut names: Vec<_> = both.items.iter().filter_map(|it| it.metadata.namespace.as_deref()).collect();
    names.sort_unstable();
    ensure!(names == ["tn-attacker", "tn-victim"], "staff find {names:?}");
    stage.world.devices(ATTACKER).delete("squats", &DeleteParams::default()).await?;
    stage.world.device_is(VICTIM, "kyoto", "True").await;
    Ok(())
}
