//! What an older version left in the cluster is taken up by this one: CRDs, declared and generated objects, keys. `past/VERSION.etcd.tgz`
//! is etcd's data of a control plane that the version was running on; `what_this_version_leaves_is_captured` writes the same of this
//! version into target/past/, from where a release takes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tsujiban_plane::Plane;
use tsujiban_plane::backup::Backup;
use tsujiban_proto::lifecycle::v1::GroupState;

use crate::operator::Operator;
use crate::world::World;

const GROUPS: [&str; 2] = ["acme", "globex"];

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plane/past")
}

/// Declares two groups with three devices, one of them suspended, and waits until all is settled.
async fn declare(world: &World) {
    world.tenant("acme", json!({"backup": {"schedule": "0 3 * * *", "windowMinutes": 60}, "quota": {"cpu": "2"}})).await;
    world.tenant("globex", json!({"plan": "Free", "suspended": true, "deletionPolicy": "Erase"})).await;
    for group in GROUPS {
        world.tenant_is(group, "True").await;
        world.site(group).await;
    }
    for (group, name, serial, last) in [("acme", "r1", "SN1", 11), ("acme", "r2", "SN2", 12), ("globex", "r1", "SN3", 13)] {
        world.device(group, name, serial, last).await;
        world.device_is(group, name, "True").await;
    }
}

/// What must be the same before and after: who is who, what people declared, and every key.
fn kept(plane: &Plane) -> BTreeMap<String, Value> {
    let list = "tenants,sites,devices,namespaces,secrets";
    let all: Value = serde_json::from_str(&plane.kubectl(&["get", list, "--all-namespaces", "--output=json"]).unwrap()).unwrap();
    let mut kept = BTreeMap::new();
    for object in all["items"].as_array().unwrap() {
        let (kind, metadata) = (object["kind"].as_str().unwrap(), &object["metadata"]);
        let home = metadata["namespace"].as_str().unwrap_or_else(|| metadata["name"].as_str().unwrap());
        // certificates are renewed in their own time, and helm keeps its releases in Secrets
        let name = metadata["name"].as_str().unwrap();
        let renewed = ["tsujiban-ca", "tsujiban-backup-tls"].contains(&name) || name.starts_with("sh.helm.");
        if (home.starts_with("tn-") || home == tsujiban_plane::SYSTEM || kind == "Tenant") && !renewed {
            let labels = [&metadata["labels"]["tsujiban.dev/tenant-uid"], &metadata["annotations"]["tsujiban.dev/incarnation"]];
            let what = json!({"uid": metadata["uid"], "labels": labels, "spec": object["spec"], "data": object["data"]});
            kept.insert(format!("{kind} {home}/{name}"), what);
        }
    }
    kept
}

/// Installs this version on what an older one left, and checks that all of it is taken up.
async fn goes_on(archive: &Path) {
    let plane = Plane::start_from(archive).await.unwrap();
    let before = kept(&plane);
    for name in ["Tenant acme/acme", "Device tn-acme/r1", "Secret tsujiban-system/tsujiban-master-key", "Namespace tn-globex/tn-globex"] {
        assert!(before.contains_key(name), "{name} is not in the archive: {:?}", before.keys());
    }
    let backup = Backup::default();
    for group in GROUPS {
        let incarnation = before[&format!("Namespace tn-{group}/tn-{group}")]["labels"][1].as_str().unwrap();
        backup.set(group, incarnation, GroupState::Living);
    }
    plane.install(plane.checkout()).await.unwrap();
    let world = World::on(plane, backup).await;
    let operator = world.plane.operator().await.unwrap().client().unwrap();
    let _operator = Operator::start(operator, &world.endpoint);
    // a change of what is declared shows that the new version is the one that acts
    world.tenant("acme", json!({"backup": {"schedule": "0 3 * * *", "windowMinutes": 60}, "quota": {"cpu": "3"}})).await;
    world.tenant_is("acme", "True").await;
    world.device("acme", "r3", "SN4", 14).await;
    world.device_is("acme", "r3", "True").await;

    let mut after = kept(&world.plane);
    after.remove("Device tn-acme/r3");
    after.retain(|name, _| !name.starts_with("Secret tn-acme/device-r3") && !name.contains("/r3-"));
    after.get_mut("Tenant acme/acme").unwrap()["spec"]["quota"]["cpu"] = json!("2");
    for (name, was) in &before {
        assert_eq!(after.get(name), Some(was), "{name}");
    }
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(world.backup.groups().iter().all(|group| group.state == GroupState::Living && group.erased_devices.is_empty()));
    assert_eq!(world.backup.groups().len(), GROUPS.len(), "no group was prepared a second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_0_1_0_left_is_taken_up() {
    goes_on(&here().join("0.1.0.etcd.tgz")).await;
}

/// The control: the same of this version, which the next one will have to take up.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_leaves_is_captured() {
    let world = World::new().await;
    let operator = Operator::start(world.plane.operator().await.unwrap().client().unwrap(), &world.endpoint);
    declare(&world).await;
    drop(operator);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/past").join(env!("CARGO_PKG_VERSION"));
    std::fs::create_dir_all(&target).unwrap();
    let archive = target.join("etcd.tgz");
    world.plane.archive(&archive).unwrap();
    goes_on(&archive).await;
}
