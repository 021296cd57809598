//! A Device's life.

use serde_json::{Value, json};
use tsujiban_operator::state::attempts::Record;
use tsujiban_proto::backup::v1 as wire;
use tsujiban_proto::time::to_wire;

use crate::world::{CRDS, DEVICE, NAMESPACE, NOTHING, SITE, TENANT, World};

const FIRST: &str = "00000000000000000000000000000001";
const SECRET: &str = "/api/v1/namespaces/tn-acme/secrets/device-r1-ssh";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

fn device(serial: &str) -> Value {
    json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"namespace": "tn-acme", "generation": 1},
        "spec": {"siteRef": {"name": "tokyo"}, "serialNumber": serial, "driver": "Frr", "connection": {"host": "172.20.1.11"}}})
}

async fn declared() -> World {
    let mut world = World::new().await;
    world.declare_tenant("u1", |_| ());
    world.settle_tenant().await;
    world.apiserver.put(SITE, json!({"metadata": {"namespace": "tn-acme"}, "spec": {"displayName": "Tokyo"}}));
    world.apiserver.put(DEVICE, device("S1"));
    for _ in 0..3 {
        world.reconcile_device().await;
    }
    world.apiserver.writes();
    world.backup.calls();
    world
}

fn attempt(world: &World, reason: wire::Reason, pinned: &str) -> Record {
    let time = Some(to_wire(tsujiban_core::clock::Clock::now(&*world.clock)));
    let newest = Some(wire::Snapshot { id: FIRST.into(), taken_at: time, seen_at: time, bytes: 7, ..wire::Snapshot::default() });
    let attempt = wire::Attempt {
        time,
        newest: newest.filter(|_| reason == wire::Reason::Unspecified),
        changed: true,
        reason: reason.into(),
        observed_host_key: KEY.into(),
        pinned_host_key: pinned.into(),
        model: "FRRouting".into(),
        ..wire::Attempt::default()
    };
    Record::from_wire(&attempt).unwrap()
}

/// C22: the private half stays in the Secret, and the key is made once.
#[tokio::test]
async fn a_key_pair_is_generated_once() {
    let mut world = declared().await;
    let secret = world.apiserver.get(SECRET).unwrap();
    assert_eq!(secret["type"], json!("tsujiban.dev/device-credentials"));
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ssh-privatekey", "ssh-publickey", "username"]);
    let device = world.apiserver.get(DEVICE).unwrap();
    assert!(device["status"]["publicKey"].as_str().unwrap().ends_with(" tsujiban acme/r1"));
    assert!(!device.to_string().contains("PRIVATE"));
    assert_eq!(world.condition(DEVICE, "Ready"), "True Ready");
    world.reconcile_device().await;
    assert_eq!(world.apiserver.writes(), NOTHING);
}

/// A Device that came back without its status has the key that is installed on the router.
#[tokio::test]
async fn a_key_pair_that_is_there_stays() {
    let mut world = declared().await;
    let (secret, device) = (world.apiserver.get(SECRET).unwrap(), world.apiserver.get(DEVICE).unwrap());
    world.apiserver.edit(DEVICE, |device| device["status"] = Value::Null);
    world.reconcile_device().await;
    assert_eq!(world.apiserver.get(SECRET).unwrap()["data"], secret["data"]);
    assert_eq!(world.apiserver.get(DEVICE).unwrap()["status"]["publicKey"], device["status"]["publicKey"]);
    assert_eq!(world.condition(DEVICE, "Ready"), "True Ready");
}

/// That a Site came or went shows at the Devices at once, not at their next turn.
#[tokio::test]
async fn a_site_wakes_the_devices_that_stand_at_it() {
    use tsujiban_operator::controllers::device::sites::{site_deleted, site_exists, sites_listed};
    let mut world = declared().await;
    let site: tsujiban_api::Site = serde_json::from_value(world.apiserver.get(SITE).unwrap()).unwrap();
    world.queued_devices();
    site_exists(&world.device, &site);
    sites_listed(&world.device);
    assert!(world.queued_devices().is_empty(), "nothing is news to it");
    world.apiserver.remove(SITE);
    world.sync();
    site_deleted(&world.device, &site);
    sites_listed(&world.device);
    assert_eq!(world.queued_devices(), ["r1", "r1"]);
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "Ready"), "False SiteMissing");
    world.queued_devices();
    sites_listed(&world.device);
    assert!(world.queued_devices().is_empty(), "it says so");
    world.apiserver.put(SITE, json!({"metadata": {"namespace": "tn-acme"}, "spec": {"displayName": "Tokyo"}}));
    world.sync();
    site_exists(&world.device, &site);
    sites_listed(&world.device);
    assert_eq!(world.queued_devices(), ["r1", "r1"]);
}

/// A Site that is being deleted is missing already: how long it waits for the history is no business of its Devices.
#[tokio::test]
async fn a_site_that_is_being_deleted_is_missing() {
    use kube::runtime::watcher::Event;
    use tsujiban_operator::controllers::device::sites::site_event;
    let mut world = declared().await;
    world.delete(SITE);
    let site: tsujiban_api::Site = serde_json::from_value(world.apiserver.get(SITE).unwrap()).unwrap();
    world.queued_devices();
    site_event(&world.device, &Event::Apply(site));
    site_event(&world.device, &Event::InitDone);
    assert_eq!(world.queued_devices(), ["r1", "r1"]);
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "Ready"), "False SiteMissing");
}

/// A newest snapshot that is damaged is no fresh backup, whenever it was taken, until the next one is stored.
#[tokio::test]
async fn a_damaged_backup_is_not_fresh() {
    let mut world = declared().await;
    let mut record = attempt(&world, wire::Reason::Unspecified, KEY);
    for (damaged, fresh) in [(false, "True Fresh"), (true, "False Damaged"), (false, "True Fresh")] {
        record.newest.as_mut().unwrap().damaged = damaged;
        assert!(world.attempts.put(&FIRST.parse().unwrap(), "S1", record.clone()));
        world.reconcile_device().await;
        assert_eq!(world.condition(DEVICE, "BackupFresh"), fresh);
        assert_eq!(world.apiserver.get(DEVICE).unwrap()["status"]["lastBackup"]["complete"], json!(!damaged));
    }
}

#[tokio::test]
async fn the_outcome_of_an_attempt_becomes_the_status_once() {
    let mut world = declared().await;
    world.attempts.put(&FIRST.parse().unwrap(), "S1", attempt(&world, wire::Reason::Unspecified, KEY));
    world.reconcile_device().await;
    let status = world.apiserver.get(DEVICE).unwrap()["status"].clone();
    assert_eq!(
        (&status["lastAttempt"]["result"], &status["lastBackup"]["bytes"], &status["model"]),
        (&json!("Changed"), &json!(7), &json!("FRRouting"))
    );
    assert_eq!(world.condition(DEVICE, "HostKeyVerified"), "True Pinned");
    assert_eq!(world.apiserver.writes(), [format!("PATCH {DEVICE}/status")]);
    world.reconcile_device().await;
    assert_eq!(world.apiserver.writes(), NOTHING);
}

#[tokio::test]
async fn another_host_key_is_never_taken_silently() {
    let mut world = declared().await;
    world.attempts.put(&FIRST.parse().unwrap(), "S1", attempt(&world, wire::Reason::HostKeyUnconfirmed, ""));
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "Ready"), "False HostKeyUnconfirmed");
    let other = KEY.replace("JdD7", "JdD8");
    world.attempts.put(&FIRST.parse().unwrap(), "S1", attempt(&world, wire::Reason::HostKeyMismatch, &other));
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "HostKeyVerified"), "False HostKeyMismatch");
    world.apiserver.edit(DEVICE, |device| device["spec"]["connection"]["hostKey"] = json!(KEY));
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "HostKeyVerified"), "True Given");
}

/// C23: a device that missed a window shows, and one of which none is expected does not.
#[tokio::test]
async fn a_missed_window_shows() {
    let mut world = declared().await;
    world.attempts.put(&FIRST.parse().unwrap(), "S1", attempt(&world, wire::Reason::Unspecified, KEY));
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "BackupFresh"), "True Fresh");
    world.pass(48);
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "BackupFresh"), "False Late");
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "BackupFresh"), "False Late");
    world.apiserver.edit(DEVICE, |device| device["spec"]["lifecycle"] = json!("Maintenance"));
    world.reconcile_device().await;
    assert_eq!(world.condition(DEVICE, "BackupFresh"), "Unknown Maintenance");
    world.reconcile_tenant().await.unwrap();
    assert_eq!(world.condition(TENANT, "BackupFresh"), "True NoDevices");
}

/// C24: a device that is deleted by itself loses its data at once, and its key.
#[tokio::test]
async fn a_device_that_is_deleted_is_erased() {
    let mut world = declared().await;
    let uid = world.apiserver.get(DEVICE).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    world.delete(DEVICE);
    world.reconcile_device().await;
    assert_eq!(world.backup.calls(), [format!("erase acme {FIRST} S1 {uid}")], "a collector that knows it is refused by its uid");
    assert!(world.apiserver.get(DEVICE).is_none() && world.apiserver.get(SECRET).is_none());
}

/// C24: what two Devices of a group share stays with the other one. The key pair was the deleted one's alone.
#[tokio::test]
async fn a_device_with_a_twin_takes_only_its_key_pair_along() {
    let mut world = declared().await;
    world.apiserver.put("/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices/r2", device("S1"));
    world.delete(DEVICE);
    world.reconcile_device().await;
    assert_eq!(world.backup.calls(), NOTHING);
    assert!(world.apiserver.get(DEVICE).is_none() && world.apiserver.get(SECRET).is_none());
}

/// A condition that was looked at again speaks of the spec that is declared now, also when nothing new was found.
#[tokio::test]
async fn every_condition_follows_the_spec() {
    let mut world = declared().await;
    let mut changed = world.apiserver.get(DEVICE).unwrap();
    changed["metadata"]["generation"] = json!(2);
    world.apiserver.put(DEVICE, changed);
    world.reconcile_device().await;
    let device = world.apiserver.get(DEVICE).unwrap();
    let conditions = device["status"]["conditions"].as_array().unwrap();
    assert!(conditions.len() == 4 && conditions.iter().all(|condition| condition["observedGeneration"] == 2), "{conditions:?}");
}

/// C24: a device that goes along with something else keeps its data.
#[tokio::test]
async fn a_device_that_goes_along_is_kept() {
    type Happens = fn(&mut World);
    let cases: [(&str, Happens); 6] = [
        ("namespace terminating", |world| world.delete(NAMESPACE)),
        ("namespace gone", |world| world.apiserver.remove(NAMESPACE)),
        ("tenant gone", |world| world.apiserver.remove(TENANT)),
        ("tenant leaving", |world| world.delete(TENANT)),
        ("crd going", |world| world.delete(&format!("{CRDS}/devices.tsujiban.dev"))),
        ("crd of sites going", |world| world.delete(&format!("{CRDS}/sites.tsujiban.dev"))),
    ];
    for (case, happens) in cases {
        let mut world = declared().await;
        happens(&mut world);
        world.delete(DEVICE);
        world.reconcile_device().await;
        assert_eq!(world.backup.calls(), NOTHING, "{case}");
        assert!(world.apiserver.get(DEVICE).is_none(), "{case}");
        assert!(world.apiserver.get(SECRET).is_some(), "{case}");
    }
}
