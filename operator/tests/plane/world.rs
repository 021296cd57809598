//! What a test declares, and what it finds.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use tsujiban_api::{Device, Site, Tenant};
use tsujiban_plane::Plane;
use tsujiban_plane::backup::Backup;
use tsujiban_plane::wait::until;

/// How long the operator may take for anything while nothing is wrong. Machines differ; what is slow is not wrong.
pub const SOON: Duration = Duration::from_mins(2);

/// A control plane and a backup service, and an administrator's view of both.
pub struct World {
    pub plane: Plane,
    pub backup: Backup,
    /// Where the backup service answers.
    pub endpoint: String,
    pub admin: Client,
}

impl World {
    pub async fn new() -> Self {
        Self::on(Plane::start().await.unwrap(), Backup::default()).await
    }

    /// On a control plane and a backup service that have a past.
    pub async fn on(plane: Plane, backup: Backup) -> Self {
        let _again = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_test_writer().try_init();
        let endpoint = backup.serve().await.unwrap();
        let admin = plane.admin.client().unwrap();
        Self { plane, backup, endpoint, admin }
    }

    pub fn tenants(&self) -> Api<Tenant> {
        Api::all(self.admin.clone())
    }

    pub fn devices(&self, group: &str) -> Api<Device> {
        Api::namespaced(self.admin.clone(), &format!("tn-{group}"))
    }

    pub fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.admin.clone())
    }

    /// Applies a Tenant with these fields of the spec besides the usual ones.
    pub async fn tenant(&self, name: &str, more: Value) -> Tenant {
        let mut spec = json!({
            "displayName": format!("Group {name}"), "plan": "Prime", "contact": {"email": "a@example.co.jp", "language": "ja"},
            "owners": [{"kind": "User", "name": format!("owner@{name}.example.co.jp")}],
            "network": {"deviceCIDRs": ["172.20.1.0/24"]},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let tenant = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec});
        self.tenants().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&tenant)).await.unwrap()
    }

    /// Applies Site hq in a group's namespace.
    pub async fn site(&self, group: &str) {
        let sites: Api<Site> = Api::namespaced(self.admin.clone(), &format!("tn-{group}"));
        let site =
            json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "metadata": {"name": "hq"}, "spec": {"displayName": "本社"}});
        sites.patch("hq", &PatchParams::apply("test").force(), &Patch::Apply(&site)).await.unwrap();
    }

    /// Applies a Device at 172.20.1.<last>.
    pub async fn device(&self, group: &str, name: &str, serial: &str, last: u8) -> Device {
        let device = json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": name, "namespace": format!("tn-{group}")},
            "spec": {"siteRef": {"name": "hq"}, "serialNumber": serial, "driver": "Frr", "connection": {"host": format!("172.20.1.{last}")}},
        });
        self.devices(group).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&device)).await.unwrap()
    }

    /// Waits until a Tenant's Ready has this status for its newest generation.
    pub async fn tenant_is(&self, name: &str, ready: &str) {
        until(&format!("tenant {name} has Ready={ready}"), SOON, || async { is_ready(&self.tenants().get(name).await?, ready) })
            .await
            .unwrap();
    }

    /// Waits until a Device's Ready has this status for its newest generation.
    pub async fn device_is(&self, group: &str, name: &str, ready: &str) {
        let what = format!("device {group}/{name} has Ready={ready}");
        until(&what, SOON, || async { is_ready(&self.devices(group).get(name).await?, ready) }).await.unwrap();
    }
}

/// Whether the newest generation has this Ready. An error that tells the whole status when it has not.
fn is_ready<K: Resource + Serialize>(object: &K, ready: &str) -> Result<Option<()>> {
    let status = serde_json::to_value(object)?["status"].clone();
    let found = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let is = found.is_some_and(|it| it["status"] == ready && it["observedGeneration"].as_i64() == object.meta().generation);
    ensure!(is, "generation {:?}, status {status}", object.meta().generation);
    Ok(Some(()))
}
