//! The manifests that tests apply.

use anyhow::{Context, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tsujiban_api::{Device, Site, Tenant, names};

use crate::stage::Stage;
use crate::wait::{SOON, until};

/// A group made for a test. Erased by [`Group::erase`]; a test that fails leaves it for inspection.
pub struct Group<'a> {
    stage: &'a Stage,
    pub name: String,
    pub namespace: String,
    pub cidr: String,
}

impl<'a> Group<'a> {
    /// Applies a Tenant and a Site and waits until the Tenant is ready. `net` is the third number of its 172.20.<net>.0/24.
    pub async fn create(stage: &'a Stage, name: &str, net: u8) -> Result<Self> {
        let group = Self { stage, name: name.to_owned(), namespace: format!("tn-{name}"), cidr: format!("172.20.{net}.0/24") };
        group.apply(json!({})).await?;
        group.condition("Ready", "True").await?;
        let site: Site = serde_json::from_value(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site",
            "metadata": {"name": "hq"}, "spec": {"displayName": "本社"}
        }))?;
        let sites: Api<Site> = Api::namespaced(stage.client.clone(), &group.namespace);
        match sites.create(&PostParams::default(), &site).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            other => drop(other?),
        }
        Ok(group)
    }

    /// Applies the Tenant with these fields of the spec besides the usual ones.
    pub async fn apply(&self, more: Value) -> Result<Tenant> {
        let mut spec = json!({
            "displayName": format!("Test group {}", self.name), "plan": "Prime",
            "contact": {"email": "admin@example.co.jp", "language": "ja"},
            "network": {"deviceCIDRs": [self.cidr]},
        });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let tenant = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": self.name}, "spec": spec});
        let params = PatchParams::apply("e2e").force();
        Ok(self.tenants().patch(&self.name, &params, &Patch::Apply(&tenant)).await?)
    }

    pub fn tenants(&self) -> Api<Tenant> {
        Api::all(self.stage.client.clone())
    }

    pub fn devices(&self) -> Api<Device> {
        Api::namespaced(self.stage.client.clone(), &self.namespace)
    }

    /// Waits until a condition of the Tenant has this status for its newest generation.
    pub async fn condition(&self, kind: &str, status: &str) -> Result<Condition> {
        let what = format!("tenant {} has {kind}={status}", self.name);
        until(&what, SOON, || async {
            let tenant = self.tenants().get(&self.name).await?;
            let conditions = tenant.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            let newest = tenant.metadata.generation;
            let found = conditions.iter().find(|c| c.type_ == kind).cloned();
            let condition = found.with_context(|| format!("no condition {kind} yet"))?;
            anyhow::ensure!(condition.status == status && condition.observed_generation == newest, "{condition:?}");
            Ok(Some(condition))
        })
        .await
    }

    /// Applies a Device. `connection` holds at least the host.
    pub async fn device(&self, name: &str, serial: &str, connection: Value) -> Result<Device> {
        let device = json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"siteRef": {"name": "hq"}, "serialNumber": serial, "driver": "Frr", "connection": connection},
        });
        let params = PatchParams::apply("e2e").force();
        Ok(self.devices().patch(name, &params, &Patch::Apply(&device)).await?)
    }

    /// Waits until the operator has made a device's key pair, and answers its public half.
    pub async fn public_key(&self, device: &str) -> Result<String> {
        until(&format!("device {device} has a public key"), SOON, || async {
            Ok(self.devices().get(device).await?.status.and_then(|s| s.public_key))
        })
        .await
    }

    /// Backs the group up and waits for the end of the Job. Answers what the CLI answered.
    pub async fn back_up(&self) -> Result<crate::stage::Answer> {
        self.stage.tsujiban(&["backup", "now", &self.name]).await
    }

    /// Waits until the newest attempt of a device has this result.
    pub async fn attempt(&self, device: &str, result: &str) -> Result<Device> {
        until(&format!("device {device} reports {result}"), SOON, || async {
            let found = self.devices().get(device).await?;
            let last = found.status.as_ref().and_then(|s| s.last_attempt.clone()).context("no attempt yet")?;
            anyhow::ensure!(last.result == result, "{last:?}");
            Ok(Some(found))
        })
        .await
    }

    /// Deletes the Tenant with the intent to erase, and waits until its namespace is gone.
    pub async fn erase(&self) -> Result<()> {
        let intent = json!({"spec": {"deletionPolicy": "Erase"}});
        self.tenants().patch(&self.name, &PatchParams::default(), &Patch::Merge(&intent)).await?;
        self.condition("Ready", "True").await?;
        self.tenants().delete(&self.name, &DeleteParams::default()).await?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.stage.client.clone());
        until(&format!("namespace {} is gone", self.namespace), SOON, || async {
            Ok(namespaces.get_opt(&self.namespace).await?.is_none().then_some(()))
        })
        .await
    }

    /// The incarnation that the namespace names.
    pub async fn incarnation(&self) -> Result<String> {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.stage.client.clone());
        let namespace = namespaces.get(&self.namespace).await?;
        namespace.annotations().get(names::ANNOTATION_INCARNATION).cloned().context("the namespace has no incarnation")
    }
}

/// A Secret with a password for a router.
pub async fn password_secret(stage: &Stage, namespace: &str, name: &str, password: &str) -> Result<()> {
    use k8s_openapi::api::core::v1::Secret;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "type": names::CREDENTIALS_TYPE,
        "stringData": {"username": "tsujiban", "password": password},
    }))?;
    Api::<Secret>::namespaced(stage.client.clone(), namespace).create(&PostParams::default(), &secret).await?;
    Ok(())
}
