//! What is taken away from under the operator and comes back: its kinds, its release, an hour of the cluster's life.

mod keys;
mod lost_hour;
mod reinstall;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tsujiban_api::names::{self, ANNOTATION_INCARNATION};
use tsujiban_plane::SYSTEM;
use tsujiban_plane::wait::until;

use crate::world::{SOON, World};

type Data = BTreeMap<String, Vec<u8>>;

impl World {
    /// Declares a group with Site hq and Devices, and waits until all are ready. A namespace that is going away is waited for.
    async fn declare(&self, group: &str, more: Value, devices: &[(&str, &str)]) {
        self.tenant(group, more).await;
        self.tenant_is(group, "True").await;
        self.site(group).await;
        for (last, (name, serial)) in (10..).zip(devices) {
            self.device(group, name, serial, last).await;
        }
        for (name, _) in devices {
            self.device_is(group, name, "True").await;
        }
    }

    async fn secret(&self, namespace: &str, name: &str) -> Option<Data> {
        let secrets: Api<Secret> = Api::namespaced(self.admin.clone(), namespace);
        let data = secrets.get_opt(name).await.unwrap()?.data.unwrap_or_default();
        Some(data.into_iter().map(|(key, value)| (key, value.0)).collect())
    }

    async fn incarnation(&self, group: &str) -> Option<String> {
        let namespace = self.namespaces().get_opt(&format!("tn-{group}")).await.unwrap()?;
        namespace.annotations().get(ANNOTATION_INCARNATION).cloned()
    }

    /// All that must outlive whatever happens: the namespaces, the lives that they name, and every key.
    async fn treasure(&self, devices: &[(&str, &str)]) -> Value {
        let mut groups = BTreeMap::new();
        let mut keys = Vec::new();
        for (group, device) in devices {
            let namespace = format!("tn-{group}");
            let uid = self.namespaces().get_opt(&namespace).await.unwrap().and_then(|found| found.uid());
            groups.insert(*group, json!({"namespace": uid, "incarnation": self.incarnation(group).await}));
            keys.push(self.secret(&namespace, &names::generated_credentials(device)).await);
        }
        for name in [names::SECRET_MASTER_KEY, names::SECRET_EPOCH_KEYS, names::SECRET_CA] {
            keys.push(self.secret(SYSTEM, name).await);
        }
        let lives: Vec<_> = self.backup.groups().into_iter().map(|group| (group.name, group.incarnation, group.erased_devices)).collect();
        assert!(keys.iter().all(Option::is_some), "a key is missing: {:?}", keys.iter().map(Option::is_some).collect::<Vec<_>>());
        json!({"groups": groups, "keys": keys, "lives": lives})
    }

    /// What the service was asked to erase since its calls were read last; the operator repeats itself until all is done.
    fn erasures(&self) -> BTreeSet<String> {
        self.backup.calls().into_iter().filter(|call| call.starts_with("erase")).collect()
    }

    /// Waits until a condition has this status and reason, and answers its message.
    async fn told(&self, object: &Told<'_>, status: &str, reason: &str) -> String {
        until(&format!("{object:?} has {status} {reason}"), SOON, || async {
            let (status_now, type_) = match object {
                Told::Tenant(name, type_) => (serde_json::to_value(self.tenants().get(name).await?.status)?, type_),
                Told::Device(group, name) => (serde_json::to_value(self.devices(group).get(name).await?.status)?, &"Ready"),
            };
            let found = status_now["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == **type_);
            anyhow::ensure!(found.is_some_and(|it| it["status"] == status && it["reason"] == reason), "{status_now}");
            Ok(found.map(|it| it["message"].as_str().unwrap_or_default().to_owned()))
        })
        .await
        .unwrap()
    }
}

/// Who tells something.
#[derive(Debug)]
enum Told<'a> {
    /// And by which condition.
    Tenant(&'a str, &'a str),
    Device(&'a str, &'a str),
}
